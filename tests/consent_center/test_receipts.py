"""Receipts: what they say, that they verify with the file and the key alone, and that no byte can change."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from consent_helpers import START, Clock, ads, event, make, phone
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center.center import Center
from consent_center.client import open_center
from consent_center.errors import ConsentError
from consent_center.ledger.note import Signer
from consent_center.model import Notice
from consent_center.receipts import record as records
from consent_center.receipts.verify import LEDGER, SIGNATURE, Verified, dumps, signed_bytes, verify
from consent_center.rest import server


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Center]:
    with make(tmp_path_factory.mktemp("receipts") / "center", Clock()) as made:
        for number in range(1, 6):
            made.record(event(number))
        made.record(event(1, action="withdrawn", notice="", notice_version=0, occurred_at=START))
        made.record(event(2, identifiers=(("phone", phone(2)), ("email", "a@b.cn")), action="renewed"))
        yield made


@pytest.fixture(scope="module")
def original(center: Center) -> bytes:
    return dumps(center.receipt(1))


def refused(data: bytes, *codes: str, key: str | None = None) -> str:
    with pytest.raises(ConsentError) as caught:
        verify(data, key)
    assert caught.value.code in codes, caught.value
    assert caught.value.detail
    return caught.value.detail


def test_a_receipt_and_its_check(center: Center, original: bytes) -> None:
    done = verify(original, center.verifier_key())
    assert isinstance(done, Verified)
    assert (done.center, done.sequence, done.key_given) == ("pec-consent/brand", 1, True)
    assert center.opening(done.leaf)["kind"] == "event" and done.log_size > done.leaf
    assert verify(original).key_given is False
    receipt = json.loads(original)
    told = receipt["dpv:hasRecordOfActivity"]
    assert receipt["@type"] == "dpv:ConsentReceipt" and told["@type"] == "dpv:ConsentRecord"
    assert told["dpv:hasConsentStatus"] == [
        {
            "@type": ["dpv:ConsentGiven", "dpv:ExplicitlyExpressedConsent"],
            "dpv:isIndicatedBy": "dpv:DataSubject",
            "dpv:hasIndicationMethod": "explicit",
            "dpv:isIndicatedAtTime": "2026-02-28T12:00:00+00:00",
            "dpv:hasDuration": {"@type": "dpv:UntilTimeDuration", "rdf:value": "2027-02-28T12:00:00+00:00"},
            "pec:action": "granted",
        }
    ]
    process = told["dpv:hasProcess"]
    assert process["dpv:hasPurpose"]["dct:title"] == [
        {"@language": "en", "@value": "Advertising"},
        {"@language": "zh", "@value": "广告"},
    ]
    assert [c["dct:identifier"] for c in process["dpv:hasPersonalData"]] == ["contact"]
    assert process["dpv:hasRecipient"]["dpv:hasName"] == "provider"
    assert told["dpv:hasNotice"]["schema:sha256"] == center.notices()[0].hash
    assert told["dpv:hasApplicableLaw"]["dct:title"] == "PIPL" and told["dpv:hasJurisdiction"] == "loc:CN"


def test_terms_are_those_of_the_guide(shared_data: Path, original: bytes) -> None:
    """Every member that we write stands in the W3C guide's examples, or is named here."""
    examples = json.loads((shared_data / "vectors/consent_receipt/dpv_iso27560_examples.json").read_text())
    known = "\n".join(example["text"] for example in examples)
    ours = {"schema:sha256", "schema:version"}

    def names(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.items():
                yield name
                yield from names(value)
        elif isinstance(node, list):
            for member in node:
                yield from names(member)

    used = {
        n for n in names(json.loads(original)) if n.startswith(("dpv:", "dct:", "schema:", "skos:", "rdf:"))
    }
    assert len(used) > 15
    assert [n for n in sorted(used - ours) if f'"{n}"' not in known] == []
    for text in (records.RECEIPT_SCHEMA, records.RECORD_SCHEMA, "dpv:ConsentGiven", "dpv:ConsentWithdrawn"):
        assert text in known


def test_nobody_is_named_unless_asked(center: Center, original: bytes) -> None:
    text = original.decode()
    for raw in (phone(1), "+86" + phone(1), "shop 12", "form 7"):
        assert raw not in text
    one, again, other = (
        center.receipt(n)["dpv:hasRecordOfActivity"]["dpv:hasDataSubject"] for n in (1, 6, 2)
    )
    assert one == again != other and set(one) == {"@id", "@type"}
    asked = center.receipt(7, [("phone", "+86 " + phone(2)), ("email", "A@b.cn")])
    assert asked["dpv:hasRecordOfActivity"]["dpv:hasDataSubject"]["dct:identifier"] == [
        {"@type": "pec:Identifier", "pec:kind": "phone", "rdf:value": "+86" + phone(2)},
        {"@type": "pec:Identifier", "pec:kind": "email", "rdf:value": "a@b.cn"},
    ]
    verify(dumps(asked), center.verifier_key())
    for kind, value in (("phone", phone(1)), ("phone", phone(99)), ("opaque", "x")):
        with pytest.raises(ConsentError, match="receipt.identifier"):
            center.receipt(2, [(kind, value)])


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_any_changed_byte_fails_with_a_reason(center: Center, original: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(original) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = original[:at] + bytes([original[at] ^ 1 << bit]) + original[at + 1 :]
    for key in (center.verifier_key(), None):
        with pytest.raises(ConsentError) as caught:
            verify(changed, key)
        assert caught.value.code.split(".")[0] in ("receipt", "ledger")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_changed_member_fails_with_a_reason(center: Center, original: bytes, data: st.DataObject) -> None:
    """Also where the forger signs with the center's key, as far as the ledger covers the member."""
    receipt = json.loads(original)
    node: Any = receipt[LEDGER] if data.draw(st.booleans()) else receipt
    while True:
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.integers(0, 3)) == 0:
            break
        node = node[key]
    old, node[key] = node[key], data.draw(JSON | st.just("9" * 5_000) | st.text("0123456789abcdef"))
    if old == node[key] and type(old) is type(node[key]):
        return
    try:
        changed = json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
        encoded = changed.encode()
    except UnicodeEncodeError:
        return
    with pytest.raises(ConsentError):
        verify(encoded, center.verifier_key())


def test_numbers_of_any_length(original: bytes) -> None:
    """Python refuses to read numbers of over 4,300 digits; that is a reason like any other."""
    for old, new in (
        ("index ", "index " + "1" * 5_000),
        ("pec-consent/brand\n", "pec-consent/brand\n" + "1" * 5_000),
    ):
        text = json.loads(original)[LEDGER]["tlogProof"].replace(old, new)
        changed = change(original, lambda r, text=text: r[LEDGER].update(tlogProof=text))
        refused(changed, "ledger.proof", "ledger.note", "ledger.checkpoint")


def test_cut_and_longer_files_fail(original: bytes) -> None:
    for end in range(0, len(original), 101):
        refused(original[:end], "receipt.format")
    refused(original + b"\n", "receipt.format")
    refused(original.rstrip(b"\n"), "receipt.format")
    refused(json.dumps(json.loads(original), indent=1).encode(), "receipt.format")
    refused(b"[" * 100_000, "receipt.format")
    refused(b"\xff", "receipt.format")
    refused(b" " * 1_000_001, "receipt.format")


def change(original: bytes, edit: Callable[[dict[str, Any]], None], signer: Signer | None = None) -> bytes:
    receipt = json.loads(original)
    edit(receipt)
    if signer is not None:
        receipt[SIGNATURE] = signer.sign(signed_bytes(receipt)).hex()
    return dumps(receipt)


def action(receipt: dict[str, Any]) -> None:
    receipt["dpv:hasRecordOfActivity"]["dpv:hasConsentStatus"][0]["@type"] = ["dpv:ConsentWithdrawn"]


def recipient(receipt: dict[str, Any]) -> None:
    receipt["dpv:hasRecordOfActivity"]["dpv:hasProcess"]["dpv:hasRecipient"]["dpv:hasName"] = "other"


def both(receipt: dict[str, Any]) -> None:
    opening = receipt[LEDGER]["opening"]
    opening["descriptor"]["recipient"] = "other"
    described = records.core(opening, "pec-consent/brand")
    receipt["dpv:hasRecordOfActivity"] |= described


def title(receipt: dict[str, Any]) -> None:
    receipt["dpv:hasRecordOfActivity"]["dpv:hasProcess"]["dpv:hasPurpose"]["dct:title"] = "nothing much"


def index(receipt: dict[str, Any]) -> None:
    receipt[LEDGER]["opening"]["index"] += 1


def test_the_reason_is_the_right_one(center: Center, original: bytes) -> None:
    key = center.verifier_key()
    assert "hasConsentStatus" in refused(change(original, action), "receipt.mismatch", key=key)
    assert "hasRecipient" in refused(change(original, recipient), "receipt.mismatch", key=key)
    refused(change(original, both), "ledger.proof", key=key)
    refused(change(original, title), "receipt.signature", key=key)
    refused(change(original, index), "ledger.opening", key=key)
    refused(change(original, lambda r: r.pop(LEDGER)), "receipt.format", key=key)
    refused(change(original, lambda r: r[LEDGER].pop("opening")), "receipt.format", key=key)
    refused(
        change(original, lambda r: r.update({SIGNATURE: r[SIGNATURE].upper()})), "receipt.format", key=key
    )


def test_a_center_can_not_sign_what_its_ledger_does_not_say(center: Center, original: bytes) -> None:
    """With the center's own key: the record must still be what the leaf committed to."""
    signer = center._keys.signer
    refused(change(original, action, signer), "receipt.mismatch")
    refused(change(original, both, signer), "ledger.proof")


def test_another_key(center: Center, original: bytes, tmp_path: Path) -> None:
    with Center.create(tmp_path / "other", "brand", Clock()) as other:
        refused(original, "receipt.signature", key=other.verifier_key())
        # a forger who puts its own key and checkpoint in, for a receipt that is checked with the real key
        forged = change(
            original, lambda r: r[LEDGER].update(verifierKey=other.verifier_key()), other._keys.signer
        )
        refused(forged, "receipt.signature", key=center.verifier_key())
        refused(forged, "ledger.note")
    refused(original, "ledger.key", key="nonsense")


def test_what_has_no_receipt(tmp_path: Path) -> None:
    import pyarrow as pa

    with make(tmp_path / "center", Clock()) as center:
        center.record(event(1))
        center.assume(pa.array([phone(2)]), "phone", "ads", "provider", ["contact"], "a test", "dpo")
        kept = dumps(center.receipt(1))
        assert center.erase("phone", phone(1), "dpo") == 3
        for sequence in (1, 2, 3, 4, 10**18):
            with pytest.raises(ConsentError, match="receipt.event"):
                center.receipt(sequence)
        # what the person holds stays provable
        verify(kept, center.verifier_key())


def test_a_guardian_and_names_in_any_script(tmp_path: Path) -> None:
    from datetime import date

    with make(tmp_path / "center", Clock()) as center:
        center.put_purpose(ads(2, categories=("联系方式",)))
        center.put_notice(Notice("告知书", 1, "ads", 2, {"zh": "说明"}))
        center.record(
            event(
                1,
                action="guardian_granted",
                purpose_version=2,
                notice="告知书",
                categories=("联系方式",),
                recipient="数据方/甲",
                birth_date=date(2016, 1, 1),
                regulation="GDPR",
            )
        )
        receipt = center.receipt(1)
        told = verify(dumps(receipt), center.verifier_key()).record
        assert told["dpv:hasConsentStatus"][0]["dpv:isIndicatedBy"] == "dpv:GuardianOfDataSubject"
        assert told["dpv:hasProcess"]["dpv:hasRecipient"]["@id"].isascii()
        assert told["dpv:hasLegalBasis"] == "eu-gdpr:A6-1-a"
        assert "2016" not in dumps(receipt).decode() and "minor_until" not in dumps(receipt).decode()


def test_over_rest_and_by_the_remote_client(tmp_path: Path) -> None:
    home = tmp_path / "center"
    with make(home) as center:
        center.record(event(1))
        key = center.verifier_key()
    with server.start(home) as running, open_center(str(running.address.location)) as remote:
        verify(dumps(remote.receipt(1)), key)
        named = remote.receipt(1, [("phone", phone(1))])
        assert phone(1) in dumps(named).decode()
        for sequence, identifiers, code in (
            (9, (), "receipt.event"),
            (1, (("phone", phone(5)),), "receipt.identifier"),
        ):
            with pytest.raises(ConsentError) as caught:
                remote.receipt(sequence, identifiers)
            assert caught.value.code == code
        rule = {"purpose": "ads", "recipient": "provider", "opt_out": ["gpc"]}
        stored = remote.put_signal_mapping({"format": "pec.signals/1", "rules": [rule]}, "dpo")
        assert stored["leaf"] > 0 and remote.signal_mapping()["rules"][0]["opt_out"] == ["gpc"]


def test_verification_needs_no_database(original: bytes, tmp_path: Path) -> None:
    """In a fresh interpreter the check loads neither the database nor the center."""
    path = tmp_path / "receipt.json"
    path.write_bytes(original)
    code = (
        "import sys; from consent_center.receipts.verify import verify; "
        "verify(open(sys.argv[1], 'rb').read()); "
        "print([m for m in ('sqlalchemy', 'consent_center.center') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
