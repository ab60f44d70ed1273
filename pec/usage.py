"""What a process used: processor time and peak memory, from /proc (Linux; None elsewhere)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """`cpu_seconds` of user and system time since the process began; `peak_rss_mb` in MiB."""

    cpu_seconds: float | None
    peak_rss_mb: float | None


def of(pid: int) -> Usage:
    """What process `pid` used so far; None where the system does not say, or the process is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return Usage(None, None)
    fields = stat.rpartition(")")[2].split()  # the command name before it may hold blanks and brackets
    ticks = int(fields[11]) + int(fields[12])
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), int(peak[1]) / 1024 if peak else None)


def between(before: Usage, after: Usage) -> dict[str, float | None]:
    """Processor seconds from `before` to `after`, and the peak of the whole life of the process."""
    cpu = None
    if before.cpu_seconds is not None and after.cpu_seconds is not None:
        cpu = round(after.cpu_seconds - before.cpu_seconds, 3)
    peak = None if after.peak_rss_mb is None else round(after.peak_rss_mb, 1)
    return {"cpu_seconds": cpu, "peak_rss_mb": peak}
