"""From rows with identifiers to people: which rows are one person, and which identifiers are that person's.

Works on columns that the gate has read and on what the consent center said; reads nothing itself. With one
identifier a person is a distinct value. With several, the center says whose each one is:

- identifiers of one row that are of different people: the row is out (`identifier_conflict`), whoever it is
- identifiers that the center does not know, beside one that it knows: not used (nobody's consent is recorded
  under them), the row stays
- rows of one person: the first one counts; the identifiers of all of them are that person's
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from parties.errors import PartyError
from protocols import distinct, sha256
from protocols.permute import taken

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NULL, INVALID, DUPLICATE = "identifier_null", "identifier_invalid", "identifier_duplicate"
CONFLICT = "identifier_conflict"


@dataclass(frozen=True)
class Identifier:
    """One identifier column, normalised: `values` text[rows], null where unusable; `status` uint8[rows].

    `looks_like`: the kind that its values seem to be of, where nearly none is of the declared one.
    """

    column: str
    kind: str
    values: pa.Array
    status: npt.NDArray[np.uint8]
    looks_like: str = ""

    @property
    def usable(self) -> Mask:
        mask: Mask = self.status == 0
        return mask

    @cached_property
    def rows(self) -> Ints:
        """int64[k]: the usable rows."""
        return np.flatnonzero(self.status == 0)

    def of(self, rows: Ints) -> pa.Array:
        """text[len(rows)]: the values at these rows; nothing is copied for all of them in order."""
        whole = len(rows) == len(self.values) and bool((np.diff(rows) == 1).all())
        return self.values if whole else pc.take(self.values, integers(rows))

    @cached_property
    def firsts(self) -> Ints:
        """int64[k]: of each usable row the first with the same value, as a number among the usable ones.

        By digests, which are equal where the values are: there is no quicker way to look at millions.
        """
        return distinct.firsts(digests(self.of(self.rows), self.kind))

    @property
    def again(self) -> Mask:
        """bool[k]: usable rows whose value an earlier one has."""
        mask: Mask = self.firsts != np.arange(len(self.firsts))
        return mask

    def describe(self) -> dict[str, int | str]:
        """Counts of rows; no identifier."""
        ok, null, invalid = np.bincount(self.status, minlength=3)[:3]
        return {
            "column": self.column,
            "kind": self.kind,
            "normalised": int(ok),
            "null": int(null),
            "invalid": int(invalid),
            "distinct": int(ok) - int(np.count_nonzero(self.again)),
            **({"looks_like": self.looks_like} if self.looks_like else {}),
        }


@dataclass(frozen=True)
class People:
    """Candidates for a view, in the order of the file.

    `first` int64[p]: the row that counts. `values`, `kinds`: the identifier that the center is asked about,
    `kinds` one name or a column. `ordinals` int64[p]: whose it is by the center, -1 unknown; None if it was
    not asked yet. `links`: (person, identifier's number, row), arrays of one length: every identifier that is
    theirs. `further`: (person, row) of rows beyond the first. `out`: rows that are out already, by reason.
    """

    first: Ints
    values: pa.Array
    kinds: str | pa.Array
    ordinals: Ints | None
    links: tuple[Ints, Ints, Ints]
    further: tuple[Ints, Ints]
    out: dict[str, int]
    #: As `links`, of identifiers that the center did not know: not used, but watched while the job runs.
    strangers: tuple[Ints, Ints, Ints] = field(
        default_factory=lambda: (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))
    )

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Strangers:
    """Identifiers of the people of a view that the center did not know when it was opened.

    `owner` view rows, `which` the declared number of the identifier, `line` of the file: int64[s] each.
    `by_kind`: (kind, values text[k], owner int64[k]) of each identifier that has any.
    """

    owner: Ints
    which: Ints
    line: Ints
    by_kind: tuple[tuple[str, pa.Array, Ints], ...] = ()

    @staticmethod
    def none() -> Strangers:
        empty = np.empty(0, np.int64)
        return Strangers(empty, empty, empty)

    @staticmethod
    def of(found: Sequence[Identifier], owner: Ints, which: Ints, line: Ints) -> Strangers:
        """With the values read from the file's identifier columns; they are never written down."""
        by_kind = []
        for number, identifier in enumerate(found):
            mine = np.flatnonzero(which == number)
            if len(mine):
                values = identifier.of(line[mine])
                by_kind.append((identifier.kind, values, owner[mine]))
        return Strangers(owner, which, line, tuple(by_kind))

    def places(self) -> dict[str, Ints]:
        return {"owner": self.owner, "which": self.which, "line": self.line}


def missing(identifiers: Sequence[Identifier]) -> tuple[Mask, dict[str, int]]:
    """bool[rows] with any usable identifier; and the others by reason: nothing at all, or something wrong."""
    usable = np.logical_or.reduce([i.usable for i in identifiers])
    empty = np.logical_and.reduce([i.status == 1 for i in identifiers])
    return usable, {
        NULL: int(np.count_nonzero(empty)),
        INVALID: int(np.count_nonzero(~usable & ~empty)),
    }


def by_value(identifier: Identifier) -> People:
    """People by one identifier: the rows of a value are one person."""
    rows, again = identifier.rows, identifier.again
    first = rows[~again] if again.any() else rows
    _, out = missing([identifier])
    out[DUPLICATE] = len(rows) - len(first)
    people = np.arange(len(first), dtype=np.int64)
    number = np.cumsum(~again) - 1  # of the people whose first row it is
    return People(
        first,
        identifier.of(first),
        identifier.kind,
        None,
        (people, np.zeros(len(people), np.int64), first),
        (number[identifier.firsts[again]], rows[again]),
        out,
    )


def by_subject(identifiers: Sequence[Identifier], ordinals: Sequence[Ints]) -> People:
    """People by several identifiers; `ordinals[k]` int64[rows]: whose identifier k is, -1 unknown or none."""
    usable, out = missing(identifiers)
    whose = np.stack(ordinals)
    known = whose >= 0
    subject = whose.max(axis=0)
    conflict = usable & (known & (whose != subject)).any(axis=0)
    out[CONFLICT] = int(np.count_nonzero(conflict))
    rows = np.flatnonzero(usable & ~conflict)
    # The identifier that stands for the row: the first that is known to be the subject's, else the first.
    has = np.stack([i.usable for i in identifiers])[:, rows]
    stands = np.where(known[:, rows].any(axis=0), known[:, rows].argmax(axis=0), has.argmax(axis=0))
    values = _chosen([i.of(rows) for i in identifiers], stands)
    # Unknown people are told apart by that identifier; they are refused in any case, each once.
    unknown = subject[rows] < 0
    names = pc.binary_join_element_wise(
        pa.array(np.array([i.kind for i in identifiers])[stands]), values, pa.scalar("\x00")
    )
    codes = np.asarray(pc.dictionary_encode(names).indices).astype(np.int64)
    identity = np.where(unknown, -1 - codes, subject[rows])
    _, at, person = np.unique(identity, return_index=True, return_inverse=True)
    order = np.argsort(at, kind="stable")  # people in the order of their first rows
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    person, at = number[person.reshape(-1)], at[order]
    later = np.ones(len(rows), dtype=bool)
    later[at] = False
    out[DUPLICATE] = int(np.count_nonzero(later))
    joined = _linked(known[:, rows], person, rows)
    strangers = _linked(has & ~known[:, rows], person, rows)
    kinds = pa.array(np.array([i.kind for i in identifiers])[stands[at]])
    return People(
        rows[at].astype(np.int64),
        pc.take(values, integers(at)),
        kinds,
        subject[rows][at],
        joined,
        (person[later], rows[later].astype(np.int64)),
        out,
        strangers,
    )


def _linked(mask: Mask, person: Ints, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """(person, identifier's number, row) where mask bool[identifiers, len(rows)] holds."""
    which, at = np.nonzero(mask)
    return person[at].astype(np.int64), which.astype(np.int64), rows[at].astype(np.int64)


def _chosen(columns: Sequence[pa.Array], which: npt.NDArray[Any]) -> pa.Array:
    """text[n]: of each row, the value of the column that `which` names."""
    return pc.choose(integers(which), *columns)


def repeated(identifiers: Sequence[Identifier]) -> int:
    """Rows that share an identifier with an earlier row; for the report before the center is asked."""
    again = np.zeros(len(identifiers[0].status), dtype=bool)
    for identifier in identifiers:
        again[identifier.rows[identifier.again]] = True
    return int(np.count_nonzero(again))


def integers(values: npt.NDArray[Any]) -> pa.Array:
    """int64[n] as an Arrow array. `pa.array` of a numpy array imports pandas, half a second of a process."""
    data = np.ascontiguousarray(values, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(data), [None, pa.py_buffer(data)])


def digests(values: pa.Array, kind: str) -> npt.NDArray[np.uint8]:
    """uint8[n, 32]: SHA-256(kind ‖ 0x00 ‖ value) of every value, computed from Arrow's own buffers."""
    if not len(values):
        return np.zeros((0, 32), dtype=np.uint8)
    values = values.cast(pa.large_string() if pa.types.is_large_string(values.type) else pa.string())
    if values.null_count:
        raise PartyError("gate.identifiers", f"{values.null_count} values to hash are null")
    width = np.int64 if pa.types.is_large_string(values.type) else np.int32
    buffers = values.buffers()
    offsets: Any = np.frombuffer(buffers[1], dtype=width)[values.offset : values.offset + len(values) + 1]
    data = np.frombuffer(buffers[2] if buffers[2] is not None else b"", dtype=np.uint8)
    return sha256.digests(kind.encode() + b"\x00", data, offsets)


def items_of(
    identifiers: Sequence[Identifier], links: tuple[Ints, Ints, Ints], place: Ints
) -> tuple[npt.NDArray[np.uint8], Ints, npt.NDArray[np.uint8]]:
    """(items uint8[q, 32], owner int64[q], rank uint8[q]) of people by owner and rank, each item once.

    `place` int64[p]: the view row of each person, -1 for who is not in the view.
    """
    person, which, row = links
    keep = place[person] >= 0
    if len(identifiers) == 1:  # one item a person, and hashed in that order: no second copy of them
        lines = np.empty(int(np.count_nonzero(keep)), dtype=np.int64)
        lines[place[person[keep]]] = row[keep]
        items = digests(identifiers[0].of(lines), identifiers[0].kind)
        return items, np.arange(len(lines), dtype=np.int64), np.zeros(len(lines), dtype=np.uint8)
    person, which, row = place[person[keep]], which[keep], row[keep]
    items = np.zeros((len(row), 32), dtype=np.uint8)
    for k, identifier in enumerate(identifiers):
        at = np.flatnonzero(which == k)
        items[at] = digests(identifier.of(row[at]), identifier.kind)
    order = np.lexsort((which, person))
    items, person, which = taken(items, order), person[order], which[order]
    if len(items):
        # Several rows of one person, or two columns of one kind, may repeat an identifier.
        _, once = np.unique(items.view("V32").reshape(-1), return_index=True)
        once.sort()
        items, person, which = items[once], person[once], which[once]
    return np.ascontiguousarray(items), person, which.astype(np.uint8)
