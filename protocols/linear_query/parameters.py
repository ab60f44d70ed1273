"""What both sides agree on before a run, and the proof, in numbers, that the run decrypts and hides.

`Query` holds the public sizes; `plan` derives everything else from them (number of primes, queries a
polynomial, plaintext modulus, bits of an answer, flooding) and refuses what can't be both correct and private
(README, section 4). Both sides derive the same plan on their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from protocols.errors import LocalError
from protocols.linear_query.ring import LEVELS, Level, N
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
#: Queries in one polynomial at the most; an answer's message stays below 150 KB.
MAX_PACKING = 1 << 10
#: Bits of u, of N log2 3, that a group's answers may tell a brand that deviates and learns them (README 5).
LEAKED_BITS = N // 4
#: Bits in which a residue travels.
RESIDUE_BITS = 30

#: What `plan` takes a run to cost, in nanoseconds (README 2.5): a byte at 100 Mbit/s; for each prime a
#: group's chunk (transform, products) and a chunk (drawing a on both sides, encryption).
BYTE_COST, PRODUCT_COST, CHUNK_COST = 80, 20_000, 100_000


@dataclass(frozen=True)
class Query:
    """Public sizes of one run; equal on both sides.

    rows        length of y, 1 to MAX_ROWS
    queries     number of columns of Q, 1 to MAX_QUERIES
    max_value   bound on |y_i|
    max_nonzero bound on the number of rows that count (a padded one), at most rows: those with y_i != 0, or
                where sparse_queries says so those with an entry of Q that is not 0
    max_query   bound on |Q_ij|
    headroom    bound, up to 2^-40, on noise that the brand adds to an answer before it returns it
    to_provider True: the provider learns the answer (the brand returns it, masked); False: the brand does
    sparse_queries  the provider keeps the bound max_nonzero, and not the brand
    """

    rows: int
    queries: int
    max_value: int
    max_nonzero: int
    max_query: int
    headroom: int = 0
    to_provider: bool = True
    sparse_queries: bool = False

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


@dataclass(frozen=True)
class Plan:
    """Derived from a Query by `plan`.

    limbs       primes of the ciphertexts' modulus P, 3 or 4
    packing     c, queries in one polynomial, a power of two; a chunk has N / c rows
    plain_bits  the plaintext modulus is t = 2^plain_bits; answers are read in [-t/2, t/2)
    answer_bits k, bits to which the coefficients of answers are rounded
    delta       floor(P / t)
    rounding    certain bound W on what the rounding adds to the noise
    noise_hard  certain bound V on |noise| before flooding and rounding
    noise_tail  bound V' on |noise| before flooding that fails with probability below 2^-64 a query
    flood       B, the flooding noise is uniform in [-flood, flood]
    """

    query: Query
    limbs: int
    packing: int
    plain_bits: int
    answer_bits: int
    delta: int
    rounding: int
    noise_hard: int
    noise_tail: int
    flood: int

    @property
    def level(self) -> Level:
        return LEVELS[self.limbs]

    @property
    def plain_modulus(self) -> int:
        return 1 << self.plain_bits

    @property
    def chunk_rows(self) -> int:
        """Rows of one ciphertext."""
        return N // self.packing

    @property
    def chunks(self) -> int:
        return -(-self.query.rows // self.chunk_rows)

    @property
    def groups(self) -> int:
        """Answer messages, of `packing` answers each but for the last one."""
        return -(-self.query.queries // self.packing)

    @property
    def hiding_bits(self) -> int:
        """The answers' flooding hides the rest of the noise up to 2^-hiding_bits in statistical distance."""
        return (self.flood // (self.noise_tail * self.query.queries)).bit_length() - 1

    @property
    def masking_bits(self) -> int:
        """With a mask: all answers together are within 2^-masking_bits of uniform, whatever was sent."""
        missed = 2 * (self.noise_hard + self.rounding + 2)
        return (self.delta // (missed * self.query.queries)).bit_length() - 1

    @property
    def bytes_to_provider(self) -> int:
        """Of key, chunks and masked answers."""
        residues = RESIDUE_BITS * N // 8 * self.limbs
        returned = 8 * self.query.queries + 6 if self.query.to_provider else 0
        return residues + 69 + self.chunks * (residues + 9) + returned

    @property
    def bytes_to_brand(self) -> int:
        return self.groups * (self.answer_bits * N // 8 + 13) + 16 * self.query.queries

    @property
    def cost(self) -> int:
        """What `plan` minimises, in nanoseconds (README 2.5)."""
        products = PRODUCT_COST * self.groups + CHUNK_COST
        sent = self.bytes_to_provider + self.bytes_to_brand
        return BYTE_COST * sent + products * self.chunks * self.limbs


@lru_cache(maxsize=4096)
def plan(query: Query) -> Plan:
    """The cheapest plan, or LocalError `linear_query.overflow` / `linear_query.noise` when none is safe."""
    return min(candidates(query), key=lambda found: (found.cost, found.limbs, found.packing))


def candidates(query: Query) -> list[Plan]:
    """All plans that are safe, at least one; LocalError as for `plan`."""
    answer = query.max_value * min(query.max_nonzero, query.rows) * query.max_query + query.headroom
    plain_bits = (2 * answer + 1).bit_length()
    if plain_bits > MAX_PLAIN_BITS:
        raise LocalError(
            "linear_query.overflow",
            f"answers up to {answer} need {plain_bits} bits and {MAX_PLAIN_BITS} are there; "
            "use fewer quantisation bits or smaller values",
        )
    most = min(MAX_PACKING, 1 << (query.queries - 1).bit_length())
    while not query.to_provider and most > 1 and most * (plain_bits + 1) > LEAKED_BITS:
        most //= 2
    packings = [1 << bits for bits in range(most.bit_length())]
    tried = (_plan(query, plain_bits, limbs, packing) for limbs in LEVELS for packing in packings)
    found = [candidate for candidate in tried if candidate is not None]
    if not found:
        raise LocalError(
            "linear_query.noise",
            f"{query.rows} rows, {query.queries} queries and {plain_bits} plaintext bits leave no room for "
            f"{STATISTICAL_BITS} bits of flooding; use fewer quantisation bits or split the rows",
        )
    return found


def _plan(query: Query, plain_bits: int, limbs: int, packing: int) -> Plan | None:
    """The plan with so many primes and queries a polynomial, if section 4 of the README allows one."""
    level = LEVELS[limbs]
    delta = level.modulus >> plain_bits
    # README 4.1: sum of e_i q_i over the rows of all queries of a group, and of one fresh encryption of zero;
    # y's rounding, below 1 a row that counts; the mask's and the answer's.
    zero, entries = 2 * RLWE_ERROR_ETA * N + 1, min(packing, query.queries) * query.rows
    rounded = min(query.max_nonzero, query.rows) * query.max_query
    hard = RLWE_ERROR_ETA * entries * query.max_query + rounded + zero
    # README 4.2: a sum of 42 centred bits an entry and one rounding is sub-Gaussian with variance proxy 43/4;
    # 2 exp(-T^2 / (43/2 * |q|^2)) is below 2^-64 at T^2 = 43/2 * 65 * ln 2 * |q|^2 (ln 2 < 7/10).
    tail = math.isqrt((2 * RLWE_ERROR_ETA + 1) * 65 * 7 * entries * query.max_query**2 // 20) + 1 + zero
    tail = min(tail, hard)
    least = (tail * query.queries) << STATISTICAL_BITS
    # Correct with certainty: flood + hard + rounding stays below delta / 2, so below P / 2t.
    room = delta // 2 - hard - 1
    # README 4.3: a mask that a deviating brand can't see through needs finer answers.
    spare = delta // (query.queries << (STATISTICAL_BITS + 2))
    most = min(room - least, max(hard, spare)) if query.to_provider else room - least
    for bits in range(plain_bits + 1, RESIDUE_BITS * limbs + 1):
        # N + 1 coefficients, each off by (2^-(k+1) + 2^-128) P at most.
        rounding = ((N + 1) * level.modulus * ((1 << (127 - bits)) + 1) >> 128) + 1
        if rounding <= most:
            flood = room - rounding
            return Plan(query, limbs, packing, plain_bits, bits, delta, rounding, hard, tail, flood)
    return None
