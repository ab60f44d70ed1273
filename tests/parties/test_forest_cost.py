"""The forecast of a forest: bytes as counted in a run, bounded memory, keys on the disk."""

from __future__ import annotations

import os

import numpy as np
import pytest

from parties.cost import Rates
from parties.forest_cost import Forest, forecast, of_request
from parties.scratch import IN_MEMORY
from protocols import boost


def test_bytes_are_those_of_a_run() -> None:
    rng, rows, columns = np.random.default_rng(1), 4000, 4
    theirs, flags = rng.integers(0, 8, (rows, columns)).astype(np.uint8), np.zeros(columns, dtype=bool)
    y = (theirs.sum(axis=1) + rng.normal(0, 3, rows) > 14).astype(float)
    none = boost.Table(np.zeros((rows, 0), dtype=np.uint8), flags[:0], flags[:0])
    held = np.zeros(rows, dtype=bool)
    labels = boost.Labels(np.arange(rows), y, ~held, held, none)
    terms, session = boost.Terms(trees=4, depth=3, bits=3), os.urandom(32)
    brand = boost.Brand(labels, rows, session, terms, boost.Learning(), os.urandom)
    provider = boost.Provider(boost.Table(theirs, flags, flags), session, terms, os.urandom)
    up, down, counts = list(brand.start()), list(provider.start()), [0, 0]
    while up or down:
        side, queue, to, answers = (0, up, provider, down) if up else (1, down, brand, up)
        message = queue.pop(0)
        counts[side] += len(message)
        answers.extend(to.receive(message))
    found = forecast(Forest(rows, columns, 0, 3, 4, 3), Rates())
    assert 0.9 * counts[0] < found["sent"] < 1.2 * counts[0]
    assert 0.9 * counts[1] < found["received"] < 1.3 * counts[1]


@pytest.mark.parametrize("columns", [5, 20])
def test_memory_is_bounded_and_keys_go_to_the_disk(columns: int) -> None:
    small, large = (forecast(Forest(n, columns, 5, 4, 10, 5), Rates()) for n in (10**5, 10**7))
    assert small["disk_bytes"] == {"brand": 0, "provider": 0}
    assert large["disk_bytes"]["provider"] == 16 * 4 * 10**7 * columns > IN_MEMORY
    assert large["memory_bytes"]["provider"] < 4 << 30 and large["memory_bytes"]["brand"] < 4 << 30
    assert 90 < large["seconds"] / small["seconds"] < 250


def test_what_a_request_asks_for() -> None:
    request = {"columns": ["a", "b"], "params": {"trees": 3, "bins": 8}, "private": {"columns": ["x"]}}
    assert of_request(request, 100, 7) == Forest(100, 2, 1, 3, 3, 5)
    assert of_request({"columns": ["a"]}, 100, 7) == Forest(100, 1, 7, 6, 50, 5)
    assert of_request({"columns": ["a", "b"]}, 500_000, 7) == Forest(500_000, 2, 7, 5, 50, 5)
    assert of_request({"columns": ["a"]}, 10**7, 7) == Forest(10**7, 1, 7, 4, 50, 5)
    assert of_request({"columns": ["*"]}, 100, 7) is None
