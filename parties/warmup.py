"""Compiles every kernel by running tiny instances of what jobs run: `python -m parties.warmup`.

Kernels are compiled at their first call and kept on disk (numba's cache), so this makes the first job of a
fresh installation as quick as the second. Nothing of a node's home is touched. Numba compiles on one core, so
the parts, which share hardly a kernel, are compiled side by side, in as many processes as there are cores.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from consent_center.center import Center
from consent_center.model import DecisionRequest, Notice, Purpose
from consent_center.records.assess import file_assessment
from parties import column_kernels as kernels
from parties import persons
from protocols import align, boost, enrich, joint, lookalike, ot, packs, sha256, vole
from protocols.align import buckets
from protocols.machine import pump
from protocols.parallel import read_only
from protocols.permute import permutation

ROWS, COLUMNS, SEEDS = 512, 4, 128


def exchanges() -> None:
    """Align, transfers, VOLE and enrich on a few hundred random rows."""
    items = np.frombuffer(os.urandom(32 * ROWS), dtype=np.uint8).reshape(ROWS, 32)
    session = os.urandom(32)
    limits = align.Limits(max_receiver=1 << 16, max_sender=1 << 16)
    pump(
        align.Receiver(items[:SEEDS], session, limits, os.urandom),
        align.Sender(items, session, limits, os.urandom),
    )
    choices = np.zeros(ROWS, dtype=np.uint8)
    pump(
        ot.Receiver(choices, session, os.urandom, malicious=True),
        ot.Sender(ROWS, session, os.urandom, malicious=True),
    )
    for field in ("gf2", "gf64", "gf128"):
        receiver = vole.Receiver(ROWS, session, os.urandom, field=field, malicious=True)
        sender = vole.Sender(ROWS, session, os.urandom, field=field, malicious=True)
        pump(receiver, sender)
        vole.multiply_add(receiver.result.a, sender.result.delta, receiver.result.c)
    records = np.zeros((ROWS, 16), dtype=np.uint8)
    wide = enrich.Limits(max_receiver=1 << 16, max_sender=1 << 16, max_width=64)
    pump(
        enrich.Receiver(items[:SEEDS], session, wide, os.urandom),
        enrich.Sender(items, records, session, wide, os.urandom),
    )


def fits() -> None:
    """Lookalike (elastic net too) and joint on a few hundred random rows."""
    session = os.urandom(32)
    rng = np.random.default_rng(1)
    phi = np.asfortranarray(rng.standard_normal((ROWS, COLUMNS), dtype=np.float32))
    names = tuple(f"x{k}" for k in range(COLUMNS))
    for epsilon, l1, bags in ((None, 0.0, 1), (2.0, 0.0, 1), (None, 0.1, 2)):
        terms = lookalike.Terms(epsilon=epsilon, minimum_seeds=10, max_rows=1 << 16, l1=l1, bags=bags)
        seeds = np.arange(SEEDS, dtype=np.int64)
        features = lookalike.Features(phi.copy(order="F"), names, session, terms, os.urandom)
        pump(lookalike.Labels(seeds, ROWS, session, terms, os.urandom), features)
        lookalike.score(phi, features.result)
    labels = (phi[:, 0] > 0).astype(np.float64)
    rows = np.arange(ROWS, dtype=np.int64)
    regression = joint.Terms(steps=2, rank=3)
    provider = joint.Provider(phi, names, session, regression, os.urandom)
    pump(joint.Brand(rows, phi, labels, ROWS, session, regression, os.urandom), provider)
    provider.result.part(phi)
    brand_errors = joint.Weights(rows, phi, np.ones(ROWS), ROWS, 1.0, session, regression, os.urandom)
    pump(brand_errors, joint.Columns(phi, session, regression, os.urandom))


def columns() -> None:
    """The passes over a provider's column."""
    # Made-up values, so that the kernels are compiled; nobody's.
    made = np.random.default_rng(1).standard_normal(ROWS)
    out, where = np.empty(ROWS, np.float32), np.arange(ROWS)
    for values in (read_only(made), read_only(made.astype(np.float32))):
        kernels.summary(values)
        kernels.spread(values, 0.0, 0.0, 0.0)
        kernels.differing(values, 0.0, 0.0, 1.0, 0.0)
        kernels.standardise(values, 0.0, 0.0, 1.0, out)
        kernels.place(values, where, 0.0, 0.0, 1.0, out)
        kernels.place_missing(values, where, out)


