"""The command line: quick to start, documented, and every wrong input ends in a coded error."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from click.testing import CliRunner
from pec_command import ROOT, pec
from rich.console import Console

from consent_center import errors as consent_errors
from parties import errors as party_errors
from parties.errors import NodeError
from parties.home import Home
from pec import (
    cli_agreement,
    cli_audit,
    cli_common,
    cli_job,
    cli_model,
    cli_node,
    cli_simulate,
    figure_tables,
    plan,
)
from pec import errors as pec_errors
from pec.cli import COMMANDS, cli
from pec.cli_home import shortened
from pec.cli_job import _selected
from pec.errors import EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED, EXIT_REFUSED, PecError, exit_code_of
from protocols import errors as protocol_errors


def commands(group: click.Group = cli, prefix: str = "pec") -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    before = os.times()
    answer = pec("--help")
    assert answer.code == 0 and all(name in answer.out for name in COMMANDS)
    # What it computes, however long it waits for its turn; a tenth of it on an idle machine.
    assert os.times().children_user - before.children_user < 3

    heavy = "{'numpy', 'pandas', 'grpc', 'duckdb', 'sklearn', 'numba'}"
    code = f"import sys, pec.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["demo", "simulate", "node", "job", "audience", "audit", "bench", "warmup"])
def test_every_command_says_what_it_is_for_and_takes_json(name: str) -> None:
    for path, command in commands():
        if not path.startswith(f"pec {name}"):
            continue
        assert (command.help or "").strip(), path
        if path != "pec node run":  # it becomes the node
            assert "--json" in {o for p in command.params for o in p.opts}, path


def test_every_command_and_option_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for path, command in commands():
        if path.startswith("pec consent"):
            continue  # docs/consent.md
        assert path in text, path
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert f"`{option}" in text or f"{option} " in text or f"{option}`" in text, (
                        path,
                        option,
                    )


def run(*arguments: str) -> tuple[int, str]:
    """In this process, for what needs no other."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = cli_common.run(cli, [*arguments, "--json"])
    return code, out.getvalue()


SIMULATE = ("simulate", "lookalike", "--id", "phone", "--assume-consent", "test")


def error_of(*arguments: str | Path) -> tuple[int, str, str]:
    import json

    code, out = run(*map(str, arguments))
    error = json.loads(out.strip().splitlines()[-1])["error"]
    return code, error["code"], error["message"] + " | " + error["hint"]


def test_a_missing_column_is_answered_with_the_nearest(two_files: tuple[Path, Path]) -> None:
    brand, provider = two_files
    code, name, text = error_of(
        *SIMULATE[:2], "--id", "phnoe", *SIMULATE[4:], "--brand", brand, "--provider", provider
    )
    assert (code, name) == (2, "pec.column") and "'Phone'" in text
    code, name, text = error_of(*SIMULATE, "--brand", brand, "--provider", provider, "--label", "loyl")
    assert (code, name) == (2, "pec.column") and "'loyal'" in text


def test_unreadable_files(two_files: tuple[Path, Path], tmp_path: Path) -> None:
    brand, _ = two_files
    bad = {
        "none.csv": None,
        "empty.csv": b"",
        "header.csv": b"phone,x\n",
        "book.csv": b"PK\x03\x04 workbook",
        "broken.parquet": b"PAR1 nothing",
        "bytes.csv": b"phone,x\n\xff\xfe\x81,\x00\n" * 3,
    }
    for name, content in bad.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        code, error, text = error_of(*SIMULATE, "--brand", brand, "--provider", path)
        assert code == 2 and error in ("pec.file", "pec.input"), (name, error, text)
        assert name in text


def test_same_file_no_overlap_too_few_seeds(two_files: tuple[Path, Path], tmp_path: Path) -> None:
    brand, provider = two_files
    code, error, text = error_of(*SIMULATE, "--brand", brand, "--provider", brand)
    assert (code, error) == (2, "pec.input") and "same file" in text
    other = tmp_path / "other.csv"
    pd.DataFrame({"phone": range(15_900_000_000, 15_900_000_300), "x": range(300)}).to_csv(other, index=False)
    code, error, text = error_of(*SIMULATE, "--brand", brand, "--provider", other)
    assert (code, error) == (2, "pec.input") and "nobody is in both" in text
    assert "159" not in text, "an error message must not quote identifiers"
    few = tmp_path / "few.csv"
    frame = pd.read_csv(brand)
    frame["vip"] = [1] * 3 + [0] * (len(frame) - 3)
    frame.iloc[::-1].to_csv(few, index=False)
    code, error, text = error_of(*SIMULATE, "--brand", few, "--provider", provider, "--label", "vip")
    assert (code, error) == (2, "pec.input") and "seeds" in text


