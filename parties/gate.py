"""The consent gate: the only way from a data set to a computation.

`Gate.open` reads every row, asks the consent center about every person, and hands out a `ConsentedView` of
the eligible ones in a secret random order. Protocol machines are fed from views and from nothing else; no
other module may open a data set (`parties/GATE.md` gives the reasons, an import contract and a test hold it).

The gate fails closed: a center that is unreachable, stale, inconsistent or that signs something else than
what was asked for ends the job with an error. There is no mode in which rows pass undecided.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consent_center import identifiers
from consent_center.model import REASONS, DecisionRequest
from parties.errors import PartyError
from parties.rows import Column, Rows
from parties.stage import Recheck

__all__ = ["Column", "ConsentedView", "Gate", "Preflight"]

#: Reasons of the gate's own, before any person is asked about, and after.
NULL, INVALID, DUPLICATE = "identifier_null", "identifier_invalid", "identifier_duplicate"
MIDWAY = "withdrawn_midway"


class Dataset(Protocol):
    """What the node's directory knows of a data set."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def id_column(self) -> str: ...
    @property
    def id_kind(self) -> str: ...


@dataclass(frozen=True)
class Preflight:
    """What was found in the identifier column, before any cryptography. Counts of rows, no identifier.

    `read` = `normalised` + `null` + `invalid`; of the normalised ones `duplicate` repeat an earlier row.
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

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "columns": list(self.columns), "notes": list(self.notes)}


class ConsentedView:
    """Eligible, unique people of one data set for one purpose and one recipient, in a secret random order.

    `items`    uint8[m, 32], SHA-256(kind ‖ 0x00 ‖ normalised identifier): a machine's input
    `allowed`  the columns that `read` may give
    `alive`    bool[m], false for who withdrew since the snapshot
    `snapshot` the signed document of the consent center: `document`, `signature`
    A *view row number* 0 … m−1 says nothing outside; `own_rows` maps it to the row of the file.
    """

    def __init__(
        self,
        rows: Rows,
        center: Any,
        preflight: Preflight,
        snapshot: Any,
        allowed: Sequence[str],
        record_ids: np.ndarray,
        ordinals: np.ndarray,
        items: np.ndarray,
        counts: dict[str, Any],
    ) -> None:
        self._file, self._center = rows, center
        self.preflight, self.snapshot = preflight, snapshot
        self.allowed = tuple(rows.resolve(name) for name in allowed)
        self._record_ids, self._ordinals, self.items = record_ids, ordinals, items
        self.alive = np.ones(len(record_ids), dtype=bool)
        self._counts = counts

    def __len__(self) -> int:
        return len(self._record_ids)

    def __repr__(self) -> str:
        return f"ConsentedView({self.preflight.dataset!r}, rows={len(self)}, alive={int(self.alive.sum())})"

    @property
    def counts(self) -> dict[str, Any]:
        """{"in": people now, "out": {reason: people}}, every row of the file in exactly one place."""
        gone = int(np.count_nonzero(~self.alive))
        out = dict(self._counts["out"])
        if gone:
            out[MIDWAY] = gone
        return {"in": len(self) - gone, "out": out}

    @property
    def rows(self) -> int:
        """m, the people of the snapshot, withdrawn ones included."""
        return len(self._record_ids)

    def own_rows(self) -> np.ndarray:
        """int64[m]: the file's row number (0 is the first row below the header) of every view row."""
        return self._record_ids

    def read(self, names: Sequence[str], rows: np.ndarray | None = None) -> Iterator[Column]:
        """Columns in view order, a bounded number in memory; `rows` are view row numbers, all if None.

        `gate.column` for a column that the job was not opened with.
        """
        resolved = [self._file.resolve(name) for name in names]
        for name in resolved:
            if name not in self.allowed:
                raise PartyError("gate.column", f"column {name!r} is not among the columns of this job")
        chosen = self._record_ids if rows is None else self._record_ids[rows]
        for column in self._file.read(resolved):
            yield column.take(chosen)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """The named columns in view order as one table; categorical ones are dictionary encoded."""
        return pa.table({column.name: _arrow(column) for column in self.read(names)})

    def where(self, expression: str) -> np.ndarray:
        """bool[m]: where an SQL expression over this party's own columns holds; see `rows.filter`."""
        found: np.ndarray = self._file.where(expression)[self._record_ids]
        return found

    def label(self, name: str) -> np.ndarray:
        """bool[m]: where a yes/no column of this party says yes."""
        found: np.ndarray = self._file.flag(name)[self._record_ids]
        return found

    def recheck(self) -> Recheck:
        """Ask the center what changed since the snapshot, and drop who withdrew; nobody comes back.

        Raises `consent.unavailable` if the center can't say: not knowing who withdrew, nobody may be used.
        """
        try:
            delta = self._center.delta(self.snapshot.document["id"])
            withdrawn = np.asarray(delta.withdrawn, dtype=np.int64)
            reasons = [REASONS[code] for code in delta.reasons]
            found = int(delta.sequence), bool(delta.active), float(delta.lag_seconds)
        except Exception as error:
            raise _closed("the lease could not be checked", error) from error
        self.alive &= ~np.isin(self._ordinals, withdrawn)
        dropped = np.flatnonzero(~self.alive).astype(np.int64)
        return Recheck(found[0], found[1], dropped, dict(Counter(reasons)), found[2])


