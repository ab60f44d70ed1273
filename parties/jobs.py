"""What both sides of a job need: its states, its thread, its line to the peer, its progress.

`brand_side` and `provider_side` build on it; `engine.Engine` is all of it. One thread a running job;
`parties.runner` does what happens inside a session.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from consent_center.errors import ConsentError
from parties import compiling, documents
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError, PeerFailed
from parties.home import Home
from parties.identity import Peer
from parties.runner import Runner, error_record, final_state, for_peer
from parties.stage import JobKind
from parties.store import FINAL, Job, Store
from parties.transport.frames import Link


class Jobs:
    """States, threads and lines of all jobs of one node, whichever side it is on."""

    def __init__(
        self,
        home: Home,
        store: Store,
        center: Any,
        log: Callable[..., None],
        kinds: Mapping[str, JobKind] | None = None,
    ) -> None:
        self.home, self.store, self.center, self.log = home, store, center, log
        self._kinds = kinds
        self._lock = threading.RLock()
        self._links: dict[str, Link] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._resumed: set[str] = set()
        self._progress: dict[str, dict[str, Any]] = {}
        self._stopping = False

    @property
    def kinds(self) -> Mapping[str, JobKind]:
        if self._kinds is None:
            from parties.kinds import KINDS

            self._kinds = KINDS
        return self._kinds

    def kind(self, spec: JobSpec) -> JobKind:
        """The kind that the spec names, by the method that it asks for."""
        found = self.kinds.get(spec.kind)
        if found is None:
            raise NodeError(
                "job.kind", f"{spec.kind[:64]!r} is none of {', '.join(sorted(self.kinds))}", share=True
            )
        return found.of(spec)

    def check_budget(self, spec: JobSpec, agreement: Agreement) -> None:
        """Refuse at once what the account has no room for; what counts is the stage that spends it."""
        asked = self.kind(spec).spends(spec, agreement)
        if asked is not None:
            self.store.account(agreement).check(asked)

    @property
    def running(self) -> int:
        with self._lock:
            return len(self._links)

    def _spawn(self, job_id: str, target: Callable[[str], None]) -> None:
        thread = threading.Thread(
            target=self._guard, args=(target, job_id), name=f"job {job_id}", daemon=True
        )
        with self._lock:
            self._threads[job_id] = thread
        thread.start()

    def _guard(self, target: Callable[[str], None], job_id: str) -> None:
        try:
            target(job_id)
        except Exception as error:
            self._end(job_id, error)
        finally:
            with self._lock:
                self._threads.pop(job_id, None)

    # -- states ----------------------------------------------------------------------------------------------

    def record(self, job_id: str, kind: str, payload: dict[str, Any]) -> int:
        """A fact about the job into the ledger; `consent.unavailable` if the center can't take it."""
        try:
            leaf = self.center.append(kind, payload)
        except ConsentError as error:
            raise NodeError("consent.unavailable", f"the ledger can't be written: {error}") from error
        self.store.add_leaf(job_id, kind, leaf)
        return int(leaf)

    def _move(self, job_id: str, state: str, **changes: Any) -> Job:
        job = self.store.get(job_id)
        payload: dict[str, Any] = {"job": job_id, "state": state, "role": job.role, "peer": job.peer}
        if changes.get("error"):
            payload["code"] = changes["error"]["code"]
        self.record(job_id, "job.state", payload)
        moved = self.store.move(job_id, state, **changes)
        self.log("job.state", f"{job_id} is {state}", level="info", job=job_id)
        return moved

    def _end(self, job_id: str, error: Exception) -> None:
        """Put a job into the final state that belongs to `error`; the first end counts."""
        record = error_record(error)
        if record["code"] == "node.internal":
            self.log("node.internal", f"job {job_id}: {record['detail']}", level="error", trace=error)
        with self._lock:
            job = self.store.get(job_id)
            if job.state in FINAL:
                return
            self._discard(job_id)
            state = final_state(record["code"])
            if job.state not in ("running", "held", "interrupted") and state == "stopped_by_consent":
                state = "rejected"
            self.log(record["code"], f"job {job_id} {state}: {record['detail']}", level="warn", job=job_id)
            try:
                self._move(job_id, state, error=record)
            except NodeError as second:
                # The job must end even if the ledger can't be written: nothing of it is released.
                self.log(
                    second.code, f"job {job_id} ends without a ledger entry: {second.detail}", level="error"
                )
                self.store.move(job_id, state, error=record)

    def _interrupt(self, job_id: str, error: Exception, **changes: Any) -> None:
        """The session is over and the job is not: it waits `resume_seconds` for the other side."""
        told = error_record(error)
        why = {"at": time.time(), "code": told["code"], "detail": told["detail"]}
        self.log(told["code"], f"job {job_id} interrupted: {told['detail']}", level="warn", job=job_id)
        self._move(job_id, "interrupted", interrupted=why, **changes)

    def _deadline(self, job: Job) -> float:
        """Unix time until which an interrupted job waits."""
        return float((job.interrupted or {}).get("at", 0.0)) + self.home.settings.resume_seconds

    def _too_late(self, job: Job) -> NodeError:
        why = job.interrupted or {}
        return NodeError(
            "node.interrupted",
            f"the job was broken off ({why.get('code')}), and the other side did not come back in "
            f"{self.home.settings.resume_seconds:.0f} s",
            "submit it again; resume_seconds of node.toml is the limit",
            share=True,
        )

    def _discard(self, job_id: str) -> None:
        """Remove whatever a job that did not succeed has written."""
        for path in (self.home.state(job_id), self.home.work(job_id)):
            shutil.rmtree(path, ignore_errors=True)
            if path.exists():
                self.log("node.internal", f"{path} can't be removed; remove it by hand", level="error")

    def _spec(self, job_id: str) -> JobSpec:
        return JobSpec.from_json(self.store.get(job_id).signed["document"])

    # -- running ---------------------------------------------------------------------------------------------

    def _link(self, job: Job) -> Link:
        settings = self.home.settings
        link = Link(
            job.job_id,
            hash_of(job),
            job.role,
            silence_seconds=settings.silence_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            spool_bytes=settings.spool_mib << 20,
            spool_dir=self.home.path / "work",
        )
        with self._lock:
            self._links[job.job_id] = link
        return link

    def _run(self, job: Job, peer: Peer, link: Link) -> None:
        runner: Runner | None = None
        id_, began = job.job_id, time.monotonic()
        try:
            again = job.state == "interrupted"
            job = self._move(id_, "running", attempts=job.attempts + again)
            runner = Runner(
                self.home,
                self.store,
                self.center,
                self.kind(JobSpec.from_json(job.signed["document"])),
                job,
                peer,
                link,
                set_state=lambda state, **changes: self._move(id_, state, **changes),
                record=lambda kind, payload: self.record(id_, kind, payload),
                resumed=lambda: id_ in self._resumed,
                progress=lambda *report: self._report(id_, *report),
                log=self.log,
            )
            outcome = runner.run()
            self._move(id_, "succeeded", **outcome)
            link.close()
        except Exception as caught:
            error = link.error if link.error is not None else caught
            link.close(None if isinstance(error, PeerFailed) else for_peer(error))
            if runner is not None and runner.may_go_on(error):
                spent = (job.run_seconds or 0.0) + time.monotonic() - began
                self._interrupt(id_, error, run_seconds=spent)
            else:
                self._end(id_, error)
        finally:
            with self._lock:
                self._links.pop(id_, None)
                self._progress.pop(id_, None)
                self._resumed.discard(id_)

    def _report(self, job_id: str, stage: str, what: str, done: int, total: int) -> None:
        """Progress of the running stage, with the seconds that it will still take at the pace so far."""
        now, before = time.monotonic(), self._progress.get(job_id)
        if before is None or before["stage"] != stage or before["done"] > done:
            before = {"began": now, "first": int(done)}
        left = None
        if done > before["first"] and now - before["began"] > 0.5:
            left = (total - done) * (now - before["began"]) / (done - before["first"])
        self._progress[job_id] = {
            "stage": stage,
            "what": what,
            "done": int(done),
            "total": int(total),
            "seconds_left": None if left is None else round(max(left, 0.0), 1),
            "began": before["began"],
            "first": before["first"],
        }

    def progress(self, job_id: str) -> dict[str, Any] | None:
        found = self._progress.get(job_id)
        if found is None:
            return None
        shown = {k: v for k, v in found.items() if k not in ("began", "first")}
        if compiling.running():  # the pace so far says nothing of what comes
            shown |= {"what": f"{shown['what']}, compiling kernels (pec warmup)", "seconds_left": None}
        return shown


def hash_of(job: Job) -> bytes:
    return documents.hash_of(job.signed["document"])


def check_clock(party: str, unix_seconds: int) -> None:
    apart = abs(time.time() - unix_seconds)
    if apart > documents.CLOCK_SKEW.total_seconds():
        raise NodeError(
            "transport.clock",
            f"the clock of {party} is {apart:.0f} s away",
            "set both clocks by a time server",
        )