def forests() -> None:
    """Boosted trees on a few hundred random rows."""
    rng = np.random.default_rng(1)
    flags = np.zeros(COLUMNS, dtype=bool)
    mine, theirs = (rng.integers(0, 8, (ROWS, COLUMNS)).astype(np.uint8) for _ in range(2))
    y = (mine[:, 0] > theirs[:, 0]).astype(np.float64)
    held = np.arange(ROWS) < SEEDS
    labels = boost.Labels(np.arange(ROWS), y, ~held, held, boost.Table(mine, flags, flags))
    terms, session = boost.Terms(trees=2, depth=2, bits=3), os.urandom(32)
    pump(
        boost.Brand(labels, ROWS, session, terms, boost.Learning(), os.urandom),
        boost.Provider(boost.Table(theirs, flags, flags), session, terms, os.urandom),
    )


def consent() -> None:
    """A consent center in a scratch directory: assume, decide, snapshot, delta."""
    importlib.import_module("consent_center.hashing_kernels")  # these rows are too few to load it
    sha256.hmacs(bytes(32), b"", np.zeros(64, np.uint8), np.array([0, 32, 64]))  # or to hash as a node does
    with tempfile.TemporaryDirectory(prefix="pec-warmup-") as scratch:
        Center.create(Path(scratch) / "consent", "warmup").close()
        with Center.open(Path(scratch) / "consent") as center:
            center.put_purpose(Purpose("warmup", 1, {"en": "warm-up"}, ("none",)), actor="warmup")
            center.put_notice(Notice("warmup", 1, "warmup", 1, {"en": "warm-up"}), actor="warmup")
            file_assessment(center, "warmup", "nobody", "none: made-up rows in a scratch directory", "warmup")
            people = pa.array([f"138{n:08d}" for n in range(ROWS)])
            center.assume(people, "phone", "warmup", "nobody", ["none"], "warm-up", "warmup")
            request = DecisionRequest("warmup", "nobody", ("none",), datetime.now(UTC))
            center.decide(request, people, "phone")
            center.delta(center.snapshot(request, people, "phone", "warmup").id)
            center.checkpoint()


def pack() -> None:
    """Write the kernels of suite `vole` and of the gate into the pack (`protocols.packs`)."""
    packs.recording = {}
    try:
        aligned()
        people = pa.array([f"138{n:08d}" for n in range(ROWS)])
        persons.digests(people, "phone")
        sha256.hmacs(bytes(32), b"", np.zeros(64, np.uint8), np.array([0, 32, 64]))  # pseudonyms and tokens
        permutation(ROWS, os.urandom)
        calls = packs.recording
    finally:
        packs.recording = None
    try:
        packs.build(calls)
    except OSError as error:  # an installation that its user can't write to: slower starts, nothing else
        print(f"the pack of kernels can't be written: {error}", file=sys.stderr)


def aligned() -> None:
    """Suite `vole` of align, in every form that jobs use."""
    items = np.frombuffer(os.urandom(32 * ROWS), dtype=np.uint8).reshape(ROWS, 32)
    session = os.urandom(32)
    limits = align.Limits(max_receiver=1 << 16, max_sender=1 << 16)
    for malicious in (False, True):
        for numbers in (None, np.arange(ROWS)):
            pump(
                align.Receiver(
                    items[:SEEDS],
                    session,
                    limits,
                    os.urandom,
                    suite="vole",
                    malicious=malicious,
                    numbered=numbers is not None,
                ),
                align.Sender(
                    items, session, limits, os.urandom, suite="vole", malicious=malicious, numbers=numbers
                ),
            )
    for _ in buckets.split(buckets.assign(items, 2, session), 2):
        pass


def joins() -> None:
    """What finds the people of both sides, with the pack; trees use the same transfers."""
    exchanges()
    pack()
    forests()


#: The longest first.
PARTS = (joins, fits, consent, columns)


def main() -> int:
    cores = len(os.sched_getaffinity(0))
    if cores == 1:
        for part in PARTS:
            part()
        return 0
    fresh = multiprocessing.get_context("spawn")  # numba's threads do not survive a fork
    with ProcessPoolExecutor(min(cores, len(PARTS)), mp_context=fresh) as pool:
        for ended in [pool.submit(part) for part in PARTS]:
            ended.result()
    return 0


if __name__ == "__main__":
    sys.exit(main())