class Gate:
    """Opens data sets of one node (`home`) under the decisions of one consent center."""

    def __init__(self, center: Any, home: Any) -> None:
        self._center, self._home = center, home

    def preflight(self, dataset: str) -> Preflight:
        """The report on a data set's identifiers; asks nobody and lets nobody in."""
        return self._identify(dataset)[2]

    def count(self, dataset: str) -> int:
        """Rows of a data set, for a forecast; nothing of them is looked at."""
        return Rows(self._home.dataset(dataset).path).count

    def open(
        self,
        dataset: str,
        purpose: str,
        recipient: str,
        categories: Sequence[str],
        columns: Sequence[str],
        job_id: str,
    ) -> ConsentedView:
        """Decide about every row and return the view of the eligible ones.

        `columns` are those that the job may read besides the identifier. Raises `rows.*` for the file,
        `consent.unavailable` and `gate.snapshot` when the center can't decide, `consent.nobody` when nobody
        may take part.
        """
        rows, values, preflight, first, counts = self._identify_all(dataset, columns)
        request = DecisionRequest(purpose, recipient, tuple(categories))
        try:
            snapshot = self._center.snapshot(request, values, preflight.id_kind, job_id)
            codes = np.asarray(snapshot.decisions.codes)
            ordinals = np.asarray(snapshot.decisions.ordinals, dtype=np.int64)
        except Exception as error:
            raise _closed("the consent center could not decide", error) from error
        if codes.shape != (len(values),) or ordinals.shape != (len(values),):
            raise PartyError(
                "gate.snapshot", f"{len(codes)} decisions for {len(values)} people; the job stops"
            )
        if snapshot.decisions.sequence < 0:
            raise PartyError(
                "consent.unavailable", f"the center is behind its events: {snapshot.decisions.detail}"
            )
        chosen = np.flatnonzero(codes == 0)
        _check_snapshot(
            snapshot.document, snapshot.disclosure, purpose, recipient, categories, job_id, len(chosen)
        )
        for code, number in enumerate(np.bincount(codes, minlength=1)):
            if code and number:
                counts["out"][str(REASONS[code])] = int(number)
        counts["in"] = len(chosen)
        if not len(chosen):
            # The peer is told the fact; why people are out, and how many there are, stays on this side.
            raise PartyError(
                "consent.nobody",
                f"nobody's consent covers purpose {purpose!r} for {recipient!r}",
                "record consent for this purpose and recipient, or ask for another purpose",
                share=True,
                counts=counts["out"],
            )
        # The order of view rows is what the peer sees; it must say nothing about the file's order.
        chosen = chosen[
            np.argsort(np.frombuffer(os.urandom(8 * len(chosen)), dtype=np.uint64), kind="stable")
        ]
        items = digests(pc.take(values, pa.array(chosen)), preflight.id_kind)
        return ConsentedView(
            rows, self._center, preflight, snapshot, columns, first[chosen], ordinals[chosen], items, counts
        )

    def _identify(self, dataset: str) -> tuple[Rows, pa.Array, Preflight, np.ndarray]:
        entry = self._home.dataset(dataset)
        rows = Rows(entry.path)
        id_column = rows.resolve(entry.id_column)
        text = rows.text(id_column)
        kind = entry.id_kind or identifiers.detect(text)
        normalised = identifiers.normalise(text, kind)
        status = np.asarray(normalised.status)
        good = np.flatnonzero(status == 0)
        values = pc.take(normalised.values, pa.array(good))
        codes = np.asarray(pc.dictionary_encode(values).indices)
        # Codes count up in order of first appearance, so a first one is where the running maximum grows.
        first = (
            np.diff(np.maximum.accumulate(codes), prepend=-1) > 0 if len(codes) else np.zeros(0, dtype=bool)
        )
        preflight = Preflight(
            dataset=dataset,
            id_column=id_column,
            id_kind=kind,
            read=rows.count,
            normalised=len(good),
            duplicate=int(np.count_nonzero(~first)),
            null=int(np.count_nonzero(status == 1)),
            invalid=int(np.count_nonzero(status == 2)),
            columns=rows.columns,
            notes=tuple(rows.notes),
        )
        return rows, pc.filter(values, pa.array(first)), preflight, good[first].astype(np.int64)

    def _identify_all(
        self, dataset: str, columns: Sequence[str]
    ) -> tuple[Rows, pa.Array, Preflight, np.ndarray, dict[str, Any]]:
        rows, values, preflight, first = self._identify(dataset)
        for name in columns:
            rows.resolve(name)
        out = {NULL: preflight.null, INVALID: preflight.invalid, DUPLICATE: preflight.duplicate}
        counts: dict[str, Any] = {"in": 0, "out": {reason: n for reason, n in out.items() if n}}
        if not len(values):
            raise PartyError(
                "gate.identifiers",
                f"no row of {dataset!r} has a valid {preflight.id_kind} in column {preflight.id_column!r} "
                f"({preflight.null} empty, {preflight.invalid} invalid); check the column and its kind",
            )
        return rows, values, preflight, first, counts


