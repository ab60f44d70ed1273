"""What the commands about a node share: its directory, its client, JSON files in and out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from pec import plan
from pec.cli_common import emit
from pec.errors import PecError

F = TypeVar("F", bound=Callable[..., Any])
#: A kind of job.
KIND = click.Choice(list(plan.OUTPUTS))


def home_option(command: F) -> F:
    """`--home`: the node's directory, from PEC_HOME or the current one by default."""
    return click.option(
        "--home",
        type=click.Path(path_type=Path),
        envvar="PEC_HOME",
        default=".",
        show_default="$PEC_HOME, or the current directory",
        help="The node's directory.",
    )(command)


@contextmanager
def client_of(home: Path) -> Iterator[Any]:
    """The operator's client of the running node in `home`, closed at the end. `pec.node` if nothing answers:
    the node's file says that it runs, and it was killed.
    """
    from parties.client import NodeClient
    from parties.errors import NodeError

    client = NodeClient(home)
    try:
        yield client
    except NodeError as error:
        if error.code != "transport.unreachable":
            raise
        raise PecError(
            "pec.node",
            f"the node in {client.home.path} does not answer at {client.run['address']}: it was killed",
            f"start it again: pec node run {client.home.path}",
        ) from error
    finally:
        client.close()


@contextmanager
def changes_of(home: Path) -> Iterator[Any]:
    """Changes of the node's directory that its ledger remembers; the node may run or not."""
    from parties.changes import Changes

    opened = home_at(home)
    with opened.center() as center:
        yield Changes(opened, center)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or from standard input for `-`. Raises `pec.file`, `pec.input`."""
    from parties import documents

    if str(path) == "-":
        return documents.parse(sys.stdin.read(), "standard input")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PecError("pec.file", f"{path}: {error.strerror}", "check the path") from None
    return documents.parse(data, f"file {path.name}")


def write_or_print(value: dict[str, Any], out: Path | None, as_json: bool, force: bool | None = None) -> None:
    """A document to a new file, or to standard output. `force`: also over an old one; None: there is no such
    option."""
    if out is None:
        emit(value, as_json)
        return
    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
    except FileExistsError:
        hint = "name another file" if force is None else "name another file, or give --force"
        raise PecError("pec.output", f"{out} is already there", hint) from None
    except OSError as error:
        raise PecError("pec.output", f"{out}: {error.strerror}") from None
    emit({"written": str(out)}, as_json, lambda d: f"written: {d['written']}")


def home_at(path: Path) -> Any:
    """The node in this directory, running or not. Raises `node.*` where there is none."""
    from parties.home import Home

    return Home.open(path)


def shortened(value: Any) -> Any:
    """A value for one cell of a table: lists and objects as words."""
    if isinstance(value, dict | list | tuple):
        text = _words(value) or "none"
        return text if len(text) < 120 else text[:117] + "…"
    return value


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        deep = any(isinstance(part, dict | list | tuple) for part in value)
        return ("; " if deep else ", ").join(map(_words, value))
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
