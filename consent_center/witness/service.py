"""Cosign what only grew; collect cosignatures from others. Source: https://c2sp.org/tlog-witness.

As a witness, a center remembers for each log that it knows the last checkpoint that it cosigned, and cosigns
a later one only with a proof that it extends that one; check and record are one transaction. As a log, it
sends its checkpoint with that proof to its witnesses. A witness that has seen more of the log than there is
is the proof that the database was put back.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from consent_center.batch import moment
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger import log, proof, tree
from consent_center.ledger.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from consent_center.ledger.cosignature import Cosigner, CosignerKey, cosigned, parse_cosigner
from consent_center.ledger.note import parse_verifier
from consent_center.outbox import targets
from consent_center.witness.tables import witnessed_logs, witnesses

LEAF_KINDS = ("witness.log", "witness.added", "witness.cosigned")
_MAX_LINES, _MAX_BODY = 63, 1_000_000
Send = Callable[[str, bool, dict[str, str], bytes], tuple[int, bytes]]


@dataclass(frozen=True)
class Answer:
    """What `add-checkpoint` answers with, by its specification."""

    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Witness:
    """Both roles of one center."""

    keys: Keys
    read: Callable[[], AbstractContextManager[sa.Connection]]
    write: Callable[[], AbstractContextManager[sa.Connection]]
    now: Callable[[], int]

    # ---- as a witness --------------------------------------------------------------------------------------

    def key(self) -> CosignerKey:
        """The witness's own key: a cosignature commits to no name, so it must not serve anything else."""
        seed = hmac.digest(self.keys.signer.seed, b"pec/consent/witness/v1", "sha256")
        return CosignerKey(f"{self.keys.signer.name}/witness", seed)

    def verifier_key(self) -> str:
        """What others verify this center's cosignatures with."""
        return self.key().cosigner.text()

    def trust_log(self, key: str, actor: str = "") -> dict[str, Any]:
        """Witness another log from now on: its verifier key, whose name is its origin. `ledger.key`."""
        known = parse_verifier(key.strip())
        with self.write() as connection:
            where = witnessed_logs.c.origin == known.name
            held = connection.execute(sa.select(witnessed_logs).where(where)).first()
            if held is None:
                values = {"origin": known.name, "key": known.text(), "size": 0, "note": ""}
                connection.execute(witnessed_logs.insert().values(**values))
            elif held.key != known.text():
                raise ConsentError(
                    "witness.log", f"{known.name} is known under another key; a log keeps its key"
                )
            told = {"origin": known.name, "key": known.text(), "actor": actor}
            log.append_entries(connection, [("witness.log", told)])
        return {"origin": known.name, "key": known.text()}

    def logs(self) -> list[dict[str, Any]]:
        """The logs that this center witnesses, and how far."""
        with self.read() as connection:
            rows = connection.execute(sa.select(witnessed_logs)).all()
        return sorted(
            ({"origin": r.origin, "key": r.key, "size": int(r.size)} for r in rows), key=lambda e: e["origin"]
        )

    def add_checkpoint(self, body: bytes) -> Answer:
        """The call of the specification: old size, proof, checkpoint; a cosignature, or why not."""
        try:
            old, path, note = parse_request(body)
            told = parse_checkpoint(note[: note.rfind("\n\n") + 1])
        except ConsentError as error:
            return Answer(400, error.detail + "\n")
        with self.write() as connection:
            where = witnessed_logs.c.origin == told.origin
            row = connection.execute(sa.select(witnessed_logs).where(where)).first()
            if row is None:
                return Answer(404, "this log is not witnessed here\n")
            try:
                new = open_checkpoint(note, row.origin, [parse_verifier(row.key)])
            except ConsentError as error:
                return Answer(403, error.detail + "\n")
            if old > new.size:
                return Answer(400, "the old size is larger than the checkpoint's\n")
            if old != row.size:
                return Answer(409, f"{row.size}\n", "text/x.tlog.size")
            try:
                _check_growth(row, new, path)
            except ConsentError as error:
                # The same size with another root: the log shows different people different things.
                status = 409 if old == new.size and old else 422
                return Answer(status, error.detail + "\n")
            now = self.now()
            change = {"size": new.size, "note": note}
            connection.execute(witnessed_logs.update().where(where).values(**change))
            noted = {"origin": row.origin, "size": new.size, "root": new.root.hex(), "at": moment(now)}
            if new.size > row.size:
                log.append_entries(connection, [("witness.cosigned", noted)])
        return Answer(200, self.key().line(new.text(), now // 1_000_000))

    # ---- as a log ------------------------------------------------------------------------------------------

    def add_witness(self, key: str, url: str, private: bool = False, actor: str = "") -> dict[str, Any]:
        """Have the own log cosigned by that witness. `ledger.key`, `webhook.url`."""
        known, target = parse_cosigner(key), targets.check_url(url.rstrip("/"))
        with self.write() as connection:
            connection.execute(witnesses.delete().where(witnesses.c.name == known.name))
            values = {"key": known.text(), "url": target, "private": int(private), "size": 0, "note": ""}
            connection.execute(witnesses.insert().values(name=known.name, **values))
            told = {"name": known.name, "key": known.text(), "url": target, "actor": actor}
            log.append_entries(connection, [("witness.added", told)])
        return {"name": known.name, "key": known.text(), "url": target}

    def witnesses(self) -> list[dict[str, Any]]:
        """Who cosigns the own log, and how far."""
        with self.read() as connection:
            rows = connection.execute(sa.select(witnesses)).all()
        found = [
            {"name": r.name, "key": r.key, "url": r.url, "size": int(r.size), "note": r.note} for r in rows
        ]
        return sorted(found, key=lambda entry: str(entry["name"]))

    def collect(self, send: Send | None = None) -> list[dict[str, Any]]:
        """Send the newest checkpoint to every witness; {name, size, time} or {name, error} for each.

        Raises `center.restored` if a witness has seen more of this log than there is.
        """
        found = []
        for entry in self.witnesses():
            try:
                found.append(self._collect(entry, send or targets.send))
            except ConsentError as error:
                if error.code == "center.restored":
                    raise
                found.append({"name": entry["name"], "error": error.detail})
        return found

    def _collect(self, entry: dict[str, Any], send: Send) -> dict[str, Any]:
        with self.read() as connection:
            row = connection.execute(sa.select(witnesses).where(witnesses.c.name == entry["name"])).one()
            size, reader = log.size(connection), log.reader(connection)
            head = Checkpoint(self.keys.signer.name, size, tree.root_of(size, reader))
            old, attempts = int(row.size), 0
            while True:
                path = proof.consistency(old, size, reader) if old else []
                body = request_body(old, path, head.sign(self.keys.signer))
                headers = {"Content-Type": "text/plain; charset=utf-8"}
                status, answer = send(f"{row.url}/add-checkpoint", bool(row.private), headers, body)
                attempts += 1
                if status != 409 or attempts > 1:
                    break
                seen = _number(answer)
                if seen is None:
                    break
                if seen > size:
                    raise ConsentError(
                        "center.restored",
                        f"{row.name} has cosigned {seen} leaves of this log, which has {size}: the database "
                        "was put back from a backup; see `pec consent recover`",
                    )
                old = seen
        if status != 200:
            raise ConsentError(
                "witness.refused", f"HTTP {status}: {answer[:200].decode('utf-8', 'replace').strip()}"
            )
        note = head.sign(self.keys.signer) + answer.decode("utf-8", "replace")
        known = parse_cosigner(row.key)
        times = cosigned(note, [known])
        if known.name not in times:
            raise ConsentError("witness.refused", "its answer is no cosignature by its key")
        with self.write() as connection:
            change = witnesses.update().where(witnesses.c.name == row.name, witnesses.c.size <= size)
            connection.execute(change.values(size=size, note=_only(note, head, known)))
        return {"name": row.name, "size": size, "time": moment(times[known.name] * 1_000_000)}

    def cosigned_checkpoint(self) -> str:
        """The largest checkpoint that a witness has cosigned, with its cosignatures; "" for none."""
        held = [w for w in self.witnesses() if w["note"]]
        if not held:
            return ""
        size = max(w["size"] for w in held)
        notes = [str(w["note"]) for w in held if w["size"] == size]
        text = notes[0][: notes[0].rfind("\n\n") + 2]
        lines = dict.fromkeys(line for note in notes for line in note[len(text) :].split("\n") if line)
        return text + "".join(f"{line}\n" for line in lines)


def _only(note: str, head: Checkpoint, known: Cosigner) -> str:
    """The note with the log's own and this witness's lines, whatever else the answer had."""
    text = head.text() + "\n"
    lines = [line for line in note[len(text) :].split("\n") if line.startswith(f"— {head.origin} ")]
    for line in note[len(text) :].split("\n"):
        if line.startswith(f"— {known.name} ") and cosigned(f"{text}{line}\n", [known]):
            lines.append(line)
    return text + "".join(f"{line}\n" for line in dict.fromkeys(lines))


def _check_growth(row: Any, new: Checkpoint, path: list[bytes]) -> None:
    if row.size == 0:
        if path:
            raise ConsentError("ledger.proof", "the proof must be empty for the old size 0")
        return
    held = open_checkpoint(row.note, row.origin, [parse_verifier(row.key)])
    proof.check_consistency(held.size, new.size, path, held.root, new.root)


def request_body(old: int, path: list[bytes], note: str) -> bytes:
    """The body of `add-checkpoint`."""
    lines = [f"old {old}", *(base64.b64encode(step).decode() for step in path), "", note]
    return "\n".join(lines).encode()


def parse_request(body: bytes) -> tuple[int, list[bytes], str]:
    """(old size, proof, checkpoint) of a body of `add-checkpoint`; ConsentError `ledger.proof`."""
    try:
        head, blank, note = body[:_MAX_BODY].decode().partition("\n\n")
    except UnicodeDecodeError:
        raise ConsentError("ledger.proof", "the body is not UTF-8") from None
    lines = head.split("\n")
    word, _, digits = lines[0].partition(" ")
    known = digits.isascii() and digits.isdigit() and len(digits) < 19
    if word != "old" or not known or str(int(digits)) != digits or not blank or len(body) > _MAX_BODY:
        raise ConsentError("ledger.proof", "the body is: old SIZE, the proof, an empty line, the checkpoint")
    if len(lines) - 1 > _MAX_LINES:
        raise ConsentError("ledger.proof", f"more than {_MAX_LINES} lines of proof")
    try:
        path = [base64.b64decode(line, validate=True) for line in lines[1:]]
    except (binascii.Error, ValueError):
        raise ConsentError("ledger.proof", "a line of the proof is not base64") from None
    if any(len(step) != 32 for step in path):
        raise ConsentError("ledger.proof", "a hash of the proof is not 32 bytes long")
    return int(digits), path, note


def _number(answer: bytes) -> int | None:
    text = answer.decode("utf-8", "replace").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
