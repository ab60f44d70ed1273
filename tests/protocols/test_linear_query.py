"""The linear query four ways: known answers, a playbook, the ideal functionality, fuzzed bytes."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_helpers import SESSION, fixed_rng, transcript

from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.linear_query import Brand, Provider, Query, kernels, messages, plan, ring, sampling
from protocols.linear_query.ideal import linear_query
from protocols.linear_query.ring import N
from protocols.machine import MAX_MESSAGE, pump


def pair(
    y: np.ndarray, matrix: np.ndarray, query: Query, name: str | None = None, session: bytes = SESSION
) -> tuple[Brand, Provider]:
    sources = (os.urandom, os.urandom) if name is None else (fixed_rng(name + "b"), fixed_rng(name + "p"))
    return Brand(y, query, session, sources[0]), Provider(matrix, query, session, sources[1])


def small(
    rows: int = 40, queries: int = 2, to_provider: bool = True, seed: int = 0
) -> tuple[Any, Any, Query]:
    random = np.random.default_rng(seed)
    y = random.integers(-3, 4, rows)
    matrix = random.integers(-9, 10, (rows, queries))
    return y, matrix, Query(rows, queries, 3, rows, 9, to_provider=to_provider)


# Equality with the ideal functionality


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 300),
    queries=st.integers(1, 4),
    max_value=st.sampled_from([1, 7, 2**12]),
    max_query=st.sampled_from([1, 100, 2**20 - 1]),
    to_provider=st.booleans(),
)
def test_equals_the_ideal_functionality(
    seed: int, rows: int, queries: int, max_value: int, max_query: int, to_provider: bool
) -> None:
    random = np.random.default_rng(seed)
    y = random.integers(-max_value, max_value + 1, rows)
    matrix = random.integers(-max_query, max_query + 1, (rows, queries))
    brand, provider = pair(
        y, matrix, Query(rows, queries, max_value, rows, max_query, to_provider=to_provider)
    )
    pump(brand, provider)
    learner, other = (provider, brand) if to_provider else (brand, provider)
    assert learner.result is not None and other.result is None
    assert (learner.result == linear_query(y, matrix)).all()


@pytest.mark.parametrize("rows", [1, N - 1, N, N + 1, 2 * N - 1, 2 * N, 8 * N, 8 * N + 1, 17 * N + 5])
@pytest.mark.parametrize("to_provider", [True, False])
def test_sizes_around_multiples_of_the_degree(rows: int, to_provider: bool) -> None:
    y, matrix, query = small(rows, 3, to_provider, seed=rows)
    brand, provider = pair(y, matrix, query)
    pump(brand, provider)
    result = provider.result if to_provider else brand.result
    assert result is not None and (result == linear_query(y, matrix)).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_answer_that_was_announced_comes_out(sign: int) -> None:
    rows, top = 2 * N, (1 << 20) - 1
    y, matrix = np.full(rows, 5 * sign), np.full((rows, 1), top)
    brand, provider = pair(y, matrix, Query(rows, 1, 5, rows, top))
    pump(brand, provider)
    assert provider.result is not None and provider.result[0] == 5 * sign * rows * top


def test_more_queries_than_one_batch_of_answers() -> None:
    y, matrix, query = small(50, 70)
    brand, provider = pair(y, matrix, query)
    pump(brand, provider)
    assert provider.result is not None and (provider.result == linear_query(y, matrix)).all()


# Known answers

#: SHA-256 over side ‖ message of a whole run, made by this code on 2026-11-22 and equal on every machine:
#: a change is a change of the protocol.
KNOWN = {
    True: "8d9e08b6578722cd055e68040c44957ccc727fedb84938b7c05a9d3e14b596ac",
    False: "5bce6661abb1c37ec4e78e0fed1c07a8637e4a91655150e9caf85b3afcd0b837",
}


@pytest.mark.parametrize("to_provider", [True, False])
def test_known_answer(to_provider: bool) -> None:
    rows = N + 3
    y = np.arange(rows) * 5 % 7 - 3
    matrix = np.stack([np.arange(rows) * 3 % 19 - 9, np.arange(rows) % 10], axis=1)
    query = Query(rows, 2, 3, rows, 9, to_provider=to_provider)
    log = transcript(*pair(y, matrix, query, "known"))
    digest = hashlib.sha256(b"".join(side.encode() + message for side, message in log)).hexdigest()
    assert digest == KNOWN[to_provider]


# Playbook


def test_playbook() -> None:
    """The messages of README section 3, in order and with their sizes."""
    y, matrix, query = small(2 * N + 1, 2)
    log = transcript(*pair(y, matrix, query))
    key, chunk, answer, masked = 131_141, 131_081, 131_101, 22
    assert [(side, len(message)) for side, message in log] == [
        ("left", key),
        *[("left", chunk)] * 3,
        *[("right", answer)] * 2,
        ("left", masked),
    ]
    assert max(len(message) for _, message in log) <= MAX_MESSAGE


def test_playbook_when_the_brand_learns() -> None:
    y, matrix, query = small(5, 3, to_provider=False)
    log = transcript(*pair(y, matrix, query))
    assert [side for side, _ in log] == ["left", "left", "right", "right", "right"]


def test_progress_reaches_its_total() -> None:
    y, matrix, query = small(2 * N, 2)
    brand, provider = pair(y, matrix, query)
    pump(brand, provider)
    assert provider.progress == (2, 2) and brand.progress[1] == 2


# Privacy


def test_sizes_do_not_depend_on_the_inputs() -> None:
    _, matrix, query = small(500, 2)
    lengths = set()
    for y in (np.zeros(500, np.int64), np.full(500, 3), np.eye(1, 500, 7, dtype=np.int64)[0]):
        log = transcript(*pair(y, matrix, query))
        lengths.add(tuple((side, len(message)) for side, message in log))
    assert len(lengths) == 1


def test_the_answer_polynomial_is_rerandomised_and_looks_uniform() -> None:
    """Without the encryption of zero it would be sum a_k Q_k, from which the brand solves for Q."""
    y, matrix, query = small(100, 8)
    log = transcript(*pair(y, matrix, query, "uniform"))
    key = messages.TO_PROVIDER.decode(log[0][1], messages.Key)
    a = sampling.uniform(key.seed, "chunk", SESSION, 0)
    sent = [messages.TO_BRAND.decode(m, messages.Answer) for side, m in log if side == "right"]
    high = []
    for j, answer in enumerate(sent):
        polynomial = messages.residues_of(answer.a, N)
        plain, unused = np.zeros((1, 4, N), np.uint32), np.zeros((1, 4), np.uint32)
        block = np.zeros((1, N), np.int32)
        block[0, :100] = matrix[:, j]
        primes, roots = ring.PRIME_COLUMN, (ring.ROOTS, ring.ROOTS_Q)
        kernels.accumulate(plain, unused, a[None], a[None], block, primes, *roots)
        assert (plain[0] == polynomial).mean() < 1e-3
        high.append((polynomial.astype(np.float64) / ring.PRIME_COLUMN * 64).astype(int).ravel())
    counts = np.bincount(np.concatenate(high), minlength=64)
    expected = counts.sum() / 64
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # 63 degrees of freedom: mean 63, standard deviation 11.2.
    assert chi_square < 63 + 6 * 11.2


def test_answers_of_two_runs_share_nothing() -> None:
    y, matrix, query = small()
    first, second = (transcript(*pair(y, matrix, query, name)) for name in ("one", "two"))
    for (_, left), (_, right) in zip(first, second, strict=True):
        a, b = (np.frombuffer(m[40:], np.uint8) for m in (left, right))
        if len(a) > 1000:
            assert (a == b).mean() < 0.05


def test_the_masked_answer_does_not_show_the_answer() -> None:
    y, matrix, query = small()
    seen = set()
    for run in range(20):
        log = transcript(*pair(y, matrix, query, f"mask{run}"))
        seen.add(messages.TO_PROVIDER.decode(log[-1][1], messages.Masked).values)
    assert len(seen) == 20


# Refusals of this side's own inputs


@pytest.mark.parametrize(
    ("y", "matrix", "code"),
    [
        (np.full(40, 4), np.zeros((40, 2), int), "linear_query.overflow"),
        (np.zeros(40, int), np.full((40, 2), 10), "linear_query.overflow"),
        (np.zeros(39, int), np.zeros((40, 2), int), "linear_query.size"),
        (np.zeros(40, int), np.zeros((40, 3), int), "linear_query.size"),
    ],
)
def test_inputs_beyond_what_was_announced_are_refused(y: np.ndarray, matrix: np.ndarray, code: str) -> None:
    query = Query(40, 2, 3, 40, 9)
    with pytest.raises(LocalError) as caught:
        pump(*pair(y, matrix, query))
    assert caught.value.code == code


def test_more_nonzero_values_than_announced_are_refused() -> None:
    with pytest.raises(LocalError) as caught:
        Brand(np.ones(40, np.int64), Query(40, 2, 3, 39, 9), SESSION, os.urandom)
    assert caught.value.code == "linear_query.overflow"


# Hostile messages: the run ends with a PeerError, and nothing else


def refused(change: Any, rows: int = N + 5, to_provider: bool = True) -> str:
    y, matrix, query = small(rows, 2, to_provider)
    with pytest.raises(PeerError) as caught:
        transcript(*pair(y, matrix, query), change)
    return caught.value.code


@pytest.mark.parametrize(
    ("index", "edit", "code"),
    [
        (0, lambda m: b"", "protocol.malformed"),
        (0, lambda m: m + b"\x00", "protocol.malformed"),
        (0, lambda m: m[:-1], "protocol.malformed"),
        (0, lambda m: b"\x09" + m[1:], "protocol.malformed"),
        (0, lambda m: b"\x02" + m[1:], "protocol.unexpected"),
        (0, lambda m: m[:1] + bytes(32) + m[33:], "protocol.binding"),
        (0, lambda m: m[:-4] + b"\xff\xff\xff\xff", "linear_query.residue"),
        (1, lambda m: m[:1] + b"\x00\x00\x00\x01" + m[5:], "linear_query.size"),
        (1, lambda m: m[:-4] + b"\xff\xff\xff\x7f", "linear_query.residue"),
        (2, lambda m: m[:1] + b"\x00\x00\x00\x00" + m[5:], "linear_query.size"),
        (3, lambda m: m[:1] + b"\x00\x00\x00\x01" + m[5:], "linear_query.size"),
        (3, lambda m: m[:-4] + b"\xff\xff\xff\x7f", "linear_query.residue"),
        (3, lambda m: m[:9] + b"\xff\xff\xff\x7f" + m[13:], "linear_query.residue"),
        (5, lambda m: m[:1] + bytes([m[1] ^ 1]) + m[2:], "protocol.binding"),
        (5, lambda m: m[:-1] + b"\xff", "linear_query.residue"),
        (5, lambda m: m[:-8], "protocol.malformed"),
        (5, lambda m: bytes(MAX_MESSAGE + 1), "protocol.too_large"),
    ],
)
def test_negative_vectors(index: int, edit: Any, code: str) -> None:
    assert refused(lambda side, i, message: edit(message) if i == index else message) == code


def test_a_prime_itself_is_no_residue() -> None:
    """p would be a second encoding of 0."""
    prime = ring.PRIMES[3].to_bytes(4, "little")
    assert refused(lambda side, i, m: m[:-4] + prime if i == 1 else m) == "linear_query.residue"


def test_another_session_or_other_sizes_are_refused() -> None:
    y, matrix, query = small()
    wider = Query(40, 2, 3, 40, 10)
    for brand, provider in (
        (Brand(y, query, SESSION, os.urandom), Provider(matrix, query, bytes(32), os.urandom)),
        (Brand(y, query, SESSION, os.urandom), Provider(matrix, wider, SESSION, os.urandom)),
    ):
        with pytest.raises(PeerError) as caught:
            pump(brand, provider)
        assert caught.value.code == "protocol.binding"


def test_a_message_after_the_end_is_refused() -> None:
    y, matrix, query = small()
    brand, provider = pair(y, matrix, query)
    log = transcript(brand, provider)
    with pytest.raises(PeerError):
        provider.receive(log[-1][1])


@settings(max_examples=120, deadline=None)
@given(
    target=st.integers(0, 4),
    position=st.one_of(st.integers(0, 60), st.integers(0, 2**31)),
    value=st.binary(min_size=0, max_size=6),
    kind=st.sampled_from(["overwrite", "insert", "cut", "replace"]),
)
def test_fuzzed_bytes_give_a_result_or_a_protocol_error(
    target: int, position: int, value: bytes, kind: str
) -> None:
    y, matrix, query = small(20, 2)

    def change(side: str, index: int, message: bytes) -> bytes:
        if index != target:
            return message
        at = position % (len(message) + 1)
        return {
            "overwrite": message[:at] + value + message[at + len(value) :],
            "insert": message[:at] + value + message[at:],
            "cut": message[:at],
            "replace": value,
        }[kind]

    brand, provider = pair(y, matrix, query)
    try:
        transcript(brand, provider, change)
    except ProtocolError:
        return
    if provider.finished:
        assert provider.result is not None and provider.result.shape == (2,)


def test_the_plan_is_the_same_on_both_sides() -> None:
    assert plan(Query(10, 2, 1, 5, 3)) == plan(Query(10, 2, 1, 5, 3))
