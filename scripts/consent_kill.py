#!/usr/bin/env python3
"""Kill -9 writers of one consent center at random moments; then look whether the center kept its word.

    python scripts/consent_kill.py --rounds 50 --writers 8

Every writer notes an event in a file of its own after the center acknowledged it. At the end every noted
event must be stored once, under the sequence number and leaf that were told, and fsck must find nothing.
Prints one line of JSON; exit code 1 if anything is missing, doubled or changed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from consent_center.center import Center
from consent_center.model import ConsentEvent, Notice, Purpose


def event(number: int) -> ConsentEvent:
    """Of a person of its own."""
    who = (("phone", f"138{number:08d}"),)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return ConsentEvent(
        who, "ads", 1, "granted", "partner", ("contact",), at, "text", 1, evidence=f"form {number}"
    )


def write(home: Path, number: int, path: Path) -> None:
    """Record people from `number` on until killed."""
    out = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with Center.open(home) as center:
        while True:
            done = center.record(event(number))
            os.write(out, f"{number} {done.sequence} {done.leaf_index}\n".encode())
            number += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.5, help="a round's length, at most")
    parser.add_argument("--database", help="PostgreSQL URL of an empty database; default: SQLite")
    asked = parser.parse_args()
    chance = random.Random(7)  # noqa: S311 - moments of death
    with tempfile.TemporaryDirectory(prefix="pec-kill-") as scratch:
        folder, home = Path(scratch), Path(scratch) / "center"
        with Center.create(home, "brand", database=asked.database) as center:
            center.put_purpose(Purpose("ads", 1, {"en": "Kill"}, ("contact",)))
            center.put_notice(Notice("text", 1, "ads", 1, {"en": "Kill"}))
            center.record(event(99_999_999))  # loads the kernels, once for all
            note = center.checkpoint()
        for round_ in range(asked.rounds):
            pids = []
            for writer in range(asked.writers):
                number = (round_ * asked.writers + writer) * 10_000
                pid = os.fork()
                if pid == 0:
                    write(home, number, folder / f"{number}.txt")
                pids.append(pid)
            for pid in chance.sample(pids, len(pids)):
                time.sleep(chance.random() * asked.seconds / len(pids) + 0.02)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        told = {}
        for path in folder.glob("*.txt"):
            for line in path.read_text().split("\n")[:-1]:  # a line without its end was not acknowledged
                number, sequence, leaf = map(int, line.split())
                told[number] = (sequence, leaf)
        wrong = []
        with Center.open(home) as center:
            finding = center.fsck(note)
            for number, place in told.items():
                stored = center.explain("phone", f"138{number:08d}").events
                if [(e["sequence"], e["leaf"], e["evidence"]) for e in stored] != [
                    (*place, f"form {number}")
                ]:
                    wrong.append(number)
    result = {
        "rounds": asked.rounds,
        "writers": asked.writers,
        "killed": asked.rounds * asked.writers,
        "acknowledged": len(told),
        "missing_or_doubled": len(wrong),
        "fsck": None if finding is None else str(finding),
    }
    print(json.dumps(result))
    return 1 if wrong or finding is not None or not told else 0


if __name__ == "__main__":
    sys.exit(main())
