"""A real job's bundle verifies offline; a changed byte, or a changed story signed anew by its maker, does
not."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import real_job
from pair import agreement

from consent_center.ledger import proof, tree, verify
from consent_center.ledger.checkpoint import Checkpoint
from parties import bundle, documents, identity
from parties.errors import NodeError

ROOT = Path(__file__).resolve().parents[2]


class Job:
    """A finished lookalike job, in which three people withdrew before scoring."""

    def __init__(self, folder: Path) -> None:
        brand, provider = real_job.people()
        self.tables = {"brand": brand, "provider": provider}
        self.homes = {
            "brand": real_job.make_home(folder, "acme", "dataco", brand, "手机"),
            "provider": real_job.make_home(folder, "dataco", "acme", provider, "phone"),
        }
        real_job.introduce(self.homes["brand"], self.homes["provider"], agreement().to_json())
        spec = real_job.spec_of("lookalike", "job-1", columns=["*"])
        private = {"label": "loyal", "audience_size": 20}
        self.outcome = real_job.run(self.homes, spec, private, before=self._withdraw)
        self.cards = [home.card() for home in self.homes.values()]
        self.folder = {role: home.job("job-1") for role, home in self.homes.items()}
        self.withdrawn = ["13800000150", "13800000151", "13800000152"]

    def _withdraw(self, role: str, stage: str, center) -> None:
        """Before the check that follows the fit, three people withdraw at the provider."""
        if role != "provider" or stage != "fit":
            return
        from consent_center.model import ConsentEvent

        for phone in ("13800000150", "13800000151", "13800000152"):
            center.record(
                ConsentEvent(
                    identifiers=(("phone", phone),),
                    purpose="ads",
                    purpose_version=1,
                    action="withdrawn",
                    recipient="acme",
                    categories=real_job.CATEGORIES,
                    occurred_at=documents.now(),
                )
            )

    def path(self, role: str) -> Path:
        return self.folder[role] / "audit.zip"


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    done = Job(tmp_path_factory.mktemp("job"))
    for role, found in done.outcome.items():
        if isinstance(found, Exception):
            raise AssertionError(role) from found
    return done


def failed(report: bundle.VerifyReport) -> list[str]:
    assert report.ok == all(ok for _, ok, _ in report.checks)
    return [name for name, ok, _ in report.checks if not ok]


@pytest.mark.parametrize("role", ["brand", "provider"])
def test_both_sides_bundles_verify(job, role):
    report = bundle.verify(job.path(role), job.cards, job.folder[role])
    assert report.ok, report.checks
    names = [name for name, _, _ in report.checks]
    assert names[:3] == ["form", "parties", "manifest"] and names[-1] == "results" and len(names) == 13
    assert bundle.verify(job.path(role)).ok
    for card in map(identity.read_card, job.cards):
        key = report.keys[card.party]
        assert (key["fingerprint"], key["verifier_key"]) == (card.fingerprint, card.verifier_key)
    assert len(report.keys) == 2


def test_the_job_itself_dropped_who_withdrew(job):
    rows = np.load(job.folder["provider"] / "rows.npy")
    phones = job.tables["provider"].phone.to_numpy()[rows]
    scored = set(phones[pd.read_parquet(job.folder["brand"] / "scores.parquet").row])
    assert len(phones) - len(scored) == 3
    assert set(phones) - scored == set(job.withdrawn)


def test_no_person_is_in_a_bundle(job):
    """No identifier in any spelling, no hash of one, no row number list, no seed."""
    for role in ("brand", "provider"):
        raw = job.path(role).read_bytes()
        content = json.loads(zipfile.ZipFile(io.BytesIO(raw)).read("log.json"))
        assert content["consent"] and "result" not in content
        for column in (job.tables["brand"]["手机"], job.tables["provider"]["phone"]):
            for phone in column.astype(str).str[-11:]:
                assert phone.encode() not in raw
                item = hashlib.sha256(b"phone\0+86" + phone.encode())
                assert item.digest() not in raw and item.hexdigest().encode() not in raw


def test_no_pseudonym_of_the_center_is_in_a_bundle(job):
    import sqlite3

    for role, home in job.homes.items():
        raw = job.path(role).read_bytes().lower()
        databases = list((home.path / "consent").glob("*.db"))
        assert databases
        for database in databases:
            with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
                tables = [t for (t,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                pseudonyms = [t for t in tables if "identifier" in t or "subject" in t]
                assert pseudonyms
                for table in pseudonyms:
                    for row in db.execute(f"SELECT * FROM {table}"):
                        blobs = [v for v in row if isinstance(v, bytes) and len(v) >= 16]
                        assert not any(b in raw or b.hex().encode() in raw for b in blobs)


def test_any_flipped_byte_is_found(job):
    raw = job.path("brand").read_bytes()
    rng = np.random.default_rng(1)
    places = set(range(0, len(raw), 41)) | set(range(200)) | set(range(len(raw) - 200, len(raw)))
    signature = raw.index(b'"signature":"') + 13
    places |= set(range(signature, signature + 90))
    for at in sorted(places):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << int(rng.integers(8))
        assert not bundle.verify_bytes(bytes(flipped)).ok, f"byte {at}"


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"\0" + d, lambda d: d * 2, lambda d: b""]
)
def test_cut_and_padded_files_are_found(job, change):
    assert failed(bundle.verify_bytes(change(job.path("brand").read_bytes()))) == ["form"]


def rezip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = comment
    return out.getvalue()


def test_another_zip_of_the_same_members_is_refused(job):
    with zipfile.ZipFile(job.path("brand")) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert bundle.verify_bytes(bundle._zip(members)).ok
    for data in (
        rezip(members),
        rezip(members, zipfile.ZIP_DEFLATED),
        rezip(members, comment=b"x"),
        bundle._zip({**members, "extra.json": b"{}"}),
        bundle._zip({**members, "../../etc/cron.d/x": b"{}"}),
        bundle._zip({n: members[n] for n in reversed(members)}),
        bundle._zip({n: d for n, d in members.items() if n != "ledger.json"}),
        bundle._zip({**members, "log.json": members["log.json"] + b"\n"}),
        bundle._zip({**members, "log.json": b"[" * 100_000}),
    ):
        assert failed(bundle.verify_bytes(data)) == ["form"]


def altered(job: Job, change, role: str = "brand") -> bundle.VerifyReport:
    """The bundle with changed content, signed anew by its own maker: the strongest forger there is."""
    with zipfile.ZipFile(job.path(role)) as archive:
        content = {name[:-5]: json.loads(archive.read(name)) for name in archive.namelist()}
    change(content)
    members = {f"{n}.json": documents.canonical(content[n]) for n in bundle.MEMBERS}
    manifest = copy.deepcopy(content["manifest"]["document"])
    manifest["members"] = {n: hashlib.sha256(d).hexdigest() for n, d in members.items()}
    signed = job.homes[role].identity.sign("audit", manifest)
    return bundle.verify_bytes(bundle._zip({"manifest.json": documents.canonical(signed), **members}))


def _resign_own_closing(job: Job, content: dict, **changes) -> None:
    body = {**content["closing"]["acme"]["document"], **changes}
    content["closing"]["acme"] = job.homes["brand"].identity.sign("closing", body)


def test_an_unchanged_story_signed_anew_still_verifies(job):
    assert altered(job, lambda c: None).ok


FORGERIES = {
    "spec": (lambda job, c: c["spec"]["document"].update(purpose="other"), "spec"),
    "spec without the provider": (lambda job, c: c["spec"]["signatures"].pop(), "spec"),
    "agreement": (lambda job, c: c["agreement"]["document"].update(minimum_seeds=1), "agreement"),
    "another agreement": (
        lambda job, c: c.update(agreement=job.homes["brand"].sign_agreement(agreement(id="a2").to_json())),
        "agreement",
    ),
    "snapshot counts": (
        lambda job, c: c["snapshots"]["disclosure"]["counts"].update({"in": 1}),
        "snapshots",
    ),
    "snapshots exchanged": (
        lambda job, c: c["snapshots"]["snapshots"].update(acme=c["snapshots"]["snapshots"]["dataco"]),
        "snapshots",
    ),
    "nonce": (lambda job, c: c["snapshots"]["nonces"].update(acme="00" * 32), "binding"),
    "peer's closing": (
        lambda job, c: c["closing"]["dataco"]["document"]["transcript"]["received"].update(frames=1),
        "closing",
    ),
    "own transcript": (
        lambda job, c: _resign_own_closing(job, c, transcript={"sent": {}, "received": {}}),
        "transcripts",
    ),
    "own binding": (lambda job, c: _resign_own_closing(job, c, binding="00" * 32), "binding"),
    "own stages": (lambda job, c: _resign_own_closing(job, c, stages=["align"]), "closing"),
    "no peer closing": (lambda job, c: c["closing"].pop("dataco"), "closing"),
    "leaf's payload": (
        lambda job, c: c["ledger"]["leaves"][2]["opening"]["payload"].update(sequence=0),
        "ledger",
    ),
    "leaf's index": (lambda job, c: c["ledger"]["leaves"][2]["opening"].update(index=0), "ledger"),
    "closed leaf": (lambda job, c: c["ledger"]["leaves"][1]["opening"].pop("payload"), "ledger"),
    "checkpoint": (
        lambda job, c: c["ledger"].update(checkpoint=c["closing"]["dataco"]["document"]["checkpoint"]),
        "ledger",
    ),
    "a ledger written anew": (lambda job, c: _write_ledger_anew(job, c), "ledger"),
    "no proof of growth": (lambda job, c: c["ledger"].update(grown=[]), "ledger"),
    "a lease check left out": (lambda job, c: _drop_leaf(c, "job.recheck"), "stages"),
    "a stage left out": (lambda job, c: _drop_leaf(c, "job.stage"), "stages"),
    "lease log": (lambda job, c: c["log"]["consent"][0].update(dropped=5), "stages"),
    "stage log": (lambda job, c: c["log"]["stages"][0].update(bytes_sent=1), "stages"),
    "leakage": (lambda job, c: c["log"]["leakage"].update(provider=["nothing"]), "leakage"),
}


def _write_ledger_anew(job: Job, content: dict) -> None:
    """The maker has its log's key: it makes a second log with the leaves that it likes, and signs it."""
    with job.homes["brand"].center() as center:
        signer = center._keys.signer
    leaves = content["ledger"]["leaves"]
    hashes = [np.frombuffer(verify.leaf_hash(leaf["opening"]), np.uint8) for leaf in leaves]
    node = tree.reader_of(tree.levels_of(np.stack(hashes)))
    root = tree.root_of(len(leaves), node)
    content["ledger"]["checkpoint"] = Checkpoint(signer.name, len(leaves), root).sign(signer)
    for index, leaf in enumerate(leaves):
        leaf["opening"]["index"] = index
        leaf["path"] = [step.hex() for step in proof.inclusion(index, len(leaves), node)]


