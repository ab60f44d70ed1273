"""Options and small helpers of `pec consent`: which center, who acts, times and JSON files."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from consent_center.client import CenterClient, open_center
from pec.cli_common import CliError, table

F = TypeVar("F", bound=Callable[..., Any])


def where(command: F) -> F:
    """`--home` and `--center`: one of them says which center is meant; the command gets `location: str`."""

    def chosen(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if param.name == "home":
            ctx.meta["pec.home"] = value
            return value
        home = ctx.meta.get("pec.home")
        if value and home:
            # What was typed outweighs the environment.
            typed = [name for name in ("home", param.name) if _typed(ctx, name)]
            if typed == [param.name]:
                return value
            if typed == ["home"]:
                return center_in(Path(home))
            raise click.UsageError("give --home or --center, not both")
        return value or (center_in(Path(home)) if home else None)

    command = click.option(
        "--center",
        "location",
        metavar="DIR|URL",
        envvar="PEC_CONSENT",
        callback=chosen,
        help="A center's directory, or the URL of one that is served (URL#TOKEN-FILE).",
    )(command)
    return click.option(
        "--home",
        metavar="DIR",
        envvar="PEC_HOME",
        callback=chosen,
        is_eager=True,
        expose_value=False,
        help="A node's home, whose center is in DIR/consent, or a center's own directory.",
    )(command)


def _typed(ctx: click.Context, name: str | None) -> bool:
    return name is not None and ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def center_in(home: Path) -> str:
    """The center of a node's home; `home` itself where a stand-alone center is and none of a node."""

    def holds(folder: Path) -> bool:  # without the database's modules, which take time to import
        return (folder / "center.db").is_file() or (folder / "database.url").is_file()

    return str(home if holds(home) and not holds(home / "consent") else home / "consent")


def here_if_unsaid(location: str | None) -> str:
    """The center that was named, or the one of the current directory."""
    return location or center_in(Path())


def open_at(location: str | None) -> CenterClient:
    if not location:
        raise click.UsageError("which center? Give --home DIR or --center DIR|URL")
    return open_center(location)


def directory(location: str | None) -> Path:
    if not location:
        raise click.UsageError("which center? Give --home DIR or --center DIR")
    if "://" in location:
        raise CliError("pec.usage", f"{location} is a URL", "this command works on a center's directory only")
    return Path(location)


def actor() -> str:
    """Who did it, for the ledger: PEC_ACTOR, or the login name."""
    return os.environ.get("PEC_ACTOR") or os.environ.get("USER") or f"uid-{os.getuid()}"


def document(path: str) -> Any:
    """A JSON file, or standard input for `-`."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CliError(
            "pec.input", f"{path} is no JSON: {error}", "write one JSON object, in UTF-8"
        ) from error


def moment(text: str | None, what: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no time; write 2026-03-01T08:00:00+08:00", param_hint=what
        ) from error
    if moment.tzinfo is None:
        raise click.BadParameter(f"{text!r} lacks its offset from UTC, for instance +08:00", param_hint=what)
    return moment


def facts(data: dict[str, Any]) -> Any:
    return table(("", ""), [(k.replace("_", " "), short(v)) for k, v in data.items()])


def short(value: Any) -> Any:
    """A value as a cell of a table shows it."""
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value


def plain(entry: Any) -> dict[str, Any]:
    """A dataclass of the consent center as a dict."""
    return dataclasses.asdict(entry)


def checkpoint_of(file: str) -> str:
    """The signed note in a file that holds the output of `pec consent checkpoint`, in either form."""
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8", errors="replace")
    if text.lstrip().startswith("{"):
        try:
            text = str(json.loads(text)["checkpoint"])
        except (ValueError, KeyError, TypeError) as error:
            hint = "give a file that `pec consent checkpoint` printed"
            raise CliError("pec.input", f"{file} holds no checkpoint", hint) from error
    return text.partition("\nverifier key: ")[0].rstrip("\n") + "\n"
