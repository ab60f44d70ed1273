"""What the training of a `boost` job will take, before it runs: seconds, bytes, memory and disk of each side.

Bytes follow from the specification (protocols/boost/README.md, sections 3 and 7) and are an upper bound: a
forest with fewer nodes sends fewer sides and sums. Seconds and memory are measured rates; what the gate needs
to open the data sets comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parties.cost import ECDH_ROW, FRAME, Rates, wire_seconds
from parties.kinds.boost import DEPTH, TREES, bins_of
from parties.scratch import IN_MEMORY
from protocols.boost import shares
from protocols.boost.messages import PIECE

#: Bytes of one segment of oblivious transfers up and down, beside the choices themselves: counted in runs.
SEGMENT_UP, SEGMENT_DOWN = 45_000, 30_000

#: Seconds of an instance of the oblivious transfer, of a row, column and bin in a tree, and of the brand's
#: passes over a row and own column at a level: `pec bench boost`, both sides on two cores of a 2024 server.
TRANSFER, CELL, OWN = 0.5e-6, 8e-9, 2e-9

#: Of the rows below a tree's root so many are summed at a level, on average: those of the smaller children.
SUMMED = 0.35

#: Bytes of the process with its libraries, and of the strings of two segments and the VOLE that makes them.
PROCESS, TRANSFERS = 260_000_000, 170_000_000

#: Bytes of memory of a row at the brand (gradients, margin, node, label) and at the provider.
BRAND_ROW, PROVIDER_ROW = 60, 4


@dataclass(frozen=True)
class Forest:
    """One forest: `rows` of the provider, `columns` of it, `own` of the brand, the terms' sizes."""

    rows: int
    columns: int
    own: int
    bits: int
    trees: int
    depth: int


def of_request(request: Mapping[str, Any], rows: int, own: int) -> Forest | None:
    """The forest of a request for `rows` of the provider's people; `own` columns of the brand unless it names
    them. None where the request does not say how many of the provider's columns it is for."""
    columns = list(request.get("columns") or ())
    if not columns or "*" in columns:
        return None
    params, private = request.get("params") or {}, request.get("private") or {}
    bins = bins_of(params, rows, len(columns))
    named = private.get("columns")
    trees, depth = int(params.get("trees", TREES)), int(params.get("depth", DEPTH))
    return Forest(
        rows, len(columns), own if named is None else len(named), bins.bit_length() - 1, trees, depth
    )


def forecast(forest: Forest, rates: Rates) -> dict[str, Any]:
    """Seconds of the fit; `sent`, `received` are the brand's bytes; memory and disk of each side in bytes."""
    layout = shares.Layout(forest.rows, forest.columns, forest.bits)
    instances, bins = forest.rows * forest.columns, 1 << forest.bits
    cells, segments = instances * bins, len(layout.segments())
    blocks = -(-forest.rows // layout.each)
    levels, sides = forest.trees * forest.depth, forest.rows // 8
    sent = 16 * instances * (forest.bits - 1) + 8 * instances * forest.trees + segments * SEGMENT_UP
    sent += levels * sides + FRAME * (blocks * (forest.trees + 1) + levels * (2 + sides // PIECE))
    nodes = forest.trees * (1 << (forest.depth - 1))
    received = instances * forest.bits // 8 + segments * SEGMENT_DOWN + levels * sides
    received += nodes * 8 * bins * forest.columns + FRAME * levels * (2 + sides // PIECE)
    kept = min(shares.KEPT, 8 * cells) if forest.depth > 1 else 0
    again = (1 - kept / max(8 * cells, 1)) * SUMMED * (forest.depth - 1)
    speed = rates.ecdh_unit / ECDH_ROW
    busy = TRANSFER * instances * forest.bits + CELL * cells * forest.trees * (1 + again)
    busy += OWN * forest.rows * max(forest.own, 1) * levels
    keys = {"brand": 16 * instances, "provider": 16 * instances * forest.bits}
    disk = {side: size if size > IN_MEMORY else 0 for side, size in keys.items()}
    fixed = PROCESS + TRANSFERS + kept
    brand = fixed + keys["brand"] - disk["brand"] + (BRAND_ROW + forest.own) * forest.rows
    provider = fixed + keys["provider"] - disk["provider"] + (PROVIDER_ROW + forest.columns) * forest.rows
    if kept < 8 * cells:
        provider += 8 * instances
    return {
        "seconds": round(speed * busy + wire_seconds(sent + received, rates.mbit), 3),
        "sent": sent,
        "received": received,
        "bytes": sent + received,
        "memory_bytes": {"brand": brand, "provider": provider},
        "disk_bytes": disk,
    }
