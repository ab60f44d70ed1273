"""A node's directory: settings, keys, trusted peers, agreements, data sets, databases, results.

node.toml            settings that a person edits
keys/                identity.key, tls.key, tls.crt (0600)
peers/<party>.json   trusted cards
untrusted/<party>.json  cards that were trusted once and are not any more
agreements/<id>.json signed agreements
endings/<id>.json    those of them that one party has ended before their time
datasets/<name>.json registered data sets
node.db              jobs
consent/             the consent center, unless node.toml names another
state/<job>/         what a running job needs to go on after its node was killed; gone at its end
work/<job>/          a running job's files; renamed to jobs/<job>/ when it succeeds
node.run.json        process id and ports of the running node
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from consent_center import hashing
from consent_center.client import CenterClient, open_center
from consent_center.errors import ConsentError
from parties import documents, identity, private_files
from parties.datasets import Dataset
from parties.documents import Agreement, Ending, JobSpec
from parties.endings import Endings
from parties.errors import NodeError
from parties.identity import Identity, Peer
from parties.private_files import read_all, read_json, write_json
from protocols import sha256


@dataclass(frozen=True)
class Settings:
    """What node.toml holds. Times are seconds.

    `silence_seconds`: how long a peer may send nothing at all before the job ends; `heartbeat_seconds`: how
    often this side shows that it lives; `poll_seconds`: how often a brand asks whether its job was approved;
    `max_jobs`: jobs at a time; `spool_mib`: how much of a peer's messages is kept on disk while this side
    sends; `lease_seconds`: how long a stage may last after this side has looked at the consent;
    `bucket_rows`: items in a bucket of a set that is aligned in several; `bandwidth_mbit`: the line to the
    peers in megabits a second, 0 to have it measured; `resume_seconds`: how long an interrupted job waits
    for the other side; `resume_attempts`: how often a job may be taken up again; `engine`: where buckets are
    computed, "local" or "ray"; `prepared_hours`: how long a provider's side of an `ecdh` alignment is used
    again, 0 for not at all; `score_jobs_per_day`: score jobs that a partner may have answered with one model
    in 24 hours; `workers`: how many of them at a time, 0 for one a core; `ray_address`: a
    cluster that runs already.
    """

    party: str
    listen: str = "127.0.0.1:0"
    consent: str = "consent"
    consent_listen: str = ""
    silence_seconds: float = 60.0
    heartbeat_seconds: float = 2.0
    poll_seconds: float = 1.0
    max_jobs: int = 4
    spool_mib: int = 8192
    lease_seconds: float = 3600.0
    bucket_rows: int = 1 << 20
    bandwidth_mbit: float = 0.0
    resume_seconds: float = 900.0
    resume_attempts: int = 5
    engine: str = "local"
    workers: int = 0
    prepared_hours: float = 0.0
    score_jobs_per_day: int = 200
    ray_address: str = ""


class Home:
    """An opened node directory. Everything here works whether or not the node runs."""

    def __init__(self, path: Path, settings: Settings, keys: Identity) -> None:
        self.path = path
        self.settings = settings
        self.identity = keys
        self.party = settings.party
        self.endings = Endings(path / "endings")

    # -- making and opening ----------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: str | Path, party: str, listen: str = "127.0.0.1:0", consent: str | None = None
    ) -> Home:
        """A new node: keys, certificate, node.toml, and a consent center of its own unless `consent` is a
        URL or a directory of an existing one. `listen` is host:port; port 0 lets the system choose at each
        start.
        """
        root = Path(path)
        documents.check_name(party, "the party's name")
        try:
            host, _ = identity.parse_address(listen)
        except ValueError as error:
            raise NodeError("node.config", f"listen: {error}") from error
        if (root / "node.toml").exists():
            raise NodeError("node.exists", f"{root} already holds a node", "choose another directory")
        if root.exists() and any(root.iterdir()):
            raise NodeError("node.exists", f"{root} is not empty", "choose a new directory")
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("peers", "agreements", "datasets", "work", "jobs", "log"):
            (root / name).mkdir(mode=0o700)
        identity.create(root / "keys", party, host)
        if consent is None:
            from consent_center.center import Center

            Center.create(root / "consent", party).close()
        (root / "node.toml").write_text(
            "# Settings of this party node; see parties/README.md.\n"
            f"party = {json.dumps(party)}\n"
            f"listen = {json.dumps(listen)}\n"
            "# a directory (relative to this one) or the http(s) URL of a consent center\n"
            f"consent = {json.dumps(consent or 'consent')}\n"
        )
        return cls.open(root)

    @classmethod
    def open(cls, path: str | Path) -> Home:
        """The node in `path`; `node.home`, `node.config` if it is none or its settings are wrong."""
        root = Path(path).absolute()
        try:
            raw = tomllib.loads((root / "node.toml").read_text())
        except FileNotFoundError as error:
            raise NodeError(
                "node.home", f"there is no node.toml in {root}", "make one: pec node init"
            ) from error
        except (OSError, ValueError) as error:
            raise NodeError("node.config", f"node.toml: {error}") from error
        settings = _settings(raw)
        return cls(root, settings, identity.load(root / "keys", settings.party))

    def center(self) -> CenterClient:
        """The consent center; `consent.unavailable` if it can't be opened. The caller closes it."""
        where = self.settings.consent
        location = where if "://" in where else str(self.path / where)
        hashing.use(sha256)
        try:
            return open_center(location)
        except ConsentError as error:
            raise NodeError(
                "consent.unavailable", f"{location}: {error}", "start it, or mend node.toml"
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the one process that runs this node; `node.locked` if there is another."""
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise NodeError(
                    "node.locked", f"another process runs the node in {self.path}", "stop it first"
                ) from error
            yield

    # -- cards and peers -------------------------------------------------------------------------------------

    def card(self, address: str | None = None) -> dict[str, Any]:
        """This party's signed card. `address` defaults to the running node's, then to `listen`."""
        with self.center() as center:
            return self.identity.card(address or self.address(), center.verifier_key())

    def address(self) -> str:
        """host:port at which the node runs, or would run."""
        try:
            return str(self.run_file()["address"])
        except NodeError:
            return self.settings.listen

    def run_file(self) -> dict[str, Any]:
        """What the running node wrote about itself; `node.not_running` if it does not run."""
        path = self.path / "node.run.json"
        try:
            return documents.parse(path.read_bytes(), path.name)
        except OSError as error:
            raise NodeError(
                "node.not_running", f"no node runs in {self.path}", f"start it: pec node run {self.path}"
            ) from error

    def trust(self, card: Mapping[str, Any]) -> Peer:
        """Pin a card. The same keys again may bring a new address; other keys are `identity.conflict`."""
        peer = identity.read_card(card)
        if peer.party == self.party:
            raise NodeError("identity.self", f"the card is of {self.party!r}, which is this node")
        for known in self.peers():
            same = (known.identity_key, known.fingerprint) == (peer.identity_key, peer.fingerprint)
            if known.party == peer.party and not same:
                raise NodeError(
                    "identity.conflict",
                    f"{peer.party!r} is trusted with certificate {known.fingerprint[:16]}…, "
                    f"the card has {peer.fingerprint[:16]}…",
                    f"ask {peer.party!r} by telephone; if they did change: pec node untrust {peer.party}",
                )
            if known.party != peer.party and peer.fingerprint == known.fingerprint:
                raise NodeError("identity.conflict", f"that certificate is trusted as {known.party!r}")
        write_json(self.path / "peers" / f"{peer.party}.json", peer.card)
        (self.path / "untrusted" / f"{peer.party}.json").unlink(missing_ok=True)
        return peer

    def untrust(self, party: str) -> Path:
        """Trust a peer no more: no handshake, no call, no job from now on, whether or not the node runs; a
        running job stops at its next check. Returns where its card is kept: `trust` of it undoes this.
        """
        known = self.peer(party)
        kept = private_files.folder(self.path / "untrusted") / f"{known.party}.json"
        # First away from where handshakes look, in one step: nothing in between is still trusted.
        (self.path / "peers" / f"{known.party}.json").rename(kept)
        return kept

    def peers(self) -> list[Peer]:
        return [identity.read_card(card) for card in read_all(self.path / "peers")]

    def peer(self, party: str) -> Peer:
        """The trusted peer of that name; `identity.unknown_peer` or `identity.untrusted` if there is none."""
        name = f"{documents.check_name(party, 'party')}.json"
        path, kept = self.path / "peers" / name, self.path / "untrusted" / name
        try:
            return identity.read_card(read_json(path))
        except NodeError:
            if path.exists():
                raise
        if kept.exists():
            raise NodeError(
                "identity.untrusted",
                f"{self.party!r} does not trust {party!r} any more",
                f"to trust it again: pec node trust {kept}",
            )
        raise NodeError(
            "identity.unknown_peer",
            f"no card of {party!r} is trusted by {self.party!r}",
            "pec node trust CARD",
        )

    # -- agreements ------------------------------------------------------------------------------------------

    def sign_agreement(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Sign terms (plain JSON) or countersign what the other side has signed already.

        Refused are terms that have ended, terms under the id of an agreement that was ended, and terms that
        were changed after the other side signed them.
        """
        already = set(terms) == {"type", "document", "signatures"}
        _, body, made = documents.envelope(terms, "agreement") if already else ("", dict(terms), [])
        agreement = Agreement.from_json(body)
        other = self.other_party(agreement)
        self.endings.check(agreement.id)
        documents.check_time(
            agreement, documents.now(), f"agreement {agreement.id}", expired="agreement.expired"
        )
        if any(entry["party"] == other for entry in made):
            documents.verify(terms, "agreement", {other: self.peer(other).identity_key})
        if already:
            return self.identity.countersign(terms)
        return self.identity.sign("agreement", agreement.to_json())

    def add_agreement(self, signed: Mapping[str, Any]) -> Agreement:
        """Store an agreement that both parties have signed. Other terms under a stored id:
        `agreement.conflict`.
        """
        agreement = Agreement.from_json(documents.envelope(signed, "agreement")[1])
        other = self.other_party(agreement)
        keys = {self.party: self.identity.public_key, other: self.peer(other).identity_key}
        documents.verify(signed, "agreement", keys)
        path = self.path / "agreements" / f"{agreement.id}.json"
        if path.exists() and Agreement.from_json(read_json(path)["document"]) != agreement:
            raise NodeError(
                "agreement.conflict", f"agreement {agreement.id} has other terms here", "use a new id"
            )
        write_json(path, dict(signed))
        return agreement

    def other_party(self, agreement: Agreement) -> str:
        """Who this organisation agrees with; `agreement.party` if it is no party itself."""
        if self.party not in (agreement.brand, agreement.provider):
            raise NodeError("agreement.party", f"{self.party!r} is no party to agreement {agreement.id}")
        return agreement.provider if self.party == agreement.brand else agreement.brand

    def agreements(self) -> list[Agreement]:
        return [Agreement.from_json(found["document"]) for found in read_all(self.path / "agreements")]

    def signed_agreement(self, id: str) -> dict[str, Any]:
        """The signed document; `agreement.unknown` if there is none of that id."""
        path = self.path / "agreements" / f"{documents.check_name(id, 'agreement id')}.json"
        if not path.exists():
            raise NodeError(
                "agreement.unknown",
                f"{self.party!r} has no agreement {id!r}",
                "sign one on both sides and add it: pec node agreement add",
                share=True,
            )
        return read_json(path)

    def agreement(self, id: str) -> Agreement:
        return Agreement.from_json(self.signed_agreement(id)["document"])

    def check_terms(self, spec: JobSpec, agreement: Agreement) -> None:
        """Whether the agreement is in force now and allows the job; raises `agreement.*`."""
        self.endings.check(agreement.id)
        documents.check_terms(spec, agreement, documents.now())

    def end_agreement(self, id: str, reason: str) -> Ending:
        """End an agreement as this party; `agreement.unknown`, `agreement.ended`, `agreement.expired`."""
        agreement = self.agreement(id)
        self.endings.check(id)
        now = documents.now()
        documents.check_time(agreement, now, f"agreement {id}", expired="agreement.expired")
        ending = Ending.from_json(
            {
                "agreement_id": id,
                "agreement": agreement.hash.hex(),
                "party": self.party,
                "reason": reason.strip(),
                "ended_at": documents.timestamp(now),
            }
        )
        self.endings.keep(id, self.identity.sign("ending", ending.to_json()))
        return ending

    def take_ending(self, signed: Mapping[str, Any]) -> Ending:
        """The partner's signed ending. If this party has ended the agreement before, its own one stays."""
        ending = Ending.from_json(documents.envelope(signed, "ending")[1])
        agreement = self.agreement(ending.agreement_id)
        other = self.other_party(agreement)
        if ending.party != other:
            raise NodeError("agreement.party", f"{ending.party!r} is not the other side of {agreement.id}")
        # Without the hash an ending of earlier terms under the same id could be shown again.
        if ending.agreement != agreement.hash.hex():
            raise NodeError(
                "agreement.conflict", f"agreement {agreement.id} has other terms here", share=True
            )
        documents.verify(signed, "ending", {other: self.peer(other).identity_key})
        known = self.endings.find(agreement.id)
        if known is not None:
            return known
        self.endings.keep(agreement.id, signed)
        self.endings.mark(agreement.id, told=True)
        return ending

    # -- data sets -------------------------------------------------------------------------------------------

    def add_dataset(self, dataset: Dataset) -> Dataset:
        """Register a data set; a relative path is taken from the current directory. Same name, other content:
        `dataset.conflict`."""
        made = self._there(dataset)
        if any(known.name == made.name and known != made for known in self.datasets()):
            what = f"data set {made.name!r} has other settings"
            raise NodeError("dataset.conflict", what, "use a new name, or: pec node data change")
        write_json(self.path / "datasets" / f"{made.name}.json", made.to_json())
        return made

    def change_dataset(self, dataset: Dataset) -> Dataset:
        """Give a registered data set other settings; jobs that read it with the earlier ones stop."""
        self.dataset(dataset.name)
        made = self._there(dataset)
        write_json(self.path / "datasets" / f"{made.name}.json", made.to_json())
        return made

    def remove_dataset(self, name: str) -> Dataset:
        """Forget a data set, not its file; jobs that read it stop."""
        known = self.dataset(name)
        (self.path / "datasets" / f"{known.name}.json").unlink()
        return known

    def _there(self, dataset: Dataset) -> Dataset:
        """The data set with its file's whole path; `dataset.file` if there is no such file."""
        path = Path(dataset.path).absolute()
        if not path.exists():
            raise NodeError("dataset.file", f"{path} is not there", "check the path")
        return replace(dataset, path=str(path), categories=dict(dataset.categories))

    def datasets(self) -> list[Dataset]:
        return [Dataset.from_json(found) for found in read_all(self.path / "datasets")]

    def dataset(self, name: str) -> Dataset:
        """The registered data set; `dataset.unknown` with what there is."""
        for known in self.datasets():
            if known.name == name:
                return known
        raise NodeError(
            "dataset.unknown", f"{self.party!r} has no data set {name!r}", "pec node data add", share=True
        )

    # -- jobs ------------------------------------------------------------------------------------------------

    def work(self, job_id: str) -> Path:
        return self.path / "work" / documents.check_name(job_id, "job id")

    def state(self, job_id: str) -> Path:
        """What an interrupted job needs to go on; see `parties.checkpoint`."""
        return self.path / "state" / documents.check_name(job_id, "job id")

    def job(self, job_id: str) -> Path:
        """Where a succeeded job's files are."""
        return self.path / "jobs" / documents.check_name(job_id, "job id")


def _settings(raw: Mapping[str, Any]) -> Settings:
    out: dict[str, Any] = {}
    types_ = {f.name: f for f in fields(Settings)}
    for name, value in raw.items():
        if name not in types_:
            raise NodeError(
                "node.config", f"node.toml: unknown setting {name!r}; known are {', '.join(types_)}"
            )
        wanted = {"str": str, "float": (int, float), "int": int}[str(types_[name].type)]
        if not isinstance(value, wanted) or isinstance(value, bool):  # type: ignore[arg-type]
            raise NodeError("node.config", f"node.toml: {name} must be {types_[name].type}, not {value!r}")
        if not isinstance(value, str) and value <= 0:
            raise NodeError("node.config", f"node.toml: {name} must be above 0")
        out[name] = value
    if out.get("engine", "local") not in ("local", "ray"):
        raise NodeError("node.config", f"node.toml: engine is local or ray, not {out['engine']!r}")
    if "party" not in out:
        raise NodeError("node.config", "node.toml: party is missing")
    try:
        documents.check_name(out["party"], "party")
        identity.parse_address(out.get("listen", "127.0.0.1:0"))
        if out.get("consent_listen"):
            identity.parse_address(out["consent_listen"])
    except (NodeError, ValueError) as error:
        raise NodeError("node.config", f"node.toml: {error}") from error
    return Settings(**out)
