"""The audit bundle of a job: everything that proves its story, and nothing about a person.

A zip file of canonical JSON, stored and not compressed, in a fixed order with fixed times, so that a bundle
has exactly one form and a changed byte anywhere shows:

    manifest.json    signed by its maker: hashes of the other members and of the result files
    spec.json        the job spec with both signatures
    agreement.json   the agreement with both signatures
    cards.json       both parties' cards: their public keys
    snapshots.json   both consent centers' signed snapshots, and the nonces of the session
    closing.json     both parties' signed closing statements with the transcript hashes
    log.json         this side's stages and lease checks, the leakage table, and of an alignment suite and
                     sizes, with the forecast beside what it took
    ledger.json      a checkpoint of this side's ledger, opening and inclusion proof of every leaf, and
                     proof that the ledger only grew since the checkpoint in the closing statement

`verify` needs the file alone: no database, no network, no clock. Keys come from the cards in the bundle; give
`trusted_cards` to hold them against cards that you got from the parties themselves.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consent_center.errors import ConsentError
from consent_center.ledger import verify as ledger_verify
from parties import documents, identity
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from protocols.errors import ProtocolError
from protocols.labels import label

FORMAT = "pec-audit-1"
NAME = "audit.zip"
MEMBERS = ("spec", "agreement", "cards", "snapshots", "closing", "log", "ledger")

#: Largest bundle that is read, in bytes: it holds no rows, so a real one is far below.
MAX_BUNDLE = 64 << 20

_WRONG = (NodeError, ConsentError, ProtocolError, KeyError, TypeError, ValueError, IndexError, AttributeError)


@dataclass(frozen=True)
class VerifyReport:
    """`checks`: (name, whether it holds, what was found), in order; `ok` if every one holds. `keys`: of each
    party the certificate's fingerprint, the identity key's id and the ledger's verifier key, as in its card.
    """

    ok: bool
    checks: list[tuple[str, bool, str]]
    keys: dict[str, dict[str, str]] = field(default_factory=dict)


class Mismatch(ValueError):
    """A check does not hold; the text says what differs."""


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Mismatch(what)


# -- building ------------------------------------------------------------------------------------------------


def build(target: Path, record: Mapping[str, Any], center: Any, home: Any) -> None:
    """Write the bundle of the job in `record` (what the engine keeps of a finished job) to `target`.

    Every other file in the target's folder counts as a result and goes into the manifest by its hash. Raises
    `bundle.incomplete` when something is missing, or when the finished bundle would not verify.
    """
    try:
        members = _members(record, center)
        results = {
            path.relative_to(target.parent).as_posix(): _file_hash(path)
            for path in sorted(target.parent.rglob("*"))
            if path.is_file() and path != target
        }
        manifest = {
            "format": FORMAT,
            "job_id": record["job_id"],
            "role": record["role"],
            "party": record["party"],
            "members": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
            "results": results,
            "made_at": documents.timestamp(documents.now()),
        }
        signed = home.identity.sign("audit", manifest)
    except (KeyError, ConsentError, OSError) as error:
        raise NodeError("bundle.incomplete", f"{error!r} is missing or unreadable") from error
    data = _zip({"manifest.json": documents.canonical(signed), **members})
    report = verify_bytes(data)
    if not report.ok:
        name, _, detail = next(c for c in report.checks if not c[1])
        raise NodeError("bundle.incomplete", f"the bundle would not verify: {name}: {detail}")
    part = target.with_name(f".{target.name}.part")
    with part.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)


def _members(record: Mapping[str, Any], center: Any) -> dict[str, bytes]:
    checkpoint = center.checkpoint()
    size = ledger_verify.checkpoint(checkpoint, center.verifier_key()).size
    leaves = [
        {"opening": center.opening(n), "path": [step.hex() for step in center.prove(n, size)]}
        for n in sorted(entry["leaf"] for entry in record["leaves"])
    ]
    shown = record["closing"][record["party"]]["document"]["checkpoint"]
    before = ledger_verify.checkpoint(shown, center.verifier_key()).size
    grown = [step.hex() for step in center.prove_consistency(before, size)]
    alignment = record["result"].get("alignment")
    content = {
        "spec": record["spec"],
        "agreement": record["agreement"],
        "cards": record["cards"],
        "snapshots": {
            "snapshots": record["snapshots"],
            "nonces": record["nonces"],
            "disclosure": record["disclosure"],
        },
        "closing": record["closing"],
        "log": {
            "stages": record["stages"],
            "consent": record["consent"],
            "leakage": record["leakage"],
            **({"alignment": alignment} if alignment else {}),
        },
        "ledger": {"checkpoint": checkpoint, "leaves": leaves, "grown": grown},
    }
    return {f"{name}.json": documents.canonical(content[name]) for name in MEMBERS}


def _zip(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, data)
    return out.getvalue()


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- verifying -----------------------------------------------------------------------------------------------


def verify(
    path: str | Path,
    trusted_cards: Sequence[Mapping[str, Any]] | None = None,
    results: str | Path | None = None,
) -> VerifyReport:
    """Check a bundle offline.

    `trusted_cards`: signed cards that the auditor got elsewhere; the keys in the bundle must be theirs.
    `results`: the folder with the job's result files, to compare with the manifest. Raises
    `bundle.unreadable` if the file can't be opened; everything found inside is in the report.
    """
    source = Path(path)
    try:
        if source.stat().st_size > MAX_BUNDLE:
            raise NodeError("bundle.unreadable", f"{source.name} is larger than any bundle")
        data = source.read_bytes()
    except OSError as error:
        raise NodeError("bundle.unreadable", f"{source}: {error.strerror}") from error
    return verify_bytes(data, trusted_cards, Path(results) if results is not None else None)


def verify_bytes(
    data: bytes, trusted_cards: Sequence[Mapping[str, Any]] | None = None, results: Path | None = None
) -> VerifyReport:
    """`verify` of a bundle in memory."""
    checks: list[tuple[str, bool, str]] = []
    story = _Story(trusted_cards, results)
    for name, check in story.checks(data):
        try:
            checks.append((name, True, check()))
        except _WRONG as error:
            text = str(error) if isinstance(error, Mismatch | NodeError | ConsentError) else repr(error)
            checks.append((name, False, text))
            if name in ("form", "parties", "manifest"):
                break  # what follows would judge bytes that nobody vouches for
    return VerifyReport(all(ok for _, ok, _ in checks), checks, story.keys())


class _Story:
    """One bundle under examination. Each check returns what it found or raises."""

    def __init__(self, trusted: Sequence[Mapping[str, Any]] | None, results: Path | None) -> None:
        self._trusted, self._results = trusted, results
        self._peers: dict[str, identity.Peer] = {}

    def checks(self, data: bytes) -> list[tuple[str, Callable[[], str]]]:
        """Names and checks, in the order in which they build on each other."""
        found: list[tuple[str, Callable[[], str]]] = [
            ("form", lambda: self._form(data)),
            ("parties", self._parties),
            ("manifest", self._manifest),
            ("spec", self._spec_signed),
            ("agreement", self._agreement),
            ("snapshots", self._snapshots),
            ("closing", self._closing),
            ("binding", self._binding),
            ("transcripts", self._transcripts),
            ("ledger", self._ledger),
            ("stages", self._stages),
            ("leakage", self._leakage),
        ]
        if self._results is not None:
            found.append(("results", self._result_files))
        return found

    def keys(self) -> dict[str, dict[str, str]]:
        """What a party reads out to say that the keys are its own; empty if the cards could not be read."""
        return {
            party: {
                "fingerprint": peer.fingerprint,
                "identity_key": documents.key_id(peer.identity_key),
                "verifier_key": peer.verifier_key,
            }
            for party, peer in sorted(self._peers.items())
        }

    def _form(self, data: bytes) -> str:
        names = ["manifest.json", *(f"{name}.json" for name in MEMBERS)]
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                # An extra member could carry what nobody signed; a repeated one could be read two ways.
                _require(archive.namelist() == names, f"the members are {archive.namelist()}, not {names}")
                _require(
                    all(i.file_size <= len(data) for i in archive.infolist()), "a member's size is wrong"
                )
                stored = all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
                _require(stored, "a member is compressed")
                members = {name: archive.read(name) for name in names}
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise Mismatch(f"it is no intact zip file: {error}") from error
        # One content has one file: nothing can hide in headers, gaps, comments or before the first member.
        _require(_zip(members) == data, "the zip file was not written by this program, or was changed")
        self._raw = members
        parsed = {}
        for name, raw in members.items():
            parsed[name[:-5]] = documents.parse(raw, name, MAX_BUNDLE)
            _require(documents.canonical(parsed[name[:-5]]) == raw, f"{name} is not in canonical form")
        self._content = parsed
        return f"{len(names)} members, canonical"

    def _parties(self) -> str:
        cards = self._content["cards"]
        spec = documents.envelope(self._content["spec"], "job")[1] if self._job_type() else {}
        self._spec = JobSpec.from_json(spec)
        self._sides = {"brand": self._spec.brand, "provider": self._spec.provider}
        _require(set(cards) == set(self._sides.values()), f"cards are of {sorted(cards)}")
        self._peers = {party: identity.read_card(card) for party, card in cards.items()}
        for party, peer in self._peers.items():
            _require(peer.party == party, f"the card of {party} is of {peer.party}")
        self._keys = {party: peer.identity_key for party, peer in self._peers.items()}
        if self._trusted is None:
            prints = ", ".join(f"{p} {documents.key_id(k)}" for p, k in sorted(self._keys.items()))
            return f"keys are the bundle's own; compare them with the parties: {prints}"
        known = {peer.party: peer for peer in map(identity.read_card, self._trusted)}
        for party, peer in self._peers.items():
            other = known.get(party)
            _require(other is not None, f"no trusted card of {party} was given")
            same = other is not None and (other.identity_key, other.verifier_key) == (
                peer.identity_key,
                peer.verifier_key,
            )
            _require(same, f"{party}'s keys in the bundle are not those of the trusted card")
        return "keys are those of the trusted cards"

    def _job_type(self) -> bool:
        self._spec_type = str(self._content["spec"].get("type"))
        _require(self._spec_type == "job", f"spec.json is a {self._spec_type!r}")
        return True

    def _manifest(self) -> str:
        signed = self._content["manifest"]
        party = str(signed["document"]["party"])
        _require(party in self._keys, f"{party} is no party of the job")
        entries = documents.envelope(signed, "audit")[2]
        _require(len(entries) == 1, "the manifest has other signatures than its maker's")
        raw = base64.b64decode(entries[0]["signature"], validate=True)
        # Base64 has spare bits at its end; without this a byte could be changed unseen.
        _require(base64.b64encode(raw).decode() == entries[0]["signature"], "the signature is not canonical")
        body = documents.verify(signed, "audit", {party: self._keys[party]})
        role = "brand" if party == self._spec.brand else "provider"
        wanted = {"format": FORMAT, "job_id": self._spec.job_id, "role": role, "party": party}
        for name, value in wanted.items():
            _require(body.get(name) == value, f"the manifest's {name} is {body.get(name)!r}, not {value!r}")
        _require(set(body) == {*wanted, "members", "results", "made_at"}, "the manifest has unknown fields")
        hashes = {n: hashlib.sha256(d).hexdigest() for n, d in self._raw.items() if n != "manifest.json"}
        _require(body["members"] == hashes, "a member was changed after the manifest was signed")
        self._own, self._role = party, role
        self._result_hashes = dict(body["results"])
        return f"signed by {party} ({role}), {len(self._result_hashes)} result files"

    def _spec_signed(self) -> str:
        documents.verify(self._content["spec"], "job", self._keys)
        return f"{self._spec.kind} {self._spec.job_id}, signed by both"

    def _agreement(self) -> str:
        from parties.kinds import KINDS

        agreement = Agreement.from_json(documents.verify(self._content["agreement"], "agreement", self._keys))
        _require(self._spec.kind in KINDS, f"unknown kind {self._spec.kind!r}")
        self._kind = KINDS[self._spec.kind].of(self._spec)
        for statement in self._content["closing"].values():
            at = documents.moment(statement["document"]["closed_at"], "closed_at")
            documents.check_terms(self._spec, agreement, at)
        self._kind.check(self._spec, agreement)
        return f"agreement {agreement.id}, signed by both, covers the job"

    def _snapshots(self) -> str:
        signed = self._content["snapshots"]["snapshots"]
        _require(set(signed) == set(self._keys), f"snapshots are of {sorted(signed)}")
        for role, party in self._sides.items():
            document = signed[party]["document"]
            raw = base64.b64decode(signed[party]["signature"], validate=True)
            ledger_verify.snapshot(document, raw, self._peers[party].verifier_key)
            wanted = {
                "job_id": self._spec.job_id,
                "purpose": self._spec.purpose,
                "recipient": self._spec.recipient_of[role],
                "controller": party,
            }
            for name, value in wanted.items():
                _require(document.get(name) == value, f"{party}'s snapshot has {name} {document.get(name)!r}")
            same = sorted(document["categories"]) == sorted(self._spec.categories)
            _require(same, f"{party}'s snapshot is for other data categories than the job")
        opened = self._content["snapshots"]["disclosure"]
        ledger_verify.disclosure(signed[self._own]["document"], opened)
        out = sum(opened["counts"]["out"].values())
        return f"signed by both centers; {self._own}: {opened['counts']['in']} people in, {out} out"

    def _closing(self) -> str:
        signed = self._content["closing"]
        _require(set(signed) == set(self._keys), f"closing statements are of {sorted(signed)}")
        snapshots = self._content["snapshots"]["snapshots"]
        self._statements = {}
        for role, party in self._sides.items():
            body = documents.verify(signed[party], "closing", {party: self._keys[party]})
            wanted = {
                "job_id": self._spec.job_id,
                "party": party,
                "role": role,
                "spec_hash": self._spec.hash.hex(),
                "stages": [stage.name for stage in self._kind.stages],
                "snapshot": documents.hash_of(snapshots[party]["document"]).hex(),
            }
            for name, value in wanted.items():
                _require(
                    body.get(name) == value, f"{party}'s closing statement has {name} {body.get(name)!r}"
                )
            ledger_verify.checkpoint(body["checkpoint"], self._peers[party].verifier_key)
            self._statements[role] = body
        return "both parties signed the same job, stages and snapshots"

    def _binding(self) -> str:
        content = self._content["snapshots"]
        body = {
            "job_id": self._spec.job_id,
            "spec_hash": self._spec.hash.hex(),
            "nonces": {role: content["nonces"][party] for role, party in self._sides.items()},
            "roots": {
                role: content["snapshots"][party]["document"]["token_root"]
                for role, party in self._sides.items()
            },
        }
        due = hashlib.sha256(label("session", "both", "binding") + documents.canonical(body)).hexdigest()
        for role, statement in self._statements.items():
            _require(statement["binding"] == due, f"the {role}'s session was bound to something else")
        return "the session was bound to the spec and to both snapshots"

    def _transcripts(self) -> str:
        brand, provider = (self._statements[role]["transcript"] for role in ("brand", "provider"))
        _require(brand["sent"] == provider["received"], "the provider did not receive what the brand sent")
        _require(provider["sent"] == brand["received"], "the brand did not receive what the provider sent")
        return f"{brand['sent']['frames']} frames to the provider, {provider['sent']['frames']} to the brand"

    def _ledger(self) -> str:
        ledger = self._content["ledger"]
        key = self._peers[self._own].verifier_key
        at = ledger_verify.checkpoint(ledger["checkpoint"], key)
        # What the peer was shown at the end counts: a ledger written anew afterwards does not grow from it.
        shown = ledger_verify.checkpoint(self._statements[self._role]["checkpoint"], key)
        ledger_verify.consistency(shown, at, [bytes.fromhex(step) for step in ledger["grown"]])
        self._leaves = []
        last = -1
        for leaf in ledger["leaves"]:
            opening = leaf["opening"]
            ledger_verify.inclusion(opening, [bytes.fromhex(step) for step in leaf["path"]], at)
            _require(opening["index"] > last, "leaves are not in the ledger's order")
            last = opening["index"]
            _require(isinstance(opening.get("payload"), dict), f"leaf {last} is closed")
            self._leaves.append((str(opening["kind"]), opening["payload"]))
            early = ("job.snapshot", "job.recheck", "job.stage", "job.resumed")
            late = opening["kind"] in early and last >= shown.size
            _require(not late, f"leaf {last} was written after the closing statement")
        closing = [payload for kind, payload in self._leaves if kind == "job.closing"]
        wanted = {"job": self._spec.job_id, "closing": self._content["closing"]}
        # A job that was broken off after its closing leaf closes again.
        _require(closing[-1:] == [wanted], "the ledger's closing leaf differs from the closing statements")
        snapshot = self._content["snapshots"]["snapshots"][self._own]["document"]
        opened = [payload for kind, payload in self._leaves if kind == "job.snapshot"]
        wanted = {"job": self._spec.job_id, "snapshot": snapshot["id"]}
        _require(opened == [wanted], "the ledger has another snapshot for the job")
        return f"{len(self._leaves)} leaves in a ledger of {at.size}"

    def _stages(self) -> str:
        log = self._content["log"]
        names = [stage.name for stage in self._kind.stages]
        _require([s["name"] for s in log["stages"]] == names, "the log has other stages than the kind")
        kinds = ("job.recheck", "job.stage", "job.resumed")
        events = [(k, p["stage"]) for k, p in self._leaves if k in kinds]
        order = [
            k for k, _ in self._leaves if k in ("job.snapshot", "job.recheck", "job.stage", "job.closing")
        ]
        _require(
            order[0] == "job.snapshot" and order[-1] == "job.closing", "the ledger's order is not a job's"
        )
        checks = [p for k, p in self._leaves if k == "job.recheck"]
        _require(
            [{"job": self._spec.job_id, **entry} for entry in log["consent"]] == checks,
            "the lease checks in the log are not those in the ledger",
        )
        _require(all(entry["active"] is True for entry in checks), "the purpose was off at a lease check")
        sequences = [entry["sequence"] for entry in checks]
        _require(sequences == sorted(sequences), "a lease went back in time")
        resumed = self._walk(names, events)
        # A stage that ran again stands in the log as it ran the last time.
        last = {p["stage"]: p for k, p in self._leaves if k == "job.stage"}
        _require(list(last) == names or resumed > 0, "the ledger's stages are out of order")
        stages = [last[name] for name in names]
        for entry, leaf in zip(log["stages"], stages, strict=True):
            for name in ("bytes_sent", "bytes_received"):
                _require(entry[name] == leaf[name], f"{entry['name']}: {name} differs from the ledger")
        again = f", taken up again {resumed} times" if resumed else ""
        return f"{len(names)} stages in order, {len(checks)} lease checks, one at every boundary{again}"

    def _walk(self, names: list[str], events: list[tuple[str, str]]) -> int:
        """Follow the stages through the ledger; returns how often the job was taken up again.

        Before each stage there is a lease check; a job that was broken off goes back to an earlier stage only
        over stages that may run twice.
        """
        order = [*names, "closing"]
        at, checked, resumed = 0, False, 0
        for kind, name in events:
            if kind == "job.resumed":
                _require(name in order and order.index(name) <= at, f"the job went on at {name!r}")
                first = order.index(name)
                begun = self._kind.stages[first : at + checked]
                _require(all(s.repeatable for s in begun), f"a stage after {name!r} must not run twice")
                at, checked, resumed = first, False, resumed + 1
            elif kind == "job.recheck":
                _require(name == order[at], f"there is no lease check before {order[at]!r}")
                checked = True
            else:
                _require(checked and at < len(names), f"there is no lease check before {name!r}")
                _require(name == order[at], f"stage {order[at]!r} is out of order")
                at, checked = at + 1, False
        _require(at == len(names) and checked, "there is no lease check before 'closing'")
        return resumed

    def _leakage(self) -> str:
        # Both signed the words that they were shown, so that later versions may word them better.
        due = documents.hash_of(self._content["log"]["leakage"]).hex()
        for role, statement in self._statements.items():
            _require(statement.get("leakage") == due, f"the {role} signed another table of what is learned")
        return "what each side learns is what both signed"

    def _result_files(self) -> str:
        folder = self._results
        if folder is None or not folder.is_dir():
            raise Mismatch(f"{folder} is no folder")
        found = {
            path.relative_to(folder).as_posix(): _file_hash(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != NAME
        }
        names = found.keys() | self._result_hashes.keys()
        changed = sorted(n for n in names if found.get(n) != self._result_hashes.get(n))
        _require(not changed, f"changed, missing or additional: {', '.join(changed)}")
        return f"{len(found)} files as signed"
