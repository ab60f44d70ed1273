"""RFC 6962 trees and proofs, signed notes and checkpoints, against third-party vectors and a naive model."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consent_helpers import make
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center.errors import ConsentError
from consent_center.ledger import checkpoint, note, proof, tree, verify


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def rows(hashes: list[bytes]) -> Any:
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)


def test_reference_tree(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "vectors/merkle/rfc6962_reference_tree.json").read_text())
    hashes = [tree.leaf_hash(bytes.fromhex(text)) for text in vectors["leaf_inputs"]]
    assert tree.EMPTY_ROOT.hex() == vectors["empty_root"]
    levels = tree.levels_of(rows(hashes))
    assert [[h.tobytes().hex() for h in level] for level in levels] == vectors["node_hashes_by_level"]
    for size, root in enumerate(vectors["root_hashes_by_size_1_to_8"], start=1):
        assert tree.tree_hash(rows(hashes[:size])).hex() == root


def test_proof_vectors(shared_data: Path) -> None:
    with gzip.open(shared_data / "vectors/merkle/transparency_dev_testdata_bundle.json.gz") as file:
        cases = json.load(file)
    seen = 0
    for name, case in cases.items():
        family = name.split("/")[0]
        if family not in ("inclusion", "consistency") or case.get("size1") == 0:
            continue  # that project refuses an empty old tree; RFC 9162 lets every tree extend it
        path = [base64.b64decode(step) for step in case["proof"] or []]
        values = {
            key: base64.b64decode(case[key] or "")
            for key in case
            if key in ("root", "root1", "root2", "leafHash")
        }
        if family == "inclusion":
            call: Any = (values["leafHash"], case["leafIdx"], case["treeSize"], path, values["root"])
            check: Any = proof.check_inclusion
        else:
            call = (case["size1"], case["size2"], path, values["root1"], values["root2"])
            check = proof.check_consistency
        seen += 1
        if case["wantErr"]:
            with pytest.raises(ConsentError, match="ledger.proof"):
                check(*call)
        else:
            check(*call)
    assert seen == 187


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.data())
def test_every_proof_of_a_small_tree(size: int, data: st.DataObject) -> None:
    hashes = [tree.leaf_hash(bytes([i])) for i in range(size)]
    node = tree.reader_of(tree.levels_of(rows(hashes)))
    root = tree.root_of(size, node)
    assert root == naive_root(hashes)
    index = data.draw(st.integers(0, size - 1))
    path = proof.inclusion(index, size, node)
    proof.check_inclusion(hashes[index], index, size, path, root)
    old = data.draw(st.integers(0, size))
    steps = proof.consistency(old, size, node)
    proof.check_consistency(old, size, steps, naive_root(hashes[:old]), root)
    wrong = bytearray(root)
    wrong[data.draw(st.integers(0, 31))] ^= 1
    with pytest.raises(ConsentError, match="ledger.proof"):
        proof.check_inclusion(hashes[index], index, size, path, bytes(wrong))
    with pytest.raises(ConsentError, match="ledger.proof"):
        proof.check_inclusion(hashes[index], index, size, [*path, root], root)
    if 0 < old < size:
        with pytest.raises(ConsentError, match="ledger.proof"):
            proof.check_consistency(old, size, steps, bytes(wrong), root)


def test_the_log_in_the_database_equals_the_naive_tree(tmp_path: Path) -> None:
    """Across tile edges (256) and with every way to append; all proofs hold against signed checkpoints."""
    with make(tmp_path / "c") as center:
        steps = [1, 2, 250, 256, 3, 300]
        first = verify.checkpoint(center.checkpoint(), center.verifier_key())
        old = [first]
        for step in steps:
            center.append_many([("test", {"n": i}) for i in range(step)])
            old.append(verify.checkpoint(center.checkpoint(), center.verifier_key()))
        size = old[-1].size
        openings = [center.opening(i) for i in range(size)]
        hashes = [verify.leaf_hash(opening) for opening in openings]
        assert old[-1].root == naive_root(hashes)
        for earlier in old:
            assert earlier.root == naive_root(hashes[: earlier.size])
            verify.consistency(earlier, old[-1], center.prove_consistency(earlier.size, size))
        for index in (0, 255, 256, 511, 512, size - 1):
            verify.inclusion(openings[index], center.prove(index, size), old[-1])
        with pytest.raises(ConsentError, match="ledger.index"):
            center.prove(0, size + 1)
        with pytest.raises(ConsentError, match="ledger.index"):
            center.opening(size)


def test_a_changed_opening_is_refused(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center:
        index = center.append("job.stage", {"stage": "align", "rows": 10})
        opening = center.opening(index)
        at = verify.checkpoint(center.checkpoint(), center.verifier_key())
        path = center.prove(index, at.size)
        verify.inclusion(opening, path, at)
        for change in ({"payload": {"stage": "align", "rows": 11}}, {"kind": "other"}, {"salt": "00" * 16}):
            with pytest.raises(ConsentError, match="ledger"):
                verify.inclusion({**opening, **change}, path, at)
            without = {k: v for k, v in {**opening, **change}.items() if k != "leaf_hash"}
            with pytest.raises(ConsentError, match="ledger.proof"):
                verify.inclusion(without, path, at)


@pytest.mark.parametrize("kind", ["event", "", "Ä", "a b", "x" * 64])
def test_kinds_that_are_refused(tmp_path: Path, kind: str) -> None:
    with make(tmp_path / "c") as center, pytest.raises(ConsentError, match="ledger.payload"):
        center.append(kind, {})


def test_payload_without_canonical_json(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center:
        for payload in ({"a": float("nan")}, {"a": 2**60}, {"a": {1, 2}}, ["list"], {"a": "\ud800"}):
            with pytest.raises(ConsentError, match="ledger.payload"):
                center.append("test", payload)  # type: ignore[arg-type]


def test_note_vectors(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "vectors/checkpoint/signed_note.json").read_text("utf-8"))[
        "go_sumdb_note"
    ]
    keys = {name: note.parse_verifier(vectors[f"vkey_{name}"]) for name in ("peter", "enoch")}
    for case in vectors["cases"]:
        verifiers = [keys[name] for name in case["verifiers"]]
        if case["ok"]:
            opened = note.open_note(case["note"], verifiers)
            assert list(opened.verified) == case["verified"], case["desc"]
            assert list(opened.unverified) == case.get("unverified", []), case["desc"]
        else:
            raw = case["note"].encode()
            with pytest.raises(ConsentError, match="ledger.note"):
                note.open_note(b"\xff" + raw if "UTF-8" in case["desc"] else raw, verifiers)
    signer = note.parse_signer(vectors["skey_peter"])
    assert signer.verifier.text() == vectors["vkey_peter"]
    assert note.sign_note(vectors["text"], signer) == vectors["cases"][0]["note"]
    assert note.parse_signer(signer.text()) == signer


def test_the_example_of_the_note_specification(shared_data: Path) -> None:
    path = shared_data / "vectors/checkpoint/signed_note.json"
    vectors = json.loads(path.read_text("utf-8"))["c2sp_spec_examples"]
    key = note.parse_verifier(vectors["vkeys_found"][0])
    assert note.open_note(vectors["fenced_blocks"][1], [key]).verified == ("example.com/foo",)


def test_checkpoint_vectors(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "vectors/checkpoint/tlog_checkpoint.json").read_text("utf-8"))
    for case in vectors["parse_cases"]:
        if case["wantErr"]:
            with pytest.raises(ConsentError, match="ledger.checkpoint"):
                checkpoint.parse_checkpoint(case["text"])
        else:
            found = checkpoint.parse_checkpoint(case["text"])
            assert (found.origin, found.size, found.root.decode()) == (
                case["origin"],
                case["size"],
                case["hash_utf8"],
            )
            assert found.rest == case.get("rest", "")
            assert found.text() == case["text"]
    for case in vectors["tlog_proof_parse_errors"]:
        with pytest.raises(ConsentError, match="ledger.proof"):
            proof.parse_tlog_proof(case["proof"])


def test_tlog_proof_round_trip() -> None:
    made = proof.TlogProof(7, (bytes(32), b"\x01" * 32), "origin\n9\nroot\n\nsig\n", b"extra")
    assert proof.parse_tlog_proof(made.text()) == made


def test_another_logs_checkpoint_is_refused(tmp_path: Path) -> None:
    with make(tmp_path / "a") as one, make(tmp_path / "b") as two:
        with pytest.raises(ConsentError, match="ledger.note"):
            verify.checkpoint(one.checkpoint(), two.verifier_key())
        known = verify.verifier(one.verifier_key())
        with pytest.raises(ConsentError, match="ledger.checkpoint"):
            checkpoint.open_checkpoint(one.checkpoint(), "another origin", [known])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_parsers_parse_or_refuse(text: str) -> None:
    for parse in (
        lambda: note.open_note(text, []),
        lambda: note.parse_verifier(text),
        lambda: checkpoint.parse_checkpoint(text),
        lambda: proof.parse_tlog_proof(text),
        lambda: verify.leaf_hash({"kind": text, "salt": text, "payload": text}),
        lambda: verify.token(
            {"token_root": text}, {"token": text, "entries": [], "disclosure": {"token_count": text}}
        ),
    ):
        try:
            parse()
        except ConsentError:
            pass
