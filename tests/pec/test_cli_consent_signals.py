"""`pec consent signal`, `receipt` and `verify` from the outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pec.cli_common import run
from pec.cli_consent import consent

#: iabtcf-java, TCStringV2Test (Apache-2.0): consent to purposes 2 and 10, February 2021.
TWO_AND_TEN = "COtybn4PA_zT4KjACBENAPCIAEBAAECAAIAAAAAAAAAA"


@pytest.fixture
def pec(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("PEC_HOME", "PEC_CONSENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PEC_ACTOR", "dpo")

    def call(*args: str, expect: int = 0) -> Any:
        code = run(consent, [*args, "--json"])
        out, err = capsys.readouterr()
        assert (code, err) == (expect, ""), (out, err)
        return json.loads(out.splitlines()[-1])

    return call


def test_signals_and_receipts(pec: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--home", str(tmp_path / "node"))
    pec("init", *at, "--controller", "brand")
    pec("purpose", "put", *at, "--id", "ads", "--title", "Ads", "--category", "contract")
    pec("notice", "put", *at, "--id", "text", "--purpose", "ads", "--text", "What we do")
    rule = {
        "purpose": "ads",
        "recipient": "partner",
        "purpose_version": 1,
        "notice": "text",
        "notice_version": 1,
        "tcf_consents": [2, 10],
        "opt_out": ["gpc"],
    }
    file = tmp_path / "table.json"
    file.write_text(json.dumps({"format": "pec.signals/1", "rules": [rule]}))
    person = ("phone", "13800138000", *at)
    missing = pec("signal", "record", *person, "--tc-string", TWO_AND_TEN, expect=2)
    assert missing["error"]["code"] == "signal.mapping"
    assert pec("signal", "map", str(file), *at)["leaf"] > 0
    assert pec("signal", "map", *at)["rules"][0]["tcf_consents"] == [2, 10]
    done = pec("signal", "record", *person, "--tc-string", TWO_AND_TEN)
    assert done["outcomes"][0]["outcome"] == "granted" and done["events"][0]["sequence"] == 1
    assert pec("signal", "record", *person, "--gpc")["outcomes"][0]["outcome"] == "opted_out"
    assert pec("signal", "record", *person, expect=2)["error"]["code"] == "signal.request"
    assert pec("fsck", *at)["ok"] is True

    path = tmp_path / "receipt.json"
    made = pec("receipt", *at, "--event", "2", "-o", str(path))
    checked = pec("verify", str(path), "--key", made["verifier_key"])
    assert (checked["action"], checked["key"], checked["event"]) == ("withdrawn", "given", 2)
    key = tmp_path / "key"
    key.write_text(made["verifier_key"] + "\n")
    assert pec("verify", str(path), "--key", str(key))["ok"] is True
    assert "ask the center" in pec("verify", str(path))["key"]
    assert "13800138000" not in path.read_text()
    pec("receipt", *at, "--event", "2", "-o", str(path), "--with", "phone", "138-0013-8000")
    assert "+8613800138000" in path.read_text()
    path.write_bytes(path.read_bytes().replace(b"ConsentWithdrawn", b"ConsentGiven"))
    assert pec("verify", str(path), expect=3)["error"]["code"] == "receipt.mismatch"
    path.write_bytes(path.read_bytes() + b" ")
    assert pec("verify", str(path), expect=2)["error"]["code"] == "receipt.format"
    assert pec("receipt", *at, "--event", "99", "-o", str(path), expect=2)["error"]["code"] == "receipt.event"
    assert not list(tmp_path.glob(".receipt*"))


def test_decoding_needs_no_center(pec: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert pec("signal", "decode", TWO_AND_TEN)["tcf"]["purposeConsents"] == [2, 10]
    assert pec("signal", "decode", "DBABTA~1YYN")["gpp"]["sections"]["uspv1"]["OptOutSale"] == "Y"
    assert pec("signal", "decode", "DBABRg~bSFgmiU", expect=2)["error"]["code"] == "signal.version"
    assert run(consent, ["signal", "decode", "DBACTjw~1YYN~BSZZYgkA~BaRlkCSA.QA"]) == 0
    shown = capsys.readouterr().out
    assert "usct" in shown and "SaleOptOut" in shown
