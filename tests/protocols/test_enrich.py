"""Enrich: equal to the ideal functionality, known answers, and a table that was tampered with."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from oprf_helpers import SESSION, converse, feed, items_of, records_of, sent_by, stream
from test_oprf_exchange import shrink

from protocols import enrich
from protocols.enrich import ideal
from protocols.enrich.messages import KIND, Table
from protocols.enrich.records import MAX_WIDTH
from protocols.errors import LocalError, PeerError
from protocols.machine import MAX_MESSAGE
from protocols.oprf import evaluate, suite
from protocols.oprf.messages import Announce, binding

LIMITS = enrich.Limits()


def run(mine: np.ndarray, theirs: np.ndarray, records: np.ndarray, seed: str = "") -> tuple:
    receiver = enrich.Receiver(mine, SESSION, LIMITS, stream("receiver" + seed))
    sender = enrich.Sender(theirs, records, SESSION, LIMITS, stream("sender" + seed))
    return receiver, sender, converse(receiver, sender)


def assert_ideal(mine: list, theirs: list, seed: str = "", width: int = 24) -> None:
    arguments = items_of(mine), items_of(theirs), records_of(theirs, width)
    receiver, sender, _ = run(*arguments, seed)
    expected, learned = ideal.enrich(*arguments)
    assert receiver.result.found.dtype == np.bool_
    assert (receiver.result.found == expected.found).all()
    assert receiver.result.records.shape == (len(mine), width)
    assert (receiver.result.records == expected.records).all()
    assert sender.result == learned
    assert receiver.progress[0] == receiver.progress[1] == sender.progress[1] == sender.progress[0]


@pytest.mark.parametrize(
    ("n", "m", "shared"),
    [(0, 0, 0), (0, 5, 0), (5, 0, 0), (1, 1, 1), (1, 1, 0), (2, 2, 1), (300, 300, 300), (300, 300, 0)]
    + [(3, 3000, 2), (1000, 2, 2), (257, 255, 128)],
)
def test_sizes(n: int, m: int, shared: int) -> None:
    both = [f"both{i}" for i in range(shared)]
    mine = both + [f"mine{i}" for i in range(n - shared)]
    assert_ideal(mine, [f"theirs{i}" for i in range(m - shared)] + both)


def test_three_hundred_random_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    choose = random.Random(21)
    for i in range(300):
        n, m = choose.choice([0, 1, 2, 3, 16, 17, 40]), choose.choice([0, 1, 2, 15, 16, 33, 64])
        mine = choose.sample(range(choose.choice([64, 500])), n)
        theirs = choose.sample(range(choose.choice([64, 500])), m)
        assert_ideal(mine, theirs, str(i), choose.choice([1, 2, 31, 64]))


def test_the_widest_record_fills_a_message() -> None:
    limits = enrich.Limits(max_width=MAX_WIDTH)
    items, records = items_of(range(2)), records_of(range(2), MAX_WIDTH)
    sender = enrich.Sender(items, records, SESSION, limits, stream("s"))
    receiver = enrich.Receiver(items[1:], SESSION, limits, stream("r"))
    transcript = converse(receiver, sender)
    assert max(len(message) for _, message in transcript) <= MAX_MESSAGE
    assert (receiver.result.records == records[1:]).all()


def test_known_answer() -> None:
    """Fixed randomness fixes every byte. The hash is this code's own: it guards against unmeant changes."""
    receiver, _, transcript = run(items_of(range(5)), items_of(range(3, 9)), records_of(range(3, 9)))
    assert [(who, len(message)) for who, message in transcript] == [
        ("receiver", 1 + 32 + 8),
        ("sender", 1 + 32 + 8 + 4),
        ("receiver", 1 + 8 + 4 + 256 * 32),
        ("sender", 1 + 8 + 4 + 256 * 32),
        ("sender", 1 + 8 + 4 + 6 * (16 + 24 + 16)),
    ]
    digest = hashlib.sha256(b"".join(message for _, message in transcript)).hexdigest()
    assert digest == "b2d5f722812db50f558d9c619d65c71c982d051446668fadea6c627432121a3d"
    assert receiver.result.found.tolist() == [False, False, False, True, True]


def test_a_row_is_what_the_readme_says() -> None:
    """From the sender's first 64 random bytes to the bytes on the wire, with another library's cipher."""
    _, _, transcript = run(items_of([7]), items_of([7]), records_of([7]))
    output = evaluate(suite.generate_key(stream("sender")), items_of([7])).tobytes()

    def derived(usage: bytes) -> bytes:
        label = b"PEC-v1\x00\x06enrich\x00\x06sender\x00\x03" + usage + b"\x00\x20" + SESSION
        return hashlib.sha512(label + output).digest()

    box = ChaCha20Poly1305(derived(b"key")[:32]).encrypt(bytes(12), records_of([7]).tobytes(), None)
    assert KIND.to_receiver.decode(transcript[-1][1], Table) == Table(0, derived(b"tag")[:16] + box)


