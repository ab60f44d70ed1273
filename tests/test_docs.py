"""The documentation is complete: every error code and every command stands in it."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Processes that run until they are stopped and print no result.
WITHOUT_RESULT = {"pec node run"}
PACKAGES = ("protocols", "consent_center", "parties", "pec")


def page(name: str) -> str:
    path = ROOT / "docs" / name
    if not path.is_file():
        pytest.skip(f"NOT RUN: docs/{name} is not written yet")
    return path.read_text(encoding="utf-8")


def documented() -> dict[str, dict[str, str]]:
    """docs/errors.md as {package: {code: what to do}}."""
    found: dict[str, dict[str, str]] = {}
    package = ""
    for line in (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## (\w+)/", line):
            package = heading[1]
            found[package] = {}
        elif row := re.fullmatch(r"\| `([a-z_.]+)` \| (.+?) \| (.+?) \|", line):
            assert row[1] not in found[package], f"{row[1]} stands twice in docs/errors.md"
            found[package][row[1]] = row[3]
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_every_error_code_is_documented(package: str) -> None:
    codes = importlib.import_module(f"{package}.errors").CODES
    listed = documented()[package]
    assert set(codes) - set(listed) == set(), "codes without a line in docs/errors.md"
    assert set(listed) - set(codes) == set(), "lines in docs/errors.md for codes that no longer exist"
    for code in codes:
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", code)
        assert len(listed[code].split()) >= 3, f"{code}: say what to do"


def test_the_hints_of_the_code_are_those_of_the_documentation(tmp_path: Path) -> None:
    """Run scripts/gen_hints after a change of docs/errors.md."""
    loader = importlib.machinery.SourceFileLoader("gen_hints", str(ROOT / "scripts" / "gen_hints"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gen_hints", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    module.generate(tmp_path / "hints.py")
    assert (tmp_path / "hints.py").read_text() == (ROOT / "parties" / "hints.py").read_text()


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group, info_name=path)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, f"{path} {name} is listed and can't be loaded"
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_command_is_documented_and_takes_json() -> None:
    from pec.cli import cli

    text = page("cli.md") + page("consent.md")  # cli.md sends readers there for `pec consent`
    known = dict(commands(cli, "pec"))
    assert len(known) > 10
    missing = [path for path in known if path not in text]
    assert missing == [], "commands that neither docs/cli.md nor docs/consent.md names"
    for path, command in known.items():
        assert command.help, f"{path} says nothing of itself"
        if path not in WITHOUT_RESULT:
            assert any("--json" in p.opts for p in command.params), f"{path} lacks --json"


@pytest.mark.parametrize("name", ["consent.md", "console.md", "errors.md", "cli.md"])
def test_commands_in_the_documentation_exist(name: str) -> None:
    """A command line in the documentation names a command and options that there are."""
    from pec.cli import cli

    text = page(name)
    spans = re.findall(r"`(pec [^`\n]+)`", text)
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        spans += [line for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.startswith("pec ")]
    for span in spans:
        words, command, ctx = span.split()[1:], cli, click.Context(cli, info_name="pec")
        while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
            found = command.get_command(ctx, words[0])
            assert found is not None, f"docs/{name}: `{span}`: there is no {words[0]!r}"
            command, words = found, words[1:]  # type: ignore[assignment]
        options = {o for p in command.params for o in p.opts} | {"--help", "--version", "-h"}
        for word in words:
            option = word.partition("=")[0]
            assert not option.startswith("--") or option in options, f"docs/{name}: `{span}` has no {option}"


def test_the_consent_centers_revisions_are_one_line() -> None:
    """Two changes made side by side would each be a head: renumber the later, set its `down_revision`."""
    from consent_center import schema

    assert schema.script_directory().get_heads() == [schema.head()]
