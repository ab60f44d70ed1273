"""Pure verification for an auditor: needs a verifier key string and the documents, no database.

Every function raises ConsentError when the check fails and returns what was proven when it holds.

Leaf format (README, "Ledger"): the leaf's data is `"pec.leaf.v1" 0x00 ‖ salt (16) ‖ SHA-256(kind ‖ 0x00 ‖
body)`. An *opening* is a JSON object {index, kind, salt, payload | body_hash, leaf_hash}; with a payload, the
body is its canonical JSON; with only `body_hash`, the content stays closed.
"""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from consent_center.errors import ConsentError
from consent_center.ledger import proof, tree
from consent_center.ledger.checkpoint import Checkpoint, open_checkpoint
from consent_center.ledger.note import Verifier, parse_verifier

LEAF_LABEL = b"pec.leaf.v1\x00"
SALT_SIZE = 16
#: What a snapshot's signature covers; a note's text can't begin so, since it has no control characters.
SNAPSHOT_LABEL = b"pec/consent/snapshot/v1\x00"
#: What the hash of a snapshot's counts begins with; the counts have a salt, so they can't be guessed.
DISCLOSURE_LABEL = b"pec/consent/disclosure/v1\x00"


def canonical(document: dict[str, Any]) -> bytes:
    """RFC 8785 bytes of a JSON object; ConsentError `ledger.payload`."""
    if not isinstance(document, dict):
        raise ConsentError("ledger.payload", "a payload must be a JSON object")
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise ConsentError("ledger.payload", f"a payload has no canonical JSON: {error}") from None


def body_hash(kind: str, body: bytes) -> bytes:
    """SHA-256(kind ‖ 0x00 ‖ body)."""
    return hashlib.sha256(kind.encode() + b"\x00" + body).digest()


def leaf_data(salt: bytes, hashed_body: bytes) -> bytes:
    """The salted commitment that the log holds."""
    if len(salt) != SALT_SIZE or len(hashed_body) != 32:
        raise ConsentError("ledger.opening", f"a salt has {SALT_SIZE} bytes and a body hash 32")
    return LEAF_LABEL + salt + hashed_body


def leaf_hash(opening: dict[str, Any]) -> bytes:
    """The RFC 6962 leaf hash that an opening leads to; ConsentError `ledger.opening`."""
    try:
        kind, salt = opening["kind"], bytes.fromhex(opening["salt"])
        if "payload" in opening:
            hashed = body_hash(kind, canonical(opening["payload"]))
        else:
            hashed = bytes.fromhex(opening["body_hash"])
        found = tree.leaf_hash(leaf_data(salt, hashed))
        claimed = opening.get("leaf_hash")
        if claimed is not None and bytes.fromhex(claimed) != found:
            raise ConsentError("ledger.opening", f"the opening of leaf {opening.get('index')} was changed")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConsentError("ledger.opening", f"a malformed opening: {error!r}") from None
    return found


def verifier(key: str | Verifier) -> Verifier:
    """A verifier key string as a Verifier."""
    return key if isinstance(key, Verifier) else parse_verifier(key)


def checkpoint(note: str, key: str | Verifier) -> Checkpoint:
    """The log's size and root, signed by `key`, whose name is the log's origin."""
    known = verifier(key)
    return open_checkpoint(note, known.name, [known])


def inclusion(opening: dict[str, Any], path: list[bytes], at: Checkpoint) -> None:
    """The opened leaf is number `opening["index"]` of the log at that checkpoint."""
    index = opening.get("index")
    if not isinstance(index, int) or isinstance(index, bool):
        raise ConsentError("ledger.opening", "an opening has no index")
    proof.check_inclusion(leaf_hash(opening), index, at.size, path, at.root)


def consistency(old: Checkpoint, new: Checkpoint, path: list[bytes]) -> None:
    """The log at `new` only appended to the log at `old`."""
    proof.check_consistency(old.size, new.size, path, old.root, new.root)


def snapshot(document: dict[str, Any], signature: bytes, key: str | Verifier) -> None:
    """The center with that key signed this snapshot document; ConsentError `snapshot.signature`."""
    known = verifier(key)
    if document.get("center") != known.name:
        raise ConsentError("snapshot.signature", f"the snapshot is not by {known.name}")
    if not known.check(SNAPSHOT_LABEL + canonical(document), signature):
        raise ConsentError(
            "snapshot.signature", f"the snapshot {document.get('id')} is not signed by {known.name}"
        )


def disclosure_hash(opened: dict[str, Any]) -> str:
    """Hex SHA-256 of a snapshot's disclosure {counts, token_count, salt}, which its document commits to."""
    return hashlib.sha256(DISCLOSURE_LABEL + canonical(opened)).hexdigest()


def disclosure(document: dict[str, Any], opened: dict[str, Any]) -> None:
    """These counts are those of the signed snapshot; ConsentError `snapshot.proof`."""
    if disclosure_hash(opened) != document.get("disclosure_hash"):
        raise ConsentError("snapshot.proof", "the counts are not those that the snapshot was signed with")


def token(document: dict[str, Any], proof_document: dict[str, Any]) -> bool:
    """Whether a token is in a snapshot, proven by `Center.token_proof`'s answer.

    Inclusion: the token's audit path. Exclusion: two neighbours in the sorted list, one below and one above
    the token (or the first, or the last, or an empty list). Returns True for in, False for out; both are
    proven. Raises ConsentError `snapshot.proof`.
    """
    try:
        opened = proof_document["disclosure"]
        root, size = bytes.fromhex(document["token_root"]), int(opened["token_count"])
        wanted = bytes.fromhex(proof_document["token"])
        entries = [
            (
                int(entry["index"]),
                bytes.fromhex(entry["token"]),
                [bytes.fromhex(step) for step in entry["path"]],
            )
            for entry in proof_document["entries"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ConsentError("snapshot.proof", f"a malformed token proof: {error!r}") from None
    disclosure(document, opened)
    if len(wanted) != 32 or any(len(value) != 32 for _, value, _ in entries):
        raise ConsentError("snapshot.proof", "a token is not 32 bytes long")
    try:
        for index, value, path in entries:
            proof.check_inclusion(tree.leaf_hash(value), index, size, path, root)
    except ConsentError as error:
        raise ConsentError("snapshot.proof", error.detail) from None
    if len(entries) == 1 and entries[0][1] == wanted:
        return True
    if not _gap(wanted, [(index, value) for index, value, _ in entries], size, root):
        raise ConsentError("snapshot.proof", "the neighbours do not show that the token is missing")
    return False


def _gap(wanted: bytes, entries: list[tuple[int, bytes]], size: int, root: bytes) -> bool:
    if size == 0:
        return not entries and root == tree.EMPTY_ROOT
    if len(entries) == 1:
        index, value = entries[0]
        return (index == 0 and wanted < value) or (index == size - 1 and value < wanted)
    if len(entries) == 2:
        (low, below), (high, above) = entries
        return high == low + 1 and below < wanted < above
    return False
