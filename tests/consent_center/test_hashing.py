"""The vectorised hashes equal hashlib and hmac on every length."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center import hashing, snapshot
from consent_center.ledger import tree
from protocols import sha256


@pytest.fixture(autouse=True, scope="module", params=["hashlib", "kernels", "a node's"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test in every way, whatever the number of rows."""
    least = 1 << 60 if request.param == "hashlib" else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_batches", sha256 if request.param == "a node's" else None)
        patch.setattr(hashing, "_FEW", least)
        patch.setattr(hashing, "_FEW_UNLOADED", least)
        yield


@pytest.mark.parametrize("width", [0, 1, 31, 54, 55, 56, 57, 63, 64, 65, 119, 120, 128, 200])
def test_sha256_rows_equal_hashlib_at_the_block_edges(width: int) -> None:
    rows = np.frombuffer(os.urandom(3 * width), np.uint8).reshape(3, width)
    assert hashing.blobs(hashing.sha256_rows(rows)) == [
        hashlib.sha256(row.tobytes()).digest() for row in rows
    ]


@settings(max_examples=50, deadline=None)
@given(
    st.binary(max_size=100), st.binary(max_size=20), st.lists(st.text(max_size=90) | st.none(), max_size=8)
)
def test_hmac_strings_equal_hmac(key: bytes, prefix: bytes, values: list[str | None]) -> None:
    found = hashing.hmac_strings(key, prefix, pa.array(values, pa.string()))
    wanted = [hmac.digest(key, prefix + (value or "").encode(), "sha256") for value in values]
    assert hashing.blobs(found) == wanted


def test_hmac_strings_respects_the_offset_of_a_slice() -> None:
    values = pa.array(["a", "bb", "ccc", "dddd"])
    whole = hashing.hmac_strings(b"k", b"", values)
    assert (hashing.hmac_strings(b"k", b"", values[2:]) == whole[2:]).all()


@pytest.mark.parametrize("width", [8, 55, 64, 90])
def test_hmac_with_a_key_a_row(width: int) -> None:
    keys = np.frombuffer(os.urandom(5 * 32), np.uint8).reshape(5, 32)
    rows = np.frombuffer(os.urandom(5 * width), np.uint8).reshape(5, width)
    wanted = [hmac.digest(k.tobytes(), r.tobytes(), "sha256") for k, r in zip(keys, rows, strict=True)]
    assert hashing.blobs(hashing.hmac_keyed(keys, rows)) == wanted
    fixed = [hmac.digest(b"one key", r.tobytes(), "sha256") for r in rows]
    assert hashing.blobs(hashing.hmac_rows(b"one key", rows)) == fixed


def test_the_split_over_threads_changes_nothing() -> None:
    rows = np.arange(30_001 * 4, dtype=np.uint32).view(np.uint8).reshape(30_001, 16)
    found = hashing.sha256_rows(rows)
    for at in (0, 1, 14_999, 15_000, 15_001, 30_000):
        assert found[at].tobytes() == hashlib.sha256(rows[at].tobytes()).digest()


def test_blobs_keep_trailing_zeros() -> None:
    assert hashing.blobs(np.zeros((2, 4), np.uint8)) == [bytes(4), bytes(4)]


def test_leaf_and_pair_hashes_are_domain_separated() -> None:
    rows = np.zeros((2, 32), np.uint8)
    assert hashing.blobs(tree.leaf_hashes(rows)) == [tree.leaf_hash(bytes(32))] * 2
    assert hashing.blobs(tree.pair_hashes(rows)) == [tree.node_hash(bytes(32), bytes(32))]


def test_a_root_in_pieces_is_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_HEIGHT", 3)
    rows = np.frombuffer(os.urandom(40 * 32), np.uint8).reshape(40, 32)
    for size in range(41):
        assert tree.rows_root(rows[:size]) == tree.tree_hash(tree.leaf_hashes(rows[:size]))


def test_tokens_are_sorted_and_distinct() -> None:
    """Also where the first eight bytes of two are equal, which sorting looks at alone as long as it can."""
    rows = np.frombuffer(os.urandom(50 * 32), np.uint8).reshape(50, 32)
    for people in (rows[:0], rows[:1], rows, np.concatenate([rows, rows[10:20]])):
        wanted = sorted({hmac.digest(b"salt", row.tobytes(), "sha256") for row in people})
        assert hashing.blobs(snapshot.tokens_of(b"salt", people)) == wanted
