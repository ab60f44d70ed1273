"""The key-value store: every key gets its value, free entries are random, and failures are told."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oprf_helpers import items_of, stream

from protocols import okvs
from protocols.errors import LocalError
from protocols.okvs import kernels, store
from protocols.okvs.shape import Shape, _shape, bin_capacity

KEY = bytes(range(16))


def keys_of(count: int, shape: Shape, seed: int = 0) -> okvs.Located:
    words = np.random.default_rng(seed).integers(0, 1 << 64, (count, 2), dtype=np.uint64)
    return okvs.locate(words, shape)


def values_of(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, 1]).integers(0, 1 << 64, (count, width), dtype=np.uint64)


def naive(vector: np.ndarray, words: np.ndarray, shape: Shape) -> list[int]:
    """Decoding by README section 2, with Python's integers."""
    u, d = int(words[0]), int(words[1])
    bin_, u = (u * shape.bins) >> 64, (u * shape.bins) % 2**64
    spots: list[int] = []
    for k in range(3):
        left = sorted(set(range(shape.sparse)) - set(spots))
        spots.append(left[(u * (shape.sparse - k)) >> 64])
        u = (u * (shape.sparse - k)) % 2**64
    at = bin_ * shape.stride
    picked = [at + p for p in spots] + [at + shape.sparse + j for j in range(shape.dense) if d >> j & 1]
    return [int(np.bitwise_xor.reduce(vector[picked, w])) for w in range(vector.shape[1])]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 300), st.sampled_from([1, 2]), st.integers(0, 1 << 32))
def test_every_key_gets_its_value(count: int, spare: int, width: int, seed: int) -> None:
    shape = Shape.of(max(count + spare, 1))
    keys, values = keys_of(count, shape, seed), values_of(count, width, seed)
    vector = okvs.encode(keys, values, stream(str(seed)))
    assert vector is not None and vector.shape == (shape.size, width)
    assert (okvs.decode(vector, keys) == values).all()


def test_several_bins_against_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.okvs.shape.OKVS_BIN", 64)
    shape = _shape.__wrapped__(1000)  # past the cache, for other tests' sake
    assert shape.bins == 16
    keys, values = keys_of(1000, shape, 5), values_of(1000, 2, 5)
    vector = okvs.encode(keys, values, stream("several"))
    assert vector is not None
    others = keys_of(500, shape, 6)
    out = okvs.decode(vector, others)
    for i in range(0, 1000, 7):
        assert naive(vector, keys.words[i], shape) == values[i].tolist()
    for i in range(0, 500, 7):
        assert naive(vector, others.words[i], shape) == out[i].tolist()
    assert sorted(keys.order.tolist()) == list(range(1000))
    bins = [int(w) * 16 >> 64 for w in keys.words[:, 0]]
    assert bins == sorted(bins) and np.bincount(bins, minlength=16).tolist() == np.diff(keys.starts).tolist()


def test_other_keys_get_something_else() -> None:
    shape = Shape.of(300)
    keys = keys_of(300, shape, 1)
    vector = okvs.encode(keys, np.zeros((300, 1), dtype=np.uint64), stream("others"))
    assert vector is not None
    assert np.count_nonzero(okvs.decode(vector, keys_of(2000, shape, 2)) == 0) == 0


