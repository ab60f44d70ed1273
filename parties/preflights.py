"""What is in a data set's identifier columns, counted before anybody is asked about anybody, and whether that
is what the data set declares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consent_center import identifiers
from parties import persons
from parties.errors import PartyError
from parties.persons import Identifier


class Dataset(Protocol):
    """What the node's directory knows of a data set."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def identifiers(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def duplicates(self) -> str: ...
    @property
    def nulls(self) -> str: ...


@dataclass(frozen=True)
class Preflight:
    """What was found in the identifier columns, before any cryptography. Counts of rows, no identifier.

    `read` = `normalised` + `null` + `invalid`, by a row's best identifier; of the normalised ones `duplicate`
    have an identifier of an earlier row. `id_column`, `id_kind` are the first; `identifiers` has the counts
    of each, in the declared order.
    """

    dataset: str
    id_column: str
    id_kind: str
    read: int
    normalised: int
    duplicate: int
    null: int
    invalid: int
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    identifiers: tuple[dict[str, Any], ...] = ()

    def to_document(self) -> dict[str, Any]:
        lists = {name: list(getattr(self, name)) for name in ("columns", "notes", "identifiers")}
        return {**asdict(self), **lists}


#: A column of which at least this share of the values is not of the declared kind is asked for another one.
NEARLY_ALL = 0.9
#: Values that tell whether a whole column has to be looked at.
SAMPLE = 10_000


def looks_like(texts: pa.Array, kind: str, valid: int, invalid: int) -> str:
    """The kind that a column seems to hold whose values are nearly all no `kind`; empty if none is clear."""
    if not invalid or invalid < NEARLY_ALL * (valid + invalid):
        return ""
    found = identifiers.detect(texts)
    return "" if found in (kind, "opaque") else found


def suspicious(texts: pa.Array, kind: str) -> bool:
    """Whether the first values of a column are so; then it is worth looking at all of them."""
    counts = identifiers.normalise(pc.drop_null(texts.slice(0, 10 * SAMPLE))[:SAMPLE], kind).counts()
    return bool(looks_like(texts.slice(0, 10 * SAMPLE), kind, counts["ok"], counts["invalid"]))


def hold_kinds(found: Preflight) -> None:
    """`gate.kind` if nearly all values of an identifier column are of another kind than declared."""
    for entry in found.identifiers:
        if entry.get("looks_like"):
            column, looks = entry["column"], entry["looks_like"]
            filled = entry["normalised"] + entry["invalid"]
            raise PartyError(
                "gate.kind",
                f"{entry['invalid']:,} of {filled:,} values in column {column!r} of {found.dataset!r} are no "
                f"{entry['kind']} and look like {looks}",
                f"name the right column, or the right kind: pec node data change {found.dataset} "
                f"--id {column}:{looks}",
            )


def of(
    dataset: str, read: int, columns: Sequence[str], notes: Sequence[str], found: Sequence[Identifier]
) -> Preflight:
    """The report on `read` rows whose identifiers were `found`."""
    usable, out = persons.missing(found)
    return Preflight(
        dataset=dataset,
        id_column=found[0].column,
        id_kind=found[0].kind,
        read=read,
        normalised=int(np.count_nonzero(usable)),
        duplicate=persons.repeated(found),
        null=out[persons.NULL],
        invalid=out[persons.INVALID],
        columns=tuple(columns),
        notes=tuple(notes),
        identifiers=tuple(i.describe() for i in found),
    )


def hold(entry: Dataset, found: Preflight) -> None:
    """Hold the file to what the data set declares of it, before anybody is asked about anybody."""
    hold_kinds(found)
    if not found.normalised:
        names = " or ".join(f"{i['kind']} in column {i['column']!r}" for i in found.identifiers)
        raise PartyError(
            "gate.identifiers",
            f"no row of {found.dataset!r} has a valid {names} "
            f"({found.null} empty, {found.invalid} invalid); check the column and its kind",
        )
    if entry.nulls == "refuse" and found.null + found.invalid:
        raise PartyError(
            "gate.nulls",
            f"{found.null + found.invalid} rows of {found.dataset!r} have no valid identifier, and the data "
            "set declares that there are none",
            "mend the file, or register it with --nulls skip",
        )
    if entry.duplicates == "refuse" and found.duplicate:
        raise PartyError(
            "gate.duplicates",
            f"{found.duplicate} rows of {found.dataset!r} repeat an identifier, and the data set declares "
            "that none does",
            "mend the file, or register it with --duplicates first or all",
        )