def _drop_leaf(content: dict, kind: str) -> None:
    leaves = content["ledger"]["leaves"]
    leaves.remove(next(leaf for leaf in leaves if leaf["opening"]["kind"] == kind))
    if kind == "job.recheck":
        content["log"]["consent"].pop(0)
    else:
        content["log"]["stages"].pop(0)


@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_a_forged_story_does_not_verify(job, name):
    change, check = FORGERIES[name]
    assert check in failed(altered(job, lambda content: change(job, content)))


def test_keys_that_are_not_the_trusted_ones(job, tmp_path):
    from parties.home import Home

    imposter = Home.create(tmp_path / "imposter", "dataco").card()
    assert failed(bundle.verify(job.path("brand"), [job.cards[0], imposter])) == ["parties"]
    assert failed(bundle.verify(job.path("brand"), [job.cards[0]])) == ["parties"]


def test_changed_missing_and_additional_results_are_found(job, tmp_path):
    import shutil

    for number, change in enumerate(
        (
            lambda d: (d / "scores.parquet").write_bytes(b"x"),
            lambda d: (d / "audience.parquet").unlink(),
            lambda d: (d / "extra.csv").write_text("phone\n"),
        )
    ):
        folder = tmp_path / str(number)
        shutil.copytree(job.folder["brand"], folder)
        change(folder)
        assert failed(bundle.verify(folder / "audit.zip", results=folder)) == ["results"]
    assert failed(bundle.verify(job.path("brand"), results=tmp_path / "none")) == ["results"]


def test_files_that_are_no_bundle(tmp_path):
    with pytest.raises(NodeError) as caught:
        bundle.verify(tmp_path / "none.zip")
    assert caught.value.code == "bundle.unreadable"
    (tmp_path / "x.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    assert failed(bundle.verify(tmp_path / "x.zip")) == ["form"]


def test_verifying_opens_no_database_and_no_network(job):
    """In a fresh process whose sockets and databases are refused by an audit hook."""
    code = (
        "import sys\n"
        "from parties import bundle\n"
        "from parties.kinds import KINDS\n"
        "def refuse(event, arguments):\n"
        "    if event.startswith(('socket.', 'sqlite3.')):\n"
        "        raise RuntimeError(event)\n"
        "sys.addaudithook(refuse)\n"
        "report = bundle.verify(sys.argv[1])\n"
        "sys.exit(0 if report.ok else 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(job.path("brand"))], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
