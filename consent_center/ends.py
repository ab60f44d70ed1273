"""When grants end, of one context: millions in one column, changes beside it.

The base is a bitmap of the subjects that have an end and a column of the ends in the bitmap's order; it may
still lie in the state's file until the first question. What came since stands in a dictionary, so that a
single event moves nothing; it is merged when it has grown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from consent_center.batch import NEVER

Ints = npt.NDArray[np.int64]
Column = Callable[[], Ints]

#: Up to so many people are looked up one by one.
FEW = 64
_RECENT = 4096


def bitmap(ordinals: npt.NDArray[Any]) -> BitMap:
    """Ordinals (any order, integers from 0) as a bitmap."""
    return (
        BitMap(memoryview(np.ascontiguousarray(ordinals, dtype=np.uint32).data))
        if len(ordinals)
        else BitMap()
    )


def members_of(found: BitMap) -> npt.NDArray[np.uint32]:
    """A bitmap's members, ascending, uint32[k]."""
    return np.frombuffer(found.to_array(), dtype=np.uint32) if found else np.empty(0, np.uint32)


class Ends:
    """Ends in microseconds; use under the center's lock."""

    def __init__(self, has: BitMap | None = None, column: Column | None = None) -> None:
        """`has`: who has an end; `column()` gives the ends in that order, int64[n], when first needed."""
        self._has = BitMap() if has is None else has
        self._column = column
        self._at: Ints = np.empty(0, np.int64)
        self._recent: dict[int, int] = {}  # NEVER: no end any more

    def _load(self) -> None:
        if self._column is not None:
            self._at, self._column = self._column(), None

    def put(self, subjects: Ints, ends: Ints) -> None:
        """Set the ends of those subjects (each once); NEVER for none."""
        if len(subjects) + len(self._recent) <= max(_RECENT, len(self._has) // 64):
            self._recent.update(zip(subjects.tolist(), ends.tolist(), strict=True))
            return
        if not self._has and not self._recent and (np.diff(subjects) > 0).all():
            ending = ends != NEVER
            self._has, self._at = bitmap(subjects[ending]), ends[ending]
            return
        changed = np.concatenate([np.array(list(self._recent), np.int64), subjects])
        values = np.concatenate([np.array(list(self._recent.values()), np.int64), ends])
        # The last of a subject counts.
        last = len(changed) - 1 - np.unique(changed[::-1], return_index=True)[1]
        self._merge(changed[last], values[last])

    def _merge(self, subjects: Ints, ends: Ints) -> None:
        self._load()
        ending = ends != NEVER
        if (np.diff(subjects) > 0).all() and (not self._has or subjects[0] > self._has.max()):
            # People who came later than all before, as in an import: nothing is sorted anew.
            self._has = self._has | bitmap(subjects[ending])
            self._at, self._recent = np.concatenate([self._at, ends[ending]]), {}
            return
        held = members_of(self._has).astype(np.int64)
        keep = ~np.isin(held, subjects)
        merged = np.concatenate([held[keep], subjects[ending]])
        order = np.argsort(merged, kind="stable")
        self._at = np.concatenate([self._at[keep], ends[ending]])[order]
        self._has, self._recent = bitmap(merged[order]), {}

    def merged(self) -> tuple[BitMap, Ints]:
        """(who has an end, the ends in that order), all changes included."""
        self._load()
        if self._recent:
            self._merge(*(np.array(list(part), np.int64) for part in (self._recent, self._recent.values())))
        return self._has, self._at

    def _one(self, subject: int) -> int:
        found = self._recent.get(subject)
        if found is not None:
            return found
        if subject not in self._has:
            return NEVER
        self._load()
        return int(self._at[self._has.rank(subject) - 1])

    def of(self, subjects: Ints) -> Ints:
        """int64[n]: the ends of those subjects, NEVER for none."""
        if len(subjects) <= FEW:
            return np.array([self._one(subject) for subject in subjects.tolist()], np.int64)
        has, at = self.merged()
        if not len(has):
            return np.full(len(subjects), NEVER, np.int64)
        held = members_of(has)
        where = np.minimum(np.searchsorted(held, subjects), len(held) - 1)
        found: Ints = np.where(held[where] == subjects, at[where], NEVER)
        return found

    def ended(self, as_of: int, people: BitMap) -> BitMap:
        """Those of `people` whose end is at or before `as_of`."""
        if len(people) <= FEW:
            return BitMap([one for one in people if NEVER < self._one(one) <= as_of])
        self._load()
        due = self._at <= as_of
        over = self._has.copy() if due.all() else bitmap(members_of(self._has)[due])
        if self._recent:
            over -= BitMap(self._recent)
            over |= BitMap([one for one, end in self._recent.items() if NEVER < end <= as_of])
        over &= people
        return over
