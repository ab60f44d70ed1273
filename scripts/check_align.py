#!/usr/bin/env python3
"""Exactness of align at size: random sets with random overlap, every answer against the sets themselves.

    .venv/bin/python scripts/check_align.py --runs 300 --size 16384 [--suite vole] [--malicious]

Both sides in one process. Prints a line every ten runs, and ends with an error at the first wrong row.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np

from protocols import align
from protocols.machine import pump


def one(size: int, suite: str, malicious: bool) -> int:
    """One run; gives the number of matches. ValueError if any row is not the one it must be."""
    both = int.from_bytes(os.urandom(8), "big") % (size + 1)
    drawn = np.frombuffer(os.urandom(32 * (2 * size - both)), dtype=np.uint8).reshape(-1, 32)
    mine, theirs = drawn[:size], drawn[size - both :]
    session, limits = os.urandom(32), align.Limits(1 << 24, 1 << 24)
    receiver = align.Receiver(mine, session, limits, os.urandom, suite=suite, malicious=malicious)
    pump(receiver, align.Sender(theirs, session, limits, os.urandom, suite=suite, malicious=malicious))
    due = np.where(np.arange(size) >= size - both, np.arange(size) - (size - both), -1)
    if (receiver.result.rows != due).any():
        raise ValueError(f"{int((receiver.result.rows != due).sum())} wrong rows of {size}, {both} in both")
    return both


def main() -> int:
    parser = argparse.ArgumentParser(description="Exactness of align at size.")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--size", type=int, default=1 << 14)
    parser.add_argument("--suite", default="vole")
    parser.add_argument("--malicious", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    for number in range(1, given.runs + 1):
        one(given.size, given.suite, given.malicious)
        if number % 10 == 0 or number == given.runs:
            print(f"{number} of {given.runs} runs exact, {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
