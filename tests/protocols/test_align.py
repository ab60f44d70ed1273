"""Align: equal to the ideal functionality, known answers, and what its own messages may not do."""

from __future__ import annotations

import hashlib
import random
import tracemalloc

import numpy as np
import pytest
from oprf_helpers import SESSION, converse, feed, items_of, sent_by, stream
from test_oprf_exchange import shrink

from protocols import align
from protocols.align import ideal, tags
from protocols.align.messages import KIND, Tags
from protocols.errors import PeerError
from protocols.machine import MAX_MESSAGE
from protocols.oprf import evaluate, suite
from protocols.oprf.messages import Announce, binding


def run(mine: np.ndarray, theirs: np.ndarray, seed: str = "") -> tuple[align.Receiver, align.Sender]:
    receiver = align.Receiver(mine, SESSION, align.Limits(), stream("receiver" + seed))
    sender = align.Sender(theirs, SESSION, align.Limits(), stream("sender" + seed))
    converse(receiver, sender)
    return receiver, sender


def assert_ideal(mine: np.ndarray, theirs: np.ndarray, seed: str = "") -> None:
    receiver, sender = run(mine, theirs, seed)
    rows, learned = ideal.align(mine, theirs)
    assert receiver.result.rows.dtype == np.int64
    assert (receiver.result.rows == rows).all()
    assert receiver.result.sender_rows == len(theirs)
    assert sender.result == learned
    assert receiver.progress[0] == receiver.progress[1] == sender.progress[1] == sender.progress[0]


@pytest.mark.parametrize(
    ("n", "m", "shared"),
    [(0, 0, 0), (0, 5, 0), (5, 0, 0), (1, 1, 1), (1, 1, 0), (2, 2, 1), (300, 300, 300), (300, 300, 0)]
    + [(3, 3000, 2), (2000, 2, 2), (257, 255, 128)],
)
def test_sizes(n: int, m: int, shared: int) -> None:
    both = [f"both{i}" for i in range(shared)]
    mine = both + [f"mine{i}" for i in range(n - shared)]
    theirs = [f"theirs{i}" for i in range(m - shared)] + both
    assert_ideal(items_of(mine), items_of(theirs))


def test_three_hundred_random_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)  # small chunks: every boundary is met often
    choose = random.Random(20)
    for i in range(300):
        n, m = choose.choice([0, 1, 2, 3, 16, 17, 40]), choose.choice([0, 1, 2, 15, 16, 33, 64])
        mine = choose.sample(range(choose.choice([64, 500])), n)
        theirs = choose.sample(range(choose.choice([64, 500])), m)
        assert_ideal(items_of(mine), items_of(theirs), str(i))


def test_several_chunks_of_full_size() -> None:
    mine, theirs = items_of(range(9000)), items_of(range(4000, 13_000))
    receiver, _ = run(mine, theirs)
    assert (receiver.result.rows == np.where(np.arange(9000) >= 4000, np.arange(9000) - 4000, -1)).all()


def test_known_answer() -> None:
    """Fixed randomness fixes every byte. The hash is this code's own: it guards against unmeant changes."""
    receiver = align.Receiver(items_of(range(5)), SESSION, align.Limits(), stream("receiver"))
    sender = align.Sender(items_of(range(3, 9)), SESSION, align.Limits(), stream("sender"))
    transcript = converse(receiver, sender)
    assert [(who, len(message)) for who, message in transcript] == [
        ("receiver", 1 + 32 + 8),
        ("sender", 1 + 32 + 8 + 4),
        ("receiver", 1 + 8 + 4 + 256 * 32),
        ("sender", 1 + 8 + 4 + 256 * 32),
        ("sender", 1 + 8 + 4 + 6 * 7),  # 40 + log2(256 · 6) = 50.6 bits
    ]
    assert all(len(message) <= MAX_MESSAGE for _, message in transcript)
    digest = hashlib.sha256(b"".join(message for _, message in transcript)).hexdigest()
    assert digest == "7940b1aad76367d0669c00ba0eb7fb44427740c577f787bcba28af58cc2c1916"
    assert receiver.result.rows.tolist() == [-1, -1, -1, 0, 1]


def test_a_tag_is_what_the_readme_says() -> None:
    """From the sender's first 64 random bytes to the bytes on the wire, by the specification."""
    sender = align.Sender(items_of([7]), SESSION, align.Limits(), stream("sender"))
    transcript = converse(align.Receiver(items_of([7]), SESSION, align.Limits(), stream("r")), sender)
    output = evaluate(suite.generate_key(stream("sender")), items_of([7]))
    label = b"PEC-v1" b"\x00\x05align" b"\x00\x06sender" b"\x00\x03tag" b"\x00\x20" + SESSION  # fmt: skip
    tag = hashlib.sha512(label + output.tobytes()).digest()[:6]
    assert KIND.to_receiver.decode(sent_by("sender", transcript)[2], Tags) == Tags(0, tag)


@pytest.mark.parametrize(
    ("size", "rows", "width"),
    [(256, 0, 5), (256, 1, 6), (256, 256, 7), (1 << 16, 1 << 16, 9), (1 << 20, 1 << 20, 10)]
    + [(1 << 32, 1 << 32, 13)],
)
def test_tag_bytes(size: int, rows: int, width: int) -> None:
    assert tags.tag_bytes(size, rows) == width


def test_two_sessions_have_nothing_in_common() -> None:
    theirs = items_of(range(300))
    seen = []
    for seed in "ab":
        sender = align.Sender(theirs, SESSION, align.Limits(), stream(seed))
        one = align.Receiver(theirs, SESSION, align.Limits(), stream("same"))
        seen.append(KIND.to_receiver.decode(sent_by("sender", converse(one, sender))[2], Tags).data)
    rows = [{data[i : i + 8] for i in range(0, len(data), 8)} for data in seen]
    assert not rows[0] & rows[1]


@pytest.mark.parametrize("width", [0, 5, 7, 16, 17, 2**32 - 1])
def test_another_tag_width_is_refused(width: int) -> None:
    receiver = align.Receiver(items_of(range(5)), SESSION, align.Limits(), stream("r"))
    announce = KIND.to_receiver.encode(Announce(binding("align", SESSION), 1, width))
    with pytest.raises(PeerError, match=r"align\.size: tags of \d+ bytes announced, 6 are due"):
        list(feed(receiver, [announce]))


def test_the_senders_memory_does_not_grow_with_its_rows() -> None:
    """Tags are made a message at a time; what is traced here is all that numpy allocates."""

    def peak(rows: int) -> int:
        sender = align.Sender(items_of(range(rows)), SESSION, align.Limits(), stream("s"))
        receiver = align.Receiver(items_of(range(3)), SESSION, align.Limits(), stream("r"))
        [request] = receiver.start()
        list(sender.start())
        [announce] = sender.receive(request)
        [blinded] = receiver.receive(announce)
        tracemalloc.start()
        try:
            sizes = [len(message) for message in sender.receive(blinded)]
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert sum(sizes) > 7 * rows
        return most

    one, three = peak(8192), peak(3 * 8192)
    assert three < one + (1 << 20)
