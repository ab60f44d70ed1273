"""Batches of SHA-256, repeats and permutations: equal to what Python's own tools give."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oprf_helpers import items_of, stream

from protocols import sha256
from protocols.distinct import firsts, repeats
from protocols.errors import LocalError
from protocols.permute import permutation


def digests(prefix: bytes, texts: list[bytes], kind: str = "int32") -> list[bytes]:
    data = np.frombuffer(b"".join(texts), dtype=np.uint8)
    offsets = np.cumsum([0] + [len(t) for t in texts]).astype(kind)
    return [row.tobytes() for row in sha256.digests(prefix, data, offsets)]


@pytest.mark.parametrize("native", [True, False])
def test_every_length(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ends of a block, both ways to compute one; FIPS 180-4's vectors are hashlib's business."""
    if native and not sha256.native():
        pytest.skip("this processor has no SHA instructions")
    monkeypatch.setattr(sha256, "native", lambda: native)
    texts = [bytes([i % 251] * i) for i in range(200)] + [bytes(1024)]
    assert digests(b"phone\x00", texts) == [hashlib.sha256(b"phone\x00" + t).digest() for t in texts]
    assert digests(b"", [b"abc"])[0].hex().startswith("ba7816bf8f01cfea414140de5dae2223")


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=80),
    st.lists(st.binary(max_size=150), max_size=20),
    st.sampled_from(["int32", "int64"]),
)
def test_any_texts(prefix: bytes, texts: list[bytes], kind: str) -> None:
    assert digests(prefix, texts, kind) == [hashlib.sha256(prefix + t).digest() for t in texts]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 130])
def test_hmacs_equal_hmac(native: bool, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2104, keys below, at and above a block; texts around the ends of blocks."""
    if native and not sha256.native():
        pytest.skip("this processor has no SHA instructions")
    monkeypatch.setattr(sha256, "native", lambda: native)
    key, texts = bytes(range(length)), [bytes([i % 251] * i) for i in (0, 1, 31, 32, 49, 50, 51, 64, 200)]
    offsets = np.cumsum([0] + [len(t) for t in texts])
    found = sha256.hmacs(key, b"phone\x00", np.frombuffer(b"".join(texts), dtype=np.uint8), offsets)
    wanted = [hmac.digest(key, b"phone\x00" + t, "sha256") for t in texts]
    assert [row.tobytes() for row in found] == wanted


@pytest.mark.parametrize("offsets", [[0, 5, 3], [-1, 2], [0, 11]])
def test_offsets_outside_of_the_data(offsets: list[int]) -> None:
    with pytest.raises(LocalError, match="offsets do not rise"):
        sha256.digests(b"", np.zeros(10, dtype=np.uint8), np.array(offsets, dtype=np.int64))
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        sha256.digests(b"", np.zeros(10, dtype=np.uint16), np.array([0, 1], dtype=np.int64))  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=60))
def test_repeats(names: list[int]) -> None:
    seen: set[int] = set()
    due = []
    for name in names:
        due.append(name in seen)
        seen.add(name)
    assert repeats(items_of(names)).tolist() == due
    assert firsts(items_of(names)).tolist() == [names.index(name) for name in names]


def test_repeats_of_rows_that_hash_alike() -> None:
    """Rows of zeros but for one byte: nothing but the comparison tells them apart."""
    items = np.zeros((200, 32), dtype=np.uint8)
    items[:, 31] = np.arange(200)
    assert not repeats(items).any()
    assert repeats(np.concatenate([items, items])).sum() == 200


def test_a_permutation_is_one_and_all_are_likely() -> None:
    assert sorted(permutation(1000, stream("x")).tolist()) == list(range(1000))
    assert permutation(0, stream("x")).tolist() == [] and permutation(1, stream("x")).tolist() == [0]
    rng = stream("many")
    seen = np.zeros(6)
    for _ in range(1200):
        a, b, _c = permutation(3, rng).tolist()
        seen[2 * a + (b > 3 - a - b)] += 1
    assert abs(seen - 200).max() < 75  # 5.8 standard deviations
    with pytest.raises(LocalError, match="a permutation of -1"):
        permutation(-1, rng)