def test_the_table_does_not_show_the_senders_order() -> None:
    tables = []
    for order in (list(range(50)), list(range(50))[::-1]):
        _, _, transcript = run(items_of([0]), items_of(order), records_of(order))
        tables.append(transcript[-1][1])
    assert tables[0] == tables[1]


def test_equal_records_look_different() -> None:
    _, _, transcript = run(items_of([0]), items_of(range(50)), np.zeros((50, 24), np.uint8))
    rows = np.frombuffer(KIND.to_receiver.decode(transcript[-1][1], Table).data, np.uint8).reshape(50, 56)
    assert len(np.unique(rows[:, 16:40], axis=0)) == 50


WIDTH = 16 + 24 + 16


def changed_table(change: Callable[[np.ndarray], np.ndarray]) -> tuple[enrich.Receiver, list[bytes]]:
    """A receiver of items 0…9 and the messages of a sender of 5…29, whose table was changed."""
    _, _, transcript = run(items_of(range(10)), items_of(range(5, 30)), records_of(range(5, 30)))
    *before, table = sent_by("sender", transcript)
    rows = np.frombuffer(KIND.to_receiver.decode(table, Table).data, np.uint8).reshape(25, WIDTH).copy()
    changed = KIND.to_receiver.encode(Table(0, change(rows).tobytes()))
    return enrich.Receiver(items_of(range(10)), SESSION, LIMITS, stream("receiver")), [*before, changed]


@pytest.mark.parametrize("at", [16, 39, 40, 55])
def test_a_changed_record_is_noticed(at: int) -> None:
    def flip(rows: np.ndarray) -> np.ndarray:
        rows[:, at] ^= 1
        return rows

    receiver, messages = changed_table(flip)
    with pytest.raises(PeerError, match=r"enrich\.tampered: 5 records"):
        list(feed(receiver, messages))
    assert not receiver.finished


def test_exchanged_records_are_noticed() -> None:
    def roll(rows: np.ndarray) -> np.ndarray:
        rows[:, 16:] = np.roll(rows[:, 16:], 1, axis=0)
        return rows

    with pytest.raises(PeerError, match=r"enrich\.tampered"):
        list(feed(*changed_table(roll)))


@pytest.mark.parametrize("name", ["reversed", "repeated", "swapped"])
def test_a_table_out_of_order_is_refused(name: str) -> None:
    orders = {
        "reversed": list(range(25))[::-1],
        "repeated": [0, 0, *range(2, 25)],
        "swapped": [*range(23), 24, 23],
    }
    with pytest.raises(PeerError, match=r"enrich\.order"):
        list(feed(*changed_table(lambda rows: rows[orders[name]])))


def test_order_is_checked_across_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    theirs = range(5, 30)
    _, _, transcript = run(items_of(range(10)), items_of(theirs), records_of(theirs))
    *before, one, two = sent_by("sender", transcript)
    first, second = (KIND.to_receiver.decode(m, Table).data for m in (one, two))
    rows = np.frombuffer(first + second, np.uint8).reshape(25, WIDTH)
    order = [*range(15), 16, 15, *range(17, 25)]  # the exchange is at the end of the first message
    data = rows[order].tobytes()
    again = [
        KIND.to_receiver.encode(Table(0, data[: 16 * WIDTH])),
        KIND.to_receiver.encode(Table(16, data[16 * WIDTH :])),
    ]
    receiver = enrich.Receiver(items_of(range(10)), SESSION, LIMITS, stream("receiver"))
    with pytest.raises(PeerError, match=r"enrich\.order: rows 16…"):
        list(feed(receiver, [*before, *again]))


@pytest.mark.parametrize("width", [0, LIMITS.max_width + 1, 2**32 - 1])
def test_a_width_over_the_limit_is_refused(width: int) -> None:
    receiver = enrich.Receiver(items_of(range(5)), SESSION, LIMITS, stream("r"))
    announce = KIND.to_receiver.encode(Announce(binding("enrich", SESSION), 3, width))
    with pytest.raises(PeerError, match=r"protocol\.too_large"):
        list(feed(receiver, [announce]))


@pytest.mark.parametrize(
    "records",
    [np.zeros((2, 4), np.uint8), np.zeros((3, 0), np.uint8), np.zeros((3, 4), np.int8), np.zeros(3, np.uint8)]
    + [np.zeros((3, LIMITS.max_width + 1), np.uint8)],
)
def test_records_of_the_wrong_shape(records: np.ndarray) -> None:
    with pytest.raises(LocalError, match=r"protocol\.argument: records"):
        enrich.Sender(items_of(range(3)), records, SESSION, LIMITS, stream("s"))


def test_a_limit_no_message_can_hold() -> None:
    with pytest.raises(LocalError, match="max_width"):
        enrich.Limits(max_width=MAX_WIDTH + 1)


def test_the_result_does_not_print_records() -> None:
    receiver, _, _ = run(items_of([1]), items_of([1]), records_of([1]))
    assert "records" not in repr(receiver.result)
