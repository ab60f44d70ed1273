"""What two nodes say to each other on a line during one job, and the channel that stages see.

    open      nonce, spec hash, checkpoint     both ways, before anything is read
    ready     signed consent snapshot          both ways, once each side's view is open
    boundary  stage, spec hash, roots, lease   before each stage; both must be equal but for the lease
    …         the stage's own frames
    closing   signed statement                 after the last stage
    hold, resume, abort                        at any boundary; abort at any time

The binding of a session is SHA-256 over job id, spec hash, both nonces and both snapshots' token roots, so a
transcript belongs to exactly one job and one snapshot on each side.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from parties import PROTOCOL_VERSION, documents
from parties.errors import NodeError
from parties.stage import MAX_CONTROL
from parties.transport.frames import MAX_FRAME, Link
from protocols.labels import label as make_label
from protocols.machine import Machine

R = TypeVar("R")
#: Called with (what, done, total) for a progress bar.
Progress = Callable[[str, int, int], None]


@dataclass
class Session:
    """State of one job's session on one side; `binding` is known after `exchange_ready`."""

    link: Link
    role: str
    job_id: str
    spec_hash: bytes
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    peer_nonce: bytes = b""
    binding: bytes = b""
    roots: dict[str, str] = field(default_factory=dict)
    held: bool = False

    def open(self, use_nonce: Callable[[bytes], None], stands: int = -1) -> int:
        """Exchange nonces. `use_nonce` must raise `transport.nonce` if it has seen the peer's before.

        `stands`: the stage before which this side's newest checkpoint is, -1 for none; returns the peer's.
        """
        self.link.send_control(
            "open",
            version=PROTOCOL_VERSION,
            nonce=self.nonce.hex(),
            spec_hash=self.spec_hash.hex(),
            stands=stands,
        )
        message = self.link.receive_control("open")
        if message.get("version") != PROTOCOL_VERSION:
            raise NodeError("transport.version", f"the peer speaks {message.get('version')!r}", share=True)
        if message.get("spec_hash") != self.spec_hash.hex():
            # A peer that was shown another spec must not run this one.
            raise NodeError("transport.binding", "the peer's job spec has another hash", share=True)
        self.peer_nonce = _bytes32(message.get("nonce"), "nonce")
        if self.peer_nonce == self.nonce:
            raise NodeError("transport.nonce", "the peer sent this side's own nonce back", share=True)
        use_nonce(self.peer_nonce)
        theirs = message.get("stands", -1)
        if type(theirs) is not int or not -1 <= theirs <= 1000:
            raise NodeError("transport.malformed", "the peer's checkpoint is no number", share=True)
        return theirs

    def exchange_ready(self, snapshot: Mapping[str, Any]) -> dict[str, Any]:
        """Send this side's signed snapshot ({document, signature}), return the peer's; the caller verifies
        it.
        """
        self.link.send_control("ready", snapshot=dict(snapshot))
        theirs = self.link.receive_control("ready").get("snapshot")
        if not isinstance(theirs, dict) or not isinstance(theirs.get("document"), dict):
            raise NodeError("consent.snapshot", "the peer sent no snapshot")
        return theirs

    def bind(self, own_root: str, peer_root: str) -> None:
        own, peer = ("brand", "provider") if self.role == "brand" else ("provider", "brand")
        self.roots = {own: own_root, peer: peer_root}
        nonces = {own: self.nonce.hex(), peer: self.peer_nonce.hex()}
        body = {
            "job_id": self.job_id,
            "spec_hash": self.spec_hash.hex(),
            "nonces": nonces,
            "roots": self.roots,
        }
        self.binding = hashlib.sha256(
            make_label("session", "both", "binding") + documents.canonical(body)
        ).digest()

    def boundary(self, stage: str, lease: int, on_hold: Callable[[bool], None]) -> int:
        """Enter `stage` together; returns the peer's lease sequence. The brand speaks first.

        `on_hold(True/False)` is called when the peer holds and resumes the job.
        """
        self.link.stage = stage
        own = {
            "stage": stage,
            "spec_hash": self.spec_hash.hex(),
            "roots": self.roots,
            "binding": self.binding.hex(),
        }
        if self.role == "brand":
            self.link.send_control("boundary", lease=lease, **own)
        message = self.link.receive_control("boundary", "hold", "resume")
        while message["type"] != "boundary":
            if message["type"] == "hold" and self.held:
                # Each hold is a leaf of this side's ledger, so a peer could fill it.
                raise NodeError("transport.flood", "the peer holds the job a second time", share=True)
            self.held = True
            on_hold(message["type"] == "hold")
            message = self.link.receive_control("boundary", "hold", "resume")
        theirs = message.pop("lease", None)
        message.pop("type")
        if message != own:
            raise NodeError(
                "transport.binding", f"the peer enters stage {stage!r} with other terms", share=True
            )
        if not isinstance(theirs, int) or isinstance(theirs, bool) or theirs < 0:
            raise NodeError("transport.malformed", "the peer's lease is no sequence number", share=True)
        if self.role == "provider":
            self.link.send_control("boundary", lease=lease, **own)
        self.link.flush()
        return theirs

    def exchange_closing(self, statement: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Exchange signed closing statements; `statement(transcript)` makes this side's. The caller verifies.

        To be called right after a boundary: then both sides' chains stand at the same frames.
        """
        transcript = self.transcript()
        self.link.send_control("closing", statement=statement(transcript))
        theirs = self.link.receive_control("closing").get("statement")
        if not isinstance(theirs, dict):
            raise NodeError("transport.malformed", "the peer's closing statement is no object")
        body = documents.envelope(theirs, "closing")[1]
        mirrored = {"sent": transcript["received"], "received": transcript["sent"]}
        if body.get("transcript") != mirrored:
            raise NodeError(
                "transport.chain", "the peer's transcript hashes differ from this side's", share=True
            )
        return theirs

    def transcript(self) -> dict[str, Any]:
        """Hash and number of frames of each direction so far, signs of life left out."""
        sent, received = self.link.sent, self.link.received
        return {
            "sent": {"hash": sent.value.hex(), "frames": sent.frames},
            "received": {"hash": received.value.hex(), "frames": received.frames},
        }


class StageChannel:
    """`parties.stage.Channel` over a session, for one stage."""

    def __init__(self, session: Session, stage: str, on_progress: Progress) -> None:
        self._session, self._stage, self._on_progress = session, stage, on_progress
        self._link = session.link
        self._sent_before, self._received_before = self._link.bytes_sent, self._link.bytes_received

    @property
    def bytes_sent(self) -> int:
        return self._link.bytes_sent - self._sent_before

    @property
    def bytes_received(self) -> int:
        return self._link.bytes_received - self._received_before

    def session(self, label: str) -> bytes:
        return hashlib.sha256(make_label("stage", self._stage, label, self._session.binding)).digest()

    def run(self, machine: Machine[R], label: str = "", part: tuple[int, int] | None = None) -> R:
        what = label or self._stage
        at, of = part or (0, 1)
        if of > 1:
            what += f" {at + 1} of {of}"
        for message in machine.start():
            self._link.send("payload", message)
        while not machine.finished:
            for message in machine.receive(self._link.receive("payload")[1]):
                self._link.send("payload", message)
            done, total = machine.progress
            self._on_progress(what, at * total + done, of * total)
        return machine.result

    def send_json(self, value: Mapping[str, Any]) -> None:
        body = documents.canonical(dict(value))
        if len(body) > MAX_CONTROL:
            raise NodeError(
                "transport.too_large", f"a control message of {len(body)} bytes, {MAX_CONTROL} allowed"
            )
        self._link.send("stage_json", body)

    def receive_json(self) -> dict[str, Any]:
        return documents.parse(self._link.receive("stage_json")[1], "the peer's control message", MAX_FRAME)

    def send_bytes(self, message: bytes) -> None:
        self._link.send("payload", message)

    def receive_bytes(self) -> bytes:
        return self._link.receive("payload")[1]

    def progress(self, done: int, total: int, what: str = "") -> None:
        self._on_progress(what or self._stage, done, total)


def _bytes32(text: Any, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except (TypeError, ValueError) as error:
        raise NodeError("transport.malformed", f"the peer's {what} is no hex text") from error
    if len(value) != 32:
        raise NodeError("transport.malformed", f"the peer's {what} has {len(value)} bytes, not 32")
    return value
