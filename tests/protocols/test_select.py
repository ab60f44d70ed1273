"""Select: equal to the ideal functionality, known answer, playbook, fuzz; what the holder sees says
nothing."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_helpers import SESSION, fixed_rng, transcript

from protocols import select
from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.machine import pump
from protocols.select import ideal, messages
from protocols.select.messages import TO_CHOOSER, TO_HOLDER


def pair(values: np.ndarray, rows: np.ndarray, seed: str = "") -> tuple[select.Chooser, select.Holder]:
    chooser = select.Chooser(rows, values.shape[1], SESSION, fixed_rng("c" + seed))
    return chooser, select.Holder(values, SESSION, fixed_rng("h" + seed))


def draw(seed: int, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (rows, width)).astype(np.uint8), rng.random(rows) < rng.random()


def test_equal_to_the_ideal_functionality(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty runs over several segments and messages, of every width."""
    monkeypatch.setattr(messages, "SEGMENT", 150)
    for module in (messages, select.chooser, select.holder):
        monkeypatch.setattr(module, "PIECE", 256)
    for run in range(60):
        rows = int(np.random.default_rng(run).choice([1, 2, 7, 149, 150, 151, 400]))
        values, chosen = draw(run, rows, 1 + run % 16)
        chooser, holder = pair(values, chosen, str(run))
        pump(chooser, holder)
        expected, count = ideal.select(values, chosen)
        assert (chooser.result == expected).all() and holder.result == count == rows
        assert chooser.progress == holder.progress == (rows, rows)


@pytest.mark.parametrize("choice", [True, False])
def test_all_and_none(choice: bool) -> None:
    values, _ = draw(1, 300, 4)
    chooser, holder = pair(values, np.full(300, choice))
    pump(chooser, holder)
    assert (chooser.result == (values if choice else 0)).all()


def test_known_answer() -> None:
    """Fixed randomness fixes every byte. The hash is this code's own: it guards against unmeant changes."""
    values, rows = draw(2, 100, 4)
    log = transcript(*pair(values, rows))
    assert [side for side, _ in log] == ["right", "left", "right", "left", "right", "left", "right"]
    digest = hashlib.sha256(b"".join(side.encode() + message for side, message in log)).hexdigest()
    assert digest[:32] == "e939fe4a8905a87415e0003f6f83d3af"


def test_the_holders_view_has_the_same_sizes_for_any_choice_and_hides_it() -> None:
    values, _ = draw(3, 4096, 4)
    seen = []
    for rows in (np.zeros(4096, dtype=bool), np.ones(4096, dtype=bool)):
        log = transcript(
            select.Chooser(rows, 4, SESSION, os.urandom), select.Holder(values, SESSION, os.urandom)
        )
        mine = [message for side, message in log if side == "left"]
        seen.append([len(message) for message in mine])
        bits = np.unpackbits(np.frombuffer(mine[-1][-512:], dtype=np.uint8))
        assert abs(float(bits.mean()) - 0.5) < 0.05  # 4096 bits under a uniform mask: six deviations
    assert seen[0] == seen[1]


def test_values_that_were_not_chosen_stay_masked() -> None:
    """All values are zero, so what travels is the mask itself: uniform, and never what the chooser could
    derive."""
    values = np.zeros((4096, 16), dtype=np.uint8)
    rows = np.arange(4096) % 2 == 0
    chooser = select.Chooser(rows, 16, SESSION, os.urandom)
    log = transcript(chooser, select.Holder(values, SESSION, os.urandom))
    data = np.frombuffer(log[-1][1][-4096 * 16 :], dtype=np.uint8).reshape(4096, 16)
    words = chooser._state  # the end: nothing of the masks is kept
    assert not hasattr(words, "_words")
    counts = np.bincount(data[~rows].ravel(), minlength=256)
    assert float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) < 400  # 255 degrees of freedom


@given(st.integers(0, 6), st.binary(max_size=40), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_fuzz(index: int, junk: bytes, how: int) -> None:
    values, rows = draw(4, 70, 4)

    def change(side: str, at: int, message: bytes) -> bytes:
        return message if at != index else [junk, message[:-1], message + junk[:1]][how]

    try:
        transcript(*pair(values, rows), change)
    except ProtocolError as error:
        assert isinstance(error, PeerError)


def test_order_session_and_arguments() -> None:
    values, rows = draw(5, 70, 4)

    def later(side: str, at: int, message: bytes) -> bytes:
        if at != 6:
            return message
        sent = TO_CHOOSER.decode(message, messages.Masked)
        return TO_CHOOSER.encode(messages.Masked(sent.first + 1, sent.data))  # type: ignore[arg-type]

    with pytest.raises(PeerError, match=r"select\.order"):
        transcript(*pair(values, rows), later)
    other = select.Holder(values, bytes(32), os.urandom)
    with pytest.raises(PeerError, match=r"protocol\.binding"):
        pump(select.Chooser(rows, 4, SESSION, os.urandom), other)
    for bad in (values[:, :0], values[:0], values.astype(np.int64), np.zeros((3, 17), dtype=np.uint8)):
        with pytest.raises(LocalError, match=r"protocol\.argument"):
            select.Holder(bad, SESSION, os.urandom)
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        select.Chooser(rows.astype(np.uint8), 4, SESSION, os.urandom)
    assert TO_HOLDER.decode(TO_HOLDER.encode(messages.Transfer(b"x")), messages.Transfer).data == b"x"
