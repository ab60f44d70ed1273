"""Cosignatures, the witness's call by its specification, and databases that were put back from a backup."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from consent_helpers import REQUEST, START, Clock, event, make, phone, reason
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent_center.center import Center
from consent_center.client import open_center
from consent_center.errors import ConsentError
from consent_center.ledger import head, log, proof, tree, verify
from consent_center.ledger.checkpoint import Checkpoint
from consent_center.ledger.cosignature import CosignerKey, cosigned, parse_cosigner
from consent_center.ledger.note import Signer
from consent_center.rest.app import create_app
from consent_center.rest.server import start
from consent_center.witness.client import witness_of
from consent_center.witness.service import parse_request, request_body

TOKEN = "t" * 43


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with make(tmp_path / "c") as made:
        yield made


class Log:
    """A log of somebody else: numbered leaves, signed checkpoints, proofs; `fork` changes leaf 1."""

    def __init__(self, name: str = "log.example/a", fork: bool = False) -> None:
        self.signer = Signer(name, b"\x07" * 32)
        data = [b"forked" if fork and i == 1 else str(i).encode() for i in range(40)]
        self.levels = tree.levels_of(
            np.frombuffer(b"".join(tree.leaf_hash(d) for d in data), "u1").reshape(-1, 32)
        )

    def note(self, size: int) -> str:
        root = tree.root_of(size, tree.reader_of(self.levels))
        return Checkpoint(self.signer.name, size, root).sign(self.signer)

    def body(self, old: int, new: int) -> bytes:
        path = proof.consistency(old, new, tree.reader_of(self.levels)) if old else []
        return request_body(old, path, self.note(new))


# ---- cosignatures ------------------------------------------------------------------------------------------


def test_a_cosignature_by_its_specification() -> None:
    key = CosignerKey("witness.example/w1", b"\x01" * 32)
    note = Log().note(5)
    line = key.line(note[: note.rfind("\n\n") + 1], 1_679_315_147)
    raw = base64.b64decode(line.split(" ")[2])
    assert len(raw) == 4 + 8 + 64 and int.from_bytes(raw[4:12], "big") == 1_679_315_147
    assert raw[:4] == key.cosigner.id
    known = parse_cosigner(key.cosigner.text())
    assert known == key.cosigner and base64.b64decode(known.text().split("+", 2)[2])[0] == 0x04
    whole = note + line
    assert cosigned(whole, [known]) == {"witness.example/w1": 1_679_315_147}
    # A log's own reader passes the unknown line over.
    assert verify.checkpoint(whole, Log().signer.verifier).size == 5
    for bad in (
        whole.replace("\n5\n", "\n6\n"),
        note + line.replace(line[40], "A" if line[40] != "A" else "B", 1),
        note + line.replace("w1", "w2"),
        note,
        note + "— witness.example/w1 !!!\n",
        note + f"— witness.example/w1 {base64.b64encode(raw[:-1]).decode()}\n",
    ):
        assert cosigned(bad, [known]) == {}
    for text in (
        "",
        "a+b",
        key.cosigner.text() + "x",
        Log().signer.verifier.text(),
        "n+00000000+" + "A" * 44,
    ):
        with pytest.raises(ConsentError) as caught:
            parse_cosigner(text)
        assert caught.value.code == "ledger.key"


# ---- as a witness ------------------------------------------------------------------------------------------


def test_add_checkpoint_by_its_specification(center: Center) -> None:
    log, ours = Log(), center.witness
    assert ours.add_checkpoint(log.body(0, 5)).status == 404, "nobody's log yet"
    ours.trust_log(log.signer.verifier.text(), "dpo")
    other = Log()
    other.signer = Signer(log.signer.name, b"\x09" * 32)
    assert ours.add_checkpoint(other.body(0, 5)).status == 403, "another key's signature"
    first = ours.add_checkpoint(log.body(0, 5))
    assert first.status == 200
    known = parse_cosigner(ours.verifier_key())
    assert cosigned(log.note(5) + first.body, [known]) == {known.name: int(START.timestamp())}
    for old, new in ((0, 9), (3, 9), (0, 5)):
        stale = ours.add_checkpoint(log.body(old, new))
        assert (stale.status, stale.body, stale.content_type) == (409, "5\n", "text/x.tlog.size")
    assert ours.add_checkpoint(request_body(9, [], log.note(5))).status == 400
    wrong = log.body(5, 9).replace(b"old 5\n", b"old 5\n" + base64.b64encode(bytes(32)) + b"\n")
    assert ours.add_checkpoint(wrong).status == 422
    assert ours.add_checkpoint(Log(fork=True).body(5, 9)).status == 422, "a forked log is not cosigned"
    assert ours.add_checkpoint(request_body(5, [], Log(fork=True).note(5))).status == 409, "a split view"
    assert ours.add_checkpoint(log.body(5, 5)).status == 200, "the same again gets a new time"
    assert ours.add_checkpoint(log.body(5, 32)).status == 200
    assert ours.add_checkpoint(log.body(32, 40)).status == 200
    assert [entry["size"] for entry in ours.logs()] == [40]
    assert center.fsck() is None
    with pytest.raises(ConsentError, match="another key"):
        ours.trust_log(other.signer.verifier.text())


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=120) | st.text(max_size=120).map(lambda t: t.encode("utf-8", "replace")))
def test_any_body_is_answered(center: Center, body: bytes) -> None:
    for sent in (body, b"old 0\n\n" + body, b"old 5\n" + body):
        assert center.witness.add_checkpoint(sent).status in (400, 404)
        try:
            parse_request(sent)
        except ConsentError as error:
            assert error.code == "ledger.proof"


def test_over_rest_without_a_token(center: Center) -> None:
    log = Log()
    client = create_app(center, TOKEN).test_client()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    added = client.post("/v1/witness/logs", json={"key": log.signer.verifier.text()}, headers=headers)
    assert added.status_code == 201
    answer = client.post("/v1/witness/add-checkpoint", data=log.body(0, 7), content_type="text/plain")
    assert answer.status_code == 200 and answer.text.startswith("— ")
    assert client.post("/v1/witness/add-checkpoint", data=b"nonsense").status_code == 400
    assert client.post("/v1/witness/logs", json={"key": "x"}).status_code == 401
    assert client.get("/v1/witness/key").text.strip() == center.witness.verifier_key()


# ---- as a log ----------------------------------------------------------------------------------------------


def test_two_centers_witness_each_other(center: Center, tmp_path: Path) -> None:
    make(tmp_path / "w").close()
    with start(tmp_path / "w") as running, open_center(running.address.location) as far:
        witness_of(far).trust_log(center.verifier_key(), "dpo")
        url = f"{running.address.url}/v1/witness"
        center.witness.add_witness(witness_of(far).verifier_key(), url, actor="dpo")
        for number in range(3):
            center.record(event(number))
            done = center.witness.collect()
            assert "error" not in done[0], done
        note = center.witness.cosigned_checkpoint()
        known = parse_cosigner(witness_of(far).verifier_key())
        assert list(cosigned(note, [known])) == [known.name]
        assert verify.checkpoint(note, center.verifier_key()).size == done[0]["size"]
        assert witness_of(far).logs()[0]["size"] == done[0]["size"]
        assert center.fsck(note) is None and far.fsck() is None
    assert "error" in center.witness.collect()[0], "a witness that is not there is named"


def test_a_witness_tells_that_the_database_was_put_back(center: Center, tmp_path: Path) -> None:
    """Even if the whole directory was put back, keys and all: somebody else has seen more."""
    with make(tmp_path / "w") as witness, start(tmp_path / "w", center=witness) as running:
        witness.witness.trust_log(center.verifier_key())
        center.witness.add_witness(witness.witness.verifier_key(), f"{running.address.url}/v1/witness")
        center.close()
        shutil.copytree(tmp_path / "c", tmp_path / "backup")
        with Center.open(tmp_path / "c", Clock()) as again:
            again.record_many([event(n) for n in range(5)])
            again.witness.collect()
        shutil.rmtree(tmp_path / "c")
        shutil.copytree(tmp_path / "backup", tmp_path / "c")
        with Center.open(tmp_path / "c", Clock()) as back, pytest.raises(ConsentError) as caught:
            back.witness.collect()
        assert caught.value.code == "center.restored"


# ---- the head outside the database -------------------------------------------------------------------------


def put_back(home: Path, backup: Path) -> None:
    for path in home.glob("center.db*"):
        path.unlink()
    for path in backup.glob("center.db*"):
        shutil.copy2(path, home / path.name)


@pytest.fixture
def restored(tmp_path: Path) -> Path:
    """A center whose database is an old backup; the keys' directory is today's."""
    home = tmp_path / "c"
    with make(home) as center:
        center.record(event(1))
        snapshot = center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job")
    shutil.copytree(home, tmp_path / "backup")
    with Center.open(home, Clock()) as center:
        center.record(event(1, action="withdrawn", occurred_at=START))
        assert reason(center, 1) == "withdrawn"
    put_back(home, tmp_path / "backup")
    (tmp_path / "snapshot").write_text(snapshot.id)
    return home


def test_a_restored_database_decides_nothing(restored: Path) -> None:
    with Center.open(restored, Clock()) as center:
        decisions = center.decide(REQUEST, pa.array([phone(1)]), "phone")
        assert decisions.sequence == -1 and "put back" in decisions.detail
        assert reason(center, 1) == "stale", "the withdrawal that was lost must not be forgotten silently"
        calls: list[Any] = [
            lambda: center.record(event(2)),
            lambda: center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job-2"),
            lambda: center.delta((restored.parent / "snapshot").read_text()),
            lambda: center.append("note", {}),
            lambda: center.rights.open("access", [("phone", phone(1))]),
        ]
        for call in calls:
            with pytest.raises(ConsentError) as caught:
                call()
            assert caught.value.code == "center.restored"
        assert center.explain("phone", phone(1)).events, "what is left can still be looked at"
        assert center.fsck() is None, "the old database is whole: only the head tells"


def test_recovery_is_written_down(restored: Path) -> None:
    with Center.open(restored, Clock()) as center:
        before = int(center.checkpoint().split("\n")[1])
        done = center.recover("the disk broke", "admin")
        assert done["lost_size"] > before and done["size"] == before + 1
        assert center.opening(done["leaf"])["payload"]["reason"] == "the disk broke"
        assert reason(center, 1) == "eligible"
        center.record(event(1, action="withdrawn", occurred_at=START))
        assert reason(center, 1) == "withdrawn" and center.fsck() is None
        with pytest.raises(ConsentError, match="the one that was there"):
            center.recover("again", "admin")
    lost = list((restored / "keys").glob("head.lost-*.note"))
    assert (
        len(lost) == 1
        and verify.checkpoint(lost[0].read_text(), center.verifier_key()).size == done["lost_size"]
    )
    with Center.open(restored, Clock()) as center:
        center.record(event(3))


def test_a_backup_that_was_written_to_is_noticed_too(restored: Path, tmp_path: Path) -> None:
    """An older program, or one that was copied without its keys' directory, has added to the old database."""
    head = restored / "keys" / "head.note"
    kept = head.read_text()
    shutil.copy2(tmp_path / "backup" / "keys" / "head.note", head)
    with Center.open(restored, Clock()) as center:
        center.record_many([event(n) for n in range(10, 60)])
        center.append_many([("note", {"n": n}) for n in range(40)])
    head.write_text(kept)
    with Center.open(restored, Clock()) as center, pytest.raises(ConsentError) as caught:
        center.record(event(2))
    assert caught.value.code == "center.restored" and "not those that were there" in caught.value.detail


