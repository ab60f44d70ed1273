"""What suite `ecdh` costs at the least on this machine: its scalar multiplications and maps to the group.

    python -m parties.evaluation.bare RECEIVER SENDER

For N padded items at the receiver and m rows at the sender that is 3 N + m multiplications (blind, evaluate
and finalize an item; evaluate a row) and N + m maps; timed on a sample, on all cores, and multiplied up.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

from protocols import ristretto
from protocols.oprf.padding import padded_size

SAMPLE = 1 << 14


def _seconds(call: Callable[[], object]) -> float:
    """Of one item, the fastest of three turns."""
    call()
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best / SAMPLE


def main(receiver: int, sender: int) -> dict[str, float]:
    uniform = ristretto.random_bytes(SAMPLE, ristretto.WIDE, os.urandom)
    scalars = ristretto.random_scalars(SAMPLE, os.urandom)
    points = ristretto.from_uniform(uniform)
    multiply = _seconds(lambda: ristretto.multiply(scalars, points))
    to_group = _seconds(lambda: ristretto.from_uniform(uniform))
    size = padded_size(receiver)
    total = multiply * (3 * size + sender) + to_group * (size + sender)
    return {
        "seconds": round(total, 3),
        "multiplication_us": round(multiply * 1e6, 2),
        "map_us": round(to_group * 1e6, 2),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
