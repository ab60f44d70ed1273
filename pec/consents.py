"""Assumed consent of everybody in a column, for measurements and simulations: a block of people at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from consent_center.center import Center
from consent_center.state_file import KEEP_AFTER

#: People in one transaction. Every one writes most pages of the index of identifiers: few are quicker.
BLOCK = 1 << 20


def assume(
    center: Any,
    values: pa.Array | pa.ChunkedArray,
    kind: str,
    purpose: str,
    recipient: str,
    category: str,
    reason: str,
    actor: str,
    show: Callable[[float, float], None] = lambda done, total: None,
) -> int:
    """People whose consent was recorded as assumed; `show(people so far, all)` before each block and after.

    A large center then keeps its state on disk, as after an import. Raises what `Center.assume` raises.
    """
    recorded = 0
    for start in range(0, len(values), BLOCK):
        show(start, len(values))
        block = values.slice(start, BLOCK)
        if isinstance(block, pa.ChunkedArray):
            block = pa.concat_arrays(block.chunks)
        done = center.assume(block, kind, purpose, recipient, [category], reason, actor)
        recorded += int(done.count)
    show(len(values), len(values))
    if isinstance(center, Center):
        center.keep_state(KEEP_AFTER)
    return recorded