def test_labels_that_are_no_labels(two_files: tuple[Path, Path], tmp_path: Path) -> None:
    brand, provider = two_files
    frame = pd.read_csv(brand)
    frame["mood"] = "happy"
    frame["nothing"] = 0
    path = tmp_path / "labels.csv"
    frame.to_csv(path, index=False)
    for label, words in (("mood", "'happy'"), ("nothing", "marks nobody")):
        code, error, text = error_of(*SIMULATE, "--brand", path, "--provider", provider, "--label", label)
        assert (code, error) == (2, "pec.input") and words in text


def test_consent_must_be_assumed_aloud(two_files: tuple[Path, Path]) -> None:
    brand, provider = two_files
    code, error, text = error_of(
        "simulate", "overlap", "--id", "phone", "--brand", brand, "--provider", provider
    )
    assert (code, error) == (2, "pec.usage") and "--assume-consent" in text


def test_node_life_without_a_running_node(tmp_path: Path) -> None:
    brand, provider = tmp_path / "b", tmp_path / "p"
    for home, party in ((brand, "shop"), (provider, "bank")):
        code, out = run("node", "init", str(home), "--party", party)
        assert code == 0 and re.fullmatch(r"[0-9a-f]{64}", json.loads(out)["fingerprint"])
    assert error_of("node", "init", brand, "--party", "shop")[1] == "node.exists"
    for mine, other in ((brand, provider), (provider, brand)):
        card = tmp_path / f"{other.name}.card"
        assert run("node", "card", "--home", str(other), "--out", str(card))[0] == 0
        assert run("node", "trust", str(card), "--home", str(mine))[0] == 0
    data = tmp_path / "people.csv"
    data.write_text("phone,age,city\n13800138000,3,x\n", encoding="utf-8")
    add = ("node", "data", "add", "people", str(data), "--home", str(provider), "--id")
    assert error_of(*add, "fone", "--all", "profile")[1] == "pec.column"
    code, out = run(*add, "phone", "--all", "profile", "--category", "city=place")
    assert json.loads(out)["categories"] == {"age": "profile", "city": "place"}
    change = ("node", "data", "change", "people", "--home", str(provider))
    code, out = run(*change, "--no-category", "city", "--show", "--people", "123456", "--nulls", "refuse")
    told = json.loads(out)
    assert (told["categories"], told["people"], told["shown"]) == ({"age": "profile"}, 120_000, True)
    code, out = run(*change, "--all", "place", "--hide")
    told = json.loads(out)
    assert told["categories"] == {"age": "profile", "city": "place"} and "shown" not in told
    assert (told["nulls"], told["people"]) == ("refuse", 120_000)
    assert error_of(*change, "--no-category", "town")[1] == "pec.column"
    told = json.loads(run(*change, "--id", "city:opaque")[1])
    assert told["categories"] == {"age": "profile"}  # what identifies people is no column of theirs
    assert json.loads(run(*change, "--id", "phone:email")[1])["warning"].startswith("gate.kind")
    gone = ("node", "data", "remove", "people", "--home", str(provider))
    assert run(*gone)[0] == 0 and error_of(*gone)[1] == "dataset.unknown"
    draft, signed, both = (str(tmp_path / n) for n in ("draft.json", "signed.json", "both.json"))
    terms = (
        "--id",
        "a1",
        "--brand",
        "shop",
        "--provider",
        "bank",
        "--kind",
        "overlap",
        "--purpose",
        "overlap",
    )
    assert run("node", "agreement", "draft", *terms, "--category", "profile", "--out", draft)[0] == 0
    assert "not signed" in error_of("node", "agreement", "add", draft, "--home", provider)[2]
    assert run("node", "agreement", "sign", draft, "--home", str(brand), "--out", signed)[0] == 0
    assert error_of("node", "agreement", "add", signed, "--home", provider)[1] == "document.signature"
    changed = json.loads(Path(signed).read_text())
    changed["document"]["minimum_rows"] = 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps(changed))
    assert error_of("node", "agreement", "sign", other, "--home", provider)[1] == "document.signature"
    code, out = run("node", "agreement", "show", signed, "--home", str(provider))
    assert json.loads(out)["document"]["id"] == "a1"
    times = {"created_at": "2019-01-01T00:00:00Z", "expires_at": "2020-01-01T00:00:00Z"}
    other.write_text(json.dumps({**json.loads(Path(draft).read_text()), **times}))
    assert error_of("node", "agreement", "sign", other, "--home", brand)[1] == "agreement.expired"
    assert run("node", "agreement", "sign", signed, "--home", str(provider), "--out", both)[0] == 0
    for home in (brand, provider):
        assert run("node", "agreement", "add", both, "--home", str(home))[0] == 0
    code, out = run("node", "agreement", "list", "--home", str(brand))
    assert [(a["id"], a["state"]) for a in json.loads(out)] == [("a1", "in force")]
    end = ("node", "agreement", "end", "a1", "--home", str(brand))
    assert error_of(*end)[1] == "pec.usage"  # without a reason
    code, out = run(*end, "--reason", "stopped")
    assert (code, json.loads(out)["told"], json.loads(out)["party"]) == (0, False, "shop")
    assert error_of(*end, "--reason", "again")[:2] == (3, "agreement.ended")
    code, out = run("node", "agreement", "show", "a1", "--home", str(brand))
    assert (json.loads(out)["state"], json.loads(out)["ended"]["reason"]) == ("ended", "stopped")
    code, out = run("node", "untrust", "bank", "--reason", "stolen", "--home", str(brand))
    card = json.loads(out)["card"]
    assert error_of("node", "untrust", "bank", "--reason", "twice", "--home", brand)[:2] == (
        3,
        "identity.untrusted",
    )
    assert json.loads(run("node", "peers", "--home", str(brand))[1]) == []
    assert run("node", "trust", card, "--home", str(brand))[0] == 0
    assert error_of("job", "list", "--home", brand)[1] == "node.not_running"
    code, out = run("audit", "checkpoint", "--home", str(brand))
    note = json.loads(out)["checkpoint"]
    assert int(note.splitlines()[1]) >= 0
    assert run("audit", "fsck", "--home", str(brand))[0] == 0


