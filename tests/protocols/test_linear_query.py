"""The linear query four ways: known answers, a playbook, the ideal functionality, fuzzed bytes."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lattice_helpers import SESSION, fixed_rng, fractions, transcript

from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.linear_query import Brand, Provider, Query, Transforms, messages, plan, ring
from protocols.linear_query import brand as brand_side
from protocols.linear_query import provider as provider_side
from protocols.linear_query.ideal import linear_query
from protocols.linear_query.parameters import Plan, candidates
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


@settings(max_examples=50, deadline=None)
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


def run_with(
    monkeypatch: pytest.MonkeyPatch, chosen: Plan, y: np.ndarray, matrix: np.ndarray, **more: Any
) -> np.ndarray:
    """The learner's result of a run with another plan than the cheapest."""
    with monkeypatch.context() as patched:
        for side in (brand_side, provider_side):
            patched.setattr(side, "plan", lambda query: chosen)
        brand = Brand(y, chosen.query, SESSION, os.urandom)
        provider = Provider(matrix, chosen.query, SESSION, os.urandom, **more)
        pump(brand, provider)
    result = provider.result if chosen.query.to_provider else brand.result
    assert result is not None
    return result


@settings(
    max_examples=160,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 600),
    queries=st.integers(1, 20),
    max_value=st.sampled_from([1, 2**12]),
    max_query=st.sampled_from([1, 2, 2**19 - 1, 2**20 - 1]),
    to_provider=st.booleans(),
    pick=st.integers(0, 2**16),
    limit=st.sampled_from([None, 0, 1 << 21, 1 << 30]),
)
def test_equals_the_ideal_functionality_with_any_safe_plan(
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    rows: int,
    queries: int,
    max_value: int,
    max_query: int,
    to_provider: bool,
    pick: int,
    limit: int | None,
) -> None:
    """Any number of primes and of queries a polynomial that the bounds allow; transforms kept or not."""
    random = np.random.default_rng(seed)
    matrix = random.integers(-max_query, max_query + 1, (rows, queries))
    safe = candidates(Query(rows, queries, max_value, rows, max_query, to_provider=to_provider))
    chosen = safe[pick % len(safe)]
    kept = None if limit is None else Transforms(limit)
    for _ in range(1 if kept is None else 2):
        y = random.integers(-max_value, max_value + 1, rows)
        assert (run_with(monkeypatch, chosen, y, matrix, kept=kept) == linear_query(y, matrix)).all()


