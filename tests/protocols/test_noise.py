"""The ciphertext noise against README section 4, and the plan's refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lattice_helpers import SESSION, fixed_rng

from protocols.errors import LocalError
from protocols.linear_query import Query, messages, plan, ring
from protocols.linear_query.brand import Secret
from protocols.linear_query.provider import Evaluator
from protocols.security import STATISTICAL_BITS


def phases(query: Query, y: np.ndarray, matrix: np.ndarray, flooded: bool) -> tuple[list[int], list[int]]:
    """(noise of each answer, masks): b'' + a''s - Delta (answer + mask), centred modulo P."""
    agreed = plan(query) if flooded else replace(plan(query), flood=0)
    secret = Secret(agreed, SESSION, fixed_rng("brand"))
    evaluator = Evaluator(
        agreed,
        lambda start, stop: np.ascontiguousarray(matrix[start:stop].T, dtype=np.int32),
        SESSION,
        fixed_rng("provider"),
    )
    evaluator.seed = secret.seed
    evaluator.p0 = secret.encrypt("public key", 0, np.zeros(ring.N, np.int64))
    padded = np.zeros(query.chunks * ring.N, np.int64)
    padded[: query.rows] = y
    for k in range(query.chunks):
        evaluator.take(secret.encrypt("chunk", k, padded[k * ring.N : (k + 1) * ring.N]))
    exact, noise = matrix.T @ y, []
    for j, message in enumerate(evaluator.answers()):
        answer = messages.TO_BRAND.decode(message, messages.Answer)
        phase = secret.phase(messages.residues_of(answer.a, ring.N), messages.residues_of(answer.b))
        wanted = agreed.delta * (int(exact[j]) + int(evaluator.masks[j]))
        difference = (phase - wanted) % ring.MODULUS
        noise.append(difference - ring.MODULUS if difference > ring.MODULUS // 2 else difference)
    return noise, [int(mask) for mask in evaluator.masks]


def example(rows: int, queries: int, top: int) -> tuple[Query, np.ndarray, np.ndarray]:
    random = np.random.default_rng(rows)
    y = random.integers(0, 2, rows)
    return Query(rows, queries, 1, rows, top), y, random.integers(-top, top + 1, (rows, queries))


def test_noise_before_flooding_is_below_the_bounds_and_as_wide_as_predicted() -> None:
    query, y, matrix = example(3 * ring.N + 17, 40, 1000)
    agreed = plan(query)
    noise, _ = phases(query, y, matrix, flooded=False)
    assert max(map(abs, noise)) <= agreed.noise_tail <= agreed.noise_hard
    # v has variance (21/2) (|q|^2 + |u|^2 + |s|^2); the last two are negligible here.
    predicted = (10.5 * (matrix.astype(float) ** 2).sum(axis=0).mean()) ** 0.5
    assert 0.7 < np.std(np.array(noise, dtype=float)) / predicted < 1.3


def test_flooded_noise_stays_decryptable_and_fills_its_range() -> None:
    query, y, matrix = example(ring.N + 1, 40, 1000)
    agreed = plan(query)
    noise, masks = phases(query, y, matrix, flooded=True)
    bound = agreed.flood + agreed.noise_hard + agreed.plain_modulus
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
def test_plan_keeps_both_promises(rows: int, queries: int, top: int, nonzero: int) -> None:
    agreed = plan(Query(rows, queries, 1, nonzero, top))
    assert agreed.flood + agreed.noise_hard + agreed.plain_modulus < agreed.delta // 2
    assert agreed.flood >= agreed.noise_tail * queries * 2**STATISTICAL_BITS
    assert agreed.hiding_bits >= STATISTICAL_BITS
    assert agreed.plain_modulus > 2 * top * nonzero
    # README 4.2: 2 exp(-T^2 / (21 |q|^2)) < 2^-64, where the tail is not cut by the certain bound.
    tail = agreed.noise_tail - 2 * 21 * ring.N
    if agreed.noise_tail < agreed.noise_hard:
        assert tail**2 / (21 * rows * top**2) > 65 * 0.6931


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