def test_a_core_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing peeled at all: elimination alone must give the same answer."""
    for count in (1, 2, 40, 200):
        shape = Shape.of(256)
        keys, values = keys_of(count, shape, count), values_of(count, 2, count)
        with monkeypatch.context() as patch:
            patch.setattr(store.kernels, "peel", _without_peeling)
            vector = okvs.encode(keys, values, stream("core"))
        assert vector is not None
        assert (okvs.decode(vector, keys) == values).all()


_peel = kernels.peel


def _without_peeling(words, starts, sparse, rows, keys, spots, taken):
    _peel(words, starts, sparse, rows, keys, spots, taken)
    keys[:] = np.arange(len(keys))
    taken[:] = 0


def test_two_keys_with_the_same_three_positions() -> None:
    """The smallest core that comes by chance."""
    shape = Shape.of(300)
    words = keys_of(300, shape, 3).words.copy()
    words[1, 0] = words[0, 0]
    keys, values = okvs.locate(words, shape), values_of(300, 1)
    vector = okvs.encode(keys, values, stream("pair"))
    assert vector is not None and (okvs.decode(vector, keys) == values).all()


def test_a_key_that_comes_twice_can_not_be_encoded() -> None:
    shape = Shape.of(300)
    words = keys_of(300, shape, 3).words.copy()
    words[1] = words[0]
    assert okvs.encode(okvs.locate(words, shape), values_of(300, 1), stream("twice")) is None


def test_too_many_keys_in_one_place_end_quickly() -> None:
    """All in the same positions: elimination must give up instead of running for hours."""
    shape = Shape.of(1 << 14)
    words = np.random.default_rng(1).integers(0, 1 << 64, (1 << 14, 2), dtype=np.uint64)
    words[:, 0] = 7
    assert okvs.encode(okvs.locate(words, shape), values_of(1 << 14, 1), stream("heap")) is None


def test_free_entries_are_random_and_values_hide_the_keys() -> None:
    """Over many encodings of the same keys every bit of every entry is set about half of the time."""
    shape = Shape.of(256)
    keys = keys_of(100, shape, 4)
    runs = 400
    ones = np.zeros(shape.size)
    for i in range(runs):
        vector = okvs.encode(keys, values_of(100, 1, i), stream(f"run {i}"))
        assert vector is not None
        ones += (vector[:, 0] >> np.uint64(i % 64)) & np.uint64(1)
    assert abs(ones - runs / 2).max() < 6 * math.sqrt(runs) / 2
    one, two = (okvs.encode(keys, values_of(100, 1), stream(s)) for s in "ab")
    assert one is not None and two is not None and np.count_nonzero(one == two) == 0


def test_known_answer() -> None:
    """The hash is this code's own: it guards against unmeant changes of the specification."""
    shape = Shape.of(300)
    keys = okvs.locate(okvs.hashed(items_of(range(300)), KEY), shape)
    vector = okvs.encode(keys, keys.words[:, :1].copy(), stream("known"))
    assert vector is not None
    digest = hashlib.sha256(vector.astype("<u8").tobytes()).hexdigest()
    assert digest == "44def590a9833493aaf49976c9e2a726dd3f05165cf5f5adeac06075b7d58d20"


def test_hashed_is_what_the_readme_says() -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    def m(block: bytes) -> bytes:
        aes = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()  # noqa: S305
        return bytes(a ^ b for a, b in zip(aes.update(block), block, strict=True))

    items = items_of(range(5))
    for item, words in zip(items, okvs.hashed(items, KEY), strict=True):
        x1, x2 = item.tobytes()[:16], item.tobytes()[16:]
        assert m(bytes(a ^ b for a, b in zip(m(x1), x2, strict=True))) == words.astype("<u8").tobytes()
    assert okvs.hashed(items[:0], KEY).shape == (0, 2)


@pytest.mark.parametrize(("n", "bins"), [(1000, 4), (1 << 20, 64), (5000, 50)])
def test_the_capacity_of_a_bin_is_least(n: int, bins: int) -> None:
    """Against the exact binomial tail."""
    from scipy.stats import binom

    c = bin_capacity(n, bins, 41)
    assert bins * binom.sf(c, n, 1 / bins) <= 2**-41
    assert bins * binom.sf(c - 2, n, 1 / bins) > 2**-41


def test_sizes_of_the_readme() -> None:
    shape = Shape.of(1 << 20)
    assert (shape.bins, shape.capacity, shape.sparse, shape.dense) == (64, 17371, 22102, 50)
    for n in (1, 2, 255, 1 << 14, 1 << 16, 1 << 22, 1 << 26):
        assert Shape.of(n).dense <= 64 and Shape.of(n).sparse < 1 << 16 and Shape.of(n).size >= 1.23 * n


@pytest.mark.parametrize("n", [0, -1, (1 << 32) + 1])
def test_sizes_that_are_refused(n: int) -> None:
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        Shape.of(n)


def test_arguments_that_are_refused() -> None:
    shape = Shape.of(256)
    keys = keys_of(257, shape)
    with pytest.raises(LocalError, match="257 keys for a store of 256"):
        okvs.encode(keys, values_of(257, 1), stream("x"))
    keys = keys_of(10, shape)
    for values in (values_of(9, 1), values_of(10, 3)):
        with pytest.raises(LocalError, match=r"protocol\.argument"):
            okvs.encode(keys, values, stream("x"))
    with pytest.raises(LocalError, match="a vector of 3"):
        okvs.decode(values_of(3, 1), keys)
    with pytest.raises(LocalError, match="a key of 15 bytes"):
        okvs.hashed(items_of(range(3)), KEY[:15])
