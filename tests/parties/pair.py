"""Two sides of a job in one process: the stages of a kind run in two threads over queues.

A harness for the kinds' tests alone; the engine's tests run the same kinds between two node processes.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from consent_center.model import CODE, Decisions, Delta, Snapshot
from parties.datasets import Dataset
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.kinds import KINDS
from parties.stage import StageContext, ViewRequest
from protocols.errors import ProtocolError

FAILED = object()


class QueueChannel:
    """`parties.stage.Channel` over two queues; `log` keeps every message that was sent."""

    def __init__(self, out: queue.Queue, into: queue.Queue, job_id: str) -> None:
        self._out, self._into, self._job_id = out, into, job_id
        self.bytes_sent = self.bytes_received = 0
        self.stage = ""
        self.log: list[bytes] = []

    def session(self, label: str) -> bytes:
        return hashlib.sha256(f"{self._job_id}/{self.stage}/{label}".encode()).digest()

    def _send(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self.log.append(data)
        self._out.put(data)

    def _receive(self) -> bytes:
        data = self._into.get(timeout=240)
        if data is FAILED:
            raise NodeError("peer.failed", "the peer failed")
        self.bytes_received += len(data)
        return data

    def run(self, machine: Any, label: str = "", part: tuple[int, int] | None = None) -> Any:
        for message in machine.start():
            self._send(message)
        while not machine.finished:
            for message in machine.receive(self._receive()):
                self._send(message)
        return machine.result

    def send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode())

    def receive_json(self) -> Any:
        return json.loads(self._receive())

    def send_bytes(self, message: bytes) -> None:
        self._send(message)

    def receive_bytes(self) -> bytes:
        return self._receive()

    def progress(self, done: int, total: int, what: str = "") -> None:
        pass


@dataclass
class Side:
    """One organisation of a test: its data set and its consent center."""

    dataset: Dataset
    center: Any
    private: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    #: What its fits without noise gave away: (view rows asked about, of the fit, labels, drawn anew) each.
    fitted: list[tuple[Any, ...]] = field(default_factory=list)

    def dataset_named(self, name: str) -> Dataset:
        assert name == self.dataset.name
        return self.dataset


@dataclass
class Outcome:
    brand: StageContext
    provider: StageContext
    errors: dict[str, Exception]
    spent: list[str] = field(default_factory=list)


class _Home:
    def __init__(self, side: Side) -> None:
        self.dataset = side.dataset_named


def run_job(
    spec: JobSpec, agreement: Agreement, sides: dict[str, Side], workdir: Path, before: Any = None
) -> Outcome:
    """Run all stages; `before(stage_name)` is called once before each (to withdraw somebody's consent)."""
    kind = KINDS[spec.kind].of(spec)
    kind.check(spec, agreement)
    queues = queue.Queue(), queue.Queue()
    contexts, errors = {}, {}
    spent: list[str] = []
    for role, side in sides.items():
        folder = workdir / role
        folder.mkdir(parents=True)
        out, into = queues if role == "brand" else queues[::-1]
        request = ViewRequest(
            job_id=spec.job_id,
            role=role,
            spec=spec,
            agreement=agreement,
            dataset=side.dataset,
            private=side.private,
            recipient=spec.recipient_of[role],
            center=side.center,
            home=_Home(side),
            workdir=folder,
        )
        contexts[role] = StageContext(
            job_id=spec.job_id,
            role=role,
            spec=spec,
            agreement=agreement,
            private=side.private,
            view=kind.open_view(request),
            channel=QueueChannel(out, into, spec.job_id),
            workdir=folder,
            record=lambda name, payload: 0,
            spend=lambda role=role: spent.append(role),
            fitted=lambda *told, side=side: side.fitted.append(told),
        )
    for stage in kind.stages:
        if before:
            before(stage.name)

        def one(role: str, act: Any, name: str = stage.name) -> None:
            ctx = contexts[role]
            ctx.channel.stage = name
            ctx.dropped = ctx.view.recheck().dropped
            try:
                act(ctx)
            except (NodeError, ProtocolError) as error:
                errors[role] = error
                ctx.channel._out.put(FAILED)

        threads = [
            threading.Thread(target=one, args=("brand", stage.brand)),
            threading.Thread(target=one, args=("provider", stage.provider)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(400)
        if errors:
            break
    return Outcome(contexts["brand"], contexts["provider"], errors, spent)


def agreement(**changes: Any) -> Agreement:
    terms = {
        "id": "a1",
        "brand": "acme",
        "provider": "dataco",
        "kinds": ["overlap", "lookalike", "enrich"],
        "purposes": ["ads"],
        "categories": ["identity", "profile"],
        "columns": ["*"],
        "tags": ["*"],
        "minimum_seeds": 20,
        "minimum_rows": 20,
        "privacy": None,
        "preapproved": [],
        "suites": ["ecdh"],
        "impact_assessment": "none",
        "created_at": "2020-01-01T00:00:00Z",
        "expires_at": "2036-01-01T00:00:00Z",
    }
    return Agreement.from_json({**terms, **changes})


def spec(kind: str, **changes: Any) -> JobSpec:
    value = {
        "job_id": f"job-{kind}",
        "kind": kind,
        "purpose": "ads",
        "brand": "acme",
        "provider": "dataco",
        "agreement_id": "a1",
        "datasets": {"brand": "people", "provider": "people"},
        "categories": ["identity", "profile"],
        "columns": [],
        "params": {},
        "outputs": {},
        "created_at": "2020-01-01T00:00:00Z",
        "expires_at": "2036-01-01T00:00:00Z",
        "private_commitment": "",
    }
    return JobSpec.from_json({**value, **changes})


def auc(scores: np.ndarray, positives: np.ndarray) -> float:
    """The plain definition, as an oracle: share of (positive, negative) pairs in the right order."""
    hits, rest = scores[positives], scores[~positives]
    return float((hits[:, None] > rest).mean() + 0.5 * (hits[:, None] == rest).mean())


class ScriptedCenter:
    """A consent center that says what a test wrote down: {normalised value: reason}; others are eligible."""

    def __init__(self, reasons: dict[str, str] | None = None, subjects: dict[str, int] | None = None) -> None:
        self.reasons = reasons or {}
        #: normalised value -> person; None: every value is a person of its own
        self.subjects = subjects
        self.withdrawn: set[str] = set()
        self.active = True
        self._people: dict[str, int] = {}

    def decide(self, request: Any, values: Any, kind: Any) -> Decisions:
        codes, ordinals = [], []
        for value in values.to_pylist():
            if self.subjects is None:
                ordinals.append(self._people.setdefault(value, len(self._people)))
            else:
                ordinals.append(self.subjects.get(value, -1))
                self._people[value] = ordinals[-1]
            known = "eligible" if ordinals[-1] >= 0 else "unknown_subject"
            codes.append(CODE[self.reasons.get(value, known)])
        return Decisions(np.array(codes, np.uint8), np.array(ordinals, np.int64), 7)

    def snapshot(self, request: Any, values: Any, kind: Any, job_id: str) -> Snapshot:
        decisions = self.decide(request, values, kind)
        document = {
            "id": f"s-{job_id}",
            "job_id": job_id,
            "purpose": request.purpose,
            "recipient": request.recipient,
            "categories": list(request.categories),
            "token_root": "00" * 32,
        }
        return Snapshot(document, b"", decisions, {"counts": decisions.counts()})

    def delta(self, snapshot_id: str) -> Delta:
        gone = sorted(self._people[value] for value in self.withdrawn if value in self._people)
        codes = np.full(len(gone), CODE["withdrawn"], np.uint8)
        return Delta(7 + len(gone), self.active, np.array(gone, np.int64), codes, 0.5)
