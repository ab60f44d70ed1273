"""private_join's Paillier against third-party vectors and phe, its checks of keys, and slots."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oprf_helpers import SESSION, stream
from phe import PaillierPrivateKey, PaillierPublicKey

from protocols import security
from protocols.errors import LocalError, PeerError
from protocols.private_join import Terms, generate, paillier
from protocols.private_join.packing import packing
from protocols.private_join.paillier import Prime, PrivateKey, PublicKey, public_key

BITS = 512


@pytest.fixture(autouse=True)
def short_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "PAILLIER_BITS", BITS)


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return generate(stream("key"), BITS)


# Vectors of Apache Milagro (2048 bits)


def vectors(shared_data: Path, name: str) -> list[dict[str, int]]:
    """The cases of a file: lines "NAME = hex,", a blank line after each case."""
    text = gzip.decompress((shared_data / "vectors" / "paillier" / f"milagro_{name}.txt.gz").read_bytes())
    cases = []
    for block in text.decode().replace("\r", "").split("\n\n"):
        pairs = [line.rstrip(",").split(" = ") for line in block.splitlines() if " = " in line]
        case = {name: int(value, 16) for name, value in pairs if name not in ("TEST", "RESULT")}
        if case:
            cases.append(case)
    return cases


def test_decrypt_vectors(shared_data: Path) -> None:
    cases = vectors(shared_data, "decrypt")
    assert len(cases) >= 8
    for case in cases:
        key = PrivateKey(Prime(case["P"], 2), Prime(case["Q"], 2))
        assert key.decrypt([case["CIPHERTEXT"]]) == [case["PLAINTEXT"]]


def test_encrypt_vectors(shared_data: Path) -> None:
    cases = vectors(shared_data, "encrypt")
    assert len(cases) >= 8
    for case in cases:
        spare = -case["N"].bit_length() % 8
        r = case["R"] % case["N"] << spare  # the encryption reads as many bits as n has
        found = PublicKey(case["N"]).encrypt(case["PLAINTEXT"], lambda size, r=r: r.to_bytes(size, "big"))
        assert found == case["CIPHERTEXT"]


def test_add_vectors(shared_data: Path) -> None:
    cases = vectors(shared_data, "add")
    assert len(cases) >= 50
    for case in cases:
        found = PublicKey(case["N"]).product([case["CIPHERTEXT1"], case["CIPHERTEXT2"]])
        assert found == case["CIPHERTEXT"]


def test_multiply_vectors_hold_for_phe(shared_data: Path) -> None:
    """A product of k equal ciphertexts is what phe's arithmetic gives for k times the plaintext."""
    cases = vectors(shared_data, "mult")
    assert len(cases) >= 8
    for case in cases:
        square = case["N"] ** 2
        assert gmpy2.powmod(case["CIPHERTEXT1"], case["PLAINTEXT2"], square) == case["CIPHERTEXT"]


def test_key_generation_vectors(shared_data: Path) -> None:
    for case in vectors(shared_data, "keygen"):
        public = PrivateKey(Prime(case["P"], 2), Prime(case["Q"], 2)).public
        assert (public.n, public.n + 1) == (case["N"], case["G"])


# The owner's encryption


@given(st.lists(st.integers(0, 2**500), min_size=1, max_size=5))
def test_sums_are_what_phe_decrypts(key: PrivateKey, plaintexts: list[int]) -> None:
    p, q = (prime.p for prime in key._primes)
    peer = PaillierPrivateKey(PaillierPublicKey(p * q), p, q)
    ciphertexts = key.encrypt(plaintexts, os.urandom)
    assert [peer.raw_decrypt(c) for c in ciphertexts] == plaintexts
    total = key.public.product([*ciphertexts, key.public.encrypt(-1, os.urandom)])
    assert key.decrypt([total]) == [(sum(plaintexts) - 1) % key.public.n]


def test_the_owners_randomness_is_every_nth_residue_and_no_other() -> None:
    """For p = 23: G^x for x in 0…21 are the 23rd powers modulo 23^2, each once."""
    powers = paillier._Powers(Prime(23, 5))
    found = [int(powers.random(lambda n, x=x: x.to_bytes(n, "big"))) for x in range(22)]
    assert sorted(found) == sorted({pow(r, 23, 529) for r in range(1, 529) if r % 23})
    assert powers.random(lambda n: (22).to_bytes(n, "big")) == 1  # reduced modulo the order


