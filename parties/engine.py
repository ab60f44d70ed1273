"""The job state machine: proposals, approval, sessions, cancelling; one thread a running job.

The brand's side is driven by a worker thread a job (propose, wait for approval, open the session), the
provider's by the peer's calls. `parties.runner` does what happens inside a session.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from itertools import chain
from typing import Any

from consent_center.errors import ConsentError
from parties import PROTOCOL_VERSION, documents
from parties.documents import JobSpec, Secret
from parties.errors import NodeError, PeerFailed
from parties.home import Home
from parties.identity import Peer
from parties.runner import Runner, error_record, final_state, for_peer, shared_part
from parties.stage import JobKind
from parties.store import FINAL, Job, Store
from parties.transport import node_pb2
from parties.transport.client import Connection
from parties.transport.frames import Link, peer_failed

#: Longest that a proposal may wait, if the request names no time: seven days.
PROPOSAL_SECONDS = 7 * 86400
#: Unanswered polls in a row after which a waiting brand gives up, and the seconds between them at first.
POLL_FAILURES = 5
_REQUEST = {
    "job_id",
    "kind",
    "purpose",
    "peer",
    "agreement",
    "datasets",
    "categories",
    "columns",
    "params",
    "outputs",
    "private",
    "hold_before",
    "expires_in_seconds",
}


class Engine:
    """All jobs of one node. `kinds` defaults to `parties.kinds.KINDS`."""

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
            from parties.kinds import KINDS  # compiles kernels: only a node that runs jobs needs them

            self._kinds = KINDS
        return self._kinds

    def kind(self, name: str) -> JobKind:
        found = self.kinds.get(name)
        if found is None:
            raise NodeError(
                "job.kind", f"{name[:64]!r} is none of {', '.join(sorted(self.kinds))}", share=True
            )
        return found

    # -- life of the node ------------------------------------------------------------------------------------

    def start(self) -> None:
        """End what an earlier process left running, and go on with proposals that still wait."""
        for job in self.store.all():
            if job.state in ("running", "held"):
                error = NodeError("node.interrupted", "the node stopped while the job ran", "submit it again")
                self._end(job.job_id, error)
            elif job.role == "brand" and job.state not in FINAL:
                self._spawn(job.job_id, self._brand)
        for leftover in (self.home.path / "work").iterdir():
            self.log("node.interrupted", f"removing what {leftover.name} left behind", level="warn")
            shutil.rmtree(leftover, ignore_errors=True)
        # The first job must not wait for imports of a second or two.
        threading.Thread(target=lambda: self.kinds, name="load kinds", daemon=True).start()

    def stop(self, seconds: float = 5.0) -> None:
        """End running jobs with `node.stopping` on both sides."""
        self._stopping = True
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
            state = final_state(record["code"])
            if job.state not in ("running", "held") and state == "stopped_by_consent":
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

    # -- the brand -------------------------------------------------------------------------------------------

    def submit(self, request: Mapping[str, Any]) -> str:
        """Sign a job and propose it in the background; returns its id. See
        `parties.client.NodeClient.submit`.
        """
        for name in request:
            if name not in _REQUEST:
                raise NodeError(
                    "node.request", f"unknown field {str(name)[:60]!r}; known: {', '.join(sorted(_REQUEST))}"
                )
        for name in ("kind", "purpose", "agreement", "datasets", "categories"):
            if name not in request:
                raise NodeError("node.request", f"the job lacks {name!r}")
        peer = self._peer_of(request)
        private = dict(request.get("private") or {})
        hold = request.get("hold_before") or private.pop("hold_before", "") or ""
        secret = Secret(secrets.token_hex(32), private)
        now = documents.now()
        wait = timedelta(seconds=float(request.get("expires_in_seconds") or PROPOSAL_SECONDS))
        spec = JobSpec.from_json(
            {
                "job_id": request.get("job_id") or f"{request['kind']}-{now:%Y%m%d}-{secrets.token_hex(6)}",
                "kind": request["kind"],
                "purpose": request["purpose"],
                "brand": self.home.party,
                "provider": peer.party,
                "agreement_id": request["agreement"],
                "datasets": request["datasets"],
                "categories": list(request["categories"]),
                "columns": list(request.get("columns") or ()),
                "params": request.get("params") or {},
                "outputs": request.get("outputs") or {},
                "created_at": documents.timestamp(now),
                "expires_at": documents.timestamp(now + wait),
                "private_commitment": secret.commitment if private else "",
            }
        )
        kind = self.kind(spec.kind)
        if hold and hold not in [s.name for s in kind.stages]:
            raise NodeError("node.request", f"hold_before {hold!r} is no stage of {spec.kind}")
        self.home.dataset(spec.datasets["brand"])
        job = Job(
            job_id=spec.job_id,
            role="brand",
            kind=spec.kind,
            peer=peer.party,
            signed=self.home.identity.sign("job", spec.to_json()),
            private=private,
            salt=secret.salt,
            hold_before=hold,
            leakage={role: list(text) for role, text in kind.leakage.items()},
        )
        if not self.store.add(job):
            raise NodeError(
                "job.changed",
                f"there is already a job {spec.job_id!r}",
                "leave job_id out, or choose another",
            )
        self.record(
            job.job_id, "job.state", {"job": job.job_id, "state": "draft", "role": "brand", "peer": job.peer}
        )
        self._spawn(job.job_id, self._brand)
        return job.job_id

    def _peer_of(self, request: Mapping[str, Any]) -> Peer:
        party = request.get("peer")
        if party is None:
            party = self.home.agreement(request["agreement"]).provider
        return self.home.peer(party)

    def connect(self, peer: Peer) -> Connection:
        return Connection(self.home.identity, peer.party, peer.address, peer.certificate, peer.server_name)

    def _brand(self, job_id: str) -> None:
        job = self.store.get(job_id)
        peer = self.home.peer(job.peer)
        with self.connect(peer) as line:
            try:
                self._greet(line)
                request = node_pb2.ProposeRequest(spec=documents.canonical(job.signed))
                if job.state == "draft":
                    self._move(job_id, "proposed")
                self._approved(job_id, peer, line, line.call(line.peer.Propose, request))
                self._own_check(job)
                self._wait_for_slot(job_id)
                self._brand_session(job_id, peer, line)
            except Exception as error:
                self._end(job_id, error)
                self._tell(line, job, error)

    def _greet(self, line: Connection) -> None:
        reply = line.call(
            line.peer.Hello,
            node_pb2.HelloRequest(
                version=PROTOCOL_VERSION, party=self.home.party, unix_seconds=int(time.time())
            ),
        )
        if reply.version != PROTOCOL_VERSION:
            raise NodeError(
                "transport.version", f"{line.party} speaks {reply.version}, here is {PROTOCOL_VERSION}"
            )
        _check_clock(line.party, reply.unix_seconds)

    def _own_check(self, job: Job) -> None:
        """This side's agreement must allow the job too: the peer's word is not enough."""
        spec = JobSpec.from_json(job.signed["document"])
        agreement = self.home.agreement(spec.agreement_id)
        documents.check_terms(spec, agreement, documents.now())
        self.kind(spec.kind).check(spec, agreement)

    def _approved(self, job_id: str, peer: Peer, line: Connection, reply: Any) -> None:
        """Wait until the provider has decided; raises PeerFailed with its reason if it said no."""
        ask = node_pb2.JobRequest(job_id=job_id, spec_hash=self._spec(job_id).hash)
        pause, failures = 0.1, 0
        while True:
            state = self.store.get(job_id).state
            if state in FINAL:
                raise NodeError("job.cancelled", f"job {job_id} is {state}")
            if reply.state in FINAL:
                raise peer_failed(reply.code, reply.detail)
            if reply.state == "approved":
                signed = documents.parse(reply.spec, "countersigned job")
                keys = {self.home.party: self.home.identity.public_key, peer.party: peer.identity_key}
                if documents.verify(signed, "job", keys) != self.store.get(job_id).signed["document"]:
                    raise NodeError("job.changed", "the peer countersigned another job", share=True)
                self._move(job_id, "approved", signed=signed)
                return
            if reply.state == "awaiting_approval" and state == "proposed":
                self._move(job_id, "awaiting_approval")
            documents.check_time(self._spec(job_id), documents.now(), f"job {job_id}", expired="job.expired")
            if self._stopping:
                raise NodeError("node.stopping", "the node is shutting down")
            time.sleep(pause)
            pause = min(pause * 1.5, self.home.settings.poll_seconds)
            try:
                reply = line.call(line.peer.GetJob, ask)
                failures = 0
            except NodeError as error:
                failures += 1
                if not error.code.startswith("transport.") or failures > POLL_FAILURES:
                    raise
                time.sleep(failures)

    def _spec(self, job_id: str) -> JobSpec:
        return JobSpec.from_json(self.store.get(job_id).signed["document"])

    def _wait_for_slot(self, job_id: str) -> None:
        while self.running >= self.home.settings.max_jobs:
            if self._stopping or self.store.get(job_id).state in FINAL:
                raise NodeError("job.cancelled", f"job {job_id} ended before it began")
            time.sleep(0.2)

    def _brand_session(self, job_id: str, peer: Peer, line: Connection) -> None:
        job = self.store.get(job_id)
        link = self._link(job)
        call = line.session(link.outgoing())
        link.attach(call, line.translate_stream)
        try:
            self._run(job, peer, link)
        finally:
            call.cancel()

    def _tell(self, line: Connection, job: Job, error: Exception) -> None:
        """Tell the provider that the job is over, in case the session could not; best effort, and logged."""
        if isinstance(error, PeerFailed) or getattr(error, "code", "") in (
            "transport.unreachable",
            "transport.name",
        ):
            return
        told = for_peer(error)
        request = node_pb2.JobRequest(
            job_id=job.job_id, spec_hash=self._spec(job.job_id).hash, code=told["code"], detail=told["detail"]
        )
        try:
            line.call(line.peer.Cancel, request, timeout=3.0)
        except NodeError as second:
            self.log(
                second.code,
                f"{job.peer} could not be told that {job.job_id} ended: {second.detail}",
                level="warn",
            )

    # -- the provider: what a peer may call ------------------------------------------------------------------

    def hello(self, peer: Peer, request: Any) -> Any:
        if request.version != PROTOCOL_VERSION:
            raise NodeError(
                "transport.version", f"{peer.party} speaks {request.version}, here is {PROTOCOL_VERSION}"
            )
        _check_clock(peer.party, request.unix_seconds)
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
            elif known is not None and _hash(known) != spec.hash:
                self.log("job.changed", f"{peer.party} proposed another job as {spec.job_id}", level="warn")
                raise NodeError(
                    "job.changed",
                    f"job {spec.job_id} was proposed before with hash {_hash(known).hex()[:16]}…, "
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
            documents.check_terms(spec, agreement, documents.now())
            kind = self.kind(spec.kind)
            kind.check(spec, agreement)
            self.store.update(id_, leakage={role: list(text) for role, text in kind.leakage.items()})
            if not any(d.name == spec.datasets["provider"] for d in self.home.datasets()):
                raise NodeError(
                    "job.spec", f"{self.home.party} has no data set {spec.datasets['provider']!r}", share=True
                )
            if spec.kind in agreement.preapproved:
                self._approve(id_, f"approved in advance by agreement {agreement.id}")
            else:
                self._move(id_, "awaiting_approval")
        except Exception as error:
            self._end(id_, error)

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

    def _of_peer(self, peer: Peer, job_id: str, spec_hash: bytes) -> Job:
        """The peer's own job; other peers' jobs look as if they did not exist."""
        job = self.store.find(job_id)
        if job is None or job.peer != peer.party:
            raise NodeError("job.unknown", f"{self.home.party} has no job {job_id[:64]!r} of {peer.party}")
        if _hash(job) != spec_hash:
            raise NodeError("job.changed", f"job {job_id} has another hash here", "was the spec changed?")
        return job

    def _reply(self, job: Job) -> Any:
        reply = node_pb2.JobReply(state=job.state)
        if job.state in ("approved", "running", "held", "succeeded"):
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
            if job.state != "approved" or job.job_id in self._links:
                raise NodeError(
                    "job.state", f"job {job.job_id} is {job.state}; a session needs an approved one"
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
        self._spawn(job.job_id, lambda _: self._run(job, peer, link))
        yield from link.outgoing()

    def _in_time(self, job: Job) -> None:
        """An approval is good until the job's own end; the job is over if its session comes later."""
        if job.state == "approved":
            spec = JobSpec.from_json(job.signed["document"])
            try:
                documents.check_time(spec, documents.now(), f"job {job.job_id}", expired="job.expired")
            except NodeError as error:
                self._end(job.job_id, error)
                raise

    # -- both ------------------------------------------------------------------------------------------------

    def _link(self, job: Job) -> Link:
        settings = self.home.settings
        link = Link(
            job.job_id,
            _hash(job),
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
        id_ = job.job_id
        try:
            job = self._move(id_, "running")
            runner = Runner(
                self.home,
                self.store,
                self.center,
                self.kind(job.kind),
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
            if runner is not None:
                runner.clean()
            self._end(id_, error)
        finally:
            with self._lock:
                self._links.pop(id_, None)
                self._progress.pop(id_, None)
                self._resumed.discard(id_)

    def _report(self, job_id: str, stage: str, what: str, done: int, total: int) -> None:
        self._progress[job_id] = {"stage": stage, "what": what, "done": int(done), "total": int(total)}

    def progress(self, job_id: str) -> dict[str, Any] | None:
        return self._progress.get(job_id)

    # -- the operator ----------------------------------------------------------------------------------------

    def approve(self, job_id: str, note: str = "") -> Job:
        job = self.store.get(job_id)
        if job.role != "provider" or job.state != "awaiting_approval":
            raise NodeError(
                "job.state", f"job {job_id} is {job.state} ({job.role}) and does not wait for approval here"
            )
        spec = self._spec(job_id)
        documents.check_time(spec, documents.now(), f"job {job_id}", expired="job.expired")
        documents.check_terms(spec, self.home.agreement(spec.agreement_id), documents.now())
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


def _hash(job: Job) -> bytes:
    return documents.hash_of(job.signed["document"])


def _check_clock(party: str, unix_seconds: int) -> None:
    apart = abs(time.time() - unix_seconds)
    if apart > documents.CLOCK_SKEW.total_seconds():
        raise NodeError(
            "transport.clock",
            f"the clock of {party} is {apart:.0f} s away",
            "set both clocks by a time server",
        )
