"""The service under gunicorn: several worker processes agree, and nothing is left when it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from consent_helpers import REQUEST, event, make, phone

from consent_center.client import CenterClient, open_center
from consent_center.errors import ConsentError
from consent_center.model import REASONS
from consent_center.rest import workers

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def served(home: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "pec", "consent", "serve", "--center", str(home), "--port", "0"]
    with subprocess.Popen(
        [*command, "--json", *more], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["center"]
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def both(pid: int, without: Sequence[int] = ()) -> list[int]:
    """The two workers, none of `without`: the master starts one after the other, and some time later."""
    deadline = time.monotonic() + 240
    while len(found := children(pid)) != 2 or set(found) & set(without):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):  # it may end between opening and reading
        return True


def ask(center: CenterClient, number: int) -> str:
    return REASONS[center.decide(REQUEST, pa.array([phone(number)]), "phone").codes[0]]


def test_workers_agree_survive_and_stop(tmp_path: Path) -> None:
    make(tmp_path / "c").close()
    with served(tmp_path / "c", "--workers", "2", "--threads", "4") as (process, location):
        # Each client has a connection of its own, and so any worker.
        clients = [open_center(location) for _ in range(6)]

        def live(number: int) -> tuple[str, ...]:
            a, b = clients[number % 6], clients[(number + 1) % 6]
            a.record(event(number))
            before = ask(b, number)
            b.record(event(number, action="withdrawn"))
            return before, ask(a, number), ask(b, number)

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(live, range(24))) == {("eligible", "withdrawn", "withdrawn")}
        assert clients[0].fsck() is None
        first = both(process.pid)
        os.kill(first[0], signal.SIGKILL)  # the master starts another
        both(process.pid, first[:1])
        with open_center(location) as fresh:
            fresh.record(event(100))
            assert ask(fresh, 100) == "eligible"
        for client in clients:
            client.close()
        workers_now = both(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(240) == 0
        assert all(gone(pid) for pid in [*first, *workers_now])


def test_what_is_wrong_is_told_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(ConsentError, match="center.missing"):
        workers.serve(tmp_path / "none")
    make(tmp_path / "c").close()
    with pytest.raises(ConsentError, match="127.0.0.1 only"):
        workers.serve(tmp_path / "c", host="0.0.0.0")  # noqa: S104
