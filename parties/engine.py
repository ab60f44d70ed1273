"""The job state machine of one node: both sides of jobs, starting and stopping, cancelling and resuming."""

from __future__ import annotations

import shutil
import threading
import time
from typing import Any

from consent_center.errors import ConsentError
from consent_center.state_file import KEEP_AFTER
from parties import documents, loading, prepared
from parties.brand_side import BrandSide
from parties.checkpoint import Checkpoints
from parties.documents import JobSpec
from parties.errors import NodeError
from parties.identity import Peer
from parties.lookout import Lookout
from parties.provider_side import ProviderSide
from parties.runner import can_go_on
from parties.store import FINAL, Job
from parties.transport import node_pb2


class Engine(BrandSide, ProviderSide):
    """All jobs of one node. `kinds` defaults to `parties.kinds.KINDS`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        loading.before_threads()
        super().__init__(*arguments, **options)
        self.lookout = Lookout(self.home, self.store, self.center, self.log, self._end, self._has_session)

    # -- life of the node ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what an earlier process left running, end what can't go on, and look after proposals."""
        jobs = self.store.all()
        broken_off = [job for job in jobs if job.state in ("running", "held", "interrupted")]
        kept = {job.job_id for job in broken_off if self._can_go_on(job)}
        # Before any job goes on: one that begins makes folders of its own here.
        for folder in (self.home.path / "work", self.home.path / "state"):
            for leftover in folder.iterdir() if folder.is_dir() else ():
                if leftover.name not in kept:
                    self.log("node.interrupted", f"removing what {leftover.name} left behind", level="warn")
                    shutil.rmtree(leftover, ignore_errors=True)
        prepared.sweep(self.home.path / "prepared")
        for job in jobs:
            if job.state in ("running", "held", "interrupted"):
                if job.job_id in kept:
                    self._take_up(job)
                else:
                    error = NodeError(
                        "node.interrupted",
                        "the node stopped while the job ran",
                        "submit it again",
                        share=True,
                    )
                    self._end(job.job_id, error)
            elif job.role == "brand" and job.state not in FINAL:
                self._spawn(job.job_id, self._brand)
            elif job.untold:
                self._spawn(job.job_id, lambda id_: self._tell_again(self.store.get(id_)))
        threading.Thread(target=self._keep_state, name="keep state", daemon=True).start()
        self.lookout.start()

    def _keep_state(self) -> None:
        """Read the consent center's state (and store it, if much has come since): the first job must not wait
        for a second or two of it.
        """
        keep = getattr(self.center, "keep_state", None)  # a remote center looks after itself
        if keep is not None:
            try:
                keep(KEEP_AFTER)
            except (ConsentError, OSError) as error:  # a job that needs the center will say so itself
                self.log("consent.unavailable", f"the center's state was not stored: {error}", level="warn")

    def _can_go_on(self, job: Job) -> bool:
        checkpoints = Checkpoints(self.home.state(job.job_id))
        if checkpoints.latest() < 0 or job.attempts >= self.home.settings.resume_attempts:
            return False
        spec = JobSpec.from_json(job.signed["document"])
        return can_go_on(self.kind(spec), checkpoints)

    def _take_up(self, job: Job) -> None:
        """The brand looks for the provider, the provider waits for the brand."""
        if job.state != "interrupted":
            self._interrupt(
                job.job_id, NodeError("node.interrupted", f"the node of {self.home.party} stopped")
            )
        self._spawn(job.job_id, self._go_on if job.role == "brand" else self._await_peer)

    def stop(self, seconds: float = 5.0) -> None:
        """End running jobs with `node.stopping` on both sides; those that can go on are interrupted.

        Those that only wait for an approval wait on.
        """
        self._stopping = True
        self.lookout.stop()
        with self._lock:
            links, threads = list(self._links.values()), list(self._threads.values())
        for link in links:
            link.fail(
                NodeError("node.stopping", f"the node of {self.home.party} is shutting down", share=True)
            )
        with self.store.changed:
            self.store.changed.notify_all()
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.lookout.join(max(0.0, deadline - time.monotonic()))

    # -- what ends before its time ---------------------------------------------------------------------------

    def end_by_peer(self, peer: Peer, request: node_pb2.EndRequest) -> node_pb2.EndReply:
        """The other side has ended an agreement: nothing runs under it here either from now on."""
        ending = self.home.take_ending(documents.parse(request.ending, "ending"))
        text = f"agreement {ending.agreement_id} was ended by {ending.party}: {ending.reason}"
        self.log("agreement.ended", text, level="info")
        self.lookout.wake()
        return node_pb2.EndReply(party=ending.party, ended_at=ending.ended_at)

    def _has_session(self, job_id: str) -> bool:
        with self._lock:
            return job_id in self._links

    def cancel(self, job_id: str, reason: str = "") -> Job:
        job = self.store.get(job_id)
        if job.state in FINAL:
            raise NodeError("job.state", f"job {job_id} is {job.state} already")
        text = f"cancelled by {self.home.party}" + (f": {reason}" if reason else "")
        error = NodeError("job.cancelled", text, share=True)
        with self._lock:
            link = self._links.get(job_id)
        if link is not None:
            link.fail(error)
        else:
            self._end(job_id, error)
        return self.store.get(job_id)

    def resume(self, job_id: str) -> Job:
        job = self.store.get(job_id)
        if job.role != "brand" or not job.hold_before or job.state in FINAL:
            raise NodeError("job.state", f"job {job_id} is {job.state} and not held here")
        with self.store.changed:
            self._resumed.add(job_id)
            self.store.changed.notify_all()
        return self.store.get(job_id)
