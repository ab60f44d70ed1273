"""Real processes on one center: withdrawals are seen at once, killed writers lose nothing that they
acknowledged, and a full disk or a lock that is never released make nobody eligible."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from consent_helpers import LASTING, REQUEST, event, make, phone, reason

from consent_center import database
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.ledger import verify

pytestmark = pytest.mark.usefixtures("store")

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
import resource, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
import pyarrow as pa
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.model import REASONS, ConsentEvent, DecisionRequest

REQUEST = DecisionRequest("ads", "provider", ("contact",))
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

def event(number, action="granted", at=LONG_AGO, **more):
    return ConsentEvent((("phone", f"138{number:08d}"),), "ads", 1, action, "provider", ("contact",), at,
        "ads-notice", 1, **more)

def reason(center, number):
    return REASONS[center.decide(REQUEST, pa.array([f"138{number:08d}"]), "phone").codes[0]]

center = Center.open(Path(sys.argv[1]))
print("ready", flush=True)
"""

FOLLOWER = """
for line in sys.stdin:
    print(reason(center, int(line)), flush=True)
"""

KILLED = """
import os, random, time
chance, folder = random.Random(7), Path(sys.argv[2])
center.record(event(99_999_999))  # loads the compiled kernels, once for all
center.close()

def write(number):
    center = Center.open(Path(sys.argv[1]))
    out = os.open(folder / f"{number}.txt", os.O_WRONLY | os.O_CREAT)
    while True:
        done = center.record(event(number, evidence=f"form {number}"))
        os.write(out, f"{number} {done.sequence} {done.leaf_index}\\n".encode())
        number += 1

for round_ in range(int(sys.argv[3])):
    writers = []
    for first in range(10_000 * round_, 10_000 * round_ + 4_000, 1_000):
        writers.append(os.fork())  # one start of Python for forty writers
        if not writers[-1]:
            write(first)
    ends, wanted = time.monotonic() + 120, int(sys.argv[4]) * (round_ + 1)
    while sum(file.read_bytes().count(b"\\n") for file in folder.glob("*.txt")) < wanted:
        if time.monotonic() > ends:
            sys.exit("the writers write nothing")
        time.sleep(0.01)
    for writer in chance.sample(writers, 4):
        time.sleep(chance.random() * 0.1)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    if round_ % 3 == 0:
        with Center.open(Path(sys.argv[1])) as center:
            print(center.fsck() is None, flush=True)
"""

FULL = """
assert reason(center, 1) == "eligible"
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
wal = Path(sys.argv[1]) / "center.db-wal"
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + 6000, hard))
withdrawal = event(1, "withdrawn", LONG_AGO + timedelta(days=200), evidence="x" * 20000)
try:
    center.record(withdrawal)
except ConsentError as error:
    print(error.code)
print(reason(center, 1))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(reason(center, 1))
center.record(withdrawal)
print(reason(center, 1), center.fsck())
"""


@contextmanager
def process(home: Path, script: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(home), *more]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=ROOT) as started:
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        try:
            yield started
        finally:
            started.kill()


def test_an_acknowledged_withdrawal_is_seen_by_the_next_decision_elsewhere(tmp_path: Path) -> None:
    with make(tmp_path / "c", days=LASTING) as center, process(tmp_path / "c", FOLLOWER) as follower:
        assert follower.stdin is not None and follower.stdout is not None

        def there(number: int) -> str:
            assert follower.stdin is not None and follower.stdout is not None
            follower.stdin.write(f"{number}\n")
            follower.stdin.flush()
            return follower.stdout.readline().strip()

        for number in range(30):
            center.record(event(number))
            assert there(number) == "eligible"
            center.record(event(number, action="withdrawn", categories=()))
            assert there(number) == "withdrawn"
        center.record(event(99))
        center.erase("phone", phone(99), "dpo")
        assert there(99) == "unknown_subject"
        center.switch_purpose("ads", False, "dpo")
        assert there(0) == "purpose_inactive"


def test_killed_writers_lose_nothing_that_they_acknowledged(tmp_path: Path, store: str) -> None:
    """Rounds of four writers, each killed at a random moment; every acknowledged event is there once."""
    rounds_, each = (7, 2) if store == "sqlite" else (3, 4)
    with make(tmp_path / "c", days=LASTING) as center:
        before = center.checkpoint()
        with process(tmp_path / "c", KILLED, str(tmp_path), str(rounds_), str(each)) as rounds:
            out, _ = rounds.communicate(timeout=800)
        assert (rounds.returncode, out) == (0, "True\n" * len(range(0, rounds_, 3)))
        assert center.fsck(before) is None
        acknowledged = {}
        for file in tmp_path.glob("*.txt"):
            for line in file.read_text().split("\n")[:-1]:  # a line without its end was not acknowledged
                number, sequence, leaf = (int(word) for word in line.split(" "))
                acknowledged[number] = (sequence, leaf)
        assert len(acknowledged) >= 10
        at = verify.checkpoint(center.checkpoint(), center.verifier_key())
        for number, place in acknowledged.items():
            (told,) = center.explain("phone", phone(number)).events
            assert ((told["sequence"], told["leaf"]), told["evidence"]) == (place, f"form {number}")
            if number % 5 == 0:
                verify.inclusion(center.opening(told["leaf"]), center.prove(told["leaf"], at.size), at)


@pytest.mark.sqlite
def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk's: the write fails in the middle of a transaction."""
    with make(tmp_path / "c", days=LASTING) as center:
        center.record(event(1))
        with process(tmp_path / "c", FULL) as full:
            out, _ = full.communicate(timeout=240)
        assert full.returncode == 0
        assert out.split("\n")[:-1] == ["center.unreachable", "stale", "eligible", "withdrawn None"]
        assert reason(center, 1) == "withdrawn"


@pytest.mark.sqlite
def test_a_lock_that_is_never_released_makes_everybody_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(tmp_path / "c", days=LASTING) as made:
        made.record(event(1))
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with (
        Center.open(tmp_path / "c") as center,
        closing(sqlite3.connect(tmp_path / "c/center.db", isolation_level=None)) as other,
    ):
        assert reason(center, 1) == "eligible"
        other.execute("BEGIN IMMEDIATE")
        assert reason(center, 1) == "stale"
        with pytest.raises(ConsentError, match="center.busy"):
            center.record(event(1, action="withdrawn"))
        with pytest.raises(ConsentError, match="center.busy"):
            center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job")
        other.execute("ROLLBACK")
        assert reason(center, 1) == "eligible"
