"""Bags of a lookalike: equal to the ideal, cheaper from the second on, private together, refused if few."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_helpers import SESSION, transcript

from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.lookalike import Features, FitResult, Labels, Terms, padded
from protocols.lookalike import bags as coins
from protocols.lookalike import features as provider_side
from protocols.lookalike import labels as brand_side
from protocols.lookalike.ideal import bagged
from protocols.lookalike.noise import epsilon_of
from protocols.lookalike.terms import agree
from protocols.machine import pump

BAGS = Terms(epsilon=None, minimum_seeds=1, minimum_level=1, bags=3)


def table(rows: int, columns: int, rate: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    phi = np.asfortranarray(random.standard_normal((rows, columns)), dtype=np.float32)
    chance = rate * 2 / (1 + np.exp(-phi @ np.linspace(1, -1, columns)))
    return phi, np.flatnonzero(random.random(rows) < chance)


def pair(phi: np.ndarray, seeds: np.ndarray, terms: Terms) -> tuple[Labels, Features]:
    names = [f"column {j}" for j in range(phi.shape[1])]
    brand = Labels(seeds, len(phi), SESSION, terms, os.urandom)
    return brand, Features(phi, names, SESSION, terms, os.urandom)


def run(phi: np.ndarray, seeds: np.ndarray, terms: Terms) -> FitResult:
    brand, provider = pair(phi, seeds, terms)
    pump(brand, provider)
    assert brand.finished and provider.result.bags == terms.bags
    return provider.result


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_ideal_functionality(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    phi, seeds = table(1500, 3, 0.2, seed)
    drawn: list[np.ndarray] = []
    halves: list[np.ndarray] = []

    def of_seeds(count: int, rng: coins.Rng) -> np.ndarray:
        drawn.append(coins.half(count, rng))
        return drawn[-1]

    def of_rows(count: int, rng: coins.Rng) -> np.ndarray:
        halves.append(coins.half_of_rows(count, rng))
        return halves[-1]

    monkeypatch.setattr(brand_side, "half", of_seeds)
    monkeypatch.setattr(provider_side, "half_of_rows", of_rows)
    result = run(phi, seeds, replace(BAGS, l2=2.0))
    assert len(drawn) == len(halves) == 3
    weights, z = bagged(phi, [seeds[keep] for keep in drawn], halves, 2.0)
    # z is of rounded columns: half a step a seed at the most.
    assert (result.z[:, -1] == z[:, -1]).all() and np.abs(result.z - z).max() < 1e-3 * len(seeds)
    assert np.abs(result.weights - weights[:-1]).max() < 1e-3 and abs(result.intercept - weights[-1]) < 1e-3
    assert result.spread is not None and result.spread.min() > 0 and result.spread.max() < 1


def test_the_average_scatters_less_than_its_parts_and_ranks_like_the_single_fit() -> None:
    phi, seeds = table(40_000, 5, 0.05)
    whole = run(phi, seeds, replace(BAGS, bags=1))
    parts = run(phi, seeds, replace(BAGS, bags=8))
    assert whole.spread is None and parts.spread is not None
    assert np.corrcoef(phi @ whole.weights, phi @ parts.weights)[0, 1] > 0.995
    # The mean of eight is off by about spread / sqrt(8) a weight from what halves give on average.
    assert np.abs(parts.weights - whole.weights).max() < 4 * parts.spread.max()


@pytest.mark.parametrize("rows", [300, 20_000])
def test_bags_after_the_first_transform_no_query(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    phi, seeds = table(rows, 2, 0.4)
    held = []
    plain = provider_side.Transforms

    def kept(limit: int) -> object:
        held.append(plain(limit))
        return held[-1]

    monkeypatch.setattr(provider_side, "Transforms", kept)
    quantised = []
    quantise = provider_side.kernels.quantise

    def counted(*arguments: object) -> np.ndarray:
        quantised.append(arguments[1])
        return quantise(*arguments)

    monkeypatch.setattr(provider_side.kernels, "quantise", counted)
    run(phi, seeds, replace(BAGS, bags=4))
    (transforms,) = held
    assert transforms.made > 0 and transforms.reused == 3 * transforms.made
    # The columns themselves are read once: every row range a single time.
    assert len(quantised) == len(set(quantised))
    held.clear()
    run(phi, seeds, replace(BAGS, bags=1))
    assert not held


def test_seeds_are_drawn_by_independent_fair_coins() -> None:
    drawn = np.array([coins.half(1003, os.urandom) for _ in range(200)])
    assert drawn.shape == (200, 1003) and abs(drawn.mean() - 0.5) < 6 * 0.5 / math.sqrt(drawn.size)
    # Of the last, odd byte as of the others, and apart from each other.
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 6 * 0.5 / math.sqrt(200)
    assert np.abs(np.corrcoef(drawn[:, -4:].T.astype(float))[np.triu_indices(4, 1)]).max() < 0.45
    tiny = {coins.half_of_rows(2, os.urandom).tobytes() for _ in range(60)}
    assert len(tiny) == 3  # one, the other, both; never none
    fixed = iter([b"\x00", b"\x80"])
    assert coins.half_of_rows(3, lambda size: next(fixed)).tolist() == [0]


@given(bags=st.integers(1, 64), epsilon=st.sampled_from([0.5, 2.0, 8.0]), columns=st.integers(1, 40))
@settings(max_examples=8, deadline=None)
def test_noise_of_all_bags_together_is_that_of_epsilon(bags: int, epsilon: float, columns: int) -> None:
    """The ρ of all bags, one vector of √bags times the sensitivity, is that of the run without bags."""
    terms = Terms(epsilon=epsilon, minimum_seeds=1)
    one, many = (agree(replace(terms, bags=b), 5000, columns, padded(500)) for b in (1, bags))
    assert one.noise_scale is not None and many.noise_scale is not None
    assert one.sensitivity is not None and many.sensitivity is not None
    together = bags * (many.sensitivity / many.noise_scale) ** 2 / 2
    assert together == pytest.approx((one.sensitivity / one.noise_scale) ** 2 / 2, rel=1e-3)
    scale, moved = many.noise_scale, math.sqrt(bags) * many.sensitivity
    assert 0.99 * epsilon < epsilon_of(scale, terms.delta, moved) <= epsilon
    # Nine times the noise has room in every answer.
    assert many.plan.query.headroom >= 9 * many.noise_scale


def test_each_bag_has_noise_of_its_own() -> None:
    phi, seeds = table(4000, 4, 0.2)
    result = run(phi, seeds, Terms(epsilon=2.0, minimum_seeds=1, bags=16))
    assert result.noise_scale is not None
    counts = result.z[:, -1] - len(seeds) / 2
    # Coins and noise: both vary from bag to bag.
    wide = math.hypot(result.noise_scale, math.sqrt(len(seeds)) / 2)
    assert len(set(counts)) > 12 and 0.5 < counts.std() / wide < 1.7


@pytest.mark.parametrize(("columns", "bags", "blame"), [(8, 4, LocalError), (15, 3, PeerError)])
def test_seeds_a_column_scale_with_the_bags(columns: int, bags: int, blame: type[ProtocolError]) -> None:
    """300 seeds, padded to 320, are enough for thirty columns and bags together and not for 32."""
    phi, _ = table(2000, columns, 0.2)
    seeds = np.arange(300)
    run(phi[:, :5], seeds, replace(BAGS, bags=6))
    with pytest.raises(blame, match="ten for each bag") as caught:
        run(phi, seeds, replace(BAGS, bags=bags))
    assert caught.value.code == "lookalike.columns"
    run(phi, seeds, Terms(epsilon=2.0, minimum_seeds=1, bags=4))


def test_messages_say_no_more_than_sizes() -> None:
    """The linear query once a bag, in the same sizes whoever is a seed; keys and masks are fresh."""
    phi, _ = table(3000, 2, 0.2)
    shapes = set()
    for seeds in (np.arange(300), np.arange(2680, 3000)):
        log = transcript(*pair(phi, seeds, BAGS))
        shapes.add(tuple((side, message[0], len(message)) for side, message in log))
        keys = [message[33:65] for side, message in log[2:] if side == "left" and message[0] == 1]
        assert len(keys) == len(set(keys)) == 3
    assert len(shapes) == 1


def test_a_message_of_one_bag_does_not_pass_for_that_of_another() -> None:
    """The key's digest is bound to the bag: replayed, a later bag would be the earlier one's seeds again."""
    phi, seeds = table(1000, 2, 0.3)
    first: list[bytes] = []

    def replay(side: str, index: int, message: bytes) -> bytes:
        if side == "left" and index > 1 and message[0] == 1:
            first.append(message)
            return first[0]
        return message

    with pytest.raises(PeerError) as caught:
        transcript(*pair(phi, seeds, BAGS), replay)
    assert caught.value.code == "protocol.binding" and len(first) == 2


def test_other_numbers_of_bags_are_refused() -> None:
    phi, seeds = table(1000, 2, 0.3)
    brand, _ = pair(phi, seeds, BAGS)
    _, provider = pair(phi, seeds, replace(BAGS, bags=2))
    with pytest.raises(PeerError) as caught:
        pump(brand, provider)
    assert caught.value.code == "protocol.binding"
    for bags in (0, 65):
        with pytest.raises(LocalError, match="bags"):
            replace(BAGS, bags=bags)
