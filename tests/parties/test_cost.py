"""The forecast of an alignment: what was predicted beside what two machines really send."""

from __future__ import annotations

import os

import numpy as np
import pytest

from parties import cost
from protocols import align
from protocols.align import buckets
from protocols.oprf.padding import padded_size


def sent(suite: str, receiver: int, sender: int, runs: int) -> tuple[int, int]:
    """Bytes that the receiver and the sender of one run send, without the transport's."""
    drawn = np.frombuffer(os.urandom(32 * (receiver + sender)), dtype=np.uint8).reshape(-1, 32)
    session, limits = os.urandom(32), align.Limits()
    more = {} if runs == 1 else {"runs": runs}
    mine = align.Receiver(
        drawn[:receiver], session, limits, os.urandom, suite=suite, numbered=runs > 1, **more
    )
    numbers = None if runs == 1 else np.arange(sender)
    theirs = align.Sender(drawn[receiver:], session, limits, os.urandom, suite=suite, numbers=numbers, **more)
    count, waiting = [0, 0], [list(mine.start()), list(theirs.start())]
    while any(waiting):
        for side, machine in ((0, theirs), (1, mine)):
            messages, waiting[side] = waiting[side], []
            for message in messages:
                count[side] += len(message)
                waiting[1 - side] += machine.receive(message)
    assert mine.finished and theirs.finished
    return count[0], count[1]


@pytest.mark.parametrize(
    ("suite", "receiver", "sender", "parts"),
    [
        ("vole", 300, 500, 1),
        ("vole", 20_000, 3_000, 1),
        ("vole", 3_000, 60_000, 1),
        ("vole", 9_000, 9_000, 4),
        ("vole", 2_000, 5_000_000, 1 << 12),
        ("ecdh", 300, 500, 1),
        ("ecdh", 700, 600, 2),
    ],
)
def test_bytes_are_as_predicted(suite: str, receiver: int, sender: int, parts: int) -> None:
    work = cost.Work(padded_size(receiver), sender, parts)
    forecast = cost.SUITES[suite](work, cost.Rates())
    if parts == 1:
        up, down = sent(suite, receiver, sender, 1)
    else:
        up, down = sent(suite, buckets.capacity(work.receiver, parts), buckets.capacity(sender, parts), parts)
    # Heads of frames and control messages are the transport's; at these sizes they are a few kilobytes.
    around = cost.CONTROL // 2 + cost.FRAME * 40 * parts
    for predicted, real in ((forecast.sent, parts * up), (forecast.received, parts * down)):
        assert real < predicted + 0.03 * real
        assert predicted < real * 1.03 + around
