"""The two messages of its own; the linear query's follow them. README, section 3."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.codec import B32, U32, U64, Codec


@dataclass(frozen=True)
class Opening:
    """Brand: digest of terms and session, rows of the provider that it counts on, padded seed count."""

    digest: B32
    rows: U64
    padded_seeds: U64


@dataclass(frozen=True)
class Shape:
    """Provider: the same digest, and its number of columns, without the intercept."""

    digest: B32
    columns: U32


TO_PROVIDER = Codec(Opening)
TO_BRAND = Codec(Shape)
