"""Runs one approved job on one side, from the first frame to the files in place.

Brand and provider run the same code with their role. Nothing is visible in `jobs/<id>` before both sides have
said that they are done; whatever goes wrong before removes the work directory. A job that was broken off
(`INTERRUPTIONS`) goes on in a new session from the last checkpoint that both sides have, if every stage that
may have begun since then is `repeatable`.
"""

from __future__ import annotations

import base64
import binascii
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from consent_center.errors import ConsentError
from consent_center.ledger import verify as ledger_verify
from parties import documents, hints, identity, private_files
from parties.checkpoint import Checkpoints
from parties.documents import Agreement, JobSpec
from parties.errors import CODES, NodeError, PeerFailed
from parties.home import Home
from parties.identity import Peer
from parties.models import Models
from parties.private_files import write_json
from parties.repeats import Repeats
from parties.stage import JobKind, Recheck, Role, StageContext, ViewRequest
from parties.store import Job, Store
from parties.transport.frames import Link
from parties.transport.session import Session, StageChannel
from protocols import errors as protocol_errors

#: The one table from an error code to a job's final state; everything else is `failed`.
_STATES = {
    "consent.purpose_off": "stopped_by_consent",
    "consent.recipient_off": "stopped_by_consent",
    "consent.assessment_ended": "stopped_by_consent",
    "job.cancelled": "cancelled",
    "job.rejected": "rejected",
    "job.expired": "rejected",
    "job.spec": "rejected",
    "job.repeated": "rejected",
    "job.daily": "rejected",
    "job.kind": "rejected",
    "dataset.category": "rejected",
    "dataset.unknown": "rejected",
    "dataset.changed": "rejected",
    "model.unknown": "rejected",
    "model.agreement": "rejected",
    "model.expired": "rejected",
    "model.retired": "rejected",
    "consent.nobody": "rejected",
    "consent.assessment": "rejected",
}


#: Errors that end a session and not the job, where it can go on.
INTERRUPTIONS = {
    "transport.lost",
    "transport.truncated",
    "transport.silent",
    "transport.unreachable",
    "node.stopping",
}


def repeatable(kind: JobKind, first: int, last: int) -> bool:
    """Whether stages `first` … `last` (those that the kind has of them) may all run again."""
    return first >= 0 and all(stage.repeatable for stage in kind.stages[first : last + 1])


def final_state(code: str) -> str:
    """The state in which a job with this error ends; the same on both sides."""
    if code.startswith("agreement."):
        return "rejected"
    return _STATES.get(code, "failed")


def error_record(error: Exception) -> dict[str, Any]:
    """What the job remembers of an error: code, detail, hint, origin (here or the peer), people by reason."""
    code, from_peer = getattr(error, "code", None), isinstance(error, PeerFailed)
    if not isinstance(code, str):
        code, detail = "node.internal", f"{type(error).__name__}: {error}"[:500]
    else:
        detail = str(getattr(error, "detail", error))
    return {
        "code": code,
        "detail": detail,
        # The peer tells a code and no hint: what to do about it stands here.
        "hint": str(getattr(error, "hint", "")) or (hints.after_peer(code) if from_peer else ""),
        "origin": "peer" if from_peer else "here",
        "counts": dict(getattr(error, "counts", {}) or {}),
        "shared": bool(getattr(error, "share", False)),
    }


def for_peer(error: Exception) -> dict[str, Any]:
    """What the peer is told: the code, and the detail if it was written to be shared; never the counts."""
    return shared_part(error_record(error))


