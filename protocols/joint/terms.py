"""The agreement's terms, and what both sides derive from them: rank, steps, quantisation, digest."""

from __future__ import annotations

import hashlib
import math
from dataclasses import astuple, dataclass

from protocols.errors import LocalError
from protocols.labels import label
from protocols.linear_query import Plan, Query, plan
from protocols.linear_query.ring import N
from protocols.oprf.padding import padded_size
from protocols.security import PADDING_FLOOR, PADDING_MANTISSA_BITS

FAMILIES = ("logistic", "linear", "poisson")

#: Bits with the sign below which the quantisation would cost accuracy silently; the run is refused instead.
LEAST_BITS = 8
MOST_VALUE_BITS, MOST_QUERY_BITS = 16, 16

#: (chunks of a vector up to which it holds, rank, steps, size a column of the last step) where the terms name
#: none: small runs can afford more of all, large ones have a smoother distribution of scores and need less.
LADDER = ((4, 12, 28, 1e-5), (8, 8, 12, 1e-3), (1 << 40, 5, 8, 1e-1))

#: (rank and steps at the least, size at the most) of a fit whose weights are compared with standard errors.
EXACT = (8, 20, 1e-3)

#: The first level has about so many training rows, and so many a column of the wider side; each level has
#: GROWTH times the rows of the one before, and one that has not 1/LARGEST_PART of the next is left out.
LEVEL_ROWS, LEVEL_ROWS_PER_COLUMN, GROWTH, LARGEST_PART = 1 << 14, 200, 8, 4
#: Gradients of a level at the most, but for the last one, which has those of the terms.
LEVEL_STEPS = 6
#: After so many gradients both sides take their metrics anew, and whenever a level begins.
RENEWED_AFTER = (2, 4, 8, 16)
#: A level ends at a squared step of this part of its sampling error; it needs so many events for a weight.
LEVEL_NEAR, LEVEL_EVENTS_PER_COLUMN = 0.3, 5


@dataclass(frozen=True)
class Terms:
    """Terms of the agreement; both sides must hold the same ones.

    family        logistic (labels 0 and 1), linear, poisson (counts)
    l2            penalty (l2/2)|w|^2 of standardised columns, 1/C of scikit-learn; not on the intercept
    rank          products in the expansion of a logistic mean, 3 to 12; None: by the number of rows
    steps         gradients at the most, 2 to 40; None: by the number of rows. The brand may stop earlier
    exact         for standard errors: rank, steps and the end of the fit as those need them
    minimum_rows  the brand stops below this many labelled rows that both sides have
    minimum_level a column in which fewer of the provider's rows than this differ from all others is refused
    max_rows, max_columns  what this side accepts from the other
    """

    family: str = "logistic"
    l2: float = 1.0
    rank: int | None = None
    steps: int | None = None
    exact: bool = False
    minimum_rows: int = 100
    minimum_level: int = 10
    max_rows: int = 1 << 31
    max_columns: int = 4096

    def __post_init__(self) -> None:
        checks = {
            "family": self.family in FAMILIES,
            "l2": math.isfinite(self.l2) and self.l2 > 0,
            "rank": self.rank is None or 3 <= self.rank <= 12,
            "steps": self.steps is None or 2 <= self.steps <= 40,
            "minimum_rows": self.minimum_rows >= 1,
            "minimum_level": self.minimum_level >= 1,
            "max_rows": 1 <= self.max_rows <= 1 << 36,
            "max_columns": 1 <= self.max_columns <= 16_000,
        }
        for name, good in checks.items():
            if not good:
                raise LocalError(
                    "protocol.argument",
                    f"terms: {name} = {getattr(self, name)} is out of range (protocols/joint/README.md)",
                )

    def rank_for(self, rows: int) -> int:
        """Number of products, the first of which is with the constant 1."""
        if self.family != "logistic":
            return 2
        return self.rank or max(_rung(rows)[1], EXACT[0] if self.exact else 0)

    def steps_for(self, rows: int) -> int:
        return self.steps or max(_rung(rows)[2], EXACT[1] if self.exact else 0)

    def size_for(self, rows: int) -> float:
        """Squared step in the metric, a column of both sides, at which the brand ends; 1: a standard error.

        0 for a linear model, whose metric knows nothing of the residual's variance.
        """
        if self.family == "linear":
            return 0.0
        return min(_rung(rows)[3], EXACT[2]) if self.exact else _rung(rows)[3]


