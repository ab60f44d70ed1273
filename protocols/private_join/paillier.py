"""Paillier encryption as private_join uses it: `phe`'s arithmetic, a faster source of its randomness, checks.

A ciphertext of t is (1 + n)^t · r^n modulo n^2. Decryption, and encryption by whoever has the modulus alone,
are phe's. The key's owner encrypts a value for each row, and gets r^n in another way (README, section 6.2): a
random p-th power modulo p^2 and q-th power modulo q^2, from tables of powers of two fixed generators.
The result has the same distribution and takes a fifteenth of the time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import gmpy2

from protocols import security
from protocols.errors import LocalError, PeerError
from protocols.labels import label
from protocols.private_join.noise import below, drawn
from protocols.private_join.terms import PROTOCOL, VALUER
from protocols.ristretto import Rng

#: Bits of the part of (p - 1) / 2 that is not one large prime; its factors are found by trial division.
COFACTOR_BITS = 32

#: More random bits than the modulus has, so that reducing is within 2^-128 of uniform.
SURPLUS = 16

#: Rounds of Miller and Rabin's test (beside Lucas's, in GMP): 4^-40 for a number that an adversary chose.
PRIME_ROUNDS = 40


class PublicKey:
    """A modulus n of `bits` bits, with what needs no secret."""

    def __init__(self, n: int) -> None:
        from phe import PaillierPublicKey  # here: it loads its own command line, 0.1 s of a start

        self.n = n
        self.bits = n.bit_length()
        self._phe = PaillierPublicKey(n)
        self.square = gmpy2.mpz(n) ** 2

    @property
    def ciphertext_bytes(self) -> int:
        return self.bits // 4

    @property
    def plaintext_bytes(self) -> int:
        return self.bits // 8

    def encrypt(self, plaintext: int, rng: Rng) -> int:
        """A fresh encryption of `plaintext` modulo n."""
        r = 0
        while math.gcd(r, self.n) != 1:  # r = 0 and a factor of n are no units; neither ever happens
            r = below(self.n, rng)
        return int(self._phe.raw_encrypt(plaintext % self.n, r_value=r))

    def product(self, ciphertexts: Sequence[int]) -> int:
        """An encryption of the sum of the plaintexts; 1, an encryption of zero, for none."""
        total = gmpy2.mpz(1)
        for ciphertext in ciphertexts:
            total = total * ciphertext % self.square
        return int(total)

    def ciphertexts_of(self, data: bytes, count: int) -> list[int]:
        """`count` ciphertexts, each a unit modulo n^2; PeerError otherwise.

        Numbers from n^2 on would be second encodings of the same ciphertext; a multiple of p or q makes a
        product zero modulo p, and what decryption then gives depends on the key's secret factors.
        """
        out = self._integers(data, count, self.ciphertext_bytes, int(self.square), "ciphertext")
        # One gcd for all: the product is a unit just if every factor is.
        together = gmpy2.mpz(1)
        for value in out:
            together = together * value % self.n
        if gmpy2.gcd(together, self.n) != 1:
            raise PeerError("private_join.ciphertext", "a ciphertext is no unit modulo n")
        return out

    def plaintexts_of(self, data: bytes, count: int) -> list[int]:
        """`count` numbers below n; PeerError otherwise."""
        return self._integers(data, count, self.plaintext_bytes, self.n, "plaintext")

    @staticmethod
    def _integers(data: bytes, count: int, size: int, top: int, what: str) -> list[int]:
        if len(data) != count * size:
            raise PeerError("protocol.malformed", f"{len(data)} bytes, {count} {what}s of {size} were due")
        out = [int.from_bytes(data[at : at + size], "big") for at in range(0, len(data), size)]
        if any(value >= top for value in out):
            raise PeerError("private_join.ciphertext", f"a {what} is not below its modulus")
        return out


@dataclass(frozen=True)
class Prime:
    """A secret prime p and a generator of the integers modulo p without 0."""

    p: int = field(repr=False)
    generator: int = field(repr=False)


class PrivateKey:
    """The owner's side of a key; may serve several sessions (README, section 6.4)."""

    def __init__(self, first: Prime, second: Prime) -> None:
        from phe import PaillierPrivateKey, PaillierPublicKey

        n = first.p * second.p
        if first.p == second.p or math.gcd(n, (first.p - 1) * (second.p - 1)) != 1:
            raise LocalError("protocol.argument", "these primes make no Paillier key")
        self.public = PublicKey(n)
        self._primes = first, second
        self._phe = PaillierPrivateKey(PaillierPublicKey(n), first.p, second.p)

    def __repr__(self) -> str:
        return f"<PrivateKey of {self.public.bits} bits>"

    @cached_property
    def _tables(self) -> tuple[_Powers, _Powers]:
        first, second = self._primes
        return _Powers(first), _Powers(second)

    def encrypt(self, plaintexts: Sequence[int], rng: Rng) -> list[int]:
        """A fresh encryption of each plaintext, 0 <= plaintext < n."""
        left, right = self._tables
        n, square = self.public.n, self.public.square
        lift = left.square * gmpy2.invert(left.square, right.square)
        out = []
        # A loop over rows, since GMP's numbers fit in no array; README section 8 has its cost.
        for t in plaintexts:
            x, y = left.random(rng), right.random(rng)
            residue = (x + (y - x) * lift) % square  # x modulo p^2 and y modulo q^2
            out.append(int((1 + n * gmpy2.mpz(t)) * residue % square))
        return out

    def decrypt(self, ciphertexts: Sequence[int]) -> list[int]:
        """The plaintexts, below n, of ciphertexts that `ciphertexts_of` has checked."""
        return [int(self._phe.raw_decrypt(int(c))) for c in ciphertexts]

    def roots(self, session: bytes) -> list[int]:
        """The n-th root of each of the session's challenges: they exist only if gcd(n, phi(n)) = 1."""
        p, q = (prime.p for prime in self._primes)
        n = self.public.n
        exponent = int(gmpy2.invert(n, (p - 1) * (q - 1)))
        return [int(gmpy2.powmod(rho, exponent, n)) for rho in _challenges(n, session)]


