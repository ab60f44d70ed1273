"""No small count can be computed from what the figures show, alone or together as the console shows them."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center.analytics.disclosure import cover, few
from consent_center.analytics.service import Analytics
from consent_center.batch import micros


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
        return iter(self.events)


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
@given(st.dictionaries(EVENT, st.integers(1, 14), min_size=1, max_size=14))
def test_tables_beside_each_other_tell_no_small_count(events: dict[Any, int]) -> None:
    """Weeks, purposes, notices, channels, total of a page: no small row is a combination of what is told."""
    figures = Counted(None)  # type: ignore[arg-type]
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
    tables = {by: figures.rates(by, least=10) for by in ("week", "purpose", "notice", "channel")}
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
                known.append([1] * len(cells))
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
    from consent_center.analytics.service import _days

    noon = datetime.fromisoformat("2026-03-02T12:00:00+08:00")
    first, last = _days(noon, noon + timedelta(seconds=1))
    assert first == last == (micros(noon) // 3_600_000_000 + 8) // 24
    assert _days(None, datetime.fromisoformat("2026-03-02T00:00:00+08:00")) == (None, first - 1)
