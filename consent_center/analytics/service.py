"""The figures: from events by what many share, from bitmaps, and from the counts of what was shown.

Groups of fewer than `least` decisions are suppressed: their numbers are None, and so are those of other
groups where a total would tell them (`disclosure`). Days, weeks and months are China's; spans are whole days.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa

from consent_center import database as db
from consent_center.analytics.disclosure import Hidden, few, hide
from consent_center.analytics.statistics import Proportion, compare, sample_size
from consent_center.batch import ASSUMED, DAY, LOCAL_OFFSET, micros
from consent_center.collection import experiments, settings
from consent_center.collection.asking import is_outdated
from consent_center.collection.tables import shown_counts
from consent_center.errors import ConsentError
from consent_center.model import GRANTS
from consent_center.room import Room

GROUPS = ("purpose", "recipient", "notice", "channel", "method", "regulation", "day", "week", "month")
FUNNELS = ("notice", "channel")
LEAST, FEWEST = 10, 5
#: Days up to now whose rates a page shows beside an experiment.
SPANS = (30, 90, 365)


@dataclass(frozen=True)
class Analytics:
    """One center's figures."""

    room: Room

    def rates(
        self,
        by: str = "purpose",
        since: datetime | None = None,
        until: datetime | None = None,
        purpose: str = "",
        least: int = LEAST,
    ) -> dict[str, Any]:
        """Consent and withdrawal rates of the decisions in a span, by one of GROUPS. `analytics.request`.

        A group: {key, granted, denied, withdrawn, consent_rate, interval, withdrawal_rate, suppressed}.
        The consent rate is granted of granted and denied; the withdrawal rate is withdrawn of granted, of
        the same span. The span is the whole days that `since` and `until` touch. `withheld`: groups are left
        out, since naming them beside the total would tell small numbers.
        """
        if by not in GROUPS:
            raise ConsentError("analytics.request", f"by is one of {', '.join(GROUPS)}, not {by!r}")
        _check(least)
        found = self._tallies(by, since, until, purpose)
        hidden = hide(found, least)
        rows: dict[str, list[int]] = {}
        for (_, key), tally in found.items():
            rows[key] = [one + more for one, more in zip(rows.get(key, (0, 0, 0)), tally, strict=True)]
        groups = [
            _group(key, tally, key in hidden.decided, key in hidden.withdrawn)
            for key, tally in sorted(rows.items())
            if key not in hidden.unlisted
        ]
        total = np.array(list(found.values()) or [[0, 0, 0]]).sum(axis=0).tolist()
        return {
            "by": by,
            "least": least,
            "groups": groups,
            "withheld": len(groups) < len(rows),
            "total": _group("", total, *few(total, least)),
        }

    def _tallies(
        self, by: str, since: datetime | None, until: datetime | None, purpose: str
    ) -> dict[tuple[str, str], list[int]]:
        """{(purpose of a notice or "", key): [granted, denied, withdrawn]}."""
        found: dict[tuple[str, str], list[int]] = {}
        for descriptor, day, count in self._counted(since, until):
            if purpose and descriptor["purpose"] != purpose:
                continue
            # A notice is of one purpose, whose numbers are shown beside: what is hidden there is hidden here.
            within = descriptor["purpose"] if by == "notice" else ""
            tally = found.setdefault((within, _key(by, descriptor, day)), [0, 0, 0])
            tally[_column(descriptor["action"])] += count
        return found

    def _people(
        self,
        names: Sequence[str],
        wanted: Iterable[tuple[Any, ...]],
        since: datetime | None,
        until: datetime | None,
        purpose: str,
    ) -> dict[tuple[Any, ...], tuple[int, int]]:
        """{key: (people who answered, people who agreed)} of those keys, each person once a key."""
        keys = sorted(wanted)
        places = {key: place for place, key in enumerate(keys)}
        with self.room.read() as connection:
            catalogue = _catalogue(connection)
            place_of = np.full(max(catalogue, default=0) + 1, -1, np.int64)
            agrees = np.zeros(len(place_of), bool)
            for id, descriptor in catalogue.items():
                key = tuple(descriptor[name] for name in names)
                answers = descriptor["action"] in GRANTS | {"denied"} and descriptor["method"] != ASSUMED
                if answers and key in places and purpose in ("", descriptor["purpose"]):
                    place_of[id], agrees[id] = places[key], descriptor["action"] in GRANTS
            parts = []
            for chosen in db.chunks(np.flatnonzero(place_of >= 0).tolist()):
                query = sa.select(db.events.c.subject, db.events.c.descriptor)
                query = query.where(db.events.c.descriptor.in_(chosen), *_during(since, until))
                parts.append(db.columns(connection, query))
        if not parts:
            return {}
        subjects, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
        span = int(subjects.max(initial=0)) + 1

        def once(rows: Any) -> Any:
            pairs = np.unique(place_of[ids[rows]] * span + subjects[rows])
            return np.bincount(pairs // span, minlength=len(keys))

        answered, agreed = once(slice(None)), once(agrees[ids])
        return {key: (int(answered[i]), int(agreed[i])) for i, key in enumerate(keys)}

    def _counted(
        self, since: datetime | None, until: datetime | None
    ) -> Iterable[tuple[dict[str, Any], int, int]]:
        """(descriptor, local day, number of events) of people's own answers."""
        table = db.events
        day = ((table.c.occurred_at + LOCAL_OFFSET) // DAY).label("day")
        query = sa.select(table.c.descriptor, day, sa.func.count()).where(*_during(since, until))
        with self.room.read() as connection:
            catalogue = _catalogue(connection)
            rows = connection.execute(query.group_by(table.c.descriptor, day)).all()
        for number, at, count in rows:
            descriptor = catalogue[int(number)]
            if descriptor["action"] in _COUNTED and descriptor["method"] != ASSUMED:
                yield descriptor, int(at), int(count)

    def standing(self, least: int = LEAST) -> dict[str, Any]:
        """How many people stand where now, by purpose and recipient: granted, outdated, ended, denied,
        withdrawn.
        """
        _check(least)
        rows = []
        with self.room.state() as (connection, state):
            known, now = self.room.registry(connection), self.room.now()
            for context in state.contexts.values():
                if context.controller != self.room.controller:
                    continue
                tally = dict.fromkeys(("granted", "outdated", "ended", "denied", "withdrawn"), 0)
                for number, members in context.members.items():
                    descriptor = state.descriptors[number]
                    people = members - state.erased
                    if descriptor["action"] not in GRANTS:
                        name = {"withdrawn": "withdrawn", "expired": "ended"}.get(
                            descriptor["action"], "denied"
                        )
                        tally[name] += len(people)
                        continue
                    over = context.ends.ended(now, people)
                    tally["ended"] += len(over)
                    name = "outdated" if is_outdated(known, descriptor) else "granted"
                    tally[name] += len(people) - len(over)
                everybody = sum(tally.values())
                small = everybody < least
                rows.append(
                    {
                        "purpose": context.purpose,
                        "recipient": context.recipient,
                        "regulation": context.regulation,
                        "people": None if small else everybody,
                        **{name: None if small else count for name, count in tally.items()},
                        "suppressed": small,
                    }
                )
        rows.sort(key=lambda row: (row["purpose"], row["recipient"], row["regulation"]))
        return {"least": least, "groups": rows}

    def funnel(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        purpose: str = "",
        least: int = LEAST,
        by: str = "notice",
    ) -> dict[str, Any]:
        """Shown, decided, granted, by channel alone (`by` "channel") or by channel, purpose, recipient and
        notice too: what was counted without persons first.

        "Shown" counts displays, not people: whoever looks twice counts twice. "Decided" counts everybody who
        answered, "granted" everybody who agreed at least once, each once however often they answered.
        Channels where nothing is counted (imports, servers) are left out. By channel it hides what `rates` by
        channel hides.
        """
        if by not in FUNNELS:
            raise ConsentError("analytics.request", f"by is one of {', '.join(FUNNELS)}, not {by!r}")
        _check(least)
        table = shown_counts
        names = _FUNNEL[:1] if by == "channel" else _FUNNEL
        columns = [table.c[name] for name in names]
        query = sa.select(*columns, sa.func.sum(table.c.shown)).group_by(*columns)
        first, last = _days(since, until)
        if first is not None:
            query = query.where(table.c.day >= first)
        if last is not None:
            query = query.where(table.c.day <= last)
        if purpose:
            query = query.where(table.c.purpose == purpose)
        with self.room.read() as connection:
            shown = {tuple(row[:-1]): int(row[-1]) for row in connection.execute(query)}
        people = self._people(names, shown, since, until, purpose)
        hidden: Hidden | None = None
        if by == "channel":  # what is asked for beside it shows the same rows
            hidden = hide(self._tallies("channel", since, until, purpose), least)
        groups = []
        for key in sorted(shown):
            decided, granted = people.get(key, (0, 0))
            small = 0 < decided < least
            if hidden is not None:
                small = small or key[0] in hidden.decided | hidden.unlisted
            group: dict[str, Any] = dict(zip(names, key, strict=True))
            group["shown"] = None if shown[key] < least else shown[key]
            group |= {"decided": None if small else decided, "granted": None if small else granted}
            groups.append({**group, "suppressed": small or shown[key] < least})
        return {"least": least, "groups": groups}

    def experiment(self, id: str, effect: float = 0.05, least: int = LEAST) -> dict[str, Any]:
        """The outcome of an A/B: rates of people's first answers, test, interval, and the people that it
        takes.

        `effect` is the difference that is worth finding. The p-value is for one look, when the number of
        people that was decided on before is reached: looking every day until it is small finds
        differences that are none. `collection.unknown`.

        Both arms are suppressed where one is small, and where their numbers would tell what the rates by
        notice hide: of all time, or of one of SPANS, which the console shows beside.
        """
        _check(least)
        if not 0.001 <= effect <= 0.5:
            raise ConsentError("analytics.request", "effect is 0.001 to 0.5")
        with self.room.read() as connection:
            test = settings.get(connection, experiments.KIND, id)
            if test is None:
                raise ConsentError("collection.unknown", f"no experiment {id!r} was ever in force")
            first = self._first_answers(connection, test)
        return self._outcome(id, test, first, effect, least)

    def _outcome(
        self,
        id: str,
        test: dict[str, Any],
        first: dict[str, tuple[int, int]],
        effect: float,
        least: int,
    ) -> dict[str, Any]:
        # One arm alone would tell the other: beside a total, their sum is known.
        small = min(people for _granted, people in first.values()) < least or self._tells(test, least)
        arms: dict[str, Any] = {}
        for arm in ("a", "b"):
            granted, people = first[arm]
            one = None if small else Proportion(granted, people)
            arms[arm] = {
                **test[arm],
                "people": None if small else people,
                "granted": None if small else granted,
                "rate": None if one is None else one.rate,
                "interval": None if one is None else list(one.interval()),
                "suppressed": small,
            }
        told: dict[str, Any] = {"id": id, "purpose": test["purpose"], "active": test["active"], "arms": arms}
        if small:
            return {**told, "comparison": None, "needed_per_arm": None, "enough": False, "effect": effect}
        a, b = Proportion(*first["a"]), Proportion(*first["b"])
        found = compare(a, b)
        base = min(max(a.rate, 0.01), 0.99)
        needed = sample_size(base, effect) or sample_size(base, -effect)
        comparison = {
            "difference": found.difference,
            "interval": list(found.interval),
            "p_value": found.p_value,
            "test": found.test,
            "significant": found.significant,
        }
        enough = needed is not None and min(a.trials, b.trials) >= needed
        return {
            **told,
            "comparison": comparison,
            "needed_per_arm": needed,
            "enough": enough,
            "effect": effect,
        }

    def _tells(self, test: dict[str, Any], least: int) -> bool:
        """Whether the arms' numbers tell a row that `rates("notice")` hides, or few answers before a span."""
        arms = [f"{test[arm]['notice']} {test[arm]['version']}" for arm in ("a", "b")]
        counted = [
            (
                (descriptor["purpose"], _key("notice", descriptor, day)),
                _column(descriptor["action"]),
                day,
                count,
            )
            for descriptor, day, count in self._counted(None, None)
        ]
        today = (self.room.now() + LOCAL_OFFSET) // DAY
        for first in (None, *(today - days for days in SPANS)):
            inside: dict[tuple[str, str], list[int]] = {}
            outside = dict.fromkeys(arms, 0)
            for part, column, day, count in counted:
                if first is None or day >= first:
                    inside.setdefault(part, [0, 0, 0])[column] += count
                elif part[1] in outside and column < 2:
                    outside[part[1]] += count
            hidden = hide(inside, least)
            for arm in arms:
                if not outside[arm] and arm in hidden.decided | hidden.unlisted:
                    return True  # an arm's number is that row's
                if 0 < outside[arm] < least:
                    return True  # the arm's less the row's
        return False

    @staticmethod
    def _first_answers(connection: sa.Connection, test: dict[str, Any]) -> dict[str, tuple[int, int]]:
        """{arm: (granted, people)}: each person once, by the first answer to either notice."""
        arm_of: dict[int, str] = {}
        grants: set[int] = set()
        for id, descriptor in _catalogue(connection).items():
            for arm in ("a", "b"):
                shown = (descriptor.get("notice"), descriptor.get("notice_version"))
                mine = shown == (test[arm]["notice"], test[arm]["version"])
                if mine and descriptor["action"] in GRANTS | {"denied"} and descriptor["method"] != ASSUMED:
                    arm_of[id] = arm
                    if descriptor["action"] in GRANTS:
                        grants.add(id)
        if not arm_of:
            return {"a": (0, 0), "b": (0, 0)}
        table = db.events
        query = (
            sa.select(table.c.subject, table.c.descriptor)
            .where(table.c.descriptor.in_(sorted(arm_of)))
            .order_by(table.c.sequence)
        )
        subjects, numbers = db.columns(connection, query)
        first = numbers[np.unique(subjects, return_index=True)[1]]
        found = {}
        for arm in ("a", "b"):
            of_arm = np.isin(first, [id for id, one in arm_of.items() if one == arm])
            found[arm] = (int(np.isin(first[of_arm], sorted(grants)).sum()), int(of_arm.sum()))
        return found


_FUNNEL = ("channel", "purpose", "recipient", "notice", "notice_version")
_COUNTED = GRANTS | {"denied", "withdrawn"}


def _column(action: str) -> int:
    return 0 if action in GRANTS else 1 if action == "denied" else 2


def _catalogue(connection: sa.Connection) -> dict[int, dict[str, Any]]:
    return {int(row.id): json.loads(row.body) for row in connection.execute(sa.select(db.descriptors))}


def _key(by: str, descriptor: dict[str, Any], day: int) -> str:
    if by == "notice":
        return f"{descriptor['notice']} {descriptor['notice_version']}" if descriptor["notice"] else ""
    if by in ("day", "week", "month"):
        at = date(1970, 1, 1) + timedelta(days=day)
        if by == "month":
            return at.strftime("%Y-%m")
        return (at - timedelta(days=at.weekday()) if by == "week" else at).isoformat()
    return str(descriptor[by])


def _days(since: datetime | None, until: datetime | None) -> tuple[int | None, int | None]:
    """First and last local day of a span: whole days, so that spans can't be laid around one person."""
    first = None if since is None else (micros(since) + LOCAL_OFFSET) // DAY
    last = None if until is None else (micros(until) - 1 + LOCAL_OFFSET) // DAY
    return first, last


def _during(since: datetime | None, until: datetime | None) -> list[sa.ColumnElement[bool]]:
    """That an event happened on those days."""
    first, last = _days(since, until)
    found = []
    if first is not None:
        found.append(db.events.c.occurred_at >= first * DAY - LOCAL_OFFSET)
    if last is not None:
        found.append(db.events.c.occurred_at < (last + 1) * DAY - LOCAL_OFFSET)
    return found


def _group(key: str, tally: Sequence[int], few_decided: bool, few_withdrawn: bool) -> dict[str, Any]:
    granted, denied, withdrawn = tally
    told = not few_decided and granted + denied > 0
    rate = Proportion(granted, granted + denied) if told else None
    return {
        "key": key,
        "granted": None if few_decided else granted,
        "denied": None if few_decided else denied,
        "withdrawn": None if few_withdrawn else withdrawn,
        "consent_rate": None if rate is None else rate.rate,
        "interval": None if rate is None else list(rate.interval()),
        "withdrawal_rate": withdrawn / granted if told and granted and not few_withdrawn else None,
        "suppressed": few_decided or few_withdrawn,
    }


def _check(least: int) -> None:
    if not FEWEST <= least <= 1_000_000:
        raise ConsentError(
            "analytics.request", f"least is {FEWEST} or more: figures are not about few people"
        )
