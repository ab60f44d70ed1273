"""What text in a column is: dates and amounts that are numbers, numbers with slips, identifiers."""

from __future__ import annotations

import re
from datetime import datetime

import numpy as np

from parties.errors import examples
from parties.gate import Column

#: A text column with more distinct values than this may be an identifier.
MANY_TEXTS = 50

#: A text column with more distinct values than this share of its rows looks like an identifier.
NEAR_UNIQUE = 0.5
#: So large a share of values that are no numbers may be a slip in a column of numbers.
FEW_ODD = 0.2
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")

_DATE = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)Z?)?")
_YEAR_LAST = re.compile(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{4}(?:[T ][\d:.]+)?")
_AMOUNT = re.compile(r"([+-]?)[$€£¥￥]?\s?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)\s?(?:[$€£¥￥%元])?")


def measured(column: Column) -> Column:
    """A text column of dates or of amounts as the numeric column that it means, any other one as it is."""
    if column.kind != "categorical" or not column.levels:
        return column
    for parse in (_date, _amount):
        if parse(column.levels[0]) is None:
            continue
        numbers = [parse(level) for level in column.levels]
        if None not in numbers and len(numbers) > 2:
            table = np.array([*numbers, np.nan], dtype=np.float64)  # code -1 reads the last entry
            return Column(column.name, "numeric", table[column.values])
    return column


def _date(text: str) -> float | None:
    """Days since 1970 of 2024-02-29, 2024/2/29, 2024-02-29 12:00:00 and the like."""
    found = _DATE.fullmatch(text)
    if not found:
        return None
    try:
        return (
            datetime.fromisoformat(
                f"{found[1]}-{int(found[2]):02}-{int(found[3]):02}T{found[4] or '00:00'}+00:00"
            ).timestamp()
            / 86_400
        )
    except ValueError:
        return None


def _amount(text: str) -> float | None:
    """The number in ¥1,234.50, 12 %, 1,000 and the like."""
    found = _AMOUNT.fullmatch(text)
    return float(found[1].replace(",", "") + found[2].replace(",", "")) if found else None


def unusable(column: Column) -> str:
    """Why no job can use the column, as far as that is of its kind; "" otherwise."""
    if column.kind == "unsupported":
        return f"dropped, nested or binary ({column.unit})" if column.unit else "dropped, nested or binary"
    if column.kind == "empty":
        return "dropped, no value at all"
    if column.kind == "categorical":
        known = column.values[column.values >= 0]
        distinct = len(np.unique(known))
        if distinct > MANY_TEXTS and distinct > NEAR_UNIQUE * len(known):
            note = year_last(column)
            return f"dropped, {distinct} distinct texts in {len(known)} rows look like an identifier{note}"
    return ""


def year_last(column: Column) -> str:
    """A note on a text column of dates whose year comes last, which could be read in two ways; else ""."""
    if all(_YEAR_LAST.fullmatch(level) for level in column.levels):
        return "; dates are read as 2024-02-29, and not with the year last"
    return ""


def no_level(column: Column, distinct: int, different: int, least: int, usual: bool) -> str:
    """Why no level of a column can be used: `different` people don't have the usual one, if there is one."""
    if not usual and distinct > 1:
        note = year_last(column)
        return f"dropped, each of its {distinct} levels is rare (fewer than {least} people){note}"
    if different:
        return f"dropped, constant but for {different} of {len(column.values)} people"
    return "dropped, constant"


def mostly_numbers(column: Column, least: int) -> str:
    """A note on a column of numbers that a few other values have made text; "" for any other one.

    It names the most frequent of these that `least` people have, or that have no letter or digit: `?` and the
    like. Of others, which may say something of one person, it tells the number only.
    """
    times = np.bincount(column.values + 1, minlength=len(column.levels) + 1)[1:]
    numbers = np.fromiter((_NUMBER.fullmatch(level) is not None for level in column.levels), dtype=bool)
    present, odd = int(times.sum()), int(times[~numbers].sum())
    if not 0 < odd <= FEW_ODD * present:
        return ""
    named = [
        repr(column.levels[code][:30])
        for code in np.argsort(-times, kind="stable").tolist()
        if not numbers[code]
        and times[code]
        and (times[code] >= least or not any(c.isalnum() for c in column.levels[code]))
    ]
    which = f" ({', '.join(named[:3])}{', …' if len(named) > 3 else ''})" if named else ""
    return (
        f"read as text, as {odd} of {present} values are no numbers{which}: mend these, or empty them where "
        "they mean that it is missing"
    )


def not_numbers(column: Column) -> str:
    """Examples of the values of an own column of text that are no numbers; for its own operator."""
    odd = [level for level in column.levels if not _NUMBER.fullmatch(level)]
    return examples(odd, len(odd))
