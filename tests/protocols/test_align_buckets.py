"""Sets in several runs: the bucket function, padding, and rows with numbers that only a match reads."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from oprf_helpers import SESSION, converse, items_of, stream

from protocols import align, permute
from protocols.align import buckets, tags
from protocols.errors import LocalError, PeerError

KEY = bytes(range(32))


def test_numbers_of_matches_and_of_nobody_else() -> None:
    mine, theirs = items_of(range(0, 400)), items_of(range(300, 900))
    numbers = np.arange(600)[::-1] + (1 << 40) - 600
    receiver = align.Receiver(mine, SESSION, align.Limits(), stream("r"), numbered=True, runs=64)
    sender = align.Sender(theirs, SESSION, align.Limits(), stream("s"), numbers=numbers, runs=64)
    transcript = converse(receiver, sender)
    due = np.where(np.arange(400) >= 300, numbers[np.maximum(np.arange(400) - 300, 0)], -1)
    assert (receiver.result.rows == due).all()
    width = tags.tag_bytes(400, 600, 64) + tags.NUMBER_BYTES
    sent = [m for who, m in transcript if who == "sender" and len(m) == 13 + 600 * width]
    assert len(sent) == 1
    # Nothing of a number stands in the clear: the masked bytes of all rows look uniform.
    masked = np.frombuffer(sent[0][13:], np.uint8).reshape(600, width)[:, -5:]
    assert abs(float(masked.mean()) - 127.5) < 6 and len(np.unique(masked, axis=0)) == 600


def test_a_number_or_its_absence_is_agreed_beforehand() -> None:
    for numbered, numbers in ((True, None), (False, np.arange(3))):
        receiver = align.Receiver(items_of("ab"), SESSION, align.Limits(), stream("r"), numbered=numbered)
        sender = align.Sender(items_of("bcd"), SESSION, align.Limits(), stream("s"), numbers=numbers)
        with pytest.raises(PeerError, match=r"align\.size"):
            converse(receiver, sender)


@pytest.mark.parametrize("numbers", [[1, 2], [-1, 0, 1], [0, 1, 1 << 40], [0.0, 1.0, 2.0]])
def test_bad_numbers(numbers: list[float]) -> None:
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        align.Sender(items_of("bcd"), SESSION, align.Limits(), stream("s"), numbers=numbers)


def test_the_bucket_function_is_that_of_the_specification() -> None:
    item = hashlib.sha256(b"somebody").digest()
    from protocols.labels import label

    raw = hashlib.shake_256(label("align", "both", "bucket key", KEY)).digest(72)
    k = [int.from_bytes(raw[8 * i : 8 * i + 8], "little") for i in range(9)]
    w = [int.from_bytes(item[4 * i : 4 * i + 4], "little") for i in range(8)]
    h = (k[0] + sum(a * b for a, b in zip(k[1:], w, strict=True))) % 2**64
    array = np.frombuffer(item, np.uint8).reshape(1, 32)
    for bits in (1, 5, 14):
        assert buckets.assign(array, 1 << bits, KEY)[0] == h >> (64 - bits)


def test_buckets_are_even_differ_by_key_and_lose_nobody() -> None:
    items = items_of(range(20_000))
    first = buckets.assign(items, 16, KEY)
    sizes = np.bincount(first, minlength=16)
    assert sizes.max() <= buckets.capacity(20_000, 16) and sizes.min() > 1000
    parts = list(buckets.split(first, 16))
    assert (np.sort(np.concatenate(parts)) == np.arange(20_000)).all()
    assert all((first[part] == b).all() for b, part in enumerate(parts))
    other = buckets.assign(items, 16, KEY[::-1])
    assert abs((first == other).mean() - 1 / 16) < 0.01
    assert (buckets.assign(items, 1, KEY) == 0).all()


@pytest.mark.parametrize(("n", "b"), [(0, 4), (1, 2), (1000, 8), (10**6, 16), (10**8, 128), (10**5, 1024)])
def test_a_bucket_overflows_once_in_2_to_the_40(n: int, b: int) -> None:
    from scipy.stats import binom

    cap = buckets.capacity(n, b)
    assert math.log2(b) + binom.logsf(cap, n, 1 / b) / math.log(2) <= -40
    assert cap <= 1.2 * (n / b) + 400  # and the padding stays cheap


def test_how_many_buckets() -> None:
    assert buckets.count(10, 10, 16) == 1 and buckets.count(0, 0, 16) == 1
    assert buckets.count(10, 17, 16) == 2 and buckets.count(100, 1, 16) == 8
    assert buckets.count(10**5, 10**8, 1 << 20) == 128
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        buckets.count(10**8, 1, 100)
    for wrong in (0, 3, 1 << 15):
        with pytest.raises(LocalError, match=r"protocol\.argument"):
            buckets.assign(items_of("a"), wrong, KEY)


def test_filling() -> None:
    filled = buckets.fill(items_of(range(5)), 256, stream("fill"))
    assert filled.shape == (256, 32) and (filled[:5] == items_of(range(5))).all()
    assert len(np.unique(filled, axis=0)) == 256
    with pytest.raises(LocalError, match=r"align\.bucket"):
        buckets.fill(items_of(range(300)), 256, stream("fill"))


def test_rows_in_another_order() -> None:
    items = items_of(range(100))
    order = np.array([99, 0, 0, 57])
    assert (permute.taken(items, order) == items[order]).all()
    assert permute.taken(items, order[:0]).shape == (0, 32)
    for wrong in ([100], [-1, 3]):
        with pytest.raises(LocalError, match=r"protocol\.argument"):
            permute.taken(items, np.array(wrong))