@pytest.mark.parametrize("harm", ["missing", "nonsense", "foreign"])
def test_a_head_that_is_gone_or_harmed_is_no_way_around(tmp_path: Path, harm: str) -> None:
    with make(tmp_path / "c") as center:
        center.record(event(1))
    head = tmp_path / "c" / "keys" / "head.note"
    assert head.stat().st_mode & 0o077 == 0
    if harm == "missing":
        head.unlink()
    else:
        head.write_text("nonsense\n" if harm == "nonsense" else Log().note(1))
    with Center.open(tmp_path / "c", Clock()) as center, pytest.raises(ConsentError) as caught:
        center.record(event(2))
    assert caught.value.code == "center.restored"


def test_a_database_put_back_under_a_running_center(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center:
        shutil.copytree(tmp_path / "c", tmp_path / "backup")
        for number in range(5):
            center.record(event(number))
    put_back(tmp_path / "c", tmp_path / "backup")
    with Center.open(tmp_path / "c", Clock()) as center:
        assert (
            json.loads(json.dumps(center.decide(REQUEST, pa.array([phone(1)]), "phone").counts()))["in"] == 0
        )


def test_the_head_follows_several_writers(tmp_path: Path) -> None:
    home = tmp_path / "c"
    with make(home) as one, Center.open(home, Clock()) as two:
        for number in range(20):
            (one, two)[number % 2].record(event(number))
        assert one.fsck() is None
    with Center.open(home, Clock()) as again:
        kept = verify.checkpoint((home / "keys" / "head.note").read_text(), again.verifier_key())
        assert kept.size == int(again.checkpoint().split("\n")[1]), "closing keeps the last head"
        path = again.prove_consistency(3, kept.size)
        first = Checkpoint(kept.origin, 3, tree.root_of(3, _reader(again)))
        verify.consistency(first, kept, path)


def test_who_writes_while_another_looks_puts_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look sees the database as of its first statement; a head kept after it is no contradiction."""
    monkeypatch.setattr(head, "INTERVAL", 0.0)
    home, counted = tmp_path / "c", log.size
    with make(home) as one, Center.open(home, Clock()) as two:
        one.record(event(1))
        snapshot = one.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job").id
        looking: list[int] = []

        def size(connection: sa.Connection) -> int:
            found = counted(connection)
            if not looking:
                looking.append(found)
                two.append_many([("note", {"n": n}) for n in range(3)])
            return found

        monkeypatch.setattr(log, "size", size)
        one.delta(snapshot)
        kept = verify.checkpoint((home / "keys" / "head.note").read_text(), one.verifier_key())
        assert looking[0] < kept.size


def _reader(center: Center) -> Any:
    hashes = [verify.leaf_hash(center.opening(index)) for index in range(3)]
    return tree.reader_of(tree.levels_of(np.frombuffer(b"".join(hashes), "u1").reshape(-1, 32)))
