"""One group of single events and questions, in the transaction that `gather` commits for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from consent_center import batch as batches
from consent_center import decide as deciding
from consent_center import events, few
from consent_center.accounts.service import holders_of
from consent_center.embedded.serving import Serving
from consent_center.errors import ConsentError
from consent_center.gather import Answer, Asked, Borne, Decided, Item, Plain
from consent_center.ledger import log
from consent_center.ledger.verify import canonical
from consent_center.model import CODE, ConsentEvent, DecisionRequest, Recorded
from consent_center.preferences.model import Answer as Contacting
from consent_center.preferences.model import Question, Reason, when

Write = Callable[[batches.Batch], events.Written]
Parse = Callable[[Sequence[ConsentEvent]], batches.Batch]


def write_events(waiting: Sequence[ConsentEvent], parse: Parse, write: Write) -> list[Answer]:
    """Answers in the order of `waiting`, inside the caller's transaction.

    Events of one identifier each are one batch. An event with several is a batch of its own: in one batch it
    would join strangers' events, which the rows of a file are meant to do and those of a service are not.
    """
    answers: list[Answer] = []
    run: list[ConsentEvent] = []
    for event in waiting:
        if len(event.identifiers) == 1:
            run.append(event)
            continue
        answers += _batch(run, parse, write) + _batch([event], parse, write)
        run = []
    return answers + _batch(run, parse, write)


def _batch(run: Sequence[ConsentEvent], parse: Parse, write: Write) -> list[Answer]:
    answers: dict[int, Answer] = {}
    left = list(range(len(run)))
    while left:
        try:
            batch = parse([run[i] for i in left])
            break
        except ConsentError as error:  # of the shape of one event, or of all
            failed = [left[error.row]] if error.row is not None else left
            answers |= {i: ConsentError(error.code, error.detail) for i in failed}
            left = [i for i in left if i not in failed]
    else:
        return [answers[i] for i in range(len(run))]
    written = write(batch)
    recorded, place = written.recorded, 0
    for row, i in enumerate(left):
        if row in batch.bad:
            answers[i] = ConsentError(*batch.bad[row])
            continue
        ignored = written.ignored if len(run) == 1 else ()
        answers[i] = Recorded(
            recorded.first_sequence + place,
            recorded.first_leaf + place,
            int(recorded.subjects[row]),
            ignored,
        )
        place += 1
    return [answers[i] for i in range(len(run))]


def serve(center: Serving, items: Sequence[Item]) -> list[Answer]:
    """Write and decide a group in one transaction of `center`; its friend, so it may look inside.

    Who bears a token that is not known is refused before it begins: a stranger takes no writer's place.

    Raises only when nothing was written and each may be tried alone. If the database is at fault, events get
    that error and questions the reason `stale`: whether the commit happened may be unknown then.
    """
    failed = False
    try:
        strange = _strange(center, items)
        proven = [item for item in items if not (isinstance(item, Borne) and item.token in strange)]
        if not proven:
            return [_unauthorised() for _ in items]
        with center._write() as connection:
            try:
                told = iter(_served(center, connection, proven))
            except Exception:
                failed = True
                raise
        if not strange:
            return list(told)
        return [
            _unauthorised() if isinstance(item, Borne) and item.token in strange else next(told)
            for item in items
        ]
    except ConsentError as error:
        if error.code not in ("center.busy", "center.unreachable", "center.restored", "ledger.corrupt"):
            raise
        if failed and error.code == "ledger.corrupt" and len(items) > 1:
            raise
        return [_failed(item, error, center._now()) for item in items]


def _strange(center: Serving, items: Sequence[Item]) -> set[str]:
    """The tokens that nobody holds, as a reader sees it. `_plain` looks the others up once more."""
    tokens = {item.token for item in items if isinstance(item, Borne)}
    if not tokens:
        return set()
    now = center._now()
    with center._read() as connection:
        return tokens - holders_of(connection, tokens, now).keys()


def _unauthorised() -> ConsentError:
    return ConsentError("request.unauthorised", "the API token is not known, is over or was revoked")


def _failed(item: Item, error: ConsentError, now: int) -> Answer:
    if isinstance(item, Asked):
        return Decided(CODE["stale"], -1, error.detail)
    if isinstance(item, Question):
        return Contacting(False, (Reason("stale", detail=error.detail),), when(now), None)
    return error


def _served(center: Serving, connection: sa.Connection, items: Sequence[Item]) -> list[Answer]:
    now = center._now()
    known = center._registry(connection)
    plain = _plain(connection, items, now)
    told = iter(
        write_events(
            [item for item in plain if isinstance(item, ConsentEvent)],
            lambda waiting: few.parse(waiting, known, center.controller, now),
            lambda batch: center._write_batch(connection, batch, now, assumed=False),
        )
    )
    asked = [item for item in plain if isinstance(item, Asked)]
    decided = iter(_decide_each(center, connection, asked, now) if asked else [])
    contacts = [item for item in plain if isinstance(item, Question)]
    preferences = center._preferences(connection) if contacts else None
    contacting = iter(preferences.decide_each(connection, contacts, now) if preferences else [])
    answers: list[Answer] = []
    for item in plain:
        if isinstance(item, ConsentError):
            answers.append(item)
        elif isinstance(item, ConsentEvent):
            answers.append(next(told))
        else:
            answers.append(next(decided if isinstance(item, Asked) else contacting))
    return answers


def _plain(connection: sa.Connection, items: Sequence[Item], now: int) -> list[Plain | ConsentError]:
    """What is asked, or why the holder of a token may not ask it; each token is looked up once."""
    tokens = {item.token for item in items if isinstance(item, Borne)}
    holders = holders_of(connection, tokens, now) if tokens else {}
    found: list[Plain | ConsentError] = []
    for item in items:
        if not isinstance(item, Borne):
            found.append(item)
            continue
        holder = holders.get(item.token)
        try:
            if holder is None:
                raise _unauthorised()
            made = item.make(holder)
            if isinstance(made, Asked):
                deciding.check_request(made.request)
            found.append(made)
        except ConsentError as error:
            found.append(error)
    return found


def _decide_each(
    center: Serving, connection: sa.Connection, asked: Sequence[Asked], now: int
) -> list[Answer]:
    """Questions with the same request and kind are decided together; each has a leaf of its own."""
    together: dict[tuple[DecisionRequest, str], list[int]] = {}
    for i, one in enumerate(asked):
        together.setdefault((one.request, one.kind), []).append(i)
    answers: list[Answer] = [Decided(CODE["stale"], -1, "")] * len(asked)
    leaves: list[tuple[str, bytes]] = []
    with center._lock:
        center._catch_up(connection)
        limited = center._counts_uses(connection)  # nobody else writes meanwhile: it stays so
        for (request, kind), at in together.items():
            as_of = now if request.as_of is None else batches.micros(request.as_of)
            values = pa.array([asked[i].value for i in at], pa.string())
            found = deciding.candidates(center._keys.pseudonym, values, kind)
            decisions, rules = center._decide_in(connection, request, found, as_of, None)
            bodies: dict[tuple[int, str], bytes] = {}  # what one person is told differs by the reason only
            for i, code, subject in zip(at, decisions.codes, decisions.ordinals, strict=True):
                row, over = replace(decisions, codes=np.array([code]), ordinals=np.array([subject])), ""
                if limited:
                    over, row = center._within_limits(connection, request, row)
                answers[i] = Decided(int(row.codes[0]), row.sequence, row.detail)
                told = (int(row.codes[0]), row.detail)
                if told not in bodies:
                    bodies[told] = canonical(center._decision_payload(request, as_of, kind, row, rules))
                leaves.append(("decision", bodies[told]))
                if limited and not over:  # the next question must see this use
                    last = log.append_bodies(connection, leaves)[-1]
                    leaves = []
                    center._use(connection, last, "decision", request, row)
    log.append_bodies(connection, leaves)
    return answers
