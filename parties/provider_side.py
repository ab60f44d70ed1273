"""The provider's side of jobs: what a peer may call, and what the provider's operator decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from parties import PROTOCOL_VERSION, catalogue, documents
from parties.documents import JobSpec
from parties.errors import NodeError
from parties.identity import Peer
from parties.jobs import Jobs, check_clock, hash_of
from parties.runner import shared_part
from parties.store import Job
from parties.transport import node_pb2
from parties.transport.frames import Link, peer_failed

#: Seconds over which score jobs are counted.
DAY = 86400.0


class ProviderSide(Jobs):
    """Calls of peers (`hello` to `session`), and the operator's `approve` and `reject`."""

    def hello(self, peer: Peer, request: Any) -> Any:
        if request.version != PROTOCOL_VERSION:
            raise NodeError(
                "transport.version", f"{peer.party} speaks {request.version}, here is {PROTOCOL_VERSION}"
            )
        check_clock(peer.party, request.unix_seconds)
        return node_pb2.HelloReply(
            version=PROTOCOL_VERSION, party=self.home.party, unix_seconds=int(time.time())
        )

    def propose(self, peer: Peer, request: Any) -> Any:
        """Take a signed job: refuse it, ask the operator, or approve it. The same job again answers its
        state.
        """
        signed = documents.parse(request.spec, "job")
        spec = JobSpec.from_json(documents.verify(signed, "job", {peer.party: peer.identity_key}))
        if spec.brand != peer.party or spec.provider != self.home.party:
            raise NodeError("agreement.party", f"the job is between {spec.brand} and {spec.provider}")
        job = Job(job_id=spec.job_id, role="provider", kind=spec.kind, peer=peer.party, signed=signed)
        with self._lock:
            known = self.store.find(spec.job_id)
            if known is None and self.store.add(job):
                self._consider(spec, peer)
            elif known is not None and (known.peer != peer.party or known.role != "provider"):
                # Nothing about another party's job, its hash included.
                raise NodeError(
                    "job.changed", f"the id {spec.job_id} can't be used", "propose the job under a new id"
                )
            elif known is not None and hash_of(known) != spec.hash:
                self.log("job.changed", f"{peer.party} proposed another job as {spec.job_id}", level="warn")
                raise NodeError(
                    "job.changed",
                    f"job {spec.job_id} was proposed before with hash {hash_of(known).hex()[:16]}…, "
                    f"this one has {spec.hash.hex()[:16]}…",
                    "propose a changed job under a new id",
                )
        return self._reply(self.store.get(spec.job_id))

    def _consider(self, spec: JobSpec, peer: Peer) -> None:
        """Check a new job against the agreement and its kind, and decide whether the operator must be
        asked.
        """
        id_ = spec.job_id
        try:
            self._move(id_, "proposed")
            documents.check_time(spec, documents.now(), f"job {id_}", expired="job.expired")
            agreement = self.home.agreement(spec.agreement_id)
            self.home.check_terms(spec, agreement)
            kind = self.kind(spec)
            kind.check(spec, agreement)
            self.check_budget(spec, agreement)
            self.store.update(id_, leakage=kind.learned(spec, agreement))
            name = spec.datasets["provider"]
            dataset = next((d for d in self.home.datasets() if d.name == name), None)
            if dataset is None:
                raise NodeError("job.spec", f"{self.home.party} has no data set {name!r}", share=True)
            if spec.columns:
                from parties.kinds import common  # it loads numerical code; the job's kind has done so

                common.provider_columns(spec, dataset)
            kind.check_here(spec, self.home, peer.party)
            self._daily(spec, peer.party)
            if spec.kind in agreement.preapproved:
                self._approve(id_, f"approved in advance by agreement {agreement.id}")
            else:
                self._move(id_, "awaiting_approval")
        except Exception as error:
            self._end(id_, error)

    def _daily(self, spec: JobSpec, party: str) -> None:
        """`job.daily` if the job's model has been asked for as often in 24 hours as this node allows.

        Each job tells something of the provider's rows, and two tell what changed between them (SECURITY.md).
        Every one counts that was not refused, whatever became of it; the caller holds the lock, and the job
        itself is among them.
        """
        if spec.kind != "score":
            return
        most, model = self.home.settings.score_jobs_per_day, spec.params.get("model")
        jobs = self.store.recent("provider", "score", party, time.time() - DAY)
        asked = [job for job in jobs if job.signed["document"]["params"].get("model") == model]
        if len(asked) > most:
            again = documents.timestamp(
                datetime.fromtimestamp(asked[len(asked) - most - 1].created + DAY, tz=UTC)
            )
            raise NodeError(
                "job.daily",
                f"{self.home.party} answers {most} score jobs for a model in 24 hours, and {party} has had "
                f"them for {model}; the next one can be proposed at {again}",
                "score more people in one job",
                share=True,
            )

    def _approve(self, job_id: str, note: str) -> Job:
        job = self.store.get(job_id)
        return self._move(job_id, "approved", signed=self.home.identity.countersign(job.signed), note=note)

    def get_job(self, peer: Peer, request: Any) -> Any:
        return self._reply(self._of_peer(peer, request.job_id, request.spec_hash))

    def cancel_by_peer(self, peer: Peer, request: Any) -> Any:
        job = self._of_peer(peer, request.job_id, request.spec_hash)
        error = peer_failed(request.code or "job.cancelled", request.detail)
        with self._lock:
            link = self._links.get(job.job_id)
        if link is not None:
            link.fail(error)
        else:
            self._end(job.job_id, error)
        return self._reply(self.store.get(job.job_id))

    def catalogue(self, peer: Peer, request: Any) -> Any:
        """What this side shows to the brand of an agreement; of other agreements not even that they exist."""
        offered = catalogue.offered(self.home, request.agreement_id, peer.party)
        self.log("catalogue.shown", f"{peer.party} saw what agreement {request.agreement_id} offers")
        return node_pb2.CatalogueReply(catalogue=documents.canonical(offered.to_json()))

    def _of_peer(self, peer: Peer, job_id: str, spec_hash: bytes) -> Job:
        """The peer's own job; other peers' jobs look as if they did not exist."""
        job = self.store.find(job_id)
        if job is None or job.peer != peer.party:
            raise NodeError("job.unknown", f"{self.home.party} has no job {job_id[:64]!r} of {peer.party}")
        if hash_of(job) != spec_hash:
            raise NodeError("job.changed", f"job {job_id} has another hash here", "was the spec changed?")
        return job

    def _reply(self, job: Job) -> Any:
        reply = node_pb2.JobReply(state=job.state)
        if job.state in ("approved", "running", "held", "interrupted", "succeeded"):
            reply.spec = documents.canonical(job.signed)
        if job.error is not None:
            told = self._shared(job)
            reply.code, reply.detail = told["code"], told["detail"]
        return reply

    def _shared(self, job: Job) -> dict[str, Any]:
        # Not every refusal is for the peer: one says how many people this side has.
        return shared_part(job.error or {"code": "peer.failed", "detail": ""})

    def session(
        self,
        peer: Peer,
        first: node_pb2.Frame,
        rest: Iterator[node_pb2.Frame],
        ended: Callable[[Callable[[], None]], None],
    ) -> Iterator[node_pb2.Frame]:
        """The provider's side of a job's stream: runs the job in a thread and yields its frames."""
        job = self.store.find(first.job_id)
        if job is None or job.peer != peer.party or job.role != "provider":
            raise NodeError(
                "job.unknown", f"{self.home.party} has no job {first.job_id[:64]!r} of {peer.party}"
            )
        self._in_time(job)
        with self._lock:
            if job.state not in ("approved", "interrupted") or job.job_id in self._links:
                raise NodeError(
                    "job.state",
                    f"job {job.job_id} is {job.state}; a session needs an approved or interrupted one",
                )
            if self.running >= self.home.settings.max_jobs:
                raise NodeError(
                    "job.busy", f"{self.home.party} runs {self.running} jobs already", "try again later"
                )
            link = self._link(job)
        ended(lambda: link.cut(NodeError("transport.lost", f"the connection to {peer.party} broke")))
        link.attach(
            chain((first,), rest), lambda e: NodeError("transport.lost", f"{peer.party}: {e or 'broke'}")
        )
        self._spawn(job.job_id, lambda _: self._serve(job, peer, link))
        yield from link.outgoing()

    def _serve(self, job: Job, peer: Peer, link: Link) -> None:
        self._run(job, peer, link)
        self._await_peer(job.job_id)

    def _await_peer(self, job_id: str) -> None:
        """Wait until the brand has taken an interrupted job up again, or end it when its time is over."""
        attempts = self.store.get(job_id).attempts
        while not self._stopping:
            with self.store.changed:
                self.store.changed.wait(0.5)
            job = self.store.get(job_id)
            if job.state != "interrupted" or job.attempts != attempts:
                return  # another thread serves the new session
            if time.time() > self._deadline(job):
                self._end(job_id, self._too_late(job))

    def _in_time(self, job: Job) -> None:
        """A proposal and its approval are good until the job's own end; later the job is over."""
        if job.state in ("awaiting_approval", "approved"):
            spec = JobSpec.from_json(job.signed["document"])
            try:
                documents.check_time(spec, documents.now(), f"job {job.job_id}", expired="job.expired")
            except NodeError as error:
                self._end(job.job_id, error)
                raise

    def approve(self, job_id: str, note: str = "") -> Job:
        job = self.store.get(job_id)
        if job.role != "provider" or job.state != "awaiting_approval":
            raise NodeError(
                "job.state", f"job {job_id} is {job.state} ({job.role}) and does not wait for approval here"
            )
        self._in_time(job)
        spec = self._spec(job_id)
        agreement = self.home.agreement(spec.agreement_id)
        self.home.check_terms(spec, agreement)
        self.check_budget(spec, agreement)
        self.home.dataset(spec.datasets["provider"])
        return self._approve(job_id, note or "approved by the operator")

    def reject(self, job_id: str, reason: str) -> Job:
        job = self.store.get(job_id)
        if job.role != "provider" or job.state not in ("awaiting_approval", "approved"):
            raise NodeError(
                "job.state", f"job {job_id} is {job.state} ({job.role}) and can't be declined here"
            )
        self._end(
            job_id, NodeError("job.rejected", reason or "declined by the provider's operator", share=True)
        )
        return self.store.get(job_id)