def test_primes_have_the_right_length(key: PrivateKey) -> None:
    for prime in key._primes:
        assert prime.p.bit_length() == BITS // 2 and gmpy2.is_prime(prime.p)
        assert pow(prime.generator, (prime.p - 1) // 2, prime.p) == prime.p - 1  # no square


def test_small_keys_generate_the_whole_group() -> None:
    for seed in range(3):
        prime = paillier._prime(48, stream(str(seed)))
        order = prime.p - 1
        for f in paillier._factors(order):
            assert pow(prime.generator, order // f, prime.p) != 1


def test_keys_do_not_print(key: PrivateKey) -> None:
    shown = repr(key) + repr(key._primes)
    assert not any(str(number) in shown for prime in key._primes for number in (prime.p, prime.generator))


def test_primes_that_make_no_key() -> None:
    for p, q in ((23, 23), (23, 47)):  # 47 = 2 · 23 + 1: r^n is no permutation
        with pytest.raises(LocalError, match=r"protocol\.argument"):
            PrivateKey(Prime(p, 5), Prime(q, 5))


# Checks of the peer's key


def wire(n: int) -> bytes:
    return n.to_bytes(BITS // 8, "big")


def roots_of(key: PrivateKey, session: bytes = SESSION) -> bytes:
    return b"".join(wire(root) for root in key.roots(session))


def prime_of(bits: int, above: int = 0) -> int:
    return int(gmpy2.next_prime((3 << (bits - 2)) + above))


def test_an_honest_key_passes(key: PrivateKey) -> None:
    assert public_key(wire(key.public.n), roots_of(key), SESSION).n == key.public.n
    assert len(key.roots(SESSION)) == security.PAILLIER_ROOTS == 8


def test_bad_moduli_are_refused(key: PrivateKey) -> None:
    p = prime_of(BITS // 2)
    factor = 65_521  # the largest prime below 2^16
    small = factor * prime_of(BITS - 16)
    bad = {
        "bits": [key.public.n >> 1 | 1, 0],
        "small factor": [key.public.n + 1, small],
        "prime or a power": [prime_of(BITS), p * p],
    }
    for words, moduli in bad.items():
        for n in moduli:
            with pytest.raises(PeerError, match=rf"private_join\.key: .*{words}"):
                public_key(wire(n), roots_of(key), SESSION)
    for data in (b"", wire(key.public.n)[1:], b"\x00" + wire(key.public.n)):
        with pytest.raises(PeerError, match=r"private_join\.key"):
            public_key(data, roots_of(key), SESSION)


def test_wrong_roots_are_refused(key: PrivateKey) -> None:
    good = roots_of(key)
    for bad in (
        *(b"", good[:-1], good + b"\x00", bytes(len(good)), good[64:] + good[:64], b"\xff" * len(good)),
        roots_of(key, bytes(32)),  # of another session
    ):
        with pytest.raises(PeerError, match=r"private_join\.key"):
            public_key(wire(key.public.n), bad, SESSION)


def test_a_modulus_under_which_rerandomising_does_not_hide_has_no_roots() -> None:
    """p divides q - 1, so that r^n reaches a p-th of all residues only, and no challenge has a root."""
    p = prime_of(236)
    k = (3 << 274) // (2 * p) + 1
    while not gmpy2.is_prime(2 * k * p + 1):
        k += 1
    q = 2 * k * p + 1
    n = p * q
    assert n.bit_length() == BITS
    challenges = paillier._challenges(n, SESSION)
    assert all(pow(rho, (q - 1) // p, q) != 1 for rho in challenges)
    for shown in (challenges, [pow(rho, n, n) for rho in challenges]):
        with pytest.raises(PeerError, match="n-th root"):
            public_key(wire(n), b"".join(map(wire, shown)), SESSION)


# Slots


def test_slots_hold_the_largest_sums_and_no_more() -> None:
    terms = Terms(bounds=(1, 7, 1 << 40, 100) * 8, sum_epsilon=1.0)
    slots = packing(terms, 320, BITS)
    assert sorted(column for group in slots.groups for column, _ in group) == list(range(32))
    assert len(slots.groups) > 1
    top = list(slots.largest)
    assert slots.unpack(slots.pack(top)) == top
    assert all(plaintext < 1 << (BITS - 1) for plaintext in slots.pack(top))
    for column in range(32):
        beyond = [t + (c == column) for c, t in enumerate(top)]
        with pytest.raises(PeerError, match=r"private_join\.sum"):
            slots.unpack(slots.pack(beyond))


@given(st.data())
def test_slots_add_up(data: st.DataObject) -> None:
    bounds = tuple(data.draw(st.lists(st.integers(1, 1 << 40), min_size=1, max_size=30)))
    slots = packing(Terms(bounds=bounds), 5, 256)
    rows = [[data.draw(st.integers(0, b)) for b in bounds] for _ in range(5)]
    packed = [sum(column) for column in zip(*(slots.pack(row) for row in rows), strict=True)]
    assert slots.unpack(packed) == [sum(column) for column in zip(*rows, strict=True)]


def test_a_slot_that_fits_no_plaintext_is_refused() -> None:
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        packing(Terms(bounds=(1 << 40,)), 1 << 23, 64)
