"""What both sides agree on before a run, and the proof, in numbers, that the run decrypts and hides.

`Query` holds the public sizes; `plan` derives plaintext modulus and flooding from them and refuses what
can't be both correct and private (README, section 4). Both sides derive the same plan on their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from protocols.errors import LocalError
from protocols.linear_query.ring import MODULUS, N
from protocols.security import RLWE_ERROR_ETA, STATISTICAL_BITS

#: Largest number of rows, bounded by the 32-bit index of a chunk's stream; memory does not depend on it.
MAX_ROWS = 1 << 40
#: Largest number of queries: the provider holds 128 KiB for each until the answer is sent.
MAX_QUERIES = 1 << 14
#: Entries of Q stay below this, so that 2^13 products with 30-bit residues fit 63 bits.
MAX_QUERY = (1 << 20) - 1
#: Entries of y stay below this, so that they are below every prime in size.
MAX_VALUE = (1 << 28) - 1
#: Answers and their masks are handled as 64-bit integers.
MAX_PLAIN_BITS = 62


@dataclass(frozen=True)
class Query:
    """Public sizes of one run; equal on both sides.

    rows        length of y, 1 to MAX_ROWS
    queries     number of columns of Q, 1 to MAX_QUERIES
    max_value   bound on |y_i|
    max_nonzero bound on the number of non-zero y_i (a padded count), at most rows
    max_query   bound on |Q_ij|
    headroom    bound, up to 2^-40, on noise that the brand adds to an answer before it returns it
    to_provider True: the provider learns the answer (the brand returns it, masked); False: the brand does
    """

    rows: int
    queries: int
    max_value: int
    max_nonzero: int
    max_query: int
    headroom: int = 0
    to_provider: bool = True

    def __post_init__(self) -> None:
        limits = {
            "rows": (1, MAX_ROWS),
            "queries": (1, MAX_QUERIES),
            "max_value": (1, MAX_VALUE),
            "max_nonzero": (1, self.rows),
            "max_query": (1, MAX_QUERY),
            "headroom": (0, 1 << MAX_PLAIN_BITS),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise LocalError("protocol.argument", f"{name} is {value}; {low} to {high} allowed")

    @property
    def chunks(self) -> int:
        return -(-self.rows // N)


@dataclass(frozen=True)
class Plan:
    """Derived from a Query by `plan`.

    plain_bits  the plaintext modulus is t = 2^plain_bits; answers are read in [-t/2, t/2)
    delta       floor(P / t)
    noise_hard  certain bound on |noise| before flooding
    noise_tail  bound on |noise| before flooding that fails with probability below 2^-64 a query
    flood       the flooding noise is uniform in [-flood, flood]
    """

    query: Query
    plain_bits: int
    delta: int
    noise_hard: int
    noise_tail: int
    flood: int

    @property
    def plain_modulus(self) -> int:
        return 1 << self.plain_bits

    @property
    def hiding_bits(self) -> int:
        """The answers' flooding hides the rest of the noise up to 2^-hiding_bits in statistical distance."""
        return (self.flood // (self.noise_tail * self.query.queries)).bit_length() - 1


def plan(query: Query) -> Plan:
    """The plan, or LocalError `linear_query.overflow` / `linear_query.noise` when none is safe."""
    answer = query.max_value * min(query.max_nonzero, query.rows) * query.max_query + query.headroom
    plain_bits = (2 * answer + 1).bit_length()
    if plain_bits > MAX_PLAIN_BITS:
        raise LocalError(
            "linear_query.overflow",
            f"answers up to {answer} need {plain_bits} bits and {MAX_PLAIN_BITS} are there; "
            "use fewer quantisation bits or smaller values",
        )
    delta = MODULUS >> plain_bits
    # README 4.1: sum of e_i q_i over the rows, and of one fresh encryption of zero.
    zero = 2 * RLWE_ERROR_ETA * N
    hard = RLWE_ERROR_ETA * query.rows * query.max_query + zero
    # README 4.2: a sum of 42 centred bits a row is sub-Gaussian with variance proxy 21/2;
    # 2 exp(-T^2 / (21 * |q|^2)) is below 2^-64 at T^2 = 21 * 65 * ln 2 * |q|^2.
    tail = math.isqrt(RLWE_ERROR_ETA * 65 * 7 * query.rows * query.max_query**2 // 10) + 1 + zero
    tail = min(tail, hard)
    # Correct with certainty: flood + hard + (a wrap of the mask costs less than t) stays below delta / 2.
    flood = delta // 2 - hard - (1 << plain_bits) - 1
    if flood < (tail * query.queries) << STATISTICAL_BITS:
        raise LocalError(
            "linear_query.noise",
            f"{query.rows} rows, {query.queries} queries and {plain_bits} plaintext bits leave no room for "
            f"{STATISTICAL_BITS} bits of flooding; use fewer quantisation bits or split the rows",
        )
    return Plan(query, plain_bits, delta, hard, tail, flood)
