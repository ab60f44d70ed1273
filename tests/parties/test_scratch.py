"""Room for a protocol between its rounds: memory or a nameless file, same words back, nothing left."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from parties.errors import NodeError
from parties.scratch import Columns, Scratch
from protocols.boost.store import Memory, Store


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_words_come_back_as_they_were_written(tmp_path: Path, in_memory: int) -> None:
    rng, words = np.random.default_rng(1), np.zeros(3000, dtype=np.uint64)
    with Scratch(tmp_path, in_memory) as scratch:
        store = scratch.room(len(words))
        assert isinstance(store, Memory) == (in_memory > 0)
        assert scratch.disk_bytes == (0 if in_memory else 24_000)
        store.write(0, words)
        for _ in range(50):
            at = int(rng.integers(0, 2900))
            part = rng.integers(0, 2**64, int(rng.integers(1, 100)), dtype=np.uint64)
            store.write(at, part)
            words[at : at + len(part)] = part
            at = int(rng.integers(0, 2900))
            assert (store.read(at, 100) == words[at : at + 100]).all()
        assert not list(tmp_path.iterdir())  # no name, whatever happens to the process


def test_a_full_disk_is_noticed_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int, at: int, size: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with Scratch(tmp_path, 0) as scratch, pytest.raises(NodeError, match=r"No space left") as caught:
        scratch.room(10)
    assert caught.value.code == "node.disk"


def test_a_file_is_closed_with_its_block(tmp_path: Path) -> None:
    def stores() -> Store:
        with Scratch(tmp_path, 0) as scratch:
            return scratch.room(10)

    with pytest.raises((OSError, ValueError)):
        stores().read(0, 10)


def test_columns_are_on_the_disk_before_they_are_written(tmp_path: Path) -> None:
    """A mapped page without a block would end the process (SIGBUS), so `reserve` comes first."""
    made = Columns(5000, 300, tmp_path)
    number = made._file.fileno()
    assert os.fstat(number).st_mode & 0o777 == 0o600 and not list(tmp_path.iterdir())
    assert os.fstat(number).st_blocks * 512 < 100_000  # six million are mapped
    for columns in (3, 2, 7):
        made.reserve(columns)
    assert 7 * 20_000 <= os.fstat(number).st_blocks * 512 < 300_000
    made.array[:, :7] = np.arange(7)
    made.reserve(9)
    assert (made.array[:, :9].sum(axis=0) == 5000 * np.array([0, 1, 2, 3, 4, 5, 6, 0, 0])).all()
