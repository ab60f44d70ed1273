"""What both sides agree on before a forest is grown, and what only the brand decides."""

from __future__ import annotations

import hashlib
import math
from dataclasses import astuple, dataclass, field

from protocols.errors import LocalError
from protocols.labels import label

#: Bits of a provider's bin number at the most: a set of bins travels in one 64-bit word.
MOST_BITS = 6


@dataclass(frozen=True)
class Terms:
    """Terms of the agreement; both sides must hold the same ones.

    trees, depth  at most so many trees, and levels of splits in each (1 to 8)
    bits          D: the provider's columns have up to 2^D bins, 1 to 6
    max_rows, max_columns  what each side accepts from the other
    max_cells  rows × columns × bins at the most: each is two AES calls a side for every tree, and a row and
               column 16·D bytes of the provider's storage (README, section 7)
    """

    trees: int = 10
    depth: int = 5
    bits: int = 4
    max_rows: int = 1 << 24
    max_columns: int = 4096
    max_cells: int = 1 << 33

    def __post_init__(self) -> None:
        checks = {
            "trees": 1 <= self.trees <= 2000,
            "depth": 1 <= self.depth <= 8,
            "bits": 1 <= self.bits <= MOST_BITS,
            "max_rows": 1 <= self.max_rows <= 1 << 32,
            "max_columns": 1 <= self.max_columns <= 1 << 16,
            "max_cells": 1 <= self.max_cells <= 1 << 40,
        }
        _check("terms", self, checks)

    def over(self, rows: int, columns: int) -> str:
        """Why so many rows and columns are more than what was agreed, or an empty text."""
        cells = rows * columns * self.bins
        if cells <= self.max_cells:
            return ""
        return (
            f"{rows:,} rows × {columns} columns × {self.bins} bins are {cells:,} cells, {self.max_cells:,} "
            "are agreed: ask for fewer columns or bins, or split the people"
        )

    @property
    def bins(self) -> int:
        """B = 2^D."""
        return 1 << self.bits


@dataclass(frozen=True)
class Learning:
    """The brand's own choices; the provider is not told.

    objective     "logistic" (y is 0 or 1) or "squared"
    learning_rate, l2, minimum_gain   as in gradient boosting at large (XGBoost's eta, lambda, gamma); gains
                  of the squared objective in units of the labels' deviation, to a power of two
    minimum_rows  a node with fewer of the brand's training rows is not split; half of it is the least of a
    leaf
    row_share, column_share   sampled anew for every tree; at least one column of each side is kept
    patience      stop after so many trees without a better held-out loss; 0: grow all
    monotone_own, monotone_provider   {column index: +1 or −1}: the score must not fall (rise) with the column
    """

    objective: str = "logistic"
    learning_rate: float = 0.1
    l2: float = 0.0
    minimum_gain: float = 1e-7
    minimum_rows: int = 40
    row_share: float = 1.0
    column_share: float = 1.0
    patience: int = 0
    monotone_own: dict[int, int] = field(default_factory=dict)
    monotone_provider: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        signs = [*self.monotone_own.values(), *self.monotone_provider.values()]
        checks = {
            "objective": self.objective in ("logistic", "squared"),
            "learning_rate": 0 < self.learning_rate <= 1,
            "l2": math.isfinite(self.l2) and self.l2 >= 0,
            "minimum_gain": math.isfinite(self.minimum_gain) and self.minimum_gain >= 0,
            "minimum_rows": self.minimum_rows >= 20,
            "row_share": 0 < self.row_share <= 1,
            "column_share": 0 < self.column_share <= 1,
            "patience": self.patience >= 0,
            "monotone_own": all(s in (-1, 1) for s in signs),
        }
        _check("learning", self, checks)


def _check(what: str, held: object, checks: dict[str, bool]) -> None:
    for name, good in checks.items():
        if not good:
            raise LocalError(
                "protocol.argument",
                f"{what}: {name} = {getattr(held, name)} is out of range (protocols/boost/README.md)",
            )


def terms_digest(terms: Terms, session: bytes) -> bytes:
    """32 bytes that differ when any term or the session differs."""
    text = "\x00".join(str(value) for value in astuple(terms)).encode()
    return hashlib.sha256(label("boost", "both", "terms", session) + text).digest()
