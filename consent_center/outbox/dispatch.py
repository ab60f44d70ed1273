"""The dispatcher: takes due messages, sends them in parallel, notes the outcome. Any number may run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from consent_center.errors import ConsentError
from consent_center.outbox import targets
from consent_center.outbox.service import Outbox

Post = Callable[[str, bool, Mapping[str, str], bytes], tuple[bool, str]]
#: Messages in one round: with two threads' worth of the longest answers a claim does not lapse.
ROUND, THREADS = 64, 16
_IDLE = 0.5  # seconds between looking at an empty outbox
_log = logging.getLogger("consent_center.outbox")


def run_once(outbox: Outbox, post: Post = targets.post) -> dict[str, int]:
    """One round: {"sent", "failed"}; nothing was due if both are 0."""
    due = outbox.claim(ROUND)
    if not due:
        return {"sent": 0, "failed": 0}
    with ThreadPoolExecutor(min(THREADS, len(due))) as pool:
        jobs = [
            pool.submit(post, hook.url, hook.private, outbox.headers(number, hook, body), body)
            for number, hook, _, body in due
        ]
        answers = [job.result() for job in jobs]
    results = [
        (n, attempts, good, what) for (n, _, attempts, _), (good, what) in zip(due, answers, strict=True)
    ]
    outbox.settle(results)
    sent = sum(good for good, _ in answers)
    return {"sent": sent, "failed": len(answers) - sent}


def run_until_empty(outbox: Outbox, post: Post = targets.post) -> dict[str, int]:
    """Rounds until nothing is due."""
    total = {"sent": 0, "failed": 0}
    while any(done := run_once(outbox, post).values()):
        total = {name: total[name] + n for name, n in zip(total, done, strict=True)}
    return total


class Dispatcher:
    """A dispatcher in a thread, for as long as a service runs."""

    def __init__(self, outbox: Outbox, post: Post = targets.post) -> None:
        self._outbox, self._post = outbox, post
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="consent-dispatch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                busy = any(run_once(self._outbox, self._post).values())
            except ConsentError as error:
                if error.code == "center.closed":
                    return
                # A locked database or a full disk passes; messages stay in the outbox until then.
                _log.warning("outbox: %s", error)
                busy = False
            if not busy:
                self._stop.wait(_IDLE)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
