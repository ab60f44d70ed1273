"""The ring Z_P[X]/(X^N + 1) in residue form: N = 8192, P a product of three or four primes below 2^30.

A polynomial is uint32[limbs, N], one row a prime, each entry below its prime. The NTT order is the kernels'
own (see `kernels.forward`): pointwise products, sums over all entries and the inverse are all that is ever
taken of it, so any fixed order serves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.security import RLWE_DEGREE, RLWE_PRIMES

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

N = RLWE_DEGREE
PRIMES: tuple[int, ...] = RLWE_PRIMES
#: Primes of a ciphertext's modulus at the most (just under 2^120), and at the least: two leave no room for
#: the flooding of any run. `plan` chooses.
LIMBS, LEAST_LIMBS = len(PRIMES), 3
PRIME_COLUMN: U32 = np.array(PRIMES, dtype=np.uint32).reshape(LIMBS, 1)

#: The last stages of the transform work on TAIL interleaved columns (a transposed layout), so that every
#: inner loop of every stage is long and contiguous, which is what the compiler vectorises.
TAIL = 16


def _primitive_root(prime: int) -> int:
    """A 2N-th primitive root of unity modulo `prime`: x^((p-1)/2N) whose N-th power is -1."""
    for base in range(2, 1000):
        root = pow(base, (prime - 1) // (2 * N), prime)
        if pow(root, N, prime) == prime - 1:
            return root
    raise ArithmeticError(f"{prime} has no {2 * N}-th root of unity")


def _reversed_bits() -> I64:
    bits = N.bit_length() - 1
    index = np.arange(N, dtype=np.int64)
    out = np.zeros(N, dtype=np.int64)
    for bit in range(bits):
        out |= ((index >> bit) & 1) << (bits - 1 - bit)
    return out


def _powers(root: int, prime: int) -> U64:
    """root^bitreversed(i) for i < N, in the order in which the stages use them (tail stages transposed)."""
    natural, value = np.empty(N, dtype=np.uint64), 1
    for i in range(N):
        natural[i] = value
        value = value * root % prime
    ordered = natural[_reversed_bits()]
    blocks = N // TAIL
    groups = blocks
    while groups < N:
        stage = ordered[groups : 2 * groups].reshape(blocks, groups // blocks)
        ordered[groups : 2 * groups] = stage.T.reshape(-1).copy()
        groups *= 2
    return ordered


def _tables() -> tuple[U32, U32, U32, U32, U32]:
    shape = (LIMBS, N)
    roots, roots_q = np.empty(shape, np.uint32), np.empty(shape, np.uint32)
    inverse, inverse_q = np.empty(shape, np.uint32), np.empty(shape, np.uint32)
    degree = np.empty((LIMBS, 2), np.uint32)
    for i, prime in enumerate(PRIMES):
        root = _primitive_root(prime)
        for powers, quotients, base in (
            (roots, roots_q, root),
            (inverse, inverse_q, pow(root, -1, prime)),
        ):
            values = _powers(base, prime)
            powers[i] = values
            # Shoup's quotient floor(w * 2^32 / p): turns a modular product into two plain ones.
            quotients[i] = (values << np.uint64(32)) // np.uint64(prime)
        scale = pow(N, -1, prime)
        degree[i] = scale, (scale << 32) // prime
    return roots, roots_q, inverse, inverse_q, degree


#: Twiddle factors and their Shoup quotients, forward and inverse; N^-1 with its quotient. 512 KiB in all.
ROOTS, ROOTS_Q, INVERSE, INVERSE_Q, DEGREE_INVERSE = _tables()


@dataclass(frozen=True, eq=False)
class Level:
    """The ring modulo the product P of the first `limbs` primes.

    modulus     P
    column      uint32[limbs, 1], the primes; the other tables are the module's, cut to these primes
    scale       uint32[limbs, 2], (P/p)^-1 modulo p with its Shoup quotient
    fractions   uint32[limbs, 5], floor(2^160 / p) in words, the lowest first
    """

    limbs: int
    modulus: int
    primes: tuple[int, ...]
    column: U32
    roots: U32
    roots_q: U32
    inverse: U32
    inverse_q: U32
    degree: U32
    scale: U32
    fractions: U32

    def residues(self, values: list[int]) -> U32:
        """uint32[len(values), limbs] of integers of any size and sign."""
        rows = [[v % p for p in self.primes] for v in values]
        return np.array(rows, dtype=np.uint32).reshape(len(values), self.limbs)

    def lift(self, row: npt.NDArray[np.generic]) -> int:
        """The integer in [0, P) with these residues (Chinese remainder theorem)."""
        parts = zip(row, self.scale[:, 0], self.primes, strict=True)
        return sum(int(r) * int(c) % p * (self.modulus // p) for r, c, p in parts) % self.modulus


def _level(limbs: int) -> Level:
    primes = PRIMES[:limbs]
    modulus = int(np.prod([int(p) for p in primes], dtype=object))
    scale, fractions = np.empty((limbs, 2), np.uint32), np.empty((limbs, 5), np.uint32)
    for i, p in enumerate(primes):
        inverse = pow(modulus // p, -1, p)
        scale[i] = inverse, (inverse << 32) // p
        fractions[i] = [(2**160 // p >> 32 * word) & 0xFFFFFFFF for word in range(5)]
    return Level(
        limbs=limbs,
        modulus=modulus,
        primes=primes,
        column=PRIME_COLUMN[:limbs],
        roots=ROOTS[:limbs],
        roots_q=ROOTS_Q[:limbs],
        inverse=INVERSE[:limbs],
        inverse_q=INVERSE_Q[:limbs],
        degree=DEGREE_INVERSE[:limbs],
        scale=scale,
        fractions=fractions,
    )


#: By number of primes.
LEVELS = {limbs: _level(limbs) for limbs in range(LEAST_LIMBS, LIMBS + 1)}