def _rung(rows: int) -> tuple[int, int, int, float]:
    return next(rung for rung in LADDER if chunks(rows) <= rung[0])


def levels(total: int, padded_rows: int, columns: int) -> tuple[int, ...]:
    """Over how many of the provider's first rows gradients are taken, level after level; the last: all.

    `columns` of the wider side. A level has 200 training rows a column, and LEVEL_STEPS gradients at the
    most; a group of people may be smaller in a part of the rows than in all (README 6).
    """
    wanted = max(LEVEL_ROWS, LEVEL_ROWS_PER_COLUMN * columns)
    every = chunks(total)
    at, found = -(-every * wanted // padded_rows), list[int]()
    while at * LARGEST_PART <= every:
        found.append(at * N)
        at *= GROWTH
    return (*found, total)


def renews(family: str, taken: int) -> bool:
    """Whether the metric is taken anew with gradient number `taken`, from 1; a linear model's never is."""
    return family != "linear" and taken in RENEWED_AFTER


def chunks(rows: int) -> int:
    """Blocks of 8192 of the provider's rows, which sizes of runs and levels are stated in."""
    return -(-rows // N)


def terms_digest(terms: Terms, session: bytes) -> bytes:
    """32 bytes that differ when any term or the session differs."""
    values = [float(v) if name == "l2" else v for name, v in zip(_NAMES, astuple(terms), strict=True)]
    text = "\x00".join(repr(value) for value in values).encode()
    return hashlib.sha256(label("joint", "both", "terms", session) + text).digest()


_NAMES = tuple(Terms.__dataclass_fields__)


def query_session(session: bytes, use: str, step: int) -> bytes:
    """A session of its own for each linear query: no stream, key or digest is ever shared by two of them."""
    return hashlib.sha256(label("joint", "both", f"{use} {step}", session)).digest()


@dataclass(frozen=True)
class Scales:
    """Plan of one linear query, and the largest integers of the vectors and of the queries."""

    plan: Plan
    value: int
    query: int


def scales(vectors: int, rows: int, queries: int, nonzero: int, sparse_queries: bool = False) -> Scales:
    """The finest quantisation that the linear query proves correct and private for these public sizes.

    `vectors` encrypted vectors over `rows`, one after another; `queries` answers; `nonzero` rows of a vector
    at the most that count: entries of the vectors, or with `sparse_queries` rows of the queries. Raises
    LocalError `linear_query.overflow` or `linear_query.noise` when even 8 bits don't fit.
    """
    last: LocalError | None = None
    total = vectors * rows
    for bits in range(MOST_QUERY_BITS, LEAST_BITS - 1, -1):
        # Vectors may be finer than queries: the noise grows with the queries only.
        for more in (2, 1, 0):
            value = (1 << min(bits + more, MOST_VALUE_BITS) - 1) - 1
            query = (1 << bits - 1) - 1
            try:
                counted = min(vectors * nonzero, total)
                found = plan(Query(total, queries, value, counted, query, sparse_queries=sparse_queries))
            except LocalError as error:
                last = error
                continue
            return Scales(found, value, query)
    raise last or LocalError("linear_query.noise", "no quantisation fits these sizes")


def padded(count: int) -> int:
    """The number of training rows as the provider is told it, rounded up on the grid of align's sizes."""
    return padded_size(count)


def least(count: int) -> int:
    """The fewest training rows that are padded like `count`; what may depend on their number follows this."""
    top = padded_size(count)
    below = top - (1 << max((top - 1).bit_length() - 1 - PADDING_MANTISSA_BITS, 0))
    return below + 1 if below >= PADDING_FLOOR else 1
