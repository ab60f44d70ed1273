"""How much memory a process has held at most."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_mb() -> float:
    """MiB that this process has held at most since its program began.

    Not `ru_maxrss` where the system tells better: that one begins with what the process that started this one
    held when it did.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
