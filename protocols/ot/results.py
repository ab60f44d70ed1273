"""What each side of n OTs ends with."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocols.ot.aes import Words


@dataclass(frozen=True, eq=False)
class SenderOts:
    """`strings: uint64[n, 2, 2]`: strings 0 and 1 of each OT; correlated ones differ by `delta`."""

    strings: Words = field(repr=False)
    delta: Words = field(repr=False)


@dataclass(frozen=True, eq=False)
class ReceiverOts:
    """`strings: uint64[n, 2]`: of each OT the string that the choice names."""

    strings: Words = field(repr=False)
