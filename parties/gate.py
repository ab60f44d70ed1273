"""The consent gate: the only way from a data set to a computation.

`Gate.open` reads every row, asks the consent center about every person, and hands out a `ConsentedView` of
the eligible ones in a secret random order. Protocol machines are fed from views and from nothing else; no
other module may open a data set (`parties/GATE.md` gives the reasons, an import contract and a test hold it).

The gate fails closed: a center that is unreachable, stale, inconsistent or that signs something else than
what was asked for ends the job with an error. There is no mode in which rows pass undecided.

Long on purpose: whatever may touch `parties.rows` stands in this one module, so that one reading covers it.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consent_center import identifiers
from consent_center.model import REASONS, DecisionRequest, Decisions, Snapshot
from parties import persons, preflights, private_files
from parties.errors import PartyError
from parties.persons import Identifier, People, Strangers, digests, integers
from parties.preflights import Preflight
from parties.rows import Column, Rows
from parties.stage import LabelCheck, Recheck
from protocols.distinct import repeats
from protocols.permute import permutation, taken

__all__ = [
    "AssumedView",
    "Column",
    "ConsentedView",
    "Gate",
    "Preflight",
    "assume_file",
    "digests",
    "integers",
]

#: The gate's own reason, after people were asked about; those from before are in `persons`.
MIDWAY = "withdrawn_midway"


class ConsentedView:
    """Eligible, unique people of one data set for one purpose and one recipient, in a secret random order.

    `items`    uint8[q, 32], SHA-256(kind ‖ 0x00 ‖ normalised identifier): a machine's input; q = m with one
               identifier a person, when item i is that of view row i
    `owner`    int64[q], the view row whose item it is, rising; `rank` uint8[q], the number of its column in
               the declared order, rising for each owner
    `allowed`  the columns that `read` may give
    `alive`    bool[m], false for who withdrew since the snapshot
    `snapshot` the signed document of the consent center: `document`, `signature`
    `opening`  seconds that the gate took; None for a view that was restored
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
        items: tuple[np.ndarray, np.ndarray, np.ndarray],
        further: tuple[np.ndarray, np.ndarray],
        counts: dict[str, Any],
        strangers: Strangers | None = None,
    ) -> None:
        self._file, self._center = rows, center
        self._strangers = strangers or Strangers.none()
        self.preflight, self.snapshot = preflight, snapshot
        self.allowed = tuple(rows.resolve(name) for name in allowed)
        self._record_ids, self._ordinals, self._further = record_ids, ordinals, further
        self.items, self.owner, self.rank = items
        self.alive = np.ones(len(record_ids), dtype=bool)
        self._counts = counts
        self.opening: float | None = None

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

    def persons(self, people: np.ndarray) -> np.ndarray:
        """int64: numbers at the own consent center of these view rows. They never leave the organisation."""
        found: np.ndarray = self._ordinals[people]
        return found

    def own_rows(self) -> np.ndarray:
        """int64[m]: the file's row number (0 is the first row below the header) of every view row."""
        return self._record_ids

    @property
    def several(self) -> bool:
        """Whether a person may have more than one item."""
        return len(self.preflight.identifiers) > 1

    def items_of(self, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(items uint8[k, 32], who int64[k]): all items of the view rows `people`, which are distinct.

        `who` indexes `people` and rises; of one person the declared first identifier comes first.
        """
        chosen, who = self._chosen(people)
        return self.items[chosen], who

    def rank_of(self, people: np.ndarray) -> np.ndarray:
        """uint8[k]: the declared number of the identifier of each item that `items_of` gives."""
        ranks: np.ndarray = self.rank[self._chosen(people)[0]]
        return ranks

    def items_by(self, kind: str, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(items uint8[k, 32], who int64[k]) as `items_of`, of one kind only, the first of each one's.

        `gate.column` if the data set has no identifier of that kind.
        """
        numbers = [n for n, i in enumerate(self.preflight.identifiers) if i["kind"] == kind]
        if not numbers:
            raise PartyError("gate.column", f"{self.preflight.dataset} has no identifier of kind {kind!r}")
        chosen, who = self._chosen(people)
        of_kind = np.isin(self.rank[chosen], numbers)
        chosen, who = chosen[of_kind], who[of_kind]
        first = np.diff(who, prepend=-1) > 0
        return self.items[chosen[first]], who[first]

    def _chosen(self, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = np.full(self.rows, -1, dtype=np.int64)
        place[people] = np.arange(len(people))
        who = place[self.owner]
        chosen = np.flatnonzero(who >= 0)
        chosen = chosen[np.argsort(who[chosen], kind="stable")]
        return chosen, who[chosen]

    def lines(self, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(position int64[k] in `people`, line int64[k] of the file): where a result about them is written.

        One line a person, or every row of the person's if the data set keeps duplicates ("all").
        """
        owner = np.concatenate([np.arange(self.rows), self._further[0]])
        line = np.concatenate([self._record_ids, self._further[1]])
        place = np.full(self.rows, -1, dtype=np.int64)
        place[people] = np.arange(len(people))
        at = place[owner]
        keep = np.flatnonzero(at >= 0)
        return at[keep], line[keep]

    def read(
        self, names: Sequence[str], rows: np.ndarray | None = None, *, single: bool = False
    ) -> Iterator[Column]:
        """Columns in view order, a bounded number in memory; `rows` are view row numbers, all if None.

        `single`: columns that are float32 in the file stay so.
        `gate.column` for a column that the job was not opened with.
        """
        resolved = [self._file.resolve(name) for name in names]
        for name in resolved:
            if name not in self.allowed:
                raise PartyError("gate.column", f"column {name!r} is not among the columns of this job")
        chosen = self._record_ids if rows is None else self._record_ids[rows]
        # In the file's order and of everybody, as `features.build` asks for it: nothing to pick out.
        whole = len(chosen) == self._file.count and bool(np.all(chosen[:-1] < chosen[1:]))
        for column in self._file.read(resolved, single=single):
            yield column if whole else column.take(chosen)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """The named columns in view order as one table; categorical ones are dictionary encoded."""
        return pa.table({column.name: _arrow(column) for column in self.read(names)})

    def where(self, expression: str) -> np.ndarray:
        """bool[m]: where an SQL expression over this party's own columns holds; see `rows.filter`.

        For a person with several rows it is enough that one of them fits.
        """
        return self._any(self._file.where(expression))

    def label(self, name: str) -> np.ndarray:
        """bool[m]: where a yes/no column of this party says yes, in any of a person's rows."""
        return self._any(self._file.flag(name))

    def _any(self, by_line: np.ndarray) -> np.ndarray:
        found: np.ndarray = by_line[self._record_ids].copy()
        owner, line = self._further
        found[owner[by_line[line]]] = True
        return found

    def save(self, folder: Path) -> None:
        """Write what `Gate.restore` needs to make this view again: order, items and the signed snapshot.

        Into files that only their owner may read; the folder is complete or it is not there.
        """
        part = private_files.folder(folder.with_name(folder.name + ".part"))
        arrays = {name: getattr(self, attribute) for name, attribute in _SAVED.items()}
        arrays |= {"further_owner": self._further[0], "further_line": self._further[1]}
        arrays |= {f"stranger_{name}": array for name, array in self._strangers.places().items()}
        for name, array in arrays.items():
            with private_files.writing(part / f"{name}.npy") as file:
                np.save(file, array, allow_pickle=False)
        document = {
            "preflight": self.preflight.to_document(),
            "snapshot": self.snapshot.document,
            "signature": self.snapshot.signature.hex(),
            "disclosure": self.snapshot.disclosure,
            "allowed": list(self.allowed),
            "counts": self._counts,
            "stamp": list(self._file.stamp),
        }
        with private_files.writing(part / "view.json") as file:
            file.write(json.dumps(document).encode())
        part.rename(folder)

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
        self.alive[self._claimed()] = False
        dropped = np.flatnonzero(~self.alive).astype(np.int64)
        return Recheck(found[0], found[1], dropped, dict(Counter(reasons)), found[2])

    def _claimed(self) -> np.ndarray:
        """View rows with an identifier that nobody had at the opening and that another person has now.

        A withdrawal by such an identifier makes it known; the snapshot's delta does not speak of it.
        """
        document, rows = self.snapshot.document, list[np.ndarray]()
        request = DecisionRequest(document["purpose"], document["recipient"], tuple(document["categories"]))
        for kind, values, owner in self._strangers.by_kind:
            try:
                answer = self._center.decide(request, values, kind)
                known = np.asarray(answer.ordinals, dtype=np.int64)
            except Exception as error:
                raise _closed("the center could not say whose identifiers are", error) from error
            if answer.sequence < 0 or known.shape != (len(values),):
                raise PartyError("consent.unavailable", f"the center is behind: {answer.detail}")
            rows.append(owner[(known >= 0) & (known != self._ordinals[owner])])
        return np.concatenate(rows) if rows else np.empty(0, np.int64)


#: Name of a saved array -> attribute of the view.
_SAVED = {
    "record_ids": "_record_ids",
    "ordinals": "_ordinals",
    "items": "items",
    "owner": "owner",
    "rank": "rank",
}


class Gate:
    """Opens data sets of one node (`home`) under the decisions of one consent center."""

    def __init__(self, center: Any, home: Any) -> None:
        self._center, self._home = center, home

    def preflight(self, dataset: str) -> Preflight:
        """The report on a data set's identifiers; asks nobody and lets nobody in."""
        return self._identify(dataset)[1]

    def check_kinds(self, dataset: str) -> None:
        """`gate.kind` if nearly all identifiers are of another kind than declared. All of them are looked at
        only if the first ones are.
        """
        entry = self._home.dataset(dataset)
        rows = Rows(entry.path, entry.identifiers[0][0])
        if any(preflights.suspicious(rows.text(name), kind) for name, kind in entry.identifiers if kind):
            preflights.hold_kinds(self.preflight(dataset))

    def count(self, dataset: str) -> int:
        """Rows of a data set, for a forecast; nothing of them is looked at."""
        return Rows(self._home.dataset(dataset).path).count

    def resolve(self, dataset: str, names: Sequence[str]) -> None:
        """`rows.column`, with the nearest, for the first name that the data set has no column of."""
        rows = Rows(self._home.dataset(dataset).path)
        for name in names:
            rows.resolve(name)

    def choose(
        self,
        dataset: str,
        where: str = "",
        flag: str = "",
        labels: Sequence[tuple[str, LabelCheck]] = (),
    ) -> int:
        """How many rows `where` and a yes/no column choose, whoever they are: `rows.*` tells a mistake.

        For the own operator, before a partner is asked and anybody is decided about. No row leaves.
        """
        rows = Rows(self._home.dataset(dataset).path)
        chosen = np.ones(rows.count, dtype=bool)
        if where:
            chosen &= rows.where(where)
        if flag:
            chosen &= rows.flag(flag)
        for name, check in labels:
            if check is None:
                rows.flag(name)
            else:
                check(next(rows.read([name])))
        return int(np.count_nonzero(chosen))

    def who(self, dataset: str, request: DecisionRequest, where: str = "", flag: str = "") -> np.ndarray:
        """int64, numbers at the consent center of those whom `where` and a yes/no column choose and who may
        take part now. For the own node, before a partner is asked: a job decides about everybody anew.
        """
        rows, _, found = self._identify(dataset)
        people = self._people(request, found)
        kinds = people.kinds if isinstance(people.kinds, str) else people.kinds.to_numpy(zero_copy_only=False)
        eligible, ordinals = np.zeros(len(people), dtype=bool), np.full(len(people), -1, dtype=np.int64)
        for kind in [kinds] if isinstance(kinds, str) else sorted(set(kinds)):
            at = np.arange(len(people)) if isinstance(kinds, str) else np.flatnonzero(kinds == kind)
            try:
                answer = self._center.decide(request, pc.take(people.values, pa.array(at)), kind)
            except Exception as error:
                raise _closed("the consent center could not decide", error) from error
            eligible[at] = np.asarray(answer.codes) == 0
            ordinals[at] = np.asarray(answer.ordinals, dtype=np.int64)
        chosen = np.ones(rows.count, dtype=bool)
        if where:
            chosen &= rows.where(where)
        if flag:
            chosen &= rows.flag(flag)
        picked = chosen[people.first]
        owner, line = people.further
        if self._home.dataset(dataset).duplicates == "all":
            picked[owner[chosen[line]]] = True
        return ordinals[picked & eligible]

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
        `consent.unavailable` and `gate.snapshot` when the center can't decide, `consent.assessment` when no
        impact assessment is in force, `consent.nobody` when nobody may take part.
        """
        began = time.monotonic()
        rows, preflight, found = self._identify(dataset)
        entry = self._home.dataset(dataset)
        for name in columns:
            rows.resolve(name)
        preflights.hold(entry, preflight)
        request = DecisionRequest(purpose, recipient, tuple(categories))
        people = self._people(request, found)
        counts: dict[str, Any] = {"in": 0, "out": {reason: n for reason, n in people.out.items() if n}}
        try:
            snapshot = self._center.snapshot(request, people.values, people.kinds, job_id)
            codes = np.asarray(snapshot.decisions.codes)
            ordinals = np.asarray(snapshot.decisions.ordinals, dtype=np.int64)
        except Exception as error:
            if getattr(error, "code", "") == "assessment.missing":
                raise PartyError(
                    "consent.assessment",
                    f"no impact assessment is in force for purpose {purpose!r} and {recipient!r} (PIPL 55)",
                    "file one: pec consent assessment put",
                    share=True,
                ) from error
            raise _closed("the consent center could not decide", error) from error
        if codes.shape != (len(people),) or ordinals.shape != (len(people),):
            raise PartyError(
                "gate.snapshot", f"{len(codes)} decisions for {len(people)} people; the job stops"
            )
        if snapshot.decisions.sequence < 0:
            raise PartyError(
                "consent.unavailable", f"the center is behind its events: {snapshot.decisions.detail}"
            )
        if people.ordinals is not None and (people.ordinals != ordinals).any():
            # Somebody became known between two questions: whose identifiers are whose is not sure any more.
            raise PartyError("gate.snapshot", "the center's people changed meanwhile; start the job again")
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
                f"nobody's consent covers purpose {purpose!r} for {recipient!r} with all its categories"
                f" ({', '.join(sorted(categories))})",
                "record consent for these, or ask for another purpose or fewer categories",
                share=True,
                counts=counts["out"],
            )
        # The order of view rows is what the peer sees; it must say nothing about the file's order.
        chosen = chosen[permutation(len(chosen), os.urandom)]
        place = np.full(len(people), -1, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        further = (np.empty(0, np.int64), np.empty(0, np.int64))
        if entry.duplicates == "all":
            kept = place[people.further[0]] >= 0
            further = place[people.further[0][kept]], people.further[1][kept]
        person, which, line = people.strangers
        watched = place[person] >= 0
        strangers = Strangers.of(found, place[person[watched]], which[watched], line[watched])
        view = ConsentedView(
            rows,
            self._center,
            preflight,
            Snapshot(snapshot.document, snapshot.signature, _undecided(), snapshot.disclosure),
            columns,
            people.first[chosen],
            ordinals[chosen],
            persons.items_of(found, people.links, place),
            further,
            counts,
            strangers,
        )
        view.opening = time.monotonic() - began
        return view

    def restore(self, folder: Path, dataset: str) -> ConsentedView:
        """The view of an interrupted job, as `save` wrote it; its snapshot is not taken anew.

        Whoever withdrew meanwhile is dropped by the re-check before the next stage, which the center must
        answer for this very snapshot. Raises `rows.changed` if the file is not the one that was read,
        `node.interrupted` if the view can't be read.
        """
        rows = Rows(self._home.dataset(dataset).path)
        places = ("owner", "which", "line")
        try:
            kept = json.loads((folder / "view.json").read_text())
            arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _SAVED}
            further = tuple(
                np.load(folder / f"further_{what}.npy", allow_pickle=False) for what in ("owner", "line")
            )
            watched = [np.load(folder / f"stranger_{what}.npy", allow_pickle=False) for what in places]
            report = {**kept["preflight"]}
            for name in ("columns", "notes", "identifiers"):
                report[name] = tuple(report[name])
            signature = bytes.fromhex(kept["signature"])
            snapshot = Snapshot(kept["snapshot"], signature, _undecided(), kept["disclosure"])
            stamp = tuple(kept["stamp"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PartyError("node.interrupted", "the job's saved view can't be read") from error
        if stamp != tuple(rows.stamp):
            raise PartyError(
                "rows.changed", f"{rows.path.name} was written to since the job began; submit the job again"
            )
        strangers = Strangers.none()
        if len(watched[0]):
            strangers = Strangers.of(self._identify(dataset)[2], *watched)
        return ConsentedView(
            rows,
            self._center,
            Preflight(**report),
            snapshot,
            kept["allowed"],
            arrays["record_ids"],
            arrays["ordinals"],
            (arrays["items"], arrays["owner"], arrays["rank"]),
            (further[0], further[1]),
            kept["counts"],
            strangers,
        )

    def _identify(self, dataset: str) -> tuple[Rows, Preflight, list[Identifier]]:
        entry = self._home.dataset(dataset)
        rows = Rows(entry.path, entry.identifiers[0][0])
        found = []
        for name, declared in entry.identifiers:
            column = rows.resolve(name)
            text = rows.text(column)
            kind = declared or identifiers.detect(text)
            normalised = identifiers.normalise(text, kind)
            counts = normalised.counts()
            looks = preflights.looks_like(text, kind, counts["ok"], counts["invalid"])
            found.append(Identifier(column, kind, normalised.values, np.asarray(normalised.status), looks))
        preflight = preflights.of(dataset, rows.count, rows.columns, rows.notes, found)
        return rows, preflight, found

    def _people(self, request: DecisionRequest, found: list[Identifier]) -> People:
        """Who the rows are; with several identifiers the consent center says whose each one is."""
        if len(found) == 1:
            return persons.by_value(found[0])
        ordinals = []
        for identifier in found:
            rows = np.flatnonzero(identifier.usable)
            whose = np.full(len(identifier.status), -1, dtype=np.int64)
            if len(rows):
                encoded = pc.dictionary_encode(pc.take(identifier.values, pa.array(rows)))
                try:
                    answer = self._center.decide(request, encoded.dictionary, identifier.kind)
                    known = np.asarray(answer.ordinals, dtype=np.int64)
                except Exception as error:
                    raise _closed("the consent center could not say whose identifiers are", error) from error
                if answer.sequence < 0 or known.shape != (len(encoded.dictionary),):
                    raise PartyError("consent.unavailable", f"the center is behind: {answer.detail}")
                whose[rows] = known[np.asarray(encoded.indices)]
            ordinals.append(whose)
        return persons.by_subject(found, ordinals)


@dataclass(frozen=True)
class AssumedSnapshot:
    """In place of a consent center's signed snapshot: says that consent was assumed, and why. Unsigned."""

    document: Mapping[str, Any]


@dataclass(frozen=True)
class NormalForms:
    """Identifiers in the order of the file, and int64[m]: where the one of each view row is among them."""

    texts: pa.Array = field(repr=False)
    place: np.ndarray = field(repr=False)

    def take(self, people: np.ndarray) -> pa.Array:
        """Those of the people at these view rows. Nothing is copied before it is asked for."""
        return pc.take(self.texts, integers(self.place[people]))


class AssumedView(ConsentedView):
    """A view of an evaluator's own file, whose people were not asked. `values` are their identifiers.

    It has no consent center and no signature: `recheck` fails, and no agreement or peer accepts its snapshot.
    """

    values: NormalForms | None

    def recheck(self) -> Recheck:
        raise PartyError("consent.unavailable", "consent was assumed for this file; nobody can confirm it")


def assume_file(
    path: str, id_column: str, id_kind: str = "", *, reason: str, values: bool = True
) -> AssumedView:
    """Evaluation only: a view of a file for which whoever runs the evaluation says to assume consent.

    For measuring and checking on files that are one's own, in a process of its own
    (`parties.evaluation`): no home, no consent center, no agreement, no job. Nothing of a node may call this
    (`parties/GATE.md`; a test and an import contract hold it). Same reading, normal forms and secret order as
    `Gate.open`, one identifier a person, the first row of each. `values`: whether the view has the
    identifiers themselves, not only their digests. Raises `rows.*`, `gate.identifiers`, and `gate.assumed`
    without a reason.
    """
    if not reason.strip():
        raise PartyError("gate.assumed", "consent can't be assumed without saying why; give a reason")
    name = os.path.basename(path)
    rows = Rows(path, id_column)
    column = rows.resolve(id_column)
    text = rows.text(column)
    kind = id_kind or identifiers.detect(text)
    normalised = identifiers.normalise(text, kind)
    del text
    status = np.asarray(normalised.status)
    good = np.flatnonzero(status == 0)
    if not len(good):
        raise PartyError(
            "gate.identifiers", f"no row of {name!r} has a valid {kind} in column {column!r}; check both"
        )
    texts = normalised.values if len(good) == len(status) else pc.take(normalised.values, integers(good))
    del normalised
    items = digests(texts, kind)
    forms = texts if values else None
    del texts
    pa.default_memory_pool().release_unused()  # what reading the file took: half as much as the items
    # Equal digests are equal values: looking for repeated ones needs no second look at the texts.
    again = repeats(items)
    out = {
        persons.NULL: int(np.count_nonzero(status == 1)),
        persons.INVALID: int(np.count_nonzero(status == 2)),
        persons.DUPLICATE: int(np.count_nonzero(again)),
    }
    preflight = Preflight(
        dataset=name,
        id_column=column,
        id_kind=kind,
        read=rows.count,
        normalised=len(good),
        duplicate=out[persons.DUPLICATE],
        null=out[persons.NULL],
        invalid=out[persons.INVALID],
        columns=rows.columns,
        notes=tuple(rows.notes),
    )
    kept = permutation(len(good) - out[persons.DUPLICATE], os.urandom)
    if out[persons.DUPLICATE]:
        kept = np.flatnonzero(~again)[kept]
    items = taken(items, kept)
    none = np.empty(0, dtype=np.int64)
    view = AssumedView(
        rows,
        None,
        preflight,
        AssumedSnapshot({"consent": "assumed", "reason": reason, "file": name, "people": len(kept)}),
        (),
        good[kept].astype(np.int64, copy=False),
        np.full(len(kept), -1, dtype=np.int64),
        (items, np.arange(len(kept), dtype=np.int64), np.zeros(len(kept), dtype=np.uint8)),
        (none, none),
        {"in": len(kept), "out": {why: n for why, n in out.items() if n}},
    )
    view.values = NormalForms(forms, kept) if values else None
    return view


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


def _undecided() -> Decisions:
    """In a view's snapshot: what was decided about each person has become the view, and takes no memory."""
    return Decisions(np.empty(0, np.uint8), np.empty(0, np.int64), 0)


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
