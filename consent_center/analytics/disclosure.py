"""Which rows of a table stay untold so that none about few people can be computed from others and a total.

A row about fewer than `least` is *sensitive* and hidden. Where a total is shown, hidden rows are total minus
shown ones: so a single one, or several with a small sum, are covered by further rows (complementary
suppression; Hundepool et al., Statistical Disclosure Control, 2012, 4.2). The smallest go first. A reader
who knows this rule must learn no count from the choice either: that is what the bound on the lowest possible
value is for. The tests go through all tables of some sizes to show that each hidden count could be another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def cover(counts: Sequence[int], sensitive: Sequence[bool], least: int) -> frozenset[int] | None:
    """The positions to hide in a table whose total is shown. None: nothing may be told but the total.

    `counts` are 0 or more; `sensitive` ones lie in 1 to `least` - 1. Rows of 0 are never hidden.
    """
    hidden = [i for i, one in enumerate(sensitive) if one]
    if not hidden:
        return frozenset()
    first, total = len(hidden), sum(counts[i] for i in hidden)
    rest = [i for i, count in enumerate(counts) if count > 0 and not sensitive[i]]
    rest.sort(key=lambda i: counts[i], reverse=True)
    while True:
        added = len(hidden) - first
        # All others have at least 1: no single one can be known to be under `least`.
        wide = len(hidden) > 1 and total - len(hidden) + 1 >= least
        if wide and not rest:
            return frozenset(hidden)
        # The others have at most `least` - 1, the added ones at most what the smallest shown row has.
        lowest = total - (first - 1) * (least - 1) - added * (counts[rest[-1]] if rest else 0)
        if wide and lowest < least // 2 - bool(added):
            return frozenset(hidden)
        if not rest:
            return None
        hidden.append(rest.pop())
        total += counts[hidden[-1]]


@dataclass(frozen=True)
class Hidden:
    """`unlisted`: keys that may not be named; `decided`, `withdrawn`: those whose numbers of that part stay
    untold.
    """

    unlisted: frozenset[str]
    decided: frozenset[str]
    withdrawn: frozenset[str]


def hide(tallies: Mapping[tuple[str, str], Sequence[int]], least: int) -> Hidden:
    """What stays untold of rows (granted, denied, withdrawn) by (part of, key).

    The rows of each part are covered beside its total, and the parts beside theirs; a hidden part hides its
    rows, and a key that is in several parts is hidden if it is in one.
    """
    parts: dict[str, dict[str, Sequence[int]]] = {}
    for (part, key), tally in tallies.items():
        parts.setdefault(part, {})[key] = tally
    names = list(parts)
    sums = [[sum(column) for column in zip(*parts[name].values(), strict=True)] for name in names]
    above = [_covered(names, sums, least, which) for which in (0, 1)]
    unlisted, untold = set[str](), (set[str](), set[str]())
    for name, rows in parts.items():
        keys = list(rows)
        for which, place in enumerate(untold):
            mine = _covered(keys, list(rows.values()), least, which)
            over = above[which]
            if mine is None or over is None or name in over:
                place.update(rows)
                if which == 0 and (mine is None or over is None):
                    unlisted.update(rows)
            else:
                place.update(mine)
    return Hidden(frozenset(unlisted), frozenset(untold[0]), frozenset(untold[1]))


def few(tally: Sequence[int], least: int) -> tuple[bool, bool]:
    """Whether the answers, and the withdrawals, of a row (granted, denied, withdrawn) are about too few."""
    granted, denied, withdrawn = tally
    return 0 < granted + denied < least, withdrawn > 0 and max(withdrawn, granted) < least


def _covered(keys: Sequence[str], rows: Sequence[Sequence[int]], least: int, which: int) -> set[str] | None:
    if not rows:
        return set()
    sensitive = [few(row, least)[which] for row in rows]
    if few([sum(column) for column in zip(*rows, strict=True)], least)[which]:
        return {key for key, one in zip(keys, sensitive, strict=True) if one}  # the total is untold itself
    counts = [granted + denied if which == 0 else withdrawn for granted, denied, withdrawn in rows]
    hidden = cover(counts, sensitive, least)
    return None if hidden is None else {keys[i] for i in hidden}
