"""What an align job will cost, before it runs: bytes by counting messages, seconds by measured rates.

The alignment, and the gate's opening before it; not what a kind does afterwards.

Pure functions of sizes, suite and rates; nothing here reads a clock, except `calibrate`, which measures this
machine once. Bytes follow from the specification (protocols/align/README.md, section 2) and are exact but for
the transport's signs of life; seconds are a forecast. A job records the forecast beside what then happened.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from protocols.align import buckets as bucketing
from protocols.align.tags import NUMBER_BYTES, tag_bytes
from protocols.align.vole.messages import FULL_TAG
from protocols.machine import MAX_MESSAGE
from protocols.oprf.padding import CHUNK, padded_size, rows_per_message
from protocols.security import STATISTICAL_BITS, VOLE_SUBFIELD_BITS

#: Seconds of an alignment from which on it is worth telling that a forecast was wrong: shorter ones wait for
#: whatever else the machine does.
NOTABLE = 5.0

#: What a frame adds to a message: job id, stage, sequence number, protobuf's and gRPC's heads, in bytes.
FRAME = 96

#: Control messages of the stage and its boundary, both ways together, in bytes.
CONTROL = 2400

#: Megabits a second that are assumed where nobody set or measured them: a line between two data centres.
DEFAULT_MBIT = 1000.0

#: Seconds of processor time of `ecdh`, before `calibrate` has measured this machine: `pec bench align --suite
#: ecdh` on a 2024 server (README of align, section 8): an element at the receiver, one at the sender, a row.
ECDH_RECEIVER, ECDH_SENDER, ECDH_ROW = 112e-6, 48e-6, 62e-6

#: A row whose output is prepared: hashed at the sender, sorted at the receiver, on one core each.
PREPARED_ROW = 3.5e-6

#: Bytes of `vole`, counted in runs of 2^8 to 2^20 items a side (within 2 % of each): up a fixed part and one
#: for each item, down a fixed part, one for each doubling beyond 2^11 items, and the rows' tags.
VOLE_UP, VOLE_UP_ITEM, VOLE_DOWN, VOLE_DOWN_STEP = 145_000, 10.85, 34_960, 4096

#: The same where all runs together have more rows than values of 64 bits are enough for: values of 128.
VOLE_UP_WIDE, VOLE_UP_ITEM_WIDE = 270_000, 21.65

#: What the malicious variant's checks add to that.
VOLE_UP_CHECKED = 13_000

#: Seconds of `vole` in the same runs, both sides on two cores: the set-up, an item at the receiver, a row.
VOLE_SETUP, VOLE_RECEIVER, VOLE_ROW = 0.25, 0.6e-6, 0.35e-6

#: How many times as long items and rows take with values of 128 bits, and in the malicious variant.
WIDE, CHECKED = 1.3, 3.2

#: Seconds of cutting an item of either side into buckets: its hash, its way into a file and back.
BUCKET_ITEM = 0.15e-6

#: Seconds of the gate's opening, and of an identifier in it (read, brought to its normal form, asked about,
#: hashed for snapshot and protocol), in a node whose center has been used before.
OPENING, OPENING_ITEM = 0.3, 2.1e-6

#: The three costs in units of one hash to the group with its multiplication (`calibrate` measures that unit).
_SHARES = (ECDH_RECEIVER / ECDH_ROW, ECDH_SENDER / ECDH_ROW)


@dataclass(frozen=True)
class Work:
    """One align job. `receiver`, `sender`: items a side (the receiver's rounded up); `buckets`: runs;
    `prepared`: the sender has its outputs of suite `ecdh` already; `malicious`: the variant of `vole`;
    `numbered`: rows come with numbers (of several identifiers a person), as they do in buckets.
    """

    receiver: int
    sender: int
    buckets: int = 1
    prepared: bool = False
    malicious: bool = False
    numbered: bool = False

    @classmethod
    def of(cls, receiver: int, sender: int, bucket_rows: int) -> Work:
        """As the two sides would cut it."""
        size = padded_size(receiver)
        return cls(size, sender, bucketing.count(size, sender, bucket_rows))

    @property
    def number(self) -> int:
        """Bytes of a row's number."""
        return NUMBER_BYTES if self.numbered or self.buckets > 1 else 0

    @property
    def receiver_run(self) -> int:
        """The receiver's padded size in one run."""
        if self.buckets == 1:
            return padded_size(self.receiver)
        return bucketing.capacity(self.receiver, self.buckets)

    @property
    def sender_run(self) -> int:
        """The sender's rows in one run."""
        return self.sender if self.buckets == 1 else bucketing.capacity(self.sender, self.buckets)


@dataclass(frozen=True)
class Rates:
    """What one machine does: seconds of processor time an item, and its cores; `mbit` between the two.

    `shared`: the other side computes on the same cores, as two nodes of one machine do.
    """

    ecdh_unit: float = ECDH_ROW
    cores: int = 2
    mbit: float = DEFAULT_MBIT
    shared: bool = False


@dataclass(frozen=True)
class Cost:
    """A forecast. `sent` and `received` are the receiver's bytes; `seconds` are those of the stage."""

    suite: str
    buckets: int
    seconds: float
    sent: int
    received: int

    @property
    def bytes(self) -> int:
        return self.sent + self.received

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3), "bytes": self.bytes}

    def compared(self, seconds: float, count: int) -> list[str]:
        """What happened, where it is more than twice or less than half of this; a sentence for each."""
        out = []
        if max(seconds, self.seconds) >= NOTABLE and not within(seconds, self.seconds):
            out.append(f"took {seconds:.1f} s, {self.seconds:.1f} s were forecast")
        if not within(count, self.bytes):
            out.append(f"moved {count / 1e6:.1f} MB, {self.bytes / 1e6:.1f} MB were forecast")
        return out


