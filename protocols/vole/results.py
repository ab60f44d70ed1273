"""What each side of a VOLE ends with: a = b + Δ·c, element by element, in GF(2^128)."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocols.ot.field import Words


@dataclass(frozen=True, eq=False)
class ReceiverVole:
    """The receiver's half.

    `a: uint64[n, 2]` in GF(2^128); `c: uint64[n]` in GF(2^64) or `uint64[n, 2]` in GF(2^128), by
    `field`; with gf2 `uint64[n]` of zeros and ones.
    Bit order: `protocols/vole/field.py`. Both arrays are the caller's own, contiguous and writable.
    """

    a: Words = field(repr=False)
    c: Words = field(repr=False)


@dataclass(frozen=True, eq=False)
class SenderVole:
    """The sender's half: `b: uint64[n, 2]`, and one `delta: uint64[2]` for all of them."""

    b: Words = field(repr=False)
    delta: Words = field(repr=False)
