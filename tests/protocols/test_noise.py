"""The ciphertext noise against README section 4, and the plan's refusals."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from lattice_helpers import SESSION, fixed_rng

from protocols.errors import LocalError
from protocols.linear_query import Query, messages, plan, ring
from protocols.linear_query.brand import Secret
from protocols.linear_query.parameters import Plan, candidates
from protocols.linear_query.provider import Evaluator
from protocols.security import STATISTICAL_BITS


def phases(
    query: Query, y: np.ndarray, matrix: np.ndarray, flooded: bool, chosen: Plan | None = None
) -> tuple[list[Fraction], list[int]]:
    """(noise of each answer in Z_P, masks): P/2^k (b + <a, s>) - Delta (answer + mask), centred modulo P."""
    agreed = chosen or plan(query)
    if not flooded:
        agreed = replace(agreed, flood=0)
    secret = Secret(agreed, SESSION, fixed_rng("brand"))
    evaluator = Evaluator(
        agreed,
        lambda start, stop: np.ascontiguousarray(matrix[start:stop].T, dtype=np.int32),
        SESSION,
        fixed_rng("provider"),
    )
    evaluator.seed = secret.seed
    evaluator.p0 = secret.encrypt("public key", 0, np.zeros(ring.N, np.int64))
    rows = agreed.chunk_rows
    for k in range(agreed.chunks):
        block = np.zeros(ring.N, np.int64)
        block[: len(y[k * rows : (k + 1) * rows])] = y[k * rows : (k + 1) * rows]
        evaluator.take(secret.encrypt("chunk", k, block))
    exact, noise, modulus = matrix.T @ y, [], agreed.level.modulus
    for message in evaluator.answers():
        answer = messages.TO_BRAND.decode(message, messages.Answer)
        a = messages.polynomial_of(answer.a, agreed.answer_bits)
        due = min(agreed.packing, query.queries - len(noise))
        for phase in secret.phases(a, messages.numbers_of(answer.b, due, agreed.answer_bits)):
            j = len(noise)
            # Of what is encrypted, answer + mask modulo t: a carry must not show in the noise.
            x = (int(exact[j]) + int(evaluator.masks[j])) % agreed.plain_modulus
            wanted = Fraction(modulus * x, agreed.plain_modulus)
            difference = (Fraction(phase * modulus, 1 << agreed.answer_bits) - wanted) % modulus
            noise.append(difference - modulus if difference > modulus // 2 else difference)
    return noise, [int(mask) for mask in evaluator.masks]


def example(rows: int, queries: int, top: int, most: int = 1) -> tuple[Query, np.ndarray, np.ndarray]:
    random = np.random.default_rng(rows)
    y = random.integers(1 - most, most + 1, rows)
    return Query(rows, queries, most, rows, top), y, random.integers(-top, top + 1, (rows, queries))


@pytest.mark.parametrize("most", [1, 1 << 15])
def test_noise_before_flooding_is_below_the_bounds_and_as_wide_as_predicted(most: int) -> None:
    """With 1, 4 and 32 queries a polynomial: v is wider by the other queries of the group."""
    query, y, matrix = example(3 * ring.N + 17, 64, 1000, most)
    for packing in (1, 4, 32):
        agreed = next(p for p in candidates(query) if p.limbs == 4 and p.packing == packing)
        fine = replace(agreed, answer_bits=120)  # the rounding is below a unit
        noise, masks = phases(query, y, matrix, False, fine)
        assert agreed.noise_tail <= agreed.noise_hard
        assert max(map(abs, noise)) <= agreed.noise_tail
        # v has variance (21/2) (|Q|^2 + |u|^2 + |s|^2), Q of the whole group; |u| and |s| are negligible.
        predicted = (10.5 * packing * (matrix.astype(float) ** 2).sum(axis=0).mean()) ** 0.5
        assert 0.7 < np.std(np.array(noise, dtype=float)) / predicted < 1.35
        # Rounding adds what its bound says, and something of that order where it is felt.
        coarse = replace(agreed, answer_bits=agreed.plain_bits + 20)
        rounded, same = phases(query, y, matrix, False, coarse)
        assert same == masks
        added = [abs(a - b) for a, b in zip(rounded, noise, strict=True)]
        most = (ring.N + 1) * agreed.level.modulus >> (coarse.answer_bits + 1)
        assert most / 10**4 < max(added) <= most + (most >> 20)


def test_rounding_of_equal_values_does_not_add_up() -> None:
    """All y and q alike: rounded all to one side, what is lost would add up to more than the bound."""
    rows, top = 3 * ring.N, 1000
    for value in range(1, 64):
        query = Query(rows, 1, value, rows, top)
        agreed = next(p for p in candidates(query) if p.limbs == 4)
        lost = Fraction(value * agreed.level.modulus, agreed.plain_modulus) % 1
        if 2 * agreed.noise_tail < min(lost, 1 - lost) * rows * top:
            break
    else:
        pytest.fail("no value whose rounding could add up")
    y, matrix = np.full(rows, value), np.full((rows, 1), top)
    noise, _ = phases(query, y, matrix, False, replace(agreed, answer_bits=120))
    assert abs(noise[0]) <= agreed.noise_tail


def test_flooded_noise_stays_decryptable_and_fills_its_range() -> None:
    query, y, matrix = example(ring.N + 1, 40, 1000)
    agreed = plan(query)
    noise, masks = phases(query, y, matrix, flooded=True)
    bound = agreed.flood + agreed.noise_hard + agreed.rounding
    assert max(map(abs, noise)) <= bound < agreed.delta // 2
    # Forty uniform draws: the largest exceeds half the range but for 2^-40.
    assert max(map(abs, noise)) > agreed.flood // 2
    assert len(set(masks)) == 40 and max(masks) < agreed.plain_modulus


@pytest.mark.parametrize(
    ("rows", "queries", "top", "nonzero"),
    [
        (1, 1, 1, 1),
        (10**6, 101, (1 << 19) - 1, 24_576),
        (10**8, 101, (1 << 15) - 1, 10**6),
        (8192, 4096, 7, 8192),
    ],
)
@pytest.mark.parametrize("to_provider", [True, False])
def test_plan_keeps_its_promises(rows: int, queries: int, top: int, nonzero: int, to_provider: bool) -> None:
    query = Query(rows, queries, 1, nonzero, top, to_provider=to_provider)
    for agreed in candidates(query):
        modulus, t = agreed.level.modulus, agreed.plain_modulus
        assert agreed.delta == modulus // t and t > 2 * top * nonzero
        # README 4.1.
        rounding = Fraction((ring.N + 1) * modulus, 1 << (agreed.answer_bits + 1))
        rounding += Fraction((ring.N + 1) * modulus, 1 << 128)
        assert rounding <= agreed.rounding
        assert agreed.flood + agreed.noise_hard + agreed.rounding < agreed.delta // 2
        together = min(agreed.packing, queries) * rows
        assert agreed.noise_hard == (21 * together + min(nonzero, rows)) * top + 2 * 21 * ring.N + 1
        # README 4.2: 2 exp(-T^2 / (43/2 |Q|^2)) < 2^-64, where the tail is not cut by the certain bound.
        assert agreed.flood >= agreed.noise_tail * queries * 2**STATISTICAL_BITS
        assert agreed.hiding_bits >= STATISTICAL_BITS
        tail = agreed.noise_tail - 2 * 21 * ring.N - 1
        if agreed.noise_tail < agreed.noise_hard:
            assert tail**2 / (21.5 * together * top**2) > 65 * 0.6931
        # README 4.3: at most one bit of the mask is lost to rounding, or less than 2^-40 in all.
        if to_provider:
            unrounded = replace(agreed, rounding=0).masking_bits
            assert agreed.masking_bits >= min(unrounded - 1, STATISTICAL_BITS)
        else:  # README 5: what answers tell of u
            assert agreed.packing == 1 or agreed.packing * (agreed.plain_bits + 1) <= ring.N // 4
    assert plan(query).cost == min(found.cost for found in candidates(query))


def test_a_wider_run_takes_the_fewest_bits_that_are_safe() -> None:
    agreed = plan(Query(10**6, 101, 1, 24_576, (1 << 19) - 1))
    coarser = (ring.N + 1) * agreed.level.modulus >> agreed.answer_bits
    assert coarser > max(agreed.noise_hard, agreed.delta // (101 << 42))


def test_answers_that_could_overflow_are_refused() -> None:
    with pytest.raises(LocalError) as caught:
        plan(Query(1 << 30, 1, 1 << 20, 1 << 30, 1 << 15))
    assert caught.value.code == "linear_query.overflow"


def test_noise_that_leaves_no_room_for_flooding_is_refused() -> None:
    with pytest.raises(LocalError) as caught:
        plan(Query(1 << 30, 100, 1, 1 << 30, (1 << 20) - 1))
    assert caught.value.code == "linear_query.noise"


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0},
        {"rows": 1 << 41},
        {"queries": 0},
        {"queries": 1 << 15},
        {"max_value": 0},
        {"max_value": 1 << 28},
        {"max_nonzero": 0},
        {"max_nonzero": 11},
        {"max_query": 1 << 20},
        {"headroom": -1},
    ],
)
def test_sizes_outside_the_limits_are_refused(change: dict[str, int]) -> None:
    sizes = {"rows": 10, "queries": 1, "max_value": 1, "max_nonzero": 10, "max_query": 1} | change
    with pytest.raises(LocalError) as caught:
        Query(**sizes)
    assert caught.value.code == "protocol.argument"
