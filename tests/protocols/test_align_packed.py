"""Suite `vole`, semi-honest, never loads numba where there is a pack: it would cost a second a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

_RUN = """
import os, sys
import numpy as np
from protocols import align, packs
from protocols.machine import pump

if not packs.enable():
    print("no pack")
    sys.exit()
items = np.frombuffer(os.urandom(32 * 900), dtype=np.uint8).reshape(900, 32)
session, limits = os.urandom(32), align.Limits()
for numbers in (None, np.arange(600)):
    receiver = align.Receiver(
        items[:500], session, limits, os.urandom, suite="vole", numbered=numbers is not None
    )
    pump(receiver, align.Sender(items[300:], session, limits, os.urandom, suite="vole", numbers=numbers))
    due = np.where(np.arange(500) >= 300, np.arange(500) - 300, -1)
    if (receiver.result.rows != due).any():
        sys.exit("wrong rows")
print("numba" if "numba" in sys.modules else "packed")
"""


def test_no_numba_on_the_way() -> None:
    done = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "no pack":
        pytest.skip("no pack of kernels for this program: `pec warmup` makes it")
    assert done.stdout.strip() == "packed"
