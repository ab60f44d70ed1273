"""Both parties of a joint regression in one process, on arrays of whoever has both: no job, no files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from parties.errors import NodeError
from protocols import joint
from protocols.errors import ProtocolError
from protocols.machine import pump


def fit(
    brand: npt.NDArray[np.float32],
    provider: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float64],
    names: Sequence[str],
    *,
    family: str,
    l2: float,
    rank: int | None,
    steps: int | None,
    minimum_rows: int,
) -> tuple[joint.BrandResult, joint.ProviderResult]:
    """Both sides' results: columns float32[n, d] and float32[n, e], labels float64[n], the provider's names.

    Every message is encoded, sent and decoded as between two companies. Raises `job.spec` with what the
    protocol said.
    """
    session = os.urandom(32)
    try:
        terms = joint.Terms(family, l2, rank, steps, minimum_rows)
        theirs = joint.Provider(np.asfortranarray(provider), names, session, terms, os.urandom)
        rows = np.arange(len(labels), dtype=np.int64)
        mine = joint.Brand(rows, np.ascontiguousarray(brand), labels, len(labels), session, terms, os.urandom)
        pump(mine, theirs)
    except ProtocolError as error:
        raise NodeError("job.spec", f"{error.code}: {error.detail}", share=True) from error
    return mine.result, theirs.result
