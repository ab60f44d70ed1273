"""No small count can be computed from what the figures show, alone or together as the console shows them."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center.analytics.disclosure import cover, few
from consent_center.analytics.service import SPANS, Analytics, _days
from consent_center.batch import micros
from consent_center.center import Center
from consent_center.console import dashboard
from consent_center.console.figures import Days
from consent_center.model import ConsentEvent, Notice, Purpose


def shown(counts: tuple[int, ...], least: int) -> tuple[Any, int | None]:
    """What a reader sees of a table with its total."""
    total = sum(counts)
    if 0 < total < least:
        return tuple(None if count else 0 for count in counts), None
    hidden = cover(counts, [0 < count < least for count in counts], least)
    if hidden is None:
        return None, total
    return tuple(None if i in hidden else count for i, count in enumerate(counts)), total


@pytest.mark.parametrize(
    ("least", "rows", "top"), [(5, 2, 20), (5, 3, 16), (5, 4, 8), (6, 3, 15), (10, 2, 35)]
)
def test_all_tables_every_hidden_count_could_be_another(least: int, rows: int, top: int) -> None:
    """The reader knows the rule and the rows' names: of all tables that look the same, no hidden row has the
    same count in each.
    """
    looks = defaultdict(list)
    for counts in itertools.product(range(top + 1), repeat=rows):
        looks[shown(counts, least)].append(counts)
    hidden = 0
    for (told, total), tables in looks.items():
        for row in range(rows):
            if told is not None and told[row] is not None:
                assert told[row] == 0 or told[row] >= least
            elif total is not None:
                hidden += 1
                assert len({table[row] for table in tables}) > 1, (told, total, tables)
    assert hidden > 10


def test_the_residual_is_not_small() -> None:
    assert cover([3, 50, 60], [True, False, False], 10) == {0, 1}  # alone it would be total minus the others
    assert cover([3, 4, 50, 60], [True, True, False, False], 10) == {0, 1, 2}  # 3 + 4 is small too
    assert cover([3, 8, 50], [True, True, False], 10) == {0, 1}
    assert cover([1] * 10, [True] * 10, 10) is None  # ten rows, ten people: one each
    assert cover([0, 20], [False, False], 10) == frozenset()


class Counted(Analytics):
    """Figures of given events: (descriptor, day, number)."""

    events: list[tuple[dict[str, Any], int, int]]

    def _counted(self, since: datetime | None, until: datetime | None) -> Any:
        first = None if since is None else _days(since, None)[0]
        return (one for one in self.events if first is None or one[1] >= first)


PURPOSES = {"n1": "p", "n2": "p", "n3": "q", "n4": "r"}
ACTIONS = ("granted", "denied", "withdrawn")
EVENT = st.tuples(
    st.sampled_from(sorted(PURPOSES)),
    st.sampled_from(["web", "shop", "app"]),
    st.integers(0, 3),
    st.sampled_from(ACTIONS),
    st.booleans(),
)


def spanned(rows: list[list[int]], wanted: list[int]) -> bool:
    """Whether `wanted` is a linear combination of `rows`, exactly."""
    held: list[list[Fraction]] = []

    def reduced(row: list[int]) -> list[Fraction]:
        left = [Fraction(x) for x in row]
        for one in held:
            lead = next(i for i, x in enumerate(one) if x)
            if left[lead]:
                factor = left[lead] / one[lead]
                left = [x - factor * y for x, y in zip(left, one, strict=True)]
        return left

    for row in rows:
        left = reduced(row)
        if any(left):
            held.append(left)
    return not any(reduced(wanted))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(EVENT, st.integers(1, 14), min_size=1, max_size=14), st.integers(0, 5))
def test_tables_beside_each_other_tell_no_small_count(events: dict[Any, int], before: int) -> None:
    """Weeks, purposes, notices, channels, total of a page, and two notices compared: no small row is a
    combination of what is told. The page's span leaves out the first `before` weeks.
    """
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=20000 + 7 * before - 1 + SPANS[0])
    figures = Counted(SimpleNamespace(now=lambda: micros(now)))  # type: ignore[arg-type]
    since = now - timedelta(days=SPANS[0])
    assert _days(since, None) == (20000 + 7 * before - 1, None)
    base = Counter[tuple[str, str, int, str]]()
    for (notice, channel, week, action, noted), count in events.items():
        base[notice if noted else f"-{PURPOSES[notice]}", channel, week, action] += count
    object.__setattr__(figures, "events", [])
    for (notice, channel, week, action), count in base.items():
        named = not notice.startswith("-")
        told = {
            "purpose": PURPOSES[notice] if named else notice[1:],
            "notice": notice if named else "",
            "notice_version": 1 if named else 0,
            "channel": channel,
            "action": action,
            "method": "explicit",
        }
        figures.events.append((told, 20000 + 7 * week, count))
    tables = {by: figures.rates(by, since, least=10) for by in ("week", "purpose", "notice", "channel")}
    answers = Counter({cell: n for cell, n in base.items() if cell[3] != "withdrawn"})
    first = {
        arm: tuple(
            sum(n for (one, _, _, a), n in answers.items() if one == name and a in kinds)
            for kinds in (("granted",), ACTIONS)
        )
        for arm, name in (("a", "n1"), ("b", "n2"))
    }
    test: dict[str, Any] = {"purpose": "p", "active": True}
    test |= {arm: {"notice": name, "version": 1} for arm, name in (("a", "n1"), ("b", "n2"))}
    outcome = figures._outcome("t", test, first, 0.05, 10)  # type: ignore[arg-type]
    arms = outcome["arms"]
    assert arms["a"]["suppressed"] == arms["b"]["suppressed"] == (outcome["comparison"] is None)
    # Every combination of a row of each, since no reader knows which are empty; a notice says its purpose.
    cells = list(
        itertools.product(
            sorted({n for n, *_ in base}),
            sorted({c for _, c, *_ in base}),
            sorted({w for _, _, w, _ in base}),
        )
    )

    def within(by: str, key: str, cell: tuple[str, str, int]) -> bool:
        notice, channel, week = cell
        if week < before:
            return False
        purpose = PURPOSES.get(notice, notice[1:])
        mine = {
            "purpose": purpose,
            "channel": channel,
            "notice": "" if notice.startswith("-") else f"{notice} 1",
        }
        if by == "week":
            return datetime.fromisoformat(key).toordinal() == _monday(week)
        return mine[by] == key

    for part, names in enumerate((("granted", "denied"), ("withdrawn",))):
        known, small = [], []
        for by, told in tables.items():
            assert told["total"] == tables["week"]["total"]
            if told["total"][names[0]] is not None:
                known.append([int(w >= before) for _, _, w in cells])
            for group in told["groups"]:
                row = [int(within(by, group["key"], cell)) for cell in cells]
                sums = [
                    sum(
                        n
                        for (*cell, action), n in base.items()
                        if action == a and within(by, group["key"], tuple(cell))
                    )  # type: ignore[arg-type]
                    for a in ACTIONS
                ]
                if group[names[0]] is None:
                    small += [(by, group["key"], row)] if few(sums, 10)[part] else []
                else:
                    assert [group[a] for a in names] == [sums[ACTIONS.index(a)] for a in names]
                    assert not few(sums, 10)[part], (group, dict(base))
                    known.append(row)
        if part == 0:
            people = {name: [n == name for n, *_ in cells] for name in ("n1", "n2")}
            for arm, name in zip(arms.values(), people, strict=True):
                if arm["people"] is not None:
                    known.append(list(map(int, people[name])))
                early = sum(n for (one, _, w, _), n in answers.items() if one == name and w < before)
                if 0 < early < 10:
                    row = [int(n == name and w < before) for n, _, w in cells]
                    small.append(("before", name, row))
        for by, key, row in small:
            assert not spanned(known, row), (
                by,
                key,
                part,
                dict(base),
                {b: [(g["key"], g[names[0]]) for g in t["groups"]] for b, t in tables.items()},
            )


def _monday(week: int) -> int:
    day = datetime(1970, 1, 1) + timedelta(days=20000 + 7 * week)
    return day.toordinal() - day.weekday()


def test_a_span_is_whole_days() -> None:
    noon = datetime.fromisoformat("2026-03-02T12:00:00+08:00")
    first, last = _days(noon, noon + timedelta(seconds=1))
    assert first == last == (micros(noon) // 3_600_000_000 + 8) // 24
    assert _days(None, datetime.fromisoformat("2026-03-02T00:00:00+08:00")) == (None, first - 1)


def test_a_small_arm_hides_both(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    told: dict[str, Any] = {"purpose": "ads", "purpose_version": 1, "recipient": "provider"}
    told |= {"categories": ("contact",), "notice_version": 1}
    with Center.create(tmp_path / "center", "brand") as center:
        center.put_purpose(Purpose("ads", 1, {"en": "Ads"}, ("contact",)))
        for name in ("long", "short"):
            center.put_notice(Notice(name, 1, "ads", 1, {"en": "text"}))
        arms = {"a": {"notice": "long", "version": 1}, "b": {"notice": "short", "version": 1}}
        center.collection.put_experiment({"id": "t", "purpose": "ads", **arms})

        def answered(notice: str, numbers: range, days: int) -> None:
            center.record_many(
                [
                    ConsentEvent(
                        (("phone", f"1380000{n:04d}"),),
                        action="granted" if n % 2 else "denied",
                        notice=notice,
                        occurred_at=now - timedelta(days=days),
                        **told,
                    )
                    for n in numbers
                ]
            )

        def shown() -> list[tuple[Any, Any]]:
            found = center.analytics.experiment("t")
            assert (found["comparison"] is None) == found["arms"]["a"]["suppressed"]
            return [(arm["people"], arm["rate"]) for arm in found["arms"].values()]

        answered("long", range(3), 3)
        answered("short", range(100, 150), 3)
        assert shown() == [(None, None)] * 2
        answered("long", range(3, 20), 3)
        assert shown() == [(20, 0.5), (50, 0.5)]
        answered("long", range(20, 25), 60)  # the page of 30 days beside it shows 20
        assert shown() == [(None, None)] * 2
        answered("long", range(25, 30), 60)
        assert shown() == [(30, 0.5), (50, 0.5)]


WEEK = st.sampled_from([0, 0, 0, 2, 7, 11, 14, 30])


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.sampled_from("pqrstuvw"), st.lists(WEEK, min_size=13, max_size=13), max_size=8),
    st.lists(st.integers(0, 9), min_size=13, max_size=13),
)
def test_the_dashboard_tells_no_small_count(weeks: dict[str, list[int]], gone: list[int]) -> None:
    """Consents by purpose and week, their total, each line's, and those of weeks whose withdrawal rate is
    told: no small cell is a combination of them.
    """
    spread = {p: [n if i % 7 == 0 else 0 for n in row for i in range(7)] for p, row in weeks.items()}
    listed = [date(2026, 1, 1) + timedelta(days=i) for i in range(91)]
    days = Days(listed, spread, {"p": [n if i % 7 == 0 else 0 for n in gone for i in range(7)]})
    with patch.object(dashboard, "_", str):
        lines = dashboard._by_purpose(days, {})
        rates = dashboard._rates(days, lines).values
    order = sorted(weeks, key=lambda p: (-sum(weeks[p]), p))
    truth = [weeks[p] for p in order[:6]]
    if order[6:]:
        truth.append([sum(column) for column in zip(*(weeks[p] for p in order[6:]), strict=True)])
    cells = list(itertools.product(range(len(truth)), range(13)))
    known = [[1] * len(cells)] if sum(map(sum, truth)) >= 10 else []
    known += [[int(at == i) for at, _ in cells] for i, row in enumerate(truth) if sum(row) >= 10]
    for week, rate in enumerate(rates):
        if rate is not None:
            assert rate == gone[week] / sum(row[week] for row in truth)
            known.append([int(at == week) for _, at in cells])
    small = []
    for i, week in cells:
        unit = [int(cell == (i, week)) for cell in cells]
        if lines[i].values[week] is None:
            small += [unit] if 0 < truth[i][week] < 10 else []
        else:
            assert lines[i].values[week] == truth[i][week] and not 0 < truth[i][week] < 10
            known.append(unit)
    assert not any(spanned(known, one) for one in small[:3])
