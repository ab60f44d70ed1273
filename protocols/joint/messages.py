"""The messages of its own; those of the linear queries come between them. README, section 3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocols.codec import B32, U8, U32, U64, Codec, array_of
from protocols.errors import PeerError
from protocols.joint.kernels import F64

#: What a Point asks for.
CURVATURE, GRADIENT, END = 0, 1, 2


@dataclass(frozen=True)
class Opening:
    """Brand: digest of terms and session, provider's rows, padded training rows, own columns."""

    digest: B32
    rows: U64
    padded_rows: U64
    columns: U32


@dataclass(frozen=True)
class Shape:
    """Provider: the same digest, and its number of columns."""

    digest: B32
    columns: U32


@dataclass(frozen=True)
class Point:
    """Brand: what comes next, where, and over which level of the rows.

    `mix`: float64 weights, then the length; empty for the start and for a point again, at the next level.
    `location`, and the spreads `below` and `above` it, of the brand's part of the scores, by index.
    """

    what: U8
    level: U8
    mix: bytes
    location: U8
    below: U8
    above: U8


@dataclass(frozen=True)
class Spread:
    """Provider: spreads of its part of the scores below and above 0, by index."""

    below: U8
    above: U8


@dataclass(frozen=True)
class Scale:
    """Holder of a linear query's key, before its key: vectors are at most 2^(exponent - 128) in size."""

    exponent: U8


@dataclass(frozen=True)
class Products:
    """Provider: inner products of its newest step with the kept ones, float64; of all when a level begins."""

    values: bytes


@dataclass(frozen=True)
class Inquiry:
    """Brand, after a fit: as `Opening`, columns with the intercept, and the dispersion, a float64."""

    digest: B32
    rows: U64
    padded_rows: U64
    columns: U32
    dispersion: bytes


@dataclass(frozen=True)
class Explained:
    """Provider: how much of the brand's orthonormal columns its own ones explain, float64[d, d]."""

    values: bytes


TO_PROVIDER = Codec(Opening, Point, Scale, Inquiry)
TO_BRAND = Codec(Shape, Spread, Scale, Products, Explained)


def floats(data: bytes, count: int, largest: float = 1e300) -> F64:
    """float64[count], finite and not above `largest` in size, or PeerError."""
    values = array_of(data, "f8", count).astype(np.float64)
    if not bool((np.abs(values) <= largest).all()):
        # A NaN or an infinity would spread into this side's weights, a huge one overflow its quantisation.
        raise PeerError("protocol.malformed", "a number that is not finite, or too large")
    return values


def pack(values: F64) -> bytes:
    return np.ascontiguousarray(values, dtype="<f8").tobytes()