def within(fact: float, forecast: float) -> bool:
    """Whether a forecast was right to a factor of two."""
    return forecast <= 2 * fact and fact <= 2 * forecast


def ecdh(work: Work, rates: Rates) -> Cost:
    """32 bytes an element each way, t bytes a row; scalar multiplications on all cores of both sides."""
    size, rows = work.receiver_run, work.sender_run
    width = tag_bytes(size, rows, work.buckets) + work.number
    parts = -(-size // CHUNK)
    row_messages = sum(
        -(-(rows * (part + 1) // parts - rows * part // parts) // rows_per_message(width))
        for part in range(parts)
    )
    sent = 41 + 32 * size + 13 * parts + FRAME * (1 + parts)
    received = 45 + 32 * size + 13 * parts + width * rows + 13 * row_messages
    received += FRAME * (1 + parts + row_messages)
    unit = rates.ecdh_unit / rates.cores
    # Both sides work at the same time; the slower one decides, and the first chunk is waited for.
    sides = _SHARES[0] * size, _SHARES[1] * size + (0 if work.prepared else rows)
    busy = unit * (sum(sides) if rates.shared else max(sides))
    if work.prepared:
        busy += PREPARED_ROW * rates.ecdh_unit / ECDH_ROW * rows
    return Cost(
        "ecdh",
        work.buckets,
        work.buckets * (busy + 0.02) + wire_seconds(work.buckets * (sent + received), rates.mbit),
        work.buckets * sent + CONTROL // 2,
        work.buckets * received + CONTROL // 2,
    )


def vole(work: Work, rates: Rates) -> Cost:
    """A fixed part for the VOLE, 10.85 or 21.65 bytes an item up, t bytes a row down; vector kernels."""
    size, rows = work.receiver_run, work.sender_run
    width = (FULL_TAG if work.malicious else tag_bytes(size, rows, work.buckets)) + work.number
    wide = work.malicious or rows * work.buckets > 1 << (VOLE_SUBFIELD_BITS - STATISTICAL_BITS)
    fixed, each = (VOLE_UP_WIDE, VOLE_UP_ITEM_WIDE) if wide else (VOLE_UP, VOLE_UP_ITEM)
    sent = fixed + round(each * size) + (VOLE_UP_CHECKED if work.malicious else 0)
    received = VOLE_DOWN + VOLE_DOWN_STEP * max(0, size.bit_length() - 12) + width * rows
    sent += FRAME * (2 + sent // MAX_MESSAGE)
    received += FRAME * (2 + received // MAX_MESSAGE)
    # The receiver encodes before the sender decodes, so that the two add up.
    speed = rates.ecdh_unit / ECDH_ROW
    by = CHECKED if work.malicious else WIDE if wide else 1.0
    busy = speed * (VOLE_SETUP + by * (VOLE_RECEIVER * size + VOLE_ROW * rows))
    if work.buckets > 1:
        busy += speed * BUCKET_ITEM * (size + rows)
    return Cost(
        "vole",
        work.buckets,
        work.buckets * busy + wire_seconds(work.buckets * (sent + received), rates.mbit),
        work.buckets * sent + CONTROL // 2,
        work.buckets * received + CONTROL // 2,
    )


def opening(items: int, rates: Rates) -> float:
    """Seconds in which the gate decides about the people of `items` identifiers, before the alignment."""
    return rates.ecdh_unit / ECDH_ROW * (OPENING + OPENING_ITEM * items)


#: Bytes around a record in the table of `enrich` (tag and seal), and about those of one value in it.
ENRICH_ROW, ENRICH_VALUE = 32, 8

#: Seconds of sealing a row of it at the sender.
SEAL_ROW = 0.5e-6


def enrich(work: Work, rates: Rates, tags: int) -> Cost:
    """The exchange of `ecdh` in one run; in the place of the rows' tags a table with a sealed record a row.

    How wide a record is the provider says in the job only: a handle of 4 bytes and about 8 for each tag.
    """
    size, rows = padded_size(work.receiver), work.sender
    width = 4 + ENRICH_VALUE * max(1, tags) + ENRICH_ROW
    parts, row_messages = -(-size // CHUNK), -(-rows // rows_per_message(width))
    sent = 41 + 32 * size + 13 * parts + FRAME * (1 + parts)
    received = 45 + 32 * size + 13 * parts + width * rows + 13 * row_messages
    received += FRAME * (1 + parts + row_messages)
    speed = rates.ecdh_unit / ECDH_ROW
    sides = _SHARES[0] * size, _SHARES[1] * size + rows
    busy = rates.ecdh_unit / rates.cores * (sum(sides) if rates.shared else max(sides))
    seconds = busy + 0.02 + speed * SEAL_ROW * rows + wire_seconds(sent + received, rates.mbit)
    return Cost("ecdh", 1, seconds, sent + CONTROL // 2, received + CONTROL // 2)


def wire_seconds(count: int, mbit: float) -> float:
    """Seconds that so many bytes take on the line."""
    return 8e-6 * count / mbit


#: The forecast of each suite that this version runs.
SUITES: dict[str, Callable[[Work, Rates], Cost]] = {"ecdh": ecdh, "vole": vole}

#: What a job asks for that leaves the choice to the receiver.
AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """The suite that was taken, why, and the forecasts of every one that was allowed, the best first."""

    suite: str
    why: str
    costs: tuple[Cost, ...]

    @property
    def cost(self) -> Cost:
        return self.of(self.suite)

    def of(self, suite: str) -> Cost:
        """The forecast of one of the suites that were allowed."""
        return next(c for c in self.costs if c.suite == suite)


def choose(asked: str, allowed: Iterable[str], work: Work, rates: Rates) -> Choice:
    """The suite for this work: the one that was asked for, or the one that is forecast to end first.

    `allowed`: the suites that the agreement and both sides have. The caller has checked that there is one.
    """
    usable = [name for name in SUITES if name in set(allowed)]
    costs = sorted((SUITES[name](work, rates) for name in usable), key=lambda c: (c.seconds, c.bytes))
    if asked != AUTO:
        return Choice(asked, "the job asks for it", tuple(costs))
    best = costs[0]
    sizes = f"{work.receiver:,} × {work.sender:,} at {rates.mbit:,.0f} Mbit/s"
    if work.prepared:
        sizes += ", the sender's side of ecdh being prepared"
    if len(costs) == 1:
        return Choice(best.suite, f"the only suite that the agreement and both sides have ({sizes})", (best,))
    other = costs[1]
    why = (
        f"{sizes}: about {best.seconds:.1f} s and {best.bytes / 1e6:.1f} MB, "
        f"{other.suite} {other.seconds:.1f} s and {other.bytes / 1e6:.1f} MB"
    )
    return Choice(best.suite, why, tuple(costs))


@functools.cache
def calibrate() -> float:
    """Seconds of one hash to the group with its multiplication on one core here; measured once a process.

    The best of three short runs (about 20 ms each): a loaded machine must not look slow for ever.
    """
    from protocols.oprf import suite

    key = suite.generate_key(os.urandom)
    count = 256
    import numpy as np

    items = np.frombuffer(os.urandom(32 * count), dtype=np.uint8).reshape(count, 32)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        suite.evaluate(key, items)
        best = min(best, time.process_time() - start)
    return max(best / count, 1e-7)


def local_rates(mbit: float, shared: bool = False) -> Rates:
    """This machine's rates; `mbit` 0 means that nobody knows the line."""
    return Rates(calibrate(), max(1, len(os.sched_getaffinity(0))), mbit or DEFAULT_MBIT, shared)
