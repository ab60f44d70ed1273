"""The command line: quick to start, documented, and every wrong input ends in a coded error."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner
from pec_command import ROOT, pec

from pec import cli_common
from pec.cli import COMMANDS, cli


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
    began = time.monotonic()
    answer = pec("--help")
    assert answer.code == 0 and all(name in answer.out for name in COMMANDS)
    assert time.monotonic() - began < 3  # a tenth of it on an idle machine
    import subprocess

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
    import json

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
    assert run("node", "agreement", "sign", draft, "--home", str(brand), "--out", signed)[0] == 0
    assert error_of("node", "agreement", "add", signed, "--home", provider)[1] == "document.signature"
    assert run("node", "agreement", "sign", signed, "--home", str(provider), "--out", both)[0] == 0
    for home in (brand, provider):
        assert run("node", "agreement", "add", both, "--home", str(home))[0] == 0
    code, out = run("node", "agreement", "list", "--home", str(brand))
    assert [a["id"] for a in json.loads(out)] == ["a1"]
    assert error_of("job", "list", "--home", brand)[1] == "node.not_running"
    code, out = run("audit", "checkpoint", "--home", str(brand))
    note = json.loads(out)["checkpoint"]
    assert int(note.splitlines()[1]) >= 0
    assert run("audit", "fsck", "--home", str(brand))[0] == 0


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
