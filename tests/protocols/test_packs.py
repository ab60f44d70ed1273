"""The pack of kernels: numba's own results, used for exactly what it was made for, else not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oprf_helpers import items_of, stream

from protocols import packs, parallel, sha256
from protocols.align.vole.matching import scatter
from protocols.permute import permutation


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pack of three kernels, one of which allocates; not used yet."""
    monkeypatch.setattr(packs, "_FILE", tmp_path / "kernels.pack")
    monkeypatch.setattr(packs, "_found", {})
    monkeypatch.setattr(packs, "active", False)
    monkeypatch.setattr(packs, "_most", None)
    monkeypatch.setattr(packs, "_due", False)
    monkeypatch.setattr(packs, "recording", {})
    work()
    calls = packs.recording
    assert calls is not None
    monkeypatch.setattr(packs, "recording", None)
    assert packs.build(calls) == len(calls) == 3
    return tmp_path / "kernels.pack"


def work() -> list[Any]:
    order = np.array([2, 0, 1], dtype=np.int32)
    out = np.zeros((3, 5), dtype=np.uint8)
    scatter(items_of("abc")[:, :4].copy(), order, out)
    texts = np.frombuffer(b"onetwothree", dtype=np.uint8)
    digests = sha256.digests(b"x", texts, np.array([0, 3, 6, 11], dtype=np.int32))
    return [out.tolist(), digests.tolist(), permutation(50, stream("p")).tolist()]


def test_the_same_results(pack: Path) -> None:
    due = work()
    assert not packs.active and packs.enable() and packs.active
    used = []
    for key, native in list(packs._found.items()):
        packs._found[key] = lambda a, key=key, native=native: (used.append(key), native(a))[1]
    assert work() == due
    assert len(used) == len(packs._found) == 3


def test_small_calls_only_and_only_until_numba_is_there(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = packs.sys.modules["numba"]
    packs.enable_for_small()
    assert packs.active and not packs._found
    name, small = sha256._native.name, (np.zeros(4, np.uint8), 1)
    monkeypatch.setattr(packs, "_found", {(name, "u1/1,q"): print})
    monkeypatch.setattr(packs, "_due", False)
    assert packs.find(name, small) is None  # numba is there
    monkeypatch.delitem(packs.sys.modules, "numba")
    assert packs.find(name, small) is print
    assert packs.find(name, (np.zeros(packs.SMALL + 1, np.uint8), 1)) is None
    monkeypatch.setitem(packs.sys.modules, "numba", loaded)


def test_small_calls_without_a_pack_go_to_numba(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack.unlink()
    monkeypatch.delitem(packs.sys.modules, "numba")
    packs.enable_for_small()
    assert packs.find("any", (1,)) is None and not packs.active


def test_other_arguments_go_to_numba(pack: Path) -> None:
    assert packs.enable()
    wide = np.zeros((6, 10), dtype=np.uint8)
    out = wide[::2]  # not contiguous: the machine code would write elsewhere
    tags = items_of("abc")[:, :4].copy()
    scatter(tags, np.arange(3, dtype=np.int32), out)
    assert (out[:, :4] == tags).all() and not wide[1::2].any()


def test_a_pack_that_does_not_fit_is_not_used(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack.read_bytes()
    for bad in (b"", data[:-1], data[:60] + bytes([data[60] ^ 1]) + data[61:], b"x" + data[1:]):
        pack.write_bytes(bad)
        assert not packs.enable() and not packs.active
    pack.unlink()
    assert not packs.enable()
    pack.write_bytes(data)
    monkeypatch.setattr(packs.sys, "version", "another")
    assert not packs.enable()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.zeros((2, 3), np.uint16), 7, np.uint64(7)), "u2/2,q,Q"),
        ((np.zeros(3, bool), np.int64(1)), "b1/1,q"),
        ((True,), None),
        ((1.5,), None),
        ((np.zeros((4, 4))[:, 1],), None),
        ((np.array(["a"], dtype=object),), None),
        (((1, 2),), None),
    ],
)
def test_signatures(arguments: tuple[Any, ...], text: str | None) -> None:
    assert packs.signature(arguments) == text


@pytest.mark.parametrize(("given", "due"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_sleep_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, due: str
) -> None:
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    assert parallel.inlined(_one).jitted(np.zeros(1)) == 1
    assert os.environ["OMP_WAIT_POLICY"] == due


def _one(x: np.ndarray) -> int:
    return x.shape[0]
