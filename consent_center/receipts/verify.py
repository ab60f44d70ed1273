"""Checking a receipt offline: the file and, better, the center's verifier key from elsewhere.

A receipt is one line of RFC 8785 JSON. Beside the record it has under `pec:ledger` an *opening*

    {index, salt, sequence, occurred_at, recorded_at, expires_at (microseconds, -1: no end), descriptor,
     sealed_hash}

of the event's leaf (README, "Ledger": the leaf commits to SHA-256(descriptor), the numbers and the hash of
the encrypted evidence) and a C2SP `tlog-proof` that leads from the leaf to a signed checkpoint. Each function
raises ConsentError when the check fails.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from typing import Any

from consent_center.errors import ConsentError
from consent_center.ledger import proof, tree
from consent_center.ledger import verify as ledger
from consent_center.ledger.note import Verifier
from consent_center.receipts import record as records

#: What the signature covers begins so; neither a note nor a snapshot can.
RECEIPT_LABEL = b"pec/consent/receipt/v1\x00"
LEDGER, SIGNATURE = "pec:ledger", "pec:signature"
MAX_BYTES = 1_000_000
_NUMBERS = ("sequence", "occurred_at", "recorded_at", "expires_at")
_HEX = re.compile(r"(?:[0-9a-f]{2})+")


@dataclass(frozen=True)
class Verified:
    """What a receipt proves. `key_given` False: by the key in the file only, so by whoever made the file."""

    record: dict[str, Any]
    center: str
    sequence: int
    leaf: int
    log_size: int
    key_given: bool


def dumps(receipt: dict[str, Any]) -> bytes:
    """The file's bytes: canonical JSON and a newline."""
    return ledger.canonical(receipt) + b"\n"


def signed_bytes(receipt: dict[str, Any]) -> bytes:
    """What the signature covers: everything but itself."""
    return RECEIPT_LABEL + ledger.canonical({k: v for k, v in receipt.items() if k != SIGNATURE})


def leaf_hash(opening: dict[str, Any]) -> bytes:
    """The RFC 6962 leaf hash of an event, from its opening. ConsentError `ledger.opening`."""
    try:
        salt, sealed = _bytes(opening["salt"]), _bytes(opening["sealed_hash"])
        numbers = struct.pack(">4q", *(opening[name] for name in _NUMBERS))
        described = hashlib.sha256(ledger.canonical(opening["descriptor"])).digest()
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise ConsentError("ledger.opening", f"a malformed opening: {error!r}") from None
    if len(sealed) != 32:
        raise ConsentError("ledger.opening", "sealed_hash is not 32 bytes long")
    body = described + numbers + sealed
    return tree.leaf_hash(ledger.leaf_data(salt, ledger.body_hash("event", body)))


def _bytes(text: object) -> bytes:
    # bytes.fromhex takes blanks and capitals too: then two files would say the same.
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise ValueError("not lower-case hexadecimal")
    return bytes.fromhex(text)


def parse(data: bytes) -> dict[str, Any]:
    """The receipt in a file's bytes. ConsentError `receipt.format`."""
    if len(data) > MAX_BYTES:
        raise ConsentError("receipt.format", f"the file has more than {MAX_BYTES} bytes: it is no receipt")
    try:
        receipt = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ConsentError("receipt.format", f"the file is no JSON: {error}") from None
    if not isinstance(receipt, dict) or receipt.get("@type") != "dpv:ConsentReceipt":
        raise ConsentError("receipt.format", "the file is no consent receipt")
    try:
        same = dumps(receipt) == data
    except ConsentError as error:
        raise ConsentError("receipt.format", error.detail) from None
    if not same:
        # Blanks, order of members and spelling of numbers are bytes too: one receipt has one file.
        raise ConsentError(
            "receipt.format", "the file is not in its canonical form: it was changed or saved anew"
        )
    return receipt


def verify(data: bytes, key: str | Verifier | None = None) -> Verified:
    """Check every byte of a receipt. `key`: the center's verifier key, got over another way.

    Raises ConsentError `receipt.format`, `receipt.signature`, `receipt.mismatch`, `ledger.opening`,
    `ledger.proof`, `ledger.note`, `ledger.checkpoint`, `ledger.key`.
    """
    receipt = parse(data)
    try:
        part, told = receipt[LEDGER], receipt["dpv:hasRecordOfActivity"]
        opening, inclusion, own = part["opening"], part["tlogProof"], part["verifierKey"]
        signature = _bytes(receipt[SIGNATURE])
        if not (isinstance(told, dict) and isinstance(opening, dict) and isinstance(inclusion, str)):
            raise TypeError("a member has the wrong type")
    except (KeyError, TypeError, ValueError) as error:
        raise ConsentError(
            "receipt.format", f"a part of the receipt is missing or malformed: {error!r}"
        ) from None
    if not isinstance(own, str):
        raise ConsentError("receipt.format", "the receipt's verifierKey is no text")
    known = ledger.verifier(own if key is None else key)
    if own != known.text():
        raise ConsentError("receipt.signature", f"the receipt is by {own}, not by {known.text()}")
    # The most telling reason first: what the record says, then the log, then the signature over all.
    _agree(told, opening, known.name)
    found = proof.parse_tlog_proof(inclusion)
    checkpoint = ledger.checkpoint(found.checkpoint, known)
    if found.index != opening.get("index"):
        raise ConsentError("ledger.opening", "opening and tlog-proof name different leaves")
    leaf = leaf_hash(opening)
    proof.check_inclusion(leaf, found.index, checkpoint.size, list(found.path), checkpoint.root)
    if not known.check(signed_bytes(receipt), signature):
        raise ConsentError("receipt.signature", f"the receipt was changed, or is not signed by {known.name}")
    return Verified(told, known.name, opening["sequence"], found.index, checkpoint.size, key is not None)


def _agree(told: dict[str, Any], opening: dict[str, Any], center: str) -> None:
    try:
        wanted = records.core(opening, center)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ConsentError("ledger.opening", f"a malformed opening: {error!r}") from None
    different = _difference(wanted, told, "")
    if different:
        raise ConsentError("receipt.mismatch", f"{different}: not what the ledger's leaf says")


def _difference(wanted: Any, told: Any, where: str) -> str:
    """The first place where `told` lacks or contradicts `wanted`; what it has beside is the registry's."""
    if isinstance(wanted, dict):
        if not isinstance(told, dict):
            return where
        for name, value in wanted.items():
            if name not in told:
                return f"{where}/{name} is missing"
            found = _difference(value, told[name], f"{where}/{name}")
            if found:
                return found
        return ""
    if isinstance(wanted, list):
        if not isinstance(told, list) or len(told) != len(wanted):
            return where
        pairs = enumerate(zip(wanted, told, strict=True))
        return next((d for i, (a, b) in pairs if (d := _difference(a, b, f"{where}/{i}"))), "")
    return "" if type(wanted) is type(told) and wanted == told else where