def test_a_score_job_may_name_its_model_by_this_nodes_own_names(tmp_path: Path) -> None:
    from parties.errors import NodeError
    from parties.private_files import write_json
    from pec.cli_job import _named_model

    home = Home.create(tmp_path / "b", "shop")
    (home.path / "models").mkdir()
    entry = {
        **{"name": "boost.bank", "version": 1, "job_id": "b-1", "kind": "boost", "method": "boost"},
        **{"role": "brand", "peer": "bank", "agreement": "a1", "purpose": "ads", "snapshot": "s"},
        **{"people": 1, "created_at": "2026-01-01T00:00:00Z", "expires_at": "2099-01-01T00:00:00Z"},
    }
    write_json(home.path / "models" / "b-1.model.json", entry)
    write_json(home.path / "models" / "aliases.json", {"champion": "b-1"})
    for name in ("b-1", "champion", "boost.bank@1", "boost.bank"):
        assert _named_model(home.path, {"model": name}) == {"model": "b-1", "method": "boost"}
    assert _named_model(home.path, {"model": "b-1", "method": "joint-lr"})["method"] == "joint-lr"
    with pytest.raises(NodeError, match=r"model\.unknown"):
        _named_model(home.path, {"model": "challenger"})


def test_a_job_takes_the_columns_that_a_feature_report_selected(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "b", "shop")
    reports = {"report-1": ["x", "城市"], "report-2": [], "boost-1": None}
    for name, selected in reports.items():
        folder = home.path / "jobs" / name
        folder.mkdir(parents=True)
        (folder / "job.json").write_text("{}")
        found = {"auc": 0.7} if selected is None else {"selected": selected, "minimum_iv": 0.02}
        (folder / "result.json").write_text(json.dumps(found))
    assert _selected(home.path, "report-1") == ["x", "城市"]
    for name, words in (
        ("report-2", "no column"),
        ("boost-1", "no feature-report"),
        ("none", "no feature-report"),
    ):
        with pytest.raises(PecError, match=rf"pec\.input.*{words}"):
            _selected(home.path, name)
    given = ("--kind", "boost", "--agreement", "a1", "--category", "p", "--home", str(home.path))
    given += ("--brand-data", "d", "--provider-data", "d", "--selected-by")
    assert error_of("job", "submit", *given, "report-2")[1] == "pec.input"
    assert error_of("job", "submit", *given, "report-1")[1] == "node.not_running"
    assert error_of("job", "submit", *given, "report-1", "--column", "x")[1] == "pec.usage"


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(b"no zip")
    code, out = run("audit", "verify", str(path))
    assert code == 3 and '"ok": false' in out
    assert error_of("audit", "verify", tmp_path / "absent.zip")[1] == "bundle.unreadable"


def test_pages_of_help_render() -> None:
    for path, _ in commands():
        result = CliRunner().invoke(cli, [*path.split()[1:], "--help"])
        assert result.exit_code == 0 and "Usage:" in result.output, path