def digests(values: pa.Array, kind: str) -> np.ndarray:
    """uint8[n, 32]: SHA-256(kind ‖ 0x00 ‖ value) of every value, computed by DuckDB's vectorised kernel."""
    if not len(values):
        return np.zeros((0, 32), dtype=np.uint8)
    with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as connection:
        relation = connection.from_arrow(pa.table({"v": values}))
        hashed = relation.project(
            duckdb.FunctionExpression(
                "unhex",
                duckdb.FunctionExpression(
                    "sha256",
                    duckdb.FunctionExpression(
                        "concat",
                        duckdb.ConstantExpression(kind),
                        duckdb.FunctionExpression("chr", duckdb.ConstantExpression(0)),
                        duckdb.ColumnExpression("v"),
                    ),
                ),
            ).alias("h")
        )
        blob = hashed.to_arrow_table().column("h").combine_chunks()
    chunks = blob.chunks if isinstance(blob, pa.ChunkedArray) else [blob]
    parts = [
        np.frombuffer(c.buffers()[2], dtype=np.uint8)[32 * c.offset : 32 * (c.offset + len(c))]
        for c in chunks
    ]
    return np.concatenate(parts).reshape(len(values), 32)


def _check_snapshot(
    document: Mapping[str, Any],
    disclosure: Mapping[str, Any],
    purpose: str,
    recipient: str,
    categories: Sequence[str],
    job_id: str,
    eligible: int,
) -> None:
    """A snapshot that answers another question must never open this data set."""
    wanted = {"purpose": purpose, "recipient": recipient, "job_id": job_id}
    for name, value in wanted.items():
        if document.get(name) != value:
            raise PartyError(
                "gate.snapshot", f"the snapshot's {name} is {document.get(name)!r}, not {value!r}"
            )
    if sorted(document.get("categories", ())) != sorted(categories):
        raise PartyError("gate.snapshot", "the snapshot covers other data categories than the job")
    if disclosure.get("counts", {}).get("in") != eligible:
        raise PartyError("gate.snapshot", f"the snapshot counts others than the {eligible} people decided")


def _closed(what: str, error: Exception) -> PartyError:
    detail = getattr(error, "detail", None) or str(error) or type(error).__name__
    return PartyError("consent.unavailable", f"{what}, so nobody is let in: {detail}")


def _arrow(column: Column) -> pa.Array:
    if column.kind == "categorical":
        codes = pa.array(column.values, mask=column.values < 0)
        return pa.DictionaryArray.from_arrays(codes, pa.array(column.levels, pa.string()))
    if column.kind == "unsupported":
        raise PartyError("gate.column", f"column {column.name!r} is nested or binary and can't be used")
    return pa.array(column.values, mask=np.isnan(column.values))
