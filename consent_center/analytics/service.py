"""The figures: from events by what many share, from bitmaps, and from the counts of what was shown.

Groups of fewer than `least` decisions are suppressed: their numbers are None, so that a figure is never
about few people. Days, weeks and months are China's.
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
from consent_center.analytics.statistics import Proportion, compare, sample_size
from consent_center.batch import ASSUMED, DAY, LOCAL_OFFSET, micros
from consent_center.collection import experiments, settings
from consent_center.collection.asking import is_outdated
from consent_center.collection.tables import shown_counts
from consent_center.errors import ConsentError
from consent_center.model import GRANTS
from consent_center.room import Room

GROUPS = ("purpose", "recipient", "notice", "channel", "method", "regulation", "day", "week", "month")
LEAST, FEWEST = 10, 5


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
        the same span.
        """
        if by not in GROUPS:
            raise ConsentError("analytics.request", f"by is one of {', '.join(GROUPS)}, not {by!r}")
        _check(least)
        found: dict[str, list[int]] = {}
        for descriptor, day, count in self._counted(since, until):
            if purpose and descriptor["purpose"] != purpose:
                continue
            tally = found.setdefault(_key(by, descriptor, day), [0, 0, 0])
            tally[_column(descriptor["action"])] += count
        groups = [_group(key, tally, least) for key, tally in sorted(found.items())]
        total = np.array(list(found.values()) or [[0, 0, 0]]).sum(axis=0).tolist()
        return {"by": by, "least": least, "groups": groups, "total": _group("", total, least)}

    def _counted(
        self, since: datetime | None, until: datetime | None
    ) -> Iterable[tuple[dict[str, Any], int, int]]:
        """(descriptor, local day, number of events) of people's own answers."""
        table = db.events
        day = ((table.c.occurred_at + LOCAL_OFFSET) // DAY).label("day")
        query = sa.select(table.c.descriptor, day, sa.func.count())
        if since is not None:
            query = query.where(table.c.occurred_at >= micros(since))
        if until is not None:
            query = query.where(table.c.occurred_at < micros(until))
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
    ) -> dict[str, Any]:
        """Shown, decided, granted, by channel, purpose, recipient and notice: what was counted without
        persons first.

        "Shown" counts displays, not people: whoever looks twice counts twice. Channels where nothing is
        counted (imports, servers) are left out.
        """
        _check(least)
        table = shown_counts
        columns = (
            table.c.channel,
            table.c.purpose,
            table.c.recipient,
            table.c.notice,
            table.c.notice_version,
        )
        query = sa.select(*columns, sa.func.sum(table.c.shown)).group_by(*columns)
        if since is not None:
            query = query.where(table.c.day >= (micros(since) + LOCAL_OFFSET) // DAY)
        if until is not None:
            query = query.where(table.c.day <= (micros(until) - 1 + LOCAL_OFFSET) // DAY)
        if purpose:
            query = query.where(table.c.purpose == purpose)
        with self.room.read() as connection:
            shown = {tuple(row[:5]): int(row[5]) for row in connection.execute(query)}
        decided: dict[tuple[Any, ...], list[int]] = {}
        for descriptor, _, count in self._counted(since, until):
            names = ("channel", "purpose", "recipient", "notice", "notice_version")
            tally = decided.setdefault(tuple(descriptor[name] for name in names), [0, 0, 0])
            tally[_column(descriptor["action"])] += count
        groups = []
        for key in sorted(shown):
            granted, denied, _ = decided.get(key, [0, 0, 0])
            small = shown[key] < least
            group: dict[str, Any] = dict(
                zip(("channel", "purpose", "recipient", "notice", "notice_version"), key, strict=True)
            )
            group |= {"shown": shown[key], "decided": granted + denied, "granted": granted}
            if small:
                group |= {"shown": None, "decided": None, "granted": None}
            groups.append({**group, "suppressed": small})
        return {"least": least, "groups": groups}

    def experiment(self, id: str, effect: float = 0.05, least: int = LEAST) -> dict[str, Any]:
        """The outcome of an A/B: rates of people's first answers, test, interval, and the people that it
        takes.

        `effect` is the difference that is worth finding. The p-value is for one look, when the number of
        people that was decided on before is reached: looking every day until it is small finds
        differences that are none. `collection.unknown`.
        """
        _check(least)
        if not 0.001 <= effect <= 0.5:
            raise ConsentError("analytics.request", "effect is 0.001 to 0.5")
        with self.room.read() as connection:
            test = settings.get(connection, experiments.KIND, id)
            if test is None:
                raise ConsentError("collection.unknown", f"no experiment {id!r} was ever in force")
            first = self._first_answers(connection, test)
        arms: dict[str, Any] = {}
        for arm in ("a", "b"):
            granted, people = first[arm]
            small = people < least
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
        if arms["a"]["suppressed"] or arms["b"]["suppressed"]:
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


def _group(key: str, tally: Sequence[int], least: int) -> dict[str, Any]:
    granted, denied, withdrawn = tally
    decided = granted + denied
    if max(decided, withdrawn) < least:
        names = ("granted", "denied", "withdrawn", "consent_rate", "interval", "withdrawal_rate")
        return {"key": key, **dict.fromkeys(names), "suppressed": True}
    rate = Proportion(granted, decided) if decided >= least else None
    return {
        "key": key,
        "granted": granted,
        "denied": denied,
        "withdrawn": withdrawn,
        "consent_rate": None if rate is None else rate.rate,
        "interval": None if rate is None else list(rate.interval()),
        "withdrawal_rate": withdrawn / granted if granted >= least else None,
        "suppressed": False,
    }


def _check(least: int) -> None:
    if not FEWEST <= least <= 1_000_000:
        raise ConsentError(
            "analytics.request", f"least is {FEWEST} or more: figures are not about few people"
        )