@pytest.mark.parametrize(("limbs", "top"), [(3, 1), (4, 1), (4, 1000)])
@pytest.mark.parametrize("packing", [1, 2, 16, 1024])
def test_sizes_around_multiples_of_a_chunk_with_several_queries_a_polynomial(
    monkeypatch: pytest.MonkeyPatch, limbs: int, packing: int, top: int
) -> None:
    m = N // packing
    random = np.random.default_rng(packing)
    for rows in (1, m - 1, m, m + 1, 8 * m, 9 * m + 1):
        queries = int(random.integers(1, packing + 2)) if packing > 2 else packing + 1
        queries = max(queries, packing // 2 + 1)
        y, matrix = random.integers(-1, 2, rows), random.integers(-top, top + 1, (rows, queries))
        safe = candidates(Query(rows, queries, 1, rows, top))
        chosen = next(plan for plan in safe if (plan.limbs, plan.packing) == (limbs, packing))
        assert (run_with(monkeypatch, chosen, y, matrix) == linear_query(y, matrix)).all()


def test_a_second_y_over_kept_queries_costs_no_transform_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, plain = [], provider_side.kernels.accumulate

    def counted(*arguments: Any) -> None:
        calls.append(arguments)
        plain(*arguments)

    monkeypatch.setattr(provider_side.kernels, "accumulate", counted)
    random = np.random.default_rng(0)
    rows, queries, top = 9 * N + 3, 4, 5
    matrix = random.integers(-top, top + 1, (rows, queries))
    query = Query(rows, queries, 1, rows, top)
    for chosen in candidates(query):
        needed = 4 * chosen.groups * chosen.chunks * chosen.limbs * N
        for limit, whole in ((needed, True), (needed - 1, False)):
            calls.clear()
            kept, made = Transforms(limit), []
            for _ in range(2):
                y = random.integers(-1, 2, rows)
                result = run_with(monkeypatch, chosen, y, matrix, kept=kept)
                assert (result == linear_query(y, matrix)).all()
                made.append(kept.made)
            assert kept.bytes <= limit
            assert made[0] == chosen.groups * chosen.chunks * chosen.limbs
            assert (made[1] == made[0]) == whole
            assert kept.made + kept.reused == 2 * made[0] and kept.reused > 0
            # What is still transformed in the second run is the encryption of zero, one a group.
            assert not whole or len(calls) == -(-chosen.chunks // 8) + 2


def test_kept_transforms_are_of_one_plan() -> None:
    y, matrix, query = small()
    kept = Transforms()
    pump(Brand(y, query, SESSION, os.urandom), Provider(matrix, query, SESSION, os.urandom, kept))
    with pytest.raises(LocalError) as caught:
        Provider(matrix, Query(40, 2, 3, 40, 10), SESSION, os.urandom, kept)
    assert caught.value.code == "protocol.argument"


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


def test_more_groups_than_one_batch_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    y, matrix, query = small(50, 70)
    for chosen in candidates(query)[:2]:
        assert (run_with(monkeypatch, chosen, y, matrix) == linear_query(y, matrix)).all()


def test_fewer_primes_several_queries_a_polynomial_and_few_bits_are_taken_where_they_are_safe() -> None:
    """The plan of README 6: what it takes by the sizes alone."""
    counts, sums = (plan(Query(10**6, 101, 1, 24_576, top)) for top in (1, (1 << 19) - 1))
    assert (counts.limbs, sums.limbs) == (3, 4) and counts.packing == sums.packing == 1
    short = plan(Query(569, 31, 1, 288, (1 << 19) - 1))
    assert short.packing == 16 and short.bytes_to_provider + short.bytes_to_brand < 600_000
    told = plan(Query(10**6, 101, 1, 24_576, (1 << 19) - 1, to_provider=False))
    assert told.answer_bits < 64 < sums.answer_bits <= 96


# Known answers

#: SHA-256 over side ‖ message of a whole run, made by this code on 2026-11-26 and equal on every machine:
#: a change is a change of the protocol.
KNOWN = {
    (True, 2): "390823d1a9c7175fb872c4f271dea033ba262aea170ec9fc38a0209dd3b6dce5",
    (False, 2): "971427b40c9ddd1cb8ae44853686030451d38eb5fc33e5108b3d2adb3963abcc",
    (True, 5): "3fe727af97c08edcc8c4c7e78133cb5ed8f799fcba9ccd7699e5a02e2018456f",
}


@pytest.mark.parametrize(("to_provider", "queries"), KNOWN)
def test_known_answer(to_provider: bool, queries: int) -> None:
    """One query a polynomial, and five in two polynomials."""
    rows = N + 3
    y = np.arange(rows) * 5 % 7 - 3
    matrix = np.stack([np.arange(rows) * 3 % 19 - 9, *[np.arange(rows) % 10] * (queries - 1)], axis=1)
    query = Query(rows, queries, 3, rows, 9, to_provider=to_provider)
    assert (plan(query).packing > 1) == (queries > 2)
    log = transcript(*pair(y, matrix, query, "known"))
    digest = hashlib.sha256(b"".join(side.encode() + message for side, message in log)).hexdigest()
    assert digest == KNOWN[to_provider, queries]


# Playbook


def test_playbook() -> None:
    """The messages of README section 3, in order and with their sizes."""
    y, matrix, query = small(2 * N + 1, 2)
    log = transcript(*pair(y, matrix, query))
    key, chunk, answer, masked = 92_229, 92_169, 1024 * plan(query).answer_bits + 29, 22
    assert [(side, len(message)) for side, message in log] == [
        ("left", key),
        *[("left", chunk)] * 3,
        *[("right", answer)] * 2,
        ("left", masked),
    ]
    assert max(len(message) for _, message in log) <= MAX_MESSAGE


@pytest.mark.parametrize("rows", [5, 300, N, 3 * N])
@pytest.mark.parametrize("queries", [1, 5, 40])
@pytest.mark.parametrize("to_provider", [True, False])
def test_bytes_are_those_that_the_plan_states(rows: int, queries: int, to_provider: bool) -> None:
    y, matrix, query = small(rows, queries, to_provider)
    agreed, log = plan(query), transcript(*pair(y, matrix, query))
    sent = {name: sum(len(m) for side, m in log if side == name) for name in ("left", "right")}
    assert sent == {"left": agreed.bytes_to_provider, "right": agreed.bytes_to_brand}


def test_playbook_when_the_brand_learns() -> None:
    y, matrix, query = small(5, 3, to_provider=False)
    log = transcript(*pair(y, matrix, query))
    assert [side for side, _ in log] == ["left", "left", "right"]  # three queries in one polynomial


def test_progress_reaches_its_total() -> None:
    y, matrix, query = small(2 * N, 2)
    brand, provider = pair(y, matrix, query)
    pump(brand, provider)
    agreed = plan(query)
    assert provider.progress == (agreed.chunks,) * 2 and brand.progress[1] == agreed.groups


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
    y, matrix, query = small(N + 100, 6)
    agreed = plan(query)
    assert agreed.packing > 1
    log = transcript(*pair(y, matrix, query, "uniform"))
    key = messages.TO_PROVIDER.decode(log[0][1], messages.Key)
    evaluator = provider_side.Evaluator(
        agreed, lambda start, stop: np.ascontiguousarray(matrix[start:stop].T, np.int32), SESSION, os.urandom
    )
    evaluator.seed = key.seed
    for side, message in log:
        if side == "left" and len(message) == agreed.level.limbs * 30_720 + 9:
            chunk = messages.TO_PROVIDER.decode(message, messages.Chunk)
            evaluator.take(messages.residues_of(chunk.b, agreed.level))
    bare = bare_words(evaluator._sum_a, agreed)
    sent = [messages.TO_BRAND.decode(m, messages.Answer) for side, m in log if side == "right"]
    assert len(sent) == agreed.groups == len(bare)
    shares = []
    for answer, plain in zip(sent, bare, strict=True):
        share = fractions(messages.polynomial_of(answer.a, agreed.answer_bits), agreed.answer_bits)
        without = fractions(plain, agreed.answer_bits)
        assert (np.abs(share - without) < 1e-5).mean() < 1e-3
        shares.append((share * 64).astype(int))
    counts = np.bincount(np.concatenate(shares), minlength=64)
    expected = counts.sum() / 64
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # 63 degrees of freedom: mean 63, standard deviation 11.2.
    assert chi_square < 63 + 6 * 11.2


def bare_words(sums: np.ndarray, agreed: Plan) -> list[np.ndarray]:
    """What a'' would be without p1 u and e1, uint32[words, N] a group."""
    level, none = agreed.level, np.zeros((len(sums), N), np.int64)
    inverse = level.column, level.inverse, level.inverse_q, level.degree
    packed = provider_side.kernels.finish(
        sums, none, agreed.answer_bits, *inverse, level.scale, level.fractions
    )
    return [messages.polynomial_of(messages.words_of(row), agreed.answer_bits) for row in packed]


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


def test_the_bound_on_rows_that_count_is_kept_by_the_side_that_is_named() -> None:
    random = np.random.default_rng(4)
    y, matrix = random.integers(1, 4, 3 * N), np.zeros((3 * N, 2), np.int64)
    matrix[:: 2 * N] = 9  # two rows
    for most, fits in ((2, True), (1, False)):
        query = Query(3 * N, 2, 3, most, 9, sparse_queries=True)
        brand, provider = pair(y, matrix, query)
        if fits:
            pump(brand, provider)
            assert provider.result is not None and (provider.result == linear_query(y, matrix)).all()
        else:
            with pytest.raises(LocalError) as caught:
                pump(brand, provider)
            assert caught.value.code == "linear_query.overflow"
    # In a protocol on top, whose vector is made as it is sent, the brand's count is kept while it sends.
    step = brand_side.steps(
        Query(3 * N, 2, 3, 2 * N, 9), lambda a, b: y[a:b], SESSION, os.urandom, lambda a: a
    )
    with pytest.raises(LocalError) as caught:
        list(step.send)
    assert caught.value.code == "linear_query.overflow"


def test_a_protocol_on_top_is_held_to_its_bound_on_the_queries() -> None:
    """Where the rows of Q are made as they are wanted, each batch is looked at before it is used."""
    _, matrix, query = small(40, 2)
    matrix[-1, 1] = -10
    agreed = plan(query)
    evaluator = provider_side.Evaluator(
        agreed, lambda start, stop: np.ascontiguousarray(matrix[start:stop].T, np.int32), SESSION, os.urandom
    )
    evaluator.seed = bytes(32)
    with pytest.raises(LocalError, match=r"linear_query\.overflow.*agreed 9"):
        for _ in range(agreed.chunks):
            evaluator.take(np.zeros((agreed.limbs, N), np.uint32))


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
        (1, lambda m: m[:-4] + b"\xff\xff\xff\xff", "linear_query.residue"),
        (2, lambda m: m[:1] + b"\x00\x00\x00\x00" + m[5:], "linear_query.size"),
        (3, lambda m: m[:1] + b"\x00\x00\x00\x01" + m[5:], "linear_query.size"),
        (3, lambda m: m[:-4] + b"\xff\xff\xff\x7f", "linear_query.residue"),
        (3, lambda m: m[:-16] + bytes(12) + b"\x01\x00\x00\x00", "linear_query.residue"),
        (3, lambda m: m[:-20] + b"\x00\x00\x00\x0f" + m[-16:-1], "protocol.malformed"),
        (3, lambda m: m[:-20] + b"\x00\x00\x00\x20" + m[-16:] + bytes(16), "protocol.malformed"),
        (3, lambda m: m[:5] + (len(m) - 33).to_bytes(4, "big") + m[13:], "protocol.malformed"),
        (5, lambda m: m[:1] + bytes([m[1] ^ 1]) + m[2:], "protocol.binding"),
        (5, lambda m: m[:-1] + b"\xff", "linear_query.residue"),
        (5, lambda m: m[:-8], "protocol.malformed"),
        (5, lambda m: bytes(MAX_MESSAGE + 1), "protocol.too_large"),
    ],
)
def test_negative_vectors(index: int, edit: Any, code: str) -> None:
    assert refused(lambda side, i, message: edit(message) if i == index else message) == code


def test_a_prime_itself_is_no_residue() -> None:
    """p would be a second encoding of 0. The last residue fills the last word but for two bits."""
    prime = (ring.PRIMES[2] << 2).to_bytes(4, "little")
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