def shared_part(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the peer is told of an `error_record`."""
    code = record["code"]
    meaning = CODES.get(code) or protocol_errors.CODES.get(code, "")
    return {"code": code, "detail": record["detail"] if record.get("shared") else meaning}


class Runner:
    """One job on one side. `set_state(state, **changes)` moves it (and writes the ledger), `resumed()` says
    whether the operator let a held job go on."""

    def __init__(
        self,
        home: Home,
        store: Store,
        center: Any,
        kind: JobKind,
        job: Job,
        peer: Peer,
        link: Link,
        *,
        set_state: Callable[..., Job],
        record: Callable[[str, dict[str, Any]], int],
        resumed: Callable[[], bool],
        progress: Callable[[str, str, int, int], None],
        log: Callable[..., None],
    ) -> None:
        self.home, self.store, self.center, self.kind = home, store, center, kind
        self.job, self.peer, self.link = job, peer, link
        self.role: Role = "brand" if job.role == "brand" else "provider"
        self.spec = JobSpec.from_json(job.signed["document"])
        self.agreement: Agreement = home.agreement(self.spec.agreement_id)
        self.work: Path = home.work(job.job_id)
        self._set_state, self._record, self._resumed = set_state, record, resumed
        self._progress, self._log = progress, log
        self.session = Session(link, self.role, job.job_id, self.spec.hash)
        self.checkpoints = Checkpoints(home.state(job.job_id))
        self._consent: list[dict[str, Any]] = list(job.consent)
        self._reading: dict[str, Any] | None = None

    def run(self) -> dict[str, Any]:
        """The whole job; returns what the job's record gets. Raises whatever ended it."""
        started = time.monotonic()
        stands = self.checkpoints.latest()
        if stands < 0:
            self.work.mkdir(mode=0o700, parents=True)
            private_files.folder(self.checkpoints.folder)
        self._standing()
        self.kind.check(self.spec, self.agreement)
        theirs = self.session.open(lambda nonce: self.store.use_nonce(self.job.job_id, nonce), stands)
        first = self._first(stands, theirs)
        view = self._open_view() if first is None else self._restore_view(first)
        context = self._context(view)
        if first is not None:
            saved = self.checkpoints.load(first)
            context.carry, context.result = saved.carry, saved.result
        for position, stage in enumerate(self.kind.stages):
            if first is not None and position < first:
                continue
            if stands < position:  # with the checkpoint the hold before it is behind
                self._hold(stage.name)
            self._checkpoint(position, context)
            self._enter(view, context, stage.name)
            self.checkpoints.keep(position)
            self._stage(
                context, position, stage.name, stage.brand if self.role == "brand" else stage.provider
            )
        self._checkpoint(len(self.kind.stages), context)
        self._enter(view, context, "closing")
        closing = self._close(context)
        self._finish(view, context, closing)
        self.link.send_control("done")
        self.link.receive_control("done")
        target = self.home.job(self.job.job_id)
        self.work.rename(target)
        self.checkpoints.remove()
        seconds = time.monotonic() - started + (self.job.run_seconds or 0.0)
        return {"result": context.result, "run_seconds": seconds, "counts": _counts(view)}

    # -- interruptions ---------------------------------------------------------------------------------------

    def _first(self, own: int, theirs: int) -> int | None:
        """The stage to begin with: None in a first session, else the earlier of both sides' checkpoints.

        `node.interrupted` if a stage that may have begun since then must not run twice.
        """
        if own < 0 and theirs < 0:
            return None
        first, last = min(own, theirs), max(own, theirs)
        if not repeatable(self.kind, first, last):
            raise NodeError(
                "node.interrupted",
                "the job was broken off where it can't go on",
                "submit it again",
                share=True,
            )
        self.checkpoints.back_to(first)
        return first

    def _checkpoint(self, position: int, context: StageContext) -> None:
        """Keep what stage `position` begins with, where the job could go on from it."""
        if repeatable(self.kind, 0, 0) and not self.checkpoints.save(position, context.carry, context.result):
            self.checkpoints.back_to(-1)

    def _restore_view(self, first: int) -> Any:
        """The view of the first session, and the snapshots that both sides showed then."""
        from parties.gate import Gate

        self._reading = self.checkpoints.read_dataset()
        self._standing()
        kept = self.checkpoints.read_peer()
        view = Gate(self.center, self.home).restore(self.checkpoints.view, self.spec.datasets[self.role])
        own, before = kept[self.home.party], kept[self.peer.party]
        theirs = self.session.exchange_ready(own)
        if theirs != before:
            raise NodeError("consent.snapshot", "it is not the one that the job began with", share=True)
        self._check_snapshot(theirs)
        self.snapshots = {self.home.party: own, self.peer.party: theirs}
        self.session.bind(str(own["document"]["token_root"]), str(theirs["document"]["token_root"]))
        # By the ledger: a node may be killed between an entry there and the one in its database.
        leaves = [n for kind, n in self.store.leaves(self.job.job_id) if kind == "job.recheck"]
        found = [dict(self.center.opening(n)["payload"]) for n in leaves]
        self._consent = [{k: v for k, v in entry.items() if k != "job"} for entry in found]
        self._record(
            "job.resumed",
            {"job": self.job.job_id, "attempt": self.job.attempts, "stage": self._name(first)},
        )
        return view

    def _name(self, position: int) -> str:
        names = [stage.name for stage in self.kind.stages]
        return names[position] if position < len(names) else "closing"

    def may_go_on(self, error: Exception) -> bool:
        """Whether the job is only interrupted by `error`: the peer may come back, and there is a checkpoint
        from which both can go on.
        """
        code = getattr(error, "code", "")
        if code not in INTERRUPTIONS or self.job.attempts >= self.home.settings.resume_attempts:
            return False
        return can_go_on(self.kind, self.checkpoints)

    # -- beginning -------------------------------------------------------------------------------------------

    def _open_view(self) -> Any:
        request = ViewRequest(
            job_id=self.job.job_id,
            role=self.role,
            spec=self.spec,
            agreement=self.agreement,
            dataset=self.home.dataset(self.spec.datasets[self.role]),
            private=self.job.private,
            recipient=self.peer.party,
            center=self.center,
            home=self.home,
            workdir=self.work,
        )
        view = self.kind.open_view(request)
        counts = _counts(view)
        self.store.update(self.job.job_id, counts=counts)
        if view.rows < self.agreement.minimum_rows:
            raise NodeError(
                "agreement.minimum_rows" if view.rows else "consent.nobody",
                f"fewer people of {self.home.party} may take part than the agreement wants "
                f"({self.agreement.minimum_rows})"
                if view.rows
                else f"nobody of {self.home.party} agreed to {self.spec.purpose!r} for {self.peer.party}",
                "wait until more people have consented to this purpose and recipient",
                share=True,
                counts=counts.get("out", {}),
            )
        own = {
            "document": view.snapshot.document,
            "signature": base64.b64encode(view.snapshot.signature).decode(),
        }
        self._record("job.snapshot", {"snapshot": str(view.snapshot.document["id"]), "job": self.job.job_id})
        theirs = self.session.exchange_ready(own)
        self._check_snapshot(theirs)
        self.snapshots = {self.home.party: own, self.peer.party: theirs}
        self.session.bind(str(own["document"]["token_root"]), str(theirs["document"]["token_root"]))
        if repeatable(self.kind, 0, 0):
            view.save(self.checkpoints.view)
            self.checkpoints.write_peer(self.snapshots)
            self.checkpoints.write_dataset(self._reading or {})
        return view

    def _check_snapshot(self, signed: Mapping[str, Any]) -> None:
        """The peer's snapshot must be its center's, for this job, purpose and recipient."""
        document = signed["document"]
        try:
            signature = base64.b64decode(str(signed.get("signature")), validate=True)
            ledger_verify.snapshot(document, signature, self.peer.verifier_key)
        except (ConsentError, ValueError, binascii.Error) as error:
            raise NodeError("consent.snapshot", f"the signature fails: {error}", share=True) from error
        expected = {
            "job_id": self.job.job_id,
            "purpose": self.spec.purpose,
            "recipient": self.home.party,
            "controller": self.peer.party,
        }
        for name, value in expected.items():
            if document.get(name) != value:
                raise NodeError(
                    "consent.snapshot", f"its {name} is {document.get(name)!r}, not {value!r}", share=True
                )
        covered = document.get("categories")
        if not isinstance(covered, list) or sorted(map(str, covered)) != sorted(self.spec.categories):
            raise NodeError("consent.snapshot", "it covers other data categories than the job", share=True)
        if not isinstance(document.get("token_root"), str):
            raise NodeError("consent.snapshot", "it lacks its token_root", share=True)

    def _context(self, view: Any) -> StageContext:
        return StageContext(
            job_id=self.job.job_id,
            role=self.role,
            spec=self.spec,
            agreement=self.agreement,
            private=self.job.private,
            view=view,
            channel=StageChannel(self.session, "open", self._report),
            workdir=self.work,
            record=self._record,
            settings=self.home.settings,
            state=self.checkpoints.folder,
            prepared=self.home.path / "prepared",
            models=Models(self.home, self.center),
            spend=self._spend,
            fitted=self._fitted(view),
            neighbour=identity.neighbours(self.home.settings.listen, self.peer.address),
        )

    def _fitted(self, view: Any) -> Callable[[Any, Any, Any, int], None]:
        """Keeps over whom the partner gets exact sums; see `parties.repeats`."""

        def take(chosen: Any, people: Any, labels: Any, fresh: int) -> None:
            kept = Repeats(self.home.path, self.peer.party)
            asked = kept.marks(view.persons(chosen), 1.0)
            found = kept.marks(view.persons(people), labels)
            kept.take(self.job.job_id, asked, found, fresh, self.agreement.minimum_seeds)

        return take

    def _spend(self) -> None:
        """Count what the job spends, in the database and then in the ledger; see `Store.spend`."""
        asked = self.kind.spends(self.spec, self.agreement)
        if asked is None:
            return
        asked = replace(asked, job_id=self.job.job_id)
        account = self.store.spend(self.agreement, asked)
        total = self.agreement.privacy_total
        self._record(
            "job.spend",
            {
                "job": self.job.job_id,
                "agreement": self.agreement.id,
                "mechanism": asked.mechanism,
                "epsilon": asked.epsilon,
                "delta": asked.delta,
                "epsilon_spent": round(account.epsilon_spent(), 6),
                "total": None if total is None else total.to_json(),
            },
        )

    # -- stages ----------------------------------------------------------------------------------------------

    def _hold(self, stage: str) -> None:
        if self.role != "brand" or self.job.hold_before != stage or self._resumed():
            return
        self.link.stage = stage  # where the provider waits already
        self.link.send_control("hold")
        self._set_state("held")
        with self.store.changed:
            while not self._resumed():
                if self.link.error is not None:
                    raise self.link.error
                self._standing()
                self.store.changed.wait(0.3)
        self.link.send_control("resume")
        self._set_state("running")

    def _enter(self, view: Any, context: StageContext, name: str) -> None:
        """Re-check the lease, then exchange the boundary message; drops whoever has withdrawn meanwhile."""
        found = self._recheck(view, name)
        self.session.boundary(name, found.sequence, self._held)
        # The brand may have held the job for hours: what counts is the agreement and who is in now.
        self._standing()
        if self.role == "provider":
            found = self._recheck(view, name)
        context.dropped = found.dropped
        self.link.lease_until = time.monotonic() + self.home.settings.lease_seconds

    def _standing(self) -> None:
        """The agreement allows the job now; the peer is still trusted with the key that it began with, and
        the own data set is what it was then.
        """
        self.home.check_terms(self.spec, self.agreement)
        if self.home.peer(self.peer.party).identity_key != self.peer.identity_key:
            raise NodeError("identity.untrusted", f"{self.peer.party} has another key now", "submit it again")
        reading = self.home.dataset(self.spec.datasets[self.role]).reading
        if self._reading is not None and reading != self._reading:
            name = self.spec.datasets[self.role]
            what = f"{self.home.party} has changed its data set {name!r} since the job began"
            raise NodeError("dataset.changed", what, "submit it again", share=True)
        self._reading = reading

    def _held(self, held: bool) -> None:
        self._set_state("held" if held else "running")

    def _recheck(self, view: Any, stage: str) -> Recheck:
        found: Recheck = view.recheck()
        entry = {
            "stage": stage,
            "sequence": int(found.sequence),
            "active": bool(found.active),
            "dropped": len(found.dropped),
            "reasons": dict(found.reasons),
            "lag_seconds": round(float(found.lag_seconds), 3),
        }
        self._consent.append(entry)
        self._record("job.recheck", {"job": self.job.job_id, **entry})
        self.store.update(self.job.job_id, consent=self._consent, counts=_counts(view))
        if not found.active and "recipient_inactive" in found.reasons:
            raise NodeError(
                "consent.recipient_off",
                f"{self.home.party} switched recipient {self.peer.party!r} off before stage {stage!r}",
                share=True,
            )
        if not found.active and "purpose_inactive" not in found.reasons:
            raise NodeError(
                "consent.assessment_ended",
                f"{self.home.party} has no impact assessment in force any more for {self.spec.purpose!r} and "
                f"{self.peer.party!r} (before stage {stage!r})",
                share=True,
            )
        if not found.active:
            raise NodeError(
                "consent.purpose_off",
                f"{self.home.party} switched purpose {self.spec.purpose!r} off before stage {stage!r}",
                share=True,
            )
        return found

    def _stage(
        self, context: StageContext, position: int, name: str, function: Callable[[StageContext], None]
    ) -> None:
        channel = StageChannel(self.session, name, self._report)
        context.channel = channel
        self.store.start_stage(self.job.job_id, position, name)
        start = time.monotonic()
        function(context)
        self.link.flush()
        self.link.lease_until = None  # between stages a job may be held
        seconds = time.monotonic() - start
        # Read once: signs of life go on, and the record must be the same in the database and in the ledger.
        sent, received = channel.bytes_sent, channel.bytes_received
        self.store.end_stage(self.job.job_id, position, seconds, sent, received)
        self._record(
            "job.stage",
            {
                "job": self.job.job_id,
                "stage": name,
                "bytes_sent": sent,
                "bytes_received": received,
                "transcript": self.link.sent.value.hex(),
            },
        )

    def _report(self, what: str, done: int, total: int) -> None:
        self._progress(self.link.stage, what, done, total)

    # -- end -------------------------------------------------------------------------------------------------

    def _close(self, context: StageContext) -> dict[str, Any]:
        """Exchange signed closing statements; {party: signed statement}."""
        own: dict[str, Any] = {}

        def statement(transcript: dict[str, Any]) -> dict[str, Any]:
            body = {
                "job_id": self.job.job_id,
                "party": self.home.party,
                "role": self.role,
                "spec_hash": self.spec.hash.hex(),
                "binding": self.session.binding.hex(),
                "stages": [s.name for s in self.kind.stages],
                "transcript": transcript,
                "snapshot": documents.hash_of(self.snapshots[self.home.party]["document"]).hex(),
                "leakage": documents.hash_of(self._leakage()).hex(),
                "checkpoint": self.center.checkpoint(),
                "closed_at": documents.timestamp(documents.now()),
            }
            own.update(self.home.identity.sign("closing", body))
            return own

        theirs = self.session.exchange_closing(statement)
        body = documents.verify(theirs, "closing", {self.peer.party: self.peer.identity_key})
        expected = {
            "job_id": self.job.job_id,
            "party": self.peer.party,
            "spec_hash": self.spec.hash.hex(),
            "binding": self.session.binding.hex(),
            "snapshot": documents.hash_of(self.snapshots[self.peer.party]["document"]).hex(),
            "leakage": documents.hash_of(self._leakage()).hex(),
        }
        for name, value in expected.items():
            if body.get(name) != value:
                raise NodeError(
                    "transport.binding", f"the peer's closing statement has another {name}", share=True
                )
        return {self.home.party: own, self.peer.party: theirs}

    def _leakage(self) -> dict[str, list[str]]:
        return self.kind.learned(self.spec, self.agreement)

    def _finish(self, view: Any, context: StageContext, closing: dict[str, Any]) -> None:
        """Write what the organisation keeps beside the results: own row map, the job's record, the bundle."""
        np.save(self.work / "rows.npy", np.asarray(view.own_rows(), dtype=np.int64), allow_pickle=False)
        leaf = self._record("job.closing", {"job": self.job.job_id, "closing": closing})
        record = {
            "job_id": self.job.job_id,
            "role": self.role,
            "party": self.home.party,
            "peer": self.peer.party,
            "spec": self.store.get(self.job.job_id).signed,
            "agreement": self.home.signed_agreement(self.spec.agreement_id),
            "cards": {
                self.home.party: self.home.identity.card(self.home.address(), self.center.verifier_key()),
                self.peer.party: self.peer.card,
            },
            "snapshots": self.snapshots,
            "disclosure": view.snapshot.disclosure,
            "nonces": {
                self.home.party: self.session.nonce.hex(),
                self.peer.party: self.session.peer_nonce.hex(),
            },
            "closing": closing,
            "stages": self.store.stages(self.job.job_id),
            "consent": self._consent,
            "leakage": self._leakage(),
            "counts": _counts(view),
            "result": context.result,
            "leaves": [{"kind": kind, "leaf": number} for kind, number in self.store.leaves(self.job.job_id)],
            "closing_leaf": leaf,
        }
        write_json(self.work / "job.json", record)
        from parties import bundle, model_card  # the first knows the kinds, which import numerical kernels

        model_card.write(record, self.job.private, self.work)
        (self.work / f".{bundle.NAME}.part").unlink(missing_ok=True)  # of a node that was killed
        bundle.build(self.work / bundle.NAME, record, self.center, self.home)

    def clean(self) -> None:
        """Remove whatever a job that did not succeed has written."""
        self.checkpoints.remove()
        shutil.rmtree(self.work, ignore_errors=True)
        if self.work.exists():
            self._log("node.internal", f"{self.work} can't be removed; remove it by hand", level="error")


def can_go_on(kind: JobKind, checkpoints: Checkpoints) -> bool:
    """Whether a checkpoint is there, and the stage that it is before may have run in part without harm."""
    latest = checkpoints.latest()
    return latest >= 0 and repeatable(kind, latest, latest)


def _counts(view: Any) -> dict[str, Any]:
    counts = getattr(view, "counts", None)
    found = counts if isinstance(counts, dict) else view.snapshot.disclosure["counts"]
    return dict(json.loads(json.dumps(found)))