class _Powers:
    """Random p-th powers modulo p^2: G^x with G = generator^p of order p - 1, by a table a byte of x."""

    def __init__(self, prime: Prime) -> None:
        self.square = gmpy2.mpz(prime.p) ** 2
        self._order = prime.p - 1
        self._bytes = -(-prime.p.bit_length() // 8)
        base = gmpy2.powmod(prime.generator, prime.p, self.square)
        self._table = []
        for _ in range(self._bytes):
            row = [gmpy2.mpz(1)]
            for _ in range(256):
                row.append(row[-1] * base % self.square)
            base = row.pop()  # base^256
            self._table.append(row)

    def random(self, rng: Rng) -> gmpy2.mpz:
        """Within 2^-128 of a uniform element of the group."""
        x = int.from_bytes(drawn(self._bytes + SURPLUS, rng), "big") % self._order
        out = gmpy2.mpz(1)
        for row, digit in zip(self._table, x.to_bytes(self._bytes, "little"), strict=True):
            out = out * row[digit] % self.square
        return out


def generate(rng: Rng, bits: int | None = None) -> PrivateKey:
    """A new key of `bits` bits (PAILLIER_BITS); about a second at 3072 bits."""
    bits = security.PAILLIER_BITS if bits is None else bits
    if bits % 16:
        raise LocalError("protocol.argument", f"a key of {bits} bits; a multiple of 16 is needed")
    while True:
        first, second = _prime(bits // 2, rng), _prime(bits // 2, rng)
        n = first.p * second.p
        if first.p != second.p and math.gcd(n, (first.p - 1) * (second.p - 1)) == 1:
            return PrivateKey(first, second)


def _prime(bits: int, rng: Rng) -> Prime:
    """p = 2 a m + 1 with a random prime m, so that p - 1 can be factored and a generator is certain.

    The two highest bits are set, so that a product of two has twice the bits. (FIPS 186-5, appendix A.1, too,
    builds p from a large prime factor of p - 1; it hampers Pollard's p - 1 method.)
    """
    m_bits = bits - COFACTOR_BITS - 1
    m = 0
    while not _is_prime(m):
        m = 1 << (m_bits - 1) | below(1 << (m_bits - 1), rng) | 1
    low, high = -(-(3 << (bits - 2)) // (2 * m)), (1 << bits) // (2 * m)
    while True:
        a = low + below(high - low, rng)
        p = 2 * a * m + 1
        if p.bit_length() == bits and _is_prime(p):
            break
    factors = [2, m, *_factors(a)]
    while True:
        g = below(p - 1, rng) + 1
        if all(gmpy2.powmod(g, (p - 1) // f, p) != 1 for f in factors):
            return Prime(p, g)


def _is_prime(n: int) -> bool:
    return bool(gmpy2.is_prime(n, PRIME_ROUNDS))


def _factors(a: int) -> list[int]:
    """The distinct prime factors of a small number, by trial division."""
    out, f = [], 2
    while f * f <= a:
        if a % f == 0:
            out.append(f)
            while a % f == 0:
                a //= f
        f += 1
    return [*out, a] if a > 1 else out


def public_key(modulus: bytes, roots: bytes, session: bytes) -> PublicKey:
    """The peer's modulus after the checks of README section 6.3; PeerError private_join.key."""
    bits = security.PAILLIER_BITS
    n = int.from_bytes(modulus, "big")
    if len(modulus) * 8 != bits or n.bit_length() != bits:
        # A shorter modulus can be factored by whoever records the ciphertexts, and slots would overflow.
        raise PeerError("private_join.key", f"a modulus of {n.bit_length()} bits, {bits} are due")
    if math.gcd(n, _small_primes()) != 1:
        # With a small factor f of n, the product's randomness tells its class modulo f, so what was added.
        raise PeerError("private_join.key", "the modulus has a small factor")
    if _is_prime(n) or gmpy2.is_power(n):
        # Anybody decrypts under a prime or a prime's power.
        raise PeerError("private_join.key", "the modulus is a prime or a power")
    public = PublicKey(n)
    try:
        shown = public.plaintexts_of(roots, security.PAILLIER_ROOTS)
    except PeerError as error:
        raise PeerError("private_join.key", f"the roots: {error.detail}") from error
    for sigma, rho in zip(shown, _challenges(n, session), strict=True):
        if gmpy2.powmod(sigma, n, n) != rho:
            # If gcd(n, phi(n)) > 1, r^n doesn't reach every residue, and re-randomising would not hide which
            # ciphertexts were added.
            raise PeerError("private_join.key", "an n-th root is wrong: the modulus may be made to leak")
    return public


def _challenges(n: int, session: bytes) -> list[int]:
    """The numbers below n whose n-th roots are shown: a hash of n and the session (Fiat and Shamir)."""
    size = n.bit_length() // 8
    prefix = label(PROTOCOL, VALUER, "n-th roots", session) + n.to_bytes(size, "big")
    hashes = (hashlib.shake_256(prefix + bytes([i])) for i in range(security.PAILLIER_ROOTS))
    return [int.from_bytes(h.digest(size + SURPLUS), "big") % n for h in hashes]


@cache
def _small_primes() -> int:
    """The product of all primes below PAILLIER_LEAST_FACTOR."""
    return int(gmpy2.primorial(security.PAILLIER_LEAST_FACTOR - 1))
