"""The forecast of an alignment: what was predicted beside what two machines really send."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from parties import cost, identity
from protocols import align
from protocols.align import buckets
from protocols.oprf.padding import padded_size


def sent(
    suite: str, receiver: int, sender: int, runs: int, malicious: bool = False, numbered: bool = False
) -> tuple[int, int]:
    """Bytes that the receiver and the sender of one run send, without the transport's."""
    drawn = np.frombuffer(os.urandom(32 * (receiver + sender)), dtype=np.uint8).reshape(-1, 32)
    session, limits = os.urandom(32), align.Limits()
    more = {} if runs == 1 else {"runs": runs}
    more |= {"malicious": True} if malicious else {}
    numbered |= runs > 1
    mine = align.Receiver(
        drawn[:receiver], session, limits, os.urandom, suite=suite, numbered=numbered, **more
    )
    numbers = np.arange(sender) if numbered else None
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
        ("vole malicious", 300, 500, 1),
        ("vole malicious", 9_000, 20_000, 1),
        ("vole malicious", 9_000, 9_000, 4),
        ("vole numbered", 3_000, 9_000, 1),
        ("ecdh numbered", 300, 500, 1),
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
    suite, _, variant = suite.partition(" ")
    malicious, numbered = variant == "malicious", variant == "numbered"
    work = cost.Work(padded_size(receiver), sender, parts, malicious=malicious, numbered=numbered)
    forecast = cost.SUITES[suite](work, cost.Rates())
    sizes = receiver, sender
    if parts > 1:
        sizes = buckets.capacity(work.receiver, parts), buckets.capacity(sender, parts)
    up, down = sent(suite, *sizes, parts, malicious, numbered)
    # Heads of frames and control messages are the transport's; at these sizes they are a few kilobytes.
    around = cost.CONTROL // 2 + cost.FRAME * 40 * parts
    for predicted, real in ((forecast.sent, parts * up), (forecast.received, parts * down)):
        assert real < predicted + 0.03 * real
        assert predicted < real * 1.03 + around


@pytest.mark.parametrize("suite", [*cost.SUITES, "vole malicious"])
@pytest.mark.parametrize("shared", [False, True])
def test_seconds_are_positive_and_grow_with_either_side(suite: str, shared: bool) -> None:
    """In one run, and over the step from one to several."""
    name, _, malicious = suite.partition(" ")
    rates = cost.Rates(shared=shared)

    def seconds(receiver: int, sender: int, bucket_rows: int = 1 << 20) -> float:
        work = replace(cost.Work.of(receiver, sender, bucket_rows), malicious=bool(malicious))
        return cost.SUITES[name](work, rates).seconds

    sizes = [1 << k for k in range(8, 25)]
    for other in (1 << 8, 1 << 16, 1 << 22):
        for grows in ([seconds(n, other) for n in sizes], [seconds(other, n) for n in sizes]):
            assert grows[0] > 0 and all(a <= b for a, b in pairwise(grows)), grows
    assert seconds(1 << 16, 1 << 16, 1 << 12) > seconds(1 << 16, 1 << 16)
    assert 0 < cost.opening(1, rates) < cost.opening(10**6, rates) < cost.opening(10**7, rates)


def test_neighbours_share_their_cores_and_the_malicious_variant_costs_more() -> None:
    work = cost.Work.of(1 << 16, 1 << 16, 1 << 20)
    apart, together = (cost.ecdh(work, cost.Rates(shared=s)).seconds for s in (False, True))
    assert apart < together < 2.1 * apart
    assert (
        cost.vole(replace(work, malicious=True), cost.Rates()).seconds > cost.vole(work, cost.Rates()).seconds
    )
    assert identity.neighbours("127.0.0.1:1", "localhost:2", "[::1]:3")
    assert not identity.neighbours("127.0.0.1:0", "10.0.0.2:4") and not identity.neighbours("0.0.0.0:1")


def test_what_was_far_from_the_forecast_is_told() -> None:
    guess = cost.Cost("vole", 1, 10.0, 600, 400)
    assert guess.compared(10.0, 1000) == guess.compared(19.0, 1999) == guess.compared(5.1, 501) == []
    assert len(guess.compared(21.0, 1000)) == len(guess.compared(4.9, 1000)) == 1
    assert len(guess.compared(10.0, 2001)) == len(guess.compared(10.0, 499)) == 1
    # Of less than five seconds nobody can say what they waited for.
    assert cost.Cost("vole", 1, 0.5, 600, 400).compared(4.0, 1000) == []
