"""The brand's side of jobs: sign, propose, wait for approval, open the session. A worker thread a job."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from consent_center.model import DecisionRequest
from parties import PROTOCOL_VERSION, documents, identity
from parties.documents import Agreement, JobSpec, Secret
from parties.errors import NodeError, PeerFailed, RemoteError
from parties.identity import Peer
from parties.jobs import Jobs, check_clock
from parties.runner import error_record, for_peer, shared_part
from parties.stage import JobKind
from parties.store import FINAL, Job
from parties.transport import node_pb2
from parties.transport.client import Connection
from parties.transport.frames import peer_failed
from protocols import packs

#: Longest that a proposal may wait, if the request names no time: seven days.
PROPOSAL_SECONDS = 7 * 86400
#: Causes for which a proposal waits until its time is over: a peer's node may be stopped for an update.
AWAY = frozenset({"transport.unreachable", "transport.name", "transport.lost", "transport.silent"})
#: Tries in a row that may fail for another cause of the line (a certificate, say) before the job ends.
POLL_FAILURES = 5
#: Longest pause between two tries to reach a peer that is away, in seconds.
AWAY_SECONDS = 10.0
#: States of a job of the brand's that only waits: it outlives this process.
WAITING = ("proposed", "awaiting_approval", "approved")
#: Longest that a finished session waits for the peer to end its half of the stream.
SETTLE_SECONDS = 2.0
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


def _spec_of(request: Mapping[str, Any], brand: str, provider: str, commitment: str = "") -> JobSpec:
    """The job that a request asks for."""
    now = documents.now()
    wait = timedelta(seconds=float(request.get("expires_in_seconds") or PROPOSAL_SECONDS))
    return JobSpec.from_json(
        {
            "job_id": request.get("job_id") or f"{request['kind']}-{now:%Y%m%d}-{secrets.token_hex(6)}",
            "kind": request["kind"],
            "purpose": request["purpose"],
            "brand": brand,
            "provider": provider,
            "agreement_id": request["agreement"],
            "datasets": request["datasets"],
            "categories": list(request["categories"]),
            "columns": list(request.get("columns") or ()),
            "params": request.get("params") or {},
            "outputs": request.get("outputs") or {},
            "created_at": documents.timestamp(now),
            "expires_at": documents.timestamp(now + wait),
            "private_commitment": commitment,
        }
    )


class BrandSide(Jobs):
    """What the operator of a brand's node may start."""

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
        spec = _spec_of(request, self.home.party, peer.party, secret.commitment if private else "")
        kind = self.kind(spec)
        if hold and hold not in [s.name for s in kind.stages]:
            raise NodeError("node.request", f"hold_before {hold!r} is no stage of {spec.kind}")
        agreement = self._allowed(spec, kind)
        self._try_own(spec, kind, private, agreement)
        job = Job(
            job_id=spec.job_id,
            role="brand",
            kind=spec.kind,
            peer=peer.party,
            signed=self.home.identity.sign("job", spec.to_json()),
            private=private,
            salt=secret.salt,
            hold_before=hold,
            leakage=kind.learned(spec, agreement),
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

    def _allowed(self, spec: JobSpec, kind: JobKind) -> Agreement | None:
        """By this side's own copy of the agreement, before anything is sent. One that is not here, though a
        peer was named, is for that peer to refuse.
        """
        agreement = next((a for a in self.home.agreements() if a.id == spec.agreement_id), None)
        if agreement is not None:
            self.home.check_terms(spec, agreement)
            kind.check(spec, agreement)
        kind.check_here(spec, self.home, spec.provider)
        return agreement

    def _try_own(
        self, spec: JobSpec, kind: JobKind, private: Mapping[str, Any], agreement: Agreement | None
    ) -> None:
        """Identifiers and what the private parameters say of the own file, tried on it: a mistake is told
        before anybody is asked.
        """
        from parties.gate import Gate  # the only module that reads rows

        name = spec.datasets["brand"]
        Gate(self.center, self.home).check_kinds(name)
        own, dataset = kind.own(spec), self.home.dataset(name)
        try:
            kind.check_own(spec, dataset, private)
        except NodeError as error:
            if error.code == "dataset.category":
                named = [private[parameter] for parameter, _ in own.labels if private.get(parameter)]
                Gate(self.center, self.home).resolve(name, [*named, *(private.get("columns") or ())])
            raise
        where, flag = str(private.get("where") or ""), str(private.get(own.chooser) or "")
        if not (where or flag or own.labels):
            return
        labels = [(str(private[parameter]), check) for parameter, check in own.labels]
        chosen = private.get("columns")
        mine = (
            [n for n, c in dataset.categories.items() if c in spec.categories] if chosen is None else chosen
        )
        for parameter, check in own.looked_at:
            labels += [(name, check) for name in private.get(parameter) or () if name in mine]
        found = Gate(self.center, self.home).choose(name, where, flag, labels)
        least = agreement.minimum_seeds if agreement is not None else 0
        if own.least == "seeds" and found < least:
            raise NodeError(
                "agreement.minimum_seeds",
                f"{found} of the brand's people are chosen, agreement {spec.agreement_id} asks for {least}",
                "choose more people, or sign another agreement",
            )
        if agreement is not None and kind.exact(spec, agreement):
            self._try_again(spec, private, found, agreement, where, flag)
        if own.least == "one" and not found:
            raise NodeError("job.people", "nobody of the own file fits `where`", "choose other people")

    def _try_again(
        self,
        spec: JobSpec,
        private: Mapping[str, Any],
        found: int,
        agreement: Agreement,
        where: str,
        flag: str,
    ) -> None:
        """`job.repeated` where exact sums would differ from earlier ones by a few people; see
        `parties.repeats`. A share that is drawn anew hides who they are; nobody is asked where it does.
        """
        from parties import repeats
        from parties.gate import Gate
        from parties.kinds import lookalike  # numerical code, which only such a job needs

        share = private.get("holdout")
        drawn = min(
            round((lookalike.HOLDOUT if share is None else float(share)) * found),
            found - agreement.minimum_seeds,
        )
        kept = repeats.Repeats(self.home.path, spec.provider)
        anew = private.get("holdout_seed") is None and repeats.hidden(drawn, found - max(drawn, 0))
        if not kept.known or anew:
            return
        request = DecisionRequest(spec.purpose, spec.provider, spec.categories)
        people = Gate(self.center, self.home).who(spec.datasets["brand"], request, where, flag)
        kept.check_chosen(kept.marks(people, 1.0), agreement.minimum_seeds)

    def estimate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds and bytes of the alignment of a job as `submit` takes it, before anybody is asked.

        What is aligned are identifiers, of which a person has as many as the data set has id columns. This
        side's people are the rows of its file: an upper bound, as the gate has decided about nobody yet. The
        peer's are what the request's `peer_rows` says, or as many as here, each with as many identifiers as
        here; or its identifiers are as many as in this side's last job with that data set, and its people
        None. `basis` says which. `opening_seconds`: of both gates before it, at the same time. {"cost": None,
        "why"} for a kind without alignment.
        """
        from parties import cost  # imports numerical kernels, which only a forecast and a job need
        from parties.gate import Gate

        peer = self._peer_of(request)
        agreement = self.home.agreement(request["agreement"])
        params = dict(request.get("params") or {})
        kind = self.kinds.get(str(request.get("kind")))
        if kind is None or params.get("method") not in (None, "align") or not kind.aligned:
            return {"cost": None, "why": f"there is no forecast for {request.get('kind')!r}"}
        if "purpose" in request and "categories" in request:
            # A request that is whole: what `submit` would refuse needs no forecast.
            spec = _spec_of(request, self.home.party, peer.party)
            self._allowed(spec, kind.of(spec))
        datasets = request["datasets"]
        people = Gate(self.center, self.home).count(datasets["brand"])
        each = len(self.home.dataset(datasets["brand"]).identifiers)
        own = people * each
        peer_people, rows, basis = self._peer_people(request, peer.party, people, each)
        asked = str(params.get("suite", cost.AUTO))
        allowed = [s for s in cost.SUITES if s in agreement.suites and asked in (s, cost.AUTO)]
        if params.get("malicious") or agreement.malicious_security:
            allowed = [s for s in allowed if s == "vole"]
        if not allowed:
            raise NodeError("agreement.suite", f"suite {asked!r} is not in agreement {agreement.id}")
        receiver, sender = (own, rows) if kind.aligned == "brand" else (rows, own)
        sizes: dict[str, Any] = {
            "own_people": people,
            "own_identifiers": own,
            "peer_people": peer_people,
            "peer_identifiers": rows,
            "basis": basis,
        }
        work = replace(
            cost.Work.of(receiver, sender, self.home.settings.bucket_rows),
            malicious=bool(params.get("malicious")) or agreement.malicious_security,
            numbered=each > 1,
        )
        near = identity.neighbours(self.home.settings.listen, peer.address)
        rates = cost.local_rates(self.home.settings.bandwidth_mbit, near)
        sides = [cost.opening(items, rates) for items in (own, rows)]
        sizes["warmed"] = packs.made()
        sizes["opening_seconds"] = round(sum(sides) if near else max(sides), 3)
        if kind.tabled:
            tags = len(request.get("columns") or ())
            found = cost.enrich(work, rates, tags).to_document()
            why = f"every row of the partner's comes with its {tags} sealed tags"
            return {"cost": found, "why": why, **sizes, "alternatives": []}
        choice = cost.choose(asked, allowed, work, rates)
        found = {
            "cost": choice.cost.to_document(),
            "why": choice.why,
            **sizes,
            "alternatives": [c.to_document() for c in choice.costs if c.suite != choice.suite],
        }
        if kind.name == "boost":
            from parties import forest_cost

            own_columns = len(self.home.dataset(datasets["brand"]).categories)
            forest = forest_cost.of_request(request, rows // max(each, 1), own_columns)
            found["training"] = None if forest is None else forest_cost.forecast(forest, rates)
        return found

    def _peer_people(
        self, request: Mapping[str, Any], party: str, own: int, each: int
    ) -> tuple[int | None, int, str]:
        """The peer's people, its identifiers, and how that is known."""
        told = request.get("peer_rows")
        if isinstance(told, int) and told >= 0:
            return told, told * each, "as given"
        for job in self.store.all():
            found = job.result.get("alignment")
            same = job.signed["document"]["datasets"]["provider"] == request["datasets"]["provider"]
            if job.peer == party and same and isinstance(found, dict):
                side = "sender_rows" if found.get("role") == "receiver" else "receiver_rows"
                return None, int(found[side]), f"as in job {job.job_id}"
        return own, own * each, "assumed to be as many as here"

    def _peer_of(self, request: Mapping[str, Any]) -> Peer:
        party = request.get("peer")
        if party is None:
            party = self.home.agreement(request["agreement"]).provider
        return self.home.peer(party)

    def connect(self, peer: Peer) -> Connection:
        return Connection(self.home.identity, peer.party, peer.address, peer.certificate, peer.server_name)

    def _brand(self, job_id: str) -> None:
        """Propose the job and run it once it is approved. While it only waits it outlives the connection, the
        provider's node and this one: it is proposed again, which answers its state.
        """
        failures, pause = 0, 0.5
        while True:
            job = self.store.get(job_id)
            peer = self.home.peer(job.peer)  # its address may have changed while it was away
            asked = job.state != "draft"
            with self.connect(peer) as line:
                try:
                    self._still_open(job)
                    self._greet(line)
                    request = node_pb2.ProposeRequest(spec=documents.canonical(job.signed))
                    if not asked:
                        self._move(job_id, "proposed")
                        asked = True
                    reply = line.call(line.peer.Propose, request)
                    failures, pause = 0, 0.5
                    self._approved(job_id, peer, line, reply)
                    self._own_check(job)
                    self._wait_for_slot(job_id)
                    self._brand_session(job_id, peer, line)
                    break
                except Exception as error:
                    failures += 1
                    if not self._waits(job_id, error, failures):
                        if self._stopping and self.store.get(job_id).state in WAITING:
                            self.log(
                                "node.stopping", f"{job_id} waits for this node's next start", job=job_id
                            )
                            return
                        self._end(job_id, error)
                        if asked:
                            self._tell(job, error)
                        break
                    if failures == 1:
                        told = error_record(error)
                        text = f"{job_id} waits for {job.peer}: {told['detail']}"
                        self.log(told["code"], text, level="warn", job=job_id)
            self._pause(pause, job_id)
            pause = min(pause * 1.5, AWAY_SECONDS)
        self._go_on(job_id)

    def _waits(self, job_id: str, error: Exception, failures: int) -> bool:
        """Whether a job that has been proposed is only waiting for its peer's node to come back."""
        code = str(getattr(error, "code", ""))
        if self._stopping or isinstance(error, RemoteError) or not code.startswith("transport."):
            return False
        if self.store.get(job_id).state not in WAITING:
            return False
        return code in AWAY or failures <= POLL_FAILURES

    def _pause(self, seconds: float, job_id: str = "") -> None:
        """Sleep, but not beyond the node's stop or the end of the job."""
        until = time.monotonic() + seconds
        with self.store.changed:
            while not self._stopping and (left := until - time.monotonic()) > 0:
                if job_id and self.store.get(job_id).state in FINAL:
                    return
                self.store.changed.wait(left)

    def _still_open(self, job: Job) -> None:
        """`job.cancelled` if the job has ended meanwhile, `job.expired` if its time is over, and whatever
        else does not stand any more: the agreement, the trust in the peer.
        """
        if job.state in FINAL:
            raise NodeError("job.cancelled", f"job {job.job_id} is {job.state}")
        spec = self._spec(job.job_id)
        self.home.endings.check(spec.agreement_id)
        self.home.peer(job.peer)
        documents.check_time(spec, documents.now(), f"job {job.job_id}", expired="job.expired")

    def _go_on(self, job_id: str) -> None:
        """As long as the job is interrupted: look for the provider, and take it up again in a new session."""
        pause = 0.2
        while not self._stopping:
            job = self.store.get(job_id)
            if job.state != "interrupted":
                if job.state in FINAL and job.state != "succeeded" and job.interrupted:
                    self._tell_again(job)
                return
            if time.time() > self._deadline(job):
                self._end(job_id, self._too_late(job))
                continue
            try:
                self._again(job)
                pause = 0.2
            except NodeError as error:
                if error.code.startswith("transport.") or error.code in ("job.busy", "job.state"):
                    self.log(error.code, f"{job_id} waits for {job.peer}: {error.detail}", job=job_id)
                else:
                    self._end(job_id, error)
            with self.store.changed:
                self.store.changed.wait(pause)
            pause = min(pause * 1.5, 5.0)

    def _again(self, job: Job) -> None:
        """One try: ask the provider how the job stands, and open a session if it waits too."""
        peer = self.home.peer(job.peer)
        with self.connect(peer) as line:
            self._greet(line)
            ask = node_pb2.JobRequest(job_id=job.job_id, spec_hash=self._spec(job.job_id).hash)
            reply = line.call(line.peer.GetJob, ask)
            if reply.state == "succeeded":
                raise NodeError("node.interrupted", f"{job.peer} has finished the job", "submit it again")
            if reply.state in FINAL:
                raise peer_failed(reply.code, reply.detail)
            if reply.state == "interrupted":
                self._wait_for_slot(job.job_id)
                self._brand_session(job.job_id, peer, line)

    def _tell_again(self, job: Job) -> None:
        """The provider of an interrupted job that has ended here, in case it waits."""
        error = job.error or {}
        self._tell(job, NodeError(error.get("code", "job.cancelled"), error.get("detail", "")))

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
        check_clock(line.party, reply.unix_seconds)

    def _own_check(self, job: Job) -> None:
        """This side's agreement must allow the job too: the peer's word is not enough."""
        spec = JobSpec.from_json(job.signed["document"])
        agreement = self.home.agreement(spec.agreement_id)
        self.home.check_terms(spec, agreement)
        self.kind(spec).check(spec, agreement)
        self.check_budget(spec, agreement)

    def _approved(self, job_id: str, peer: Peer, line: Connection, reply: Any) -> None:
        """Wait until the provider has decided; raises PeerFailed with its reason if it said no."""
        ask = node_pb2.JobRequest(job_id=job_id, spec_hash=self._spec(job_id).hash)
        pause = 0.1
        while True:
            job = self.store.get(job_id)
            self._still_open(job)
            if reply.state in FINAL:
                raise peer_failed(reply.code, reply.detail)
            if reply.state == "approved":
                signed = documents.parse(reply.spec, "countersigned job")
                keys = {self.home.party: self.home.identity.public_key, peer.party: peer.identity_key}
                if documents.verify(signed, "job", keys) != job.signed["document"]:
                    raise NodeError("job.changed", "the peer countersigned another job", share=True)
                if job.state != "approved":  # else this node was stopped between the approval and the session
                    self._move(job_id, "approved", signed=signed)
                return
            if reply.state == "awaiting_approval" and job.state == "proposed":
                self._move(job_id, "awaiting_approval")
            if self._stopping:
                raise NodeError("node.stopping", "the node is shutting down")
            self._pause(pause, job_id)
            pause = min(pause * 1.5, self.home.settings.poll_seconds)
            reply = line.call(line.peer.GetJob, ask)

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
            # Cancelling at once could overtake the last frame, an abort with its reason for instance.
            deadline = time.monotonic() + SETTLE_SECONDS
            while call.is_active() and time.monotonic() < deadline:
                time.sleep(0.02)
            call.cancel()

    def _tell(self, job: Job, error: Exception) -> None:
        """Tell the provider that the job is over, in case the session could not: until it has heard it, or
        could not approve the job any more. What is untold when this node stops is told after its next start.
        """
        if isinstance(error, PeerFailed):
            return
        # The first end counts: a cancelled job makes this thread fail in its own way afterwards.
        ended = self.store.get(job.job_id).error
        told = for_peer(error) if ended is None else shared_part(ended)
        spec = self._spec(job.job_id)
        request = node_pb2.JobRequest(
            job_id=job.job_id, spec_hash=spec.hash, code=told["code"], detail=told["detail"]
        )
        pause = 0.5
        while True:
            try:
                with self.connect(self.home.peer(job.peer)) as line:
                    line.call(line.peer.Cancel, request, timeout=3.0)
                break
            except RemoteError as second:  # it was reached, and knows no such job or another one
                self.log(second.code, f"{job.peer} was told that {job.job_id} ended: {second.detail}")
                break
            except NodeError as second:
                if pause == 0.5:
                    text = f"{job.peer} could not be told yet that {job.job_id} ended: {second.detail}"
                    self.log(second.code, text, level="warn", job=job.job_id)
                    self.store.update(job.job_id, untold=True)
            if self._stopping or documents.moment(spec.expires_at) <= documents.now():
                return
            self._pause(pause)
            pause = min(pause * 1.5, AWAY_SECONDS)
        if self.store.get(job.job_id).untold:
            self.store.update(job.job_id, untold=False)
