"""What the answer ought to be, computed in the clear by whoever holds both files: the plain join.

For `pec demo` and `pec simulate` only. Rows are lines of the files, 0 being the first below the header; of
several lines with one identifier the first counts, as at the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from consent_center import identifiers
from pec.tables import MISSING

Lines = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Join:
    """`brand` and `provider` int64[k]: lines of the same k people in the two files, each person once."""

    brand: Lines = field(repr=False)
    provider: Lines = field(repr=False)

    @property
    def size(self) -> int:
        return int(self.brand.size)


def normalised(values: pd.Series, kind: str) -> pd.Series:
    """Normal forms by line, first lines only, null and invalid ones left out: a Series line → identifier."""
    array = (
        pa.array(values, from_pandas=True) if values.dtype != object else pa.array(values.astype("string"))
    )
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        text = pd.Series(array.to_pandas()).astype("string").str.strip()
        array = pa.array(text.mask(text.str.lower().isin(MISSING)), pa.string())
    found = identifiers.normalise(array, kind)
    lines = np.flatnonzero(np.asarray(found.status) == 0)
    usable = pd.Series(found.values.take(pa.array(lines)).to_pandas().to_numpy(), index=lines)
    return usable[~usable.duplicated()]


def join(brand: pd.Series, provider: pd.Series, kind: str) -> Join:
    """The people in both id columns."""
    left, right = normalised(brand, kind), normalised(provider, kind)
    where = pd.Series(right.index.to_numpy(), index=right.to_numpy())
    shared = left[left.isin(where.index)]
    return Join(shared.index.to_numpy(np.int64), where.loc[shared.to_numpy()].to_numpy(np.int64))


def wrong_tags(found: pd.DataFrame, provider: pd.DataFrame, pairs: Join, tags: Sequence[str]) -> int:
    """How many people in `found` (columns `row`, the brand's line, and tags) have a tag that is not the
    truth.

    A person who is not in both files counts as wrong too.
    """
    lines = pd.Series(pairs.provider, index=pairs.brand)
    rows = found["row"].to_numpy()
    known = np.isin(rows, pairs.brand)
    bad = ~known
    truth = provider.iloc[lines.loc[rows[known]].to_numpy()]
    for tag in tags:
        bad[known] |= ~_equal(found[tag][known].reset_index(drop=True), truth[tag].reset_index(drop=True))
    return int(bad.sum())


def _equal(a: pd.Series, b: pd.Series) -> npt.NDArray[np.bool_]:
    """Elementwise, a number being equal to its own spelling and a missing value to another."""
    gone_a, gone_b = _missing(a), _missing(b)
    if pd.api.types.is_datetime64_any_dtype(b):
        moment = pd.to_datetime(a.astype("string"), errors="coerce", utc=True, format="mixed")
        near = (moment - pd.to_datetime(b, utc=True)).abs() < pd.Timedelta("1us")
        return np.where(gone_a | gone_b, gone_a & gone_b, near).astype(bool)
    x, y = pd.to_numeric(a, errors="coerce"), pd.to_numeric(b, errors="coerce")
    numbers = np.isclose(x.astype(float), y.astype(float), rtol=1e-12, atol=0)
    texts = (a.astype("string").str.strip() == b.astype("string").str.strip()).fillna(False).to_numpy(bool)
    same = numbers | texts
    return np.where(gone_a | gone_b, gone_a & gone_b, same).astype(bool)


def _missing(values: pd.Series) -> npt.NDArray[np.bool_]:
    gone = values.isna()
    if not pd.api.types.is_numeric_dtype(values):
        gone = gone | values.astype("string").str.strip().str.lower().isin(MISSING).fillna(True)
    mask: npt.NDArray[np.bool_] = gone.to_numpy(bool)
    return mask
