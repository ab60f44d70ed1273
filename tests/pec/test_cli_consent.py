"""`pec consent` from the outside: exit codes, JSON on standard output, errors that say what to do."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest

from consent_center.errors import ConsentError
from consent_center.ledger import verify
from consent_center.rest import server
from pec.cli_audit import audit as audits
from pec.cli_common import CliError, describe, emit, json_option, printable, progress, run, table
from pec.cli_consent import consent

ASK = ("--purpose", "ads", "--recipient", "partner")


class Shell:
    """Runs commands against one node home; `json` gives the parsed result."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.capsys = home, capsys

    def __call__(self, *args: str, where: tuple[str, ...] | None = None) -> tuple[int, str, str]:
        code = run(consent, [*args, *(where or ("--home", str(self.home)))])
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *args: str, expect: int = 0, **more: Any) -> Any:
        code, out, err = self(*args, "--json", **more)
        assert code == expect, (out, err)
        assert err == "", "with --json nothing but errors of the system may stand there"
        return json.loads(out.splitlines()[-1])


@pytest.fixture
def pec(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("PEC_HOME", "PEC_CONSENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PEC_ACTOR", "dpo")
    shell = Shell(tmp_path / "node", capsys)
    assert shell.json("init", "--controller", "brand")["controller"] == "brand"
    purpose = ("--id", "ads", "--title", "Ads", "--category", "contract", "--category", "usage")
    assert shell.json("purpose", "put", *purpose)["categories"] == ["contract", "usage"]
    shell.json(
        "notice", "put", "--id", "text", "--purpose", "ads", "--text", "What we do", "--text-zh", "说明"
    )
    return shell


def test_a_decision_that_fails_closed_says_why(pec: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise ConsentError("center.restored", "put back")

    monkeypatch.setattr("consent_center.ledger.log.append_entries", gone)
    code, out, told = pec("decide", "phone", "13800138000", *ASK, "--category", "contract")
    assert code == 0 and "stale" in out and "put back" in told


def test_one_person_from_grant_to_withdrawal(pec: Shell) -> None:
    decide = ("decide", "phone", "13800138000", "13800138001", *ASK, "--category", "contract")
    grant = ("record", "grant", "phone", "+86 138-0013-8000", *ASK, "--notice", "text")
    assert pec.json(*grant, "--at", "2026-03-01T08:00:00+08:00")["sequence"] == 1
    found = pec.json(*decide)
    assert (found["in"], found["out"], found["reasons"]) == (
        1,
        {"unknown_subject": 1},
        ["eligible", "unknown_subject"],
    )
    code, out, _ = pec(*decide)
    assert code == 0 and "out: unknown_subject" in out
    first = pec.json("withdraw", "phone", "13800138000", *ASK)
    assert first["sequence"] == 2 and first["known_before"] is True
    assert pec.json("withdraw", "phone", "13900139000", *ASK)["known_before"] is False
    assert "nobody with that phone was known" in pec("withdraw", "phone", "13900139001", *ASK)[2]
    assert pec.json(*decide)["reasons"][0] == "withdrawn"
    pec.json(*grant)
    other = [*ASK[:2], "--recipient", "provider-z"]
    pec.json("record", "grant", "phone", "13800138000", *other, "--notice", "text")
    gone = pec.json("withdraw", "phone", "13800138000", "--all")["withdrawn"]
    assert {one["recipient"] for one in gone} == {ASK[3], "provider-z"}
    assert pec.json(*decide)["reasons"][0] == "withdrawn"
    assert "nothing to withdraw" in pec("withdraw", "phone", "13800138000", "--all", *ASK[:2])[1]
    assert pec("withdraw", "phone", "13800138000", "--all", *ASK)[0] == 2
    held = pec.json("show", "phone", "13800138000")
    assert [(e["action"], e["actor"]) for e in held["events"]] == [
        *(("granted", "dpo"), ("withdrawn", "dpo"), ("granted", "dpo"), ("granted", "dpo")),
        *(("withdrawn", "dpo"), ("withdrawn", "dpo")),
    ]
    assert "withdrawn" in pec("show", "phone", "13800138000")[1]


def test_a_child_needs_a_guardian(pec: Shell) -> None:
    grant = (
        "record",
        "grant",
        "phone",
        "13800138000",
        *ASK,
        "--notice",
        "text",
        "--birth-date",
        "2019-05-05",
    )
    decide = ("decide", "phone", "13800138000", *ASK, "--category", "contract")
    pec.json(*grant)
    assert pec.json(*decide)["reasons"] == ["minor_without_guardian"]
    pec.json(*grant, "--guardian")
    assert pec.json(*decide)["reasons"] == ["eligible"]


def test_import_and_decide_from_files(pec: Shell, tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    lines = [f"1380013{i:04d},ads,grant,partner,2026-03-01,text,contract" for i in range(30)]
    file.write_text(
        "mobile no,purpose,action,recipient,occurred_at,notice,categories\n" + "\n".join(lines) + "\nx\n"
    )
    code, out, err = pec("import", str(file))
    assert code == 2 and "import.column" in err and "mobile no" in err and "hint:" in err
    report = pec.json("import", str(file), "--map", "phone=Mobile No", expect=1)
    assert (report["read"], report["recorded"], report["rejected"]) == (31, 30, 1)
    assert report["codes"] == {"import.row": 1}
    assert Path(report["errors_path"]).read_text("utf-8-sig").splitlines()[1].startswith("32,")
    phones = tmp_path / "phones.txt"
    phones.write_text("\n".join(f"1380013{i:04d}" for i in range(60)))
    found = pec.json("decide", "phone", "--file", str(phones), *ASK, "--category", "contract")
    assert (found["in"], found["out"]) == (30, {"unknown_subject": 30})
    assert "reasons" not in found


def test_switching_a_purpose_off(pec: Shell) -> None:
    pec.json("record", "grant", "phone", "13800138000", *ASK, "--notice", "text")
    assert pec.json("purpose", "off", "ads")["active"] is False
    decide = ("decide", "phone", "13800138000", *ASK, "--category", "contract")
    assert pec.json(*decide)["reasons"] == ["purpose_inactive"]
    assert pec.json("purpose", "on", "ads")["active"] is True
    assert pec.json(*decide)["reasons"] == ["eligible"]
    assert [p["id"] for p in pec.json("purpose", "list")] == ["ads"]
    assert pec.json("notice", "list")[0]["text"] == {"en": "What we do", "zh": "说明"}
    code, out, _ = pec("purpose", "list")
    assert code == 0 and "contract, usage" in out


def test_registry_from_files(pec: Shell, tmp_path: Path) -> None:
    file = tmp_path / "purpose.json"
    file.write_text(json.dumps({"id": "more", "version": 1, "title": {"en": "More"}, "categories": ["a"]}))
    assert pec.json("purpose", "put", "--file", str(file))["id"] == "more"
    file.write_text('{"id": "more", "colour": "red"}')
    error = pec.json("purpose", "put", "--file", str(file), expect=2)["error"]
    assert error["code"] == "pec.input" and "fields:" in error["hint"]
    file.write_text("{")
    assert pec.json("notice", "put", "--file", str(file), expect=2)["error"]["code"] == "pec.input"


def test_the_ledger_can_be_proven(pec: Shell) -> None:
    found = pec.json("prove", "1")
    assert found["opening"]["payload"]["id"] == "ads"
    assert found["opening"]["payload"]["actor"] == "dpo"
    path = [bytes.fromhex(h) for h in found["proof"]]
    at = verify.checkpoint(found["checkpoint"], pec.json("checkpoint")["verifier_key"])
    assert at.size == found["size"]
    verify.inclusion(found["opening"], path, at)
    with pytest.raises(ConsentError):
        verify.inclusion({**found["opening"], "index": 0}, path, at)
    assert pec.json("fsck") == {"ok": True, "finding": None}
    assert pec("fsck")[1].strip() == "all records agree with the ledger"


def test_a_database_from_an_old_backup_does_not_fit_a_later_checkpoint(pec: Shell, tmp_path: Path) -> None:
    def copy(source: Path, target: Path) -> None:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)

    database, backup = pec.home / "consent" / "center.db", tmp_path / "backup.db"
    copy(database, backup)
    pec.json("withdraw", "phone", "13800138000", *ASK)
    kept, same = tmp_path / "kept.json", tmp_path / "kept.txt"
    kept.write_text(json.dumps(pec.json("checkpoint")))
    same.write_text(pec("checkpoint")[1])
    assert pec.json("fsck", "--checkpoint", str(kept))["ok"]
    assert pec.json("fsck", "--checkpoint", str(same))["ok"]
    copy(backup, database)
    assert pec.json("fsck")["ok"]  # consistent in itself …
    for file in (kept, same):  # … but not what was signed since
        assert pec.json("fsck", "--checkpoint", str(file), expect=1)["finding"]["what"] == "missing"
    kept.write_text("{}")
    assert pec.json("fsck", "--checkpoint", str(kept), expect=2)["error"]["code"] == "pec.input"
    same.write_text("nonsense")
    assert pec.json("fsck", "--checkpoint", str(same), expect=3)["error"]["code"] == "ledger.note"


@pytest.mark.parametrize(
    ("args", "exit_code", "code"),
    [
        (("show", "phone", "13911111111"), 2, "subject.unknown"),
        (("record", "grant", "phone", "13800138000", *ASK), 2, "event.notice"),
        (("record", "grant", "phone", "12", *ASK, "--notice", "text"), 2, "event.identifier"),
        (("record", "deny", "phone", "13800138000", "--purpose", "x", "--recipient", "p"), 2, "pec.input"),
        (
            ("withdraw", "phone", "13800138000", "--purpose", "ads", "--recipient", "a,b"),
            2,
            "event.recipient",
        ),
        (("withdraw", "phone", "13800138000", *ASK, "--at", "yesterday"), 2, "pec.usage"),
        (("withdraw", "phone", "13800138000", *ASK, "--at", "2026-01-01"), 2, "pec.usage"),
        (("decide", "phone", *ASK, "--category", "contract"), 2, "pec.usage"),
        (("decide", "phone", "--file", "/nonexistent", *ASK, "--category", "contract"), 2, "pec.file"),
        (("import", "/nonexistent.csv"), 2, "import.file"),
        (("prove", "999"), 2, "ledger.index"),
        (("init", "--controller", "again"), 2, "center.exists"),
        (("unheard-of",), 2, "pec.usage"),
    ],
)
def test_errors_say_what_and_how(pec: Shell, args: tuple[str, ...], exit_code: int, code: str) -> None:
    error = pec.json(*args, expect=exit_code)["error"]
    assert (error["code"], error["exit_code"]) == (code, exit_code)
    assert error["message"] and error["hint"]
    found, out, err = pec(*args)
    assert (found, out) == (exit_code, "")
    assert err.startswith(f"error: {code}: ") and "\nhint: " in err and "Traceback" not in err


def test_which_center(pec: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(pec.home / "consent")
    assert pec.json("fsck", where=("--center", here))["ok"]
    both = pec.json("fsck", where=("--center", here, "--home", str(pec.home)), expect=2)
    assert "not both" in both["error"]["message"]
    assert (
        pec.json("fsck", where=("--home", str(tmp_path / "none")), expect=2)["error"]["code"]
        == "center.missing"
    )
    assert "which center" in pec.json("fsck", where=("--json",), expect=2)["error"]["message"]
    monkeypatch.setenv("PEC_HOME", str(pec.home))
    assert pec.json("fsck", where=("--json",))["ok"]


def test_over_rest(pec: Shell) -> None:
    with server.start(pec.home / "consent") as running:
        far = ("--center", running.address.location)
        pec.json("record", "grant", "phone", "13800138000", *ASK, "--notice", "text", where=far)
        decide = ("decide", "phone", "13800138000", *ASK, "--category", "contract")
        assert pec.json(*decide, where=far)["reasons"] == ["eligible"]
        assert pec.json("prove", "1", where=far) == pec.json("prove", "1")
        error = pec.json("init", "--controller", "x", where=far, expect=2)["error"]
        assert "directory only" in error["hint"]
    assert pec.json(*decide, where=far, expect=1)["error"]["code"] == "center.unreachable"


def test_serve_is_a_process_that_says_where_and_stops(pec: Shell) -> None:
    code = "import sys, pec.cli_common as c, pec.cli_consent as p; sys.exit(c.run(p.consent))"
    command = [sys.executable, "-c", code, "serve", "--home", str(pec.home), "--port", "0", "--json"]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert child.stdout is not None
        told = json.loads(child.stdout.readline())
        assert pec.json("fsck", where=("--center", told["center"]))["ok"]
        child.send_signal(signal.SIGINT)
        assert child.wait(240) == 0
    finally:
        child.kill()
        child.wait()  # not for its output: a worker that outlives it would hold that open


def test_the_shared_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    @click.group()
    def cli() -> None: ...

    @cli.command()
    @click.argument("how")
    @json_option
    def go(how: str, as_json: bool) -> int:
        with progress("working", total=2) as bar:
            bar.advance()
            bar.update(2, what="still working")
        if how == "coded":
            raise ConsentError("center.busy", "the lock is held")
        if how == "cli":
            raise CliError("pec.job_refused", "no", "ask again")
        if how == "bug":
            raise ZeroDivisionError("oops")
        if how == "interrupt":
            raise KeyboardInterrupt
        emit(
            {"text": "\x1b[31mred [b]", "n": 1234567, "f": 0.5},
            as_json,
            lambda d: table(("k", "v"), d.items()),
        )
        return 3 if how == "three" else 0

    assert run(cli, ["go", "well"]) == 0
    out = capsys.readouterr().out
    assert "\\u001b[31mred [b]" in out and "\x1b" not in out and "1,234,567" in out
    assert run(cli, ["go", "three", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["n"] == 1234567
    for how, exit_code, code in (
        ("coded", 1, "center.busy"),
        ("cli", 3, "pec.job_refused"),
        ("bug", 1, "pec.internal"),
        ("interrupt", 130, "pec.interrupted"),
    ):
        assert run(cli, ["go", how, "--json"]) == exit_code
        assert json.loads(capsys.readouterr().out)["error"]["code"] == code
        assert run(cli, ["go", how]) == exit_code
        assert capsys.readouterr().err.lstrip().startswith(f"error: {code}: ")
    assert run(cli, []) == 2
    assert "Usage" in capsys.readouterr().err
    assert run(cli, ["--help"]) == 0
    assert printable("a\x07\u202eb") == "a\\u0007\\u202eb"


def test_an_unmapped_grpc_error_still_reads_well() -> None:
    class RpcError(Exception):
        def code(self) -> str:
            return "UNAVAILABLE"

        def details(self) -> str:
            return "connection refused"

    assert describe(RpcError())[:2] == ("pec.node", "connection refused")


def test_the_ledger_of_a_center_without_a_node(
    pec: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pec audit` works on a center's own directory, named either way, and on its address."""

    def audit(*args: str, expect: int = 0) -> Any:
        assert run(audits, [*args, "--json"]) == expect, args
        return json.loads(capsys.readouterr().out)

    alone, kept = pec.home / "consent", tmp_path / "kept.json"
    note = audit("checkpoint", "--center", str(alone))
    kept.write_text(json.dumps(note))
    (tmp_path / "kept.txt").write_text(note["checkpoint"])
    pec.json("purpose", "put", "--id", "more", "--title", "More", "--category", "contact")
    size = note["checkpoint"].splitlines()[1]
    with server.start(alone) as running:
        for where in (
            ("--center", str(alone)),
            ("--home", str(alone)),
            ("--center", running.address.location),
        ):
            assert audit("fsck", "--checkpoint", str(kept), *where)["ok"] is True
            grown = audit("consistency", size, "--checkpoint", str(tmp_path / "kept.txt"), *where)
            assert grown["compared"] is True and grown["new"] == int(size) + 1
            assert audit("prove", "0", *where)["opening"]["kind"] == "center"
    with closing(sqlite3.connect(alone / "center.db")) as raw, raw:
        raw.execute("UPDATE purposes SET body = replace(body, 'More', 'Less')")
    assert "purposes" in audit("fsck", "--center", str(alone), expect=1)["where"]