def test_python_m_pec_is_the_command() -> None:
    """What scripts/demo calls."""
    done = subprocess.run(
        [sys.executable, "-m", "pec", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("pec")


def test_the_scripts_say_why_they_cannot_start(tmp_path: Path) -> None:
    """Also through a symbolic link, and from a directory that is not theirs."""
    here = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", here / "scripts")
    for name in ("setup.cfg", "constraints.txt"):
        shutil.copy(ROOT / name, here)
    link = tmp_path / "demo"
    link.symlink_to(here / "scripts" / "demo")

    def start(**environment: str) -> tuple[int, str]:
        env = {**os.environ, **environment}
        done = subprocess.run([link], cwd="/", env=env, capture_output=True, text=True, timeout=240)
        return done.returncode, done.stderr

    code, text = start(PEC_PYTHON="/bin/false")
    assert code == 3 and text.startswith("PEC needs Python 3.11 or later; PEC_PYTHON=/bin/false is not that.")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "cut", "dirname", "readlink", "sha256sum", "grep"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    code, text = start(PATH=str(tools), PEC_PYTHON="")
    assert code == 3 and text.startswith("PEC needs Python 3.11 or later; found: none.\n")


def test_a_node_with_a_center_that_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path counts from where the command was given."""
    monkeypatch.chdir(tmp_path)
    init = ("node", "init", "home", "--party", "shop", "--consent")
    assert error_of(*init, "shared/consent")[:2] == (2, "pec.file")
    assert run("consent", "init", "--home", "shared", "--controller", "shop")[0] == 0
    assert run(*init, "shared/consent")[0] == 0
    code, out = run("node", "card", "--home", "home")
    assert code == 0 and json.loads(out)["document"]["party"] == "shop"
    assert run("node", "init", "far", "--party", "shop", "--consent", "http://127.0.0.1:9#rest.token")[0] == 0
    assert str(tmp_path / "rest.token") in Path("far/node.toml").read_text()
    monkeypatch.delenv("PEC_CONSENT_TOKEN_FILE", raising=False)
    bare = ("node", "init", "bare", "--party", "shop", "--consent", "http://127.0.0.1:9")
    code, out = run(*bare)
    assert code == 0 and "PEC_CONSENT_TOKEN_FILE" in json.loads(out)["note"]
    monkeypatch.setenv("PEC_CONSENT_TOKEN_FILE", str(tmp_path / "rest.token"))
    assert "note" not in json.loads(run("node", "init", "told", *bare[3:])[1])


def test_a_draft_that_could_never_serve() -> None:
    draft = ("node", "agreement", "draft", "--id", "a", "--brand", "b", "--provider", "p", "--purpose", "u")
    draft += ("--category", "c", "--kind")
    assert error_of(*draft, "overlapp")[1] == "pec.usage"
    assert error_of(*draft, "overlap", "--preapproved", "lookalike")[1] == "pec.usage"
    assert error_of(*draft, "enrich")[1] == "pec.usage"
    assert run(*draft, "enrich", "--tag", "city")[0] == 0
    for kind in plan.NOISELESS:
        assert error_of(*draft, "lookalike", "--kind", kind)[1] == "pec.usage"
        assert run(*draft, kind, "--no-noise")[0] == 0
    assert "--total-epsilon 1 " in error_of(*draft, "lookalike", "--epsilon", "2", "--total-epsilon", "1")[2]
    assert "--total-delta 1e-07 " in error_of(*draft, "lookalike", "--total-delta", "1e-7")[2]
    assert run(*draft, "lookalike", "--epsilon", "2", "--total-epsilon", "2")[0] == 0


def test_a_models_end_may_be_a_day_and_what_was_set_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kept:
        """A registry of one model."""

        name, version, job_id, aliases, expires_at, standing_below = "boost.p", 1, "b-1", (), "", 0.5

        def state(self, now: Any) -> str:
            return "active"

        def to_document(self) -> dict[str, Any]:
            names = ("name", "version", "job_id", "expires_at", "standing_below")
            return {name: getattr(self, name) for name in names}

        def expire(self, reference: str, at: str) -> Any:
            self.expires_at = at
            return self

        def declare(self, reference: str, standing_below: float) -> Any:
            self.standing_below = standing_below
            return self

    monkeypatch.setattr(cli_model, "_models", lambda home: (None, Kept()))

    def told(*options: str) -> str:
        return CliRunner().invoke(cli, ["model", "expire", "m", *options]).output

    assert told("--at", "2027-01-31").endswith("active, ends at 2027-01-31T00:00:00Z\n")
    assert told("--at", "2027-01-31T08:00:00Z").endswith("active, ends at 2027-01-31T08:00:00Z\n")
    assert "flagged below 0.95 of" in told("--standing-below", "0.95")


def test_cells_of_a_table_are_words() -> None:
    assert shortened(["a", 2]) == "a, 2" and shortened(()) == "none" and shortened("x") == "x"
    assert shortened({"epsilon": 2.0, "delta": 1e-6, "set": True}) == "epsilon 2, delta 1e-06, set yes"
    assert shortened([{"a": [1, 2]}, {"b": None}]) == "a 1, 2; b -"
    assert len(shortened(["x" * 50] * 9)) == 118
    out = io.StringIO()
    Console(file=out, width=100).print(cli_agreement._terms({"kinds": ["overlap"], "privacy": None}))
    assert "no noise" in out.getvalue() and "[" not in out.getvalue()


def test_a_card_of_a_node_that_has_not_run_and_one_that_is_there(tmp_path: Path) -> None:
    home, card = str(tmp_path / "n"), str(tmp_path / "card.json")
    assert run("node", "init", home, "--party", "shop")[0] == 0
    answer = CliRunner().invoke(cli, ["node", "card", "--home", home, "--out", card])
    assert answer.exit_code == 0 and "port 0" in answer.output
    before = Path(card).stat().st_mtime_ns
    code, name, text = error_of("node", "card", "--home", home, "--out", card)
    assert (code, name) == (2, "pec.output") and "--force" in text
    assert Path(card).stat().st_mtime_ns == before
    assert run("node", "card", "--home", home, "--out", card, "--force")[0] == 0
    assert json.loads(Path(card).read_text())
    other = str(tmp_path / "m")
    assert run("node", "init", other, "--party", "bank", "--listen", "127.0.0.1:7010")[0] == 0
    assert "port 0" not in CliRunner().invoke(cli, ["node", "card", "--home", other]).output


def test_the_suites_of_a_draft_and_the_method_of_an_overlap() -> None:
    draft = ("node", "agreement", "draft", "--id", "a", "--brand", "b", "--provider", "p", "--purpose", "u")
    draft += ("--category", "c", "--kind", "overlap")
    assert json.loads(run(*draft)[1])["suites"] == ["ecdh", "vole"]
    assert json.loads(run(*draft, "--suite", "private_join")[1])["suites"] == ["private_join"]
    assert error_of(*draft, "--suite", "magic")[1] == "pec.usage"
    assert "malicious_security" not in json.loads(run(*draft)[1])
    assert json.loads(run(*draft, "--malicious-security")[1])["malicious_security"] is True
    assert json.loads(run(*draft, "--standard-errors")[1])["standard_errors"] is True
    assert error_of(*draft, "--malicious-security", "--suite", "ecdh")[1] == "pec.usage"
    assert error_of(*draft, "enrich", "--kind", "enrich", "--malicious-security")[1] == "pec.usage"
    assert plan.outputs("overlap", {"method": "private_join"}) == {"count": "both"}
    assert plan.outputs("overlap", {}) == plan.outputs("overlap", {"method": "align"}) == {"count": "brand"}
    made = cli_job._request(
        {}, dict.fromkeys(OPTIONS) | {"kind": "overlap", "method": "private_join"} | LISTS
    )
    assert (made["params"], made["outputs"]) == ({"method": "private_join"}, {"count": "both"})
    given = dict.fromkeys(OPTIONS) | {"kind": "overlap"} | LISTS
    agreed: list[tuple[str, ...]] = [("ads",), ("ads", "more"), ()]
    purposes = [cli_job._request({}, given, lambda _, p=p: p)["purpose"] for p in agreed]
    assert purposes == ["ads", "overlap", "overlap"]
    assert cli_job._request({"purpose": "own"}, given, lambda _: ("ads",))["purpose"] == "own"


#: What click hands to `pec job submit`.
OPTIONS = ("provider", "purpose", "job_id", "hold_before")
LISTS = {"agreement": "a", "brand_data": "x", "provider_data": "y", "categories": ("c",)}
LISTS |= {"columns": (), "params": (), "private": ()}


def test_a_request_with_a_mistake(tmp_path: Path) -> None:
    """Answered before a node is asked."""
    request = tmp_path / "request.json"
    good = {
        "kind": "overlap",
        "agreement": "a",
        "categories": ["c"],
        "datasets": {"brand": "x", "provider": "y"},
    }
    home = tmp_path / "home"
    assert run("node", "init", str(home), "--party", "shop")[0] == 0
    for change, named in (
        ({"agrement": "a"}, "agrement"),
        ({"agreement": ""}, "agreement"),
        ({"categories": []}, "--category"),
        ({"datasets": {"brand": "x"}}, "--provider-data"),
    ):
        request.write_text(json.dumps({**good, **change}), encoding="utf-8")
        code, error, text = error_of("job", "submit", request, "--home", home)
        assert (code, error) == (2, "pec.usage") and named in text
    request.write_text(json.dumps(good), encoding="utf-8")
    assert error_of("job", "submit", request, "--home", home)[1] == "node.not_running"


def test_a_node_that_was_killed(tmp_path: Path) -> None:
    """It left node.run.json behind."""
    home = tmp_path / "home"
    assert run("node", "init", str(home), "--party", "shop")[0] == 0
    (home / "node.run.json").write_text('{"party": "shop", "address": "127.0.0.1:9", "port": 9, "pid": 1}')
    for command in (("node", "status"), ("job", "list")):
        code, error, text = error_of(*command, "--home", home)
        assert (code, error) == (1, "pec.node") and f"pec node run {home}" in text


def test_a_job_for_people() -> None:
    """What a provider's operator sees before approving, times and figures as people read them."""
    spec = {
        "datasets": {"brand": "leads", "provider": "people"},
        "categories": ["usage"],
        "columns": ["city"],
    }
    spec |= {"params": {"bins": 4}, "expires_at": "2026-03-08T00:00:00Z"}
    job = {"job_id": "j", "state": "succeeded", "created_at": 1.7e9, "spec": spec}
    job |= {"result": {"recall_at": {"5": 0.123456}, "auc_interval": [0.76543, 0.8], "rows": 3}}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(cli_job._show(job))
    shown = console.export_text()
    for text in (
        "2023-11-14 22:13:20 UTC",
        "leads",
        "usage",
        "city",
        "bins",
        "2026-03-08",
        "best %",
        "recall",
        "0.1235",
        "0.7654, 0.8",
    ):
        assert text in shown, text
    assert cli_job._on_its_way({"job_id": "j", "state": "held"}, "cancelling").startswith("j: cancelling;")
    assert cli_job._on_its_way({"job_id": "j", "state": "cancelled"}, "cancelling") == "j: cancelled"


def test_a_status_shows_what_happened_last() -> None:
    """A peer that nobody trusts knocked: that stands in the log, and here."""
    event = {
        "time": "2026-11-22T03:29:26.479+00:00",
        "level": "warn",
        "code": "transport.handshake",
        "text": "t" * 90,
    }
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(cli_node._status({"party": "bank", "peers": ["shop", "mall"], "events": [event] * 30}))
    shown = console.export_text()
    assert "shop, mall" in shown and shown.count("t" * 90) == 10 and "2026-11-22T03:29:26" in shown


def test_watching_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    """That the time is over says nothing against the node; that it is silent before does."""

    class Client:
        def watch(self, job_id: str, timeout: float | None) -> Iterator[dict[str, object]]:
            yield {"job_id": job_id, "state": "held"}
            raise NodeError("transport.silent", "no answer in time")

    with pytest.raises(PecError) as late:
        cli_job._watch(Client(), "j", True, 0.0)
    assert late.value.code == "pec.timeout" and "still held" in late.value.detail
    with pytest.raises(NodeError):
        cli_job._watch(Client(), "j", True, 60.0)
    capsys.readouterr()


def test_a_bundle_without_cards_is_only_consistent() -> None:
    key = {"fingerprint": "ab12", "identity_key": "cd", "verifier_key": "shop+1+x"}
    one = {"bundle": "a.zip", "ok": True, "checks": [], "keys": {"shop": key}}
    for trusted, ok, word in (
        (True, True, "verified"),
        (False, True, "--trust"),
        (False, False, "NOT VERIFIED"),
    ):
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(cli_audit._show({"ok": ok, "trusted": trusted, "bundles": [{**one, "ok": ok}]}))
        text = console.export_text()
        assert word in text and "shop: fingerprint ab12" in text


def test_help_of_the_consent_center_imports_none_of_it() -> None:
    """The table of commands says what their modules say, and is all that `pec consent --help` needs."""
    from pec.cli_consent import COMMANDS, consent

    context = click.Context(consent)
    for name, (_, text) in COMMANDS.items():
        command = consent.get_command(context, name)
        assert command is not None and command.name == name
        said = (command.help or "").replace("\n", " ")
        assert said.startswith(text.rstrip(" ….").removesuffix(", deletion")), name
    heavy = "[m for m in ('sqlalchemy', 'pyarrow', 'numba', 'scipy') if m in sys.modules]"
    call = "cli(['consent', '--help'], standalone_mode=False)"
    code = f"import sys; from pec.cli import cli; {call}; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_nested_results_are_printed_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    result = {
        "count": 1234,
        "auc": 0.712345,
        "auc_interval": [0.7, 0.7234567],
        "notes": [],
        "recall_at": {"1": 0.25, "5": 0.5},
        "columns": [{"column": f"c{n}", "iv": n / 3, "bins": [{"people": 1}]} for n in range(40)],
        "speed[red]": {"auc": 0.75, "calibration": {"brier": 0.125}},
        "intervals": {"auc": {"low": 0.5, "high": 0.625}, "ks": {"low": 0.25, "high": 0.375}},
        "empty": {},
    }
    cli_common.emit(result, False, figure_tables.figures)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert any("count" in line and "1,234" in line for line in lines)
    assert any("auc_interval" in line and "0.7, 0.7235" in line for line in lines)
    assert {"of the best so many per cent", "speed[red]", "speed[red] · calibration", "intervals"} <= set(
        lines
    )
    assert "columns (the first 25 of 40; all with --json)" in lines
    assert any(line.split("│")[1:4] == [" auc ", "  0.5 ", " 0.625 "] for line in lines), lines
    assert sum("c1" in line for line in lines) == 11 and not any("{" in line for line in lines)


def _printed(result: dict[str, object], **options: bool) -> list[list[str]]:
    """The cells of each printed line."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(figure_tables.figures(result, **options))
    return [[cell.strip() for cell in line.split("│")] for line in console.export_text().splitlines()]


def test_a_feature_reports_bins_are_a_row_each_on_request() -> None:
    bins = [{"bin": b, "people": 10 + b, "rate": 0.5, "woe": 0.25} for b in range(2)]
    columns = [
        {"column": "income", "iv": 0.171, "missing_rate": 0.1, "bins": bins, "bins_suppressed": 0},
        {"column": "age", "iv": 0.1, "missing_rate": 0.0, "bins": bins, "bins_suppressed": 1},
    ]
    short, long = _printed({"columns": columns}), _printed({"columns": columns}, bins=True)
    assert ["", "income", "0.171", "0.1", "2", "0", ""] in short
    assert not any("woe" in " ".join(cells) for cells in short)
    assert ["", "income", "missing", "10", "0.5", "0.25", ""] in long
    assert ["", "", "1", "11", "0.5", "0.25", ""] in long and [
        "",
        "age",
        "0",
        "10",
        "0.5",
        "0.25",
        "",
    ] in long


def test_what_belongs_together_is_one_table() -> None:
    shown = _printed(
        {
            "weights": {"age": 0.5, "tenure": -0.25},
            "errors": {"age": 0.25, "tenure": 0.125},
            "p_values": {"age": 0.0455, "tenure": 0.0455},
            "recall_at": {"1": 0.125, "5": 0.5},
            "lift_at": {"1": 12.5, "5": 10.0},
            "reach": [[1, 0.75], [20, 0.5]],
            "notes": ["a: dropped, constant", "b: dropped, nested"],
        }
    )
    assert ["", "age", "0.5", "0.25", "2", "0.0455", ""] in shown
    assert ["", "tenure", "-0.25", "0.125", "-2", "0.0455", ""] in shown
    assert ["", "5", "0.5", "10", ""] in shown and ["", "20", "0.5", ""] in shown
    assert ["", "a: dropped, constant", ""] in shown and ["", "b: dropped, nested", ""] in shown


def test_ctrl_c_while_watching_says_that_the_job_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Client:
        def watch(self, job_id: str, timeout: float | None) -> Iterator[dict[str, object]]:
            yield {"job_id": job_id, "state": "running"}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cli_job._watch(Client(), "j7", True)
    assert "pec job watch j7" in capsys.readouterr().err


def test_a_typed_center_outweighs_a_home_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pec.consent_options import where

    @click.command()
    @where
    def command(location: str | None) -> None:
        click.echo(location)

    def asked(*arguments: str) -> str:
        return CliRunner().invoke(command, arguments).output.strip()

    monkeypatch.setenv("PEC_HOME", str(tmp_path / "node"))
    assert asked("--center", "c") == "c" and asked() == str(tmp_path / "node" / "consent")
    monkeypatch.setenv("PEC_CONSENT", "http://127.0.0.1:1")
    assert asked("--home", "h") == "h/consent" and "not both" in asked()
    assert "not both" in asked("--home", "h", "--center", "c")


def test_the_table_of_exit_codes_is_whole() -> None:
    """Every command that ends with a result and another exit code than 0 stands in the row of that code."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = {int(m[1]): m[0] for m in re.finditer(r"^\| (\d+) \|.*$", text, re.MULTILINE)}
    assert set(rows) == {0, EXIT_FAILED, EXIT_INPUT, EXIT_REFUSED, EXIT_INTERRUPTED}
    named = {code: set(re.findall(r"`(pec [a-z -]+)`", row)) for code, row in rows.items()}
    found: dict[int, set[str]] = {code: set() for code in rows}
    for path, command in commands():
        source = inspect.getsource(inspect.unwrap(command.callback))  # type: ignore[arg-type]
        if "return _run(" in source:
            path, source = path.rpartition(" ")[0], inspect.getsource(cli_simulate._run)
        assert not re.search(r"(return|else) [1-9]\b", source), f"{path}: name the code"
        for code, name in ((EXIT_FAILED, "EXIT_FAILED"), (EXIT_REFUSED, "EXIT_REFUSED")):
            if name in source:
                found[code].add(path)
    assert found[EXIT_FAILED] and found[EXIT_REFUSED]
    assert named == found


def test_every_error_code_has_an_exit_code_of_the_table() -> None:
    """And a refusal by an agreement or by consent is none of the input, wherever it comes from."""
    tables = (consent_errors.CODES, party_errors.CODES, protocol_errors.CODES, pec_errors.CODES)
    codes = [code for table in tables for code in table]
    assert {exit_code_of(code) for code in codes} == {EXIT_FAILED, EXIT_INPUT, EXIT_REFUSED, EXIT_INTERRUPTED}
    for code in codes:
        if code.startswith(("agreement.", "consent.")):
            assert exit_code_of(code) == EXIT_REFUSED, code
        if code.startswith(("dataset.", "rows.", "registry.")) or code in ("pec.usage", "pec.file"):
            assert exit_code_of(code) == EXIT_INPUT, code


def test_the_consent_commands_do_without_pandas() -> None:
    """Their modules do not import it, so that they may shut it out; `pec consent` is then quicker."""
    modules = [path.stem for path in (ROOT / "pec").glob("cli_consent*.py")] + ["cli_preference"]
    code = (
        "import importlib, sys; from consent_center import no_pandas; no_pandas.keep_out()\n"
        f"for name in {modules}: importlib.import_module('pec.' + name)\n"
        "import consent_center.center, consent_center.rest.app, pyarrow as pa\n"
        "pa.array(['a', None]); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    for name in modules:
        assert "pandas" not in (ROOT / "pec" / f"{name}.py").read_text(encoding="utf-8"), name


def test_options_of_a_lookalike_become_the_job_that_both_sign(
    two_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pec import simulate as simulation

    seen: list[simulation.Inputs] = []

    def stop(inputs: simulation.Inputs, **_: object) -> None:
        seen.append(inputs)
        raise PecError("pec.internal", "far enough")

    monkeypatch.setattr(simulation, "run", stop)
    files = ("--brand", two_files[0], "--provider", two_files[1])
    shape = (
        "--features",
        "crosses",
        "--alpha",
        "8",
        "--l1-ratio",
        "0.75",
        "--hidden-share",
        "0.1",
        "--bags",
        "3",
    )
    error_of(
        *SIMULATE, *files, "--label", "loyal", *shape, "--epsilon", "8", "--delta", "1e-5", "--clip", "4"
    )
    (inputs,) = seen
    assert inputs.params == {"features": "crosses", "l1": 6.0, "l2": 2.0, "bags": 3}
    assert (inputs.epsilon, inputs.delta, inputs.clip) == (8.0, 1e-5, 4.0)
    made = simulation._request(simulation.prepare(inputs))
    assert made["params"] == inputs.params and made["private"]["hidden_share"] == 0.1
    code, name, text = error_of(*SIMULATE, *files, "--delta", "1e-5")
    assert code == 2 and "--epsilon" in text and len(seen) == 1


class Finished:
    """An operator's client of a node with one job."""

    def __init__(self, folder: Path, state: str, files: list[str]) -> None:
        self.found = {"state": state, "kind": "score", "path": str(folder), "files": files}

    def job(self, _: str) -> dict[str, Any]:
        return self.found


def test_scores_of_a_job_come_best_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"row": [4, 1, 9], "speed": [0.2, 0.9, 0.5], "combined": [0.3, 0.3, 0.8]})
    frame["grade"] = ["D", "C", "A"]
    frame.to_parquet(tmp_path / "scores.parquet")
    for state, files, code in (
        ("running", [], "pec.job_failed"),
        ("succeeded", ["result.json"], "pec.input"),
        ("succeeded", ["scores.parquet"], ""),
    ):
        client = Finished(tmp_path, state, files)
        monkeypatch.setattr("pec.cli_scores.client_of", lambda _, c=client: contextlib.nullcontext(c))
        if code:
            assert error_of("job", "scores", "j")[1] == code
    told = json.loads(run("job", "scores", "j", "--best", "2")[1])
    assert told["rows"] == 3 and [line["row"] for line in told["scores"]] == [9, 1]
    out = tmp_path / "all.csv"
    assert run("job", "scores", "j", "--out", str(out))[0] == 0
    assert pd.read_csv(out)["row"].tolist() == [9, 1, 4] and pd.read_csv(out)["grade"].tolist() == [
        "A",
        "C",
        "D",
    ]
