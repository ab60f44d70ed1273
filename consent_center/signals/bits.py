"""Bits of base64url text, and the number formats of IAB's strings. Reads or raises, never guesses.

Source: IAB Tech Lab, "Consent string and vendor list formats v2" and "Consent String Specification" of the
Global Privacy Platform (Fibonacci integers and ranges).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from consent_center.errors import ConsentError

#: Longest string that is read: it must fit into an event's evidence (20,000 bytes).
MAX_CHARS = 16_000
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_BITS = {character: f"{value:06b}" for value, character in enumerate(_ALPHABET)}
_TEXT = re.compile(r"[A-Za-z0-9_-]+")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def malformed(what: str, why: str) -> ConsentError:
    return ConsentError("signal.encoding", f"{what}: {why}; ask for the string as the platform made it")


def not_allowed(what: str, why: str) -> ConsentError:
    return ConsentError("signal.value", f"{what}: {why}; ask for the string as the platform made it")


@dataclass(frozen=True)
class Ids:
    """A set of vendor ids as sorted, disjoint, inclusive ranges.

    Kept as ranges: a string of 8 KB can name 65,535 vendors a thousand times over; that must not fill memory.
    """

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, id: object) -> bool:
        return isinstance(id, int) and any(first <= id <= last for first, last in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def texts(self) -> list[str]:
        """`["2", "12-15"]`, for people and JSON."""
        return [str(first) if first == last else f"{first}-{last}" for first, last in self.ranges]


def ids_of(ranges: list[tuple[int, int]]) -> Ids:
    """Ranges in any order as one set."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return Ids(tuple(merged))


class Bits:
    """A cursor over the bits of one segment. `what` names the segment in errors."""

    def __init__(self, text: str, what: str) -> None:
        if not text:
            raise malformed(what, "it is empty")
        if not _TEXT.fullmatch(text):
            raise malformed(what, "it has characters that are not of base64url (= is not allowed)")
        self.what = what
        self._bits = "".join(map(_BITS.__getitem__, text))
        self._at = 0

    def left(self) -> int:
        """How many bits were not read."""
        return len(self._bits) - self._at

    def widen(self, at: int, zeros: int) -> None:
        """Put zeros in at bit `at`, which was not read: an older layout read as the newer one."""
        self._bits = self._bits[:at] + "0" * zeros + self._bits[at:]

    def take(self, count: int, field: str) -> str:
        end = self._at + count
        if end > len(self._bits):
            raise malformed(self.what, f"it ends inside {field}: {len(self._bits)} bits, {end} are needed")
        part = self._bits[self._at : end]
        self._at = end
        return part

    def number(self, count: int, field: str) -> int:
        return int(self.take(count, field), 2)

    def flag(self, field: str) -> bool:
        return self.take(1, field) == "1"

    def flags(self, count: int, field: str) -> tuple[bool, ...]:
        return tuple(bit == "1" for bit in self.take(count, field))

    def letters(self, field: str) -> str:
        """Two letters of six bits, A is 0."""
        codes = (self.number(6, field), self.number(6, field))
        if max(codes) > 25:
            raise not_allowed(self.what, f"{field} is not two letters")
        return "".join(chr(65 + code) for code in codes)

    def moment(self, field: str) -> datetime:
        """36 bits of tenths of a second since 1970 UTC."""
        return _EPOCH + timedelta(milliseconds=100 * self.number(36, field))

    def end(self) -> None:
        """Only zeros may be left (they fill up base64): anything else is a field that we would not see."""
        rest = self._bits[self._at :]
        if "1" in rest:
            raise malformed(self.what, "after its last field there are bits that are not zero")

    # ---- lists of ids --------------------------------------------------------------------------------

    def ranges(self, field: str, most: int) -> Ids:
        """NumEntries (12 bits) ranges or single ids of 16 bits, none above `most`."""
        found = []
        for _ in range(self.number(12, field)):
            pair = self.flag(field)
            first = self.number(16, field)
            found.append((first, self.number(16, field) if pair else first))
        return self._checked(found, field, most)

    def fibonacci(self, field: str) -> int:
        """A Fibonacci-coded integer: ends in two ones."""
        end = self._bits.find("11", self._at)
        if end < 0 or end - self._at > 64:
            raise malformed(self.what, f"{field} holds no Fibonacci integer")
        code = self._bits[self._at : end + 1]
        self._at = end + 2
        total, (low, high) = 0, (1, 2)
        for bit in code:
            total += low if bit == "1" else 0
            low, high = high, low + high
        return total

    def fibonacci_ranges(self, field: str, most: int) -> Ids:
        """NumEntries (12 bits) ranges or ids, each Fibonacci-coded as the distance from the one before."""
        found, last = [], 0
        for _ in range(self.number(12, field)):
            pair = self.flag(field)
            first = last + self.fibonacci(field)
            last = first + self.fibonacci(field) if pair else first
            found.append((first, last))
        return self._checked(found, field, most)

    def optimised(self, field: str, fibonacci: bool = False) -> Ids:
        """MaxVendorId (16 bits), then a bit field of that length or ranges."""
        most = self.number(16, field)
        if self.flag(field):
            return self.fibonacci_ranges(field, most) if fibonacci else self.ranges(field, most)
        bits = self.take(most, field)
        return ids_of([(run.start() + 1, run.end()) for run in re.finditer("1+", bits)])

    def _checked(self, found: list[tuple[int, int]], field: str, most: int) -> Ids:
        for first, last in found:
            if first < 1 or last < first or last > most:
                raise not_allowed(self.what, f"{field} names ids {first} to {last}, allowed are 1 to {most}")
        return ids_of(found)
