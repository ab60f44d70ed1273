"""What all commands share: `--json`, tables, progress on standard error, errors and exit codes.

A command looks like this:

    @group.command()
    @json_option
    def show(as_json: bool) -> None:
        with progress("reading", total=rows) as bar:
            bar.advance(1000)
        emit(data, as_json, lambda d: table(("reason", "people"), d["out"].items()))

and `pec.cli.main` is `sys.exit(run(cli))`. Results go to standard output, everything else to standard error.
With `--json`, the last line of standard output is one JSON value: the result, or `{"error": {...}}`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from pec.errors import EXIT_FAILED, EXIT_INPUT, PecError, exit_code_of

F = TypeVar("F", bound=Callable[..., Any])
_JSON_KEY = "pec.json"
_PLAIN_EVERY = 2.0  # seconds between two progress lines where standard error is no terminal


class CliError(PecError):
    """An error that a command raises itself: `CliError("pec.file", "no such file: x.csv", "check it")`."""


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    if value:
        ctx.find_root().meta[_JSON_KEY] = True
    return value


def json_option(command: F) -> F:
    """Adds `--json`; the command gets `as_json: bool`."""
    return click.option(
        "--json", "as_json", is_flag=True, callback=_remember, help="Print the result as one line of JSON."
    )(command)


def json_wanted() -> bool:
    ctx = click.get_current_context(silent=True)
    return bool(ctx and ctx.find_root().meta.get(_JSON_KEY))


def console(stderr: bool = False) -> Console:
    """A console of today's stream. A pipe has no width, so tables are not cut at 80 columns there."""
    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() else 160
    return Console(file=stream, width=wide, highlight=False, soft_wrap=False)


def emit(data: Any, as_json: bool, render: Callable[[Any], Any] | None = None) -> None:
    """Prints a result. `render(data)` returns a string or anything that rich prints (or prints by itself)."""
    if as_json:
        click.echo(json.dumps(data, ensure_ascii=False, default=_plain, allow_nan=False))
        return
    shown = render(data) if render else json.dumps(data, ensure_ascii=False, default=_plain, indent=2)
    if isinstance(shown, str):
        click.echo(shown)
    elif shown is not None:
        console().print(shown)


def _plain(value: Any) -> Any:
    for method in ("isoformat", "tolist", "hex"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """Numbers stand on the right. Cells are printed as they are: no markup is read out of data."""
    materialised = [tuple(row) for row in rows]
    out = Table(title=title, title_justify="left", header_style="bold", show_header=any(columns))
    for i, name in enumerate(columns):
        cells = [r[i] for r in materialised if r[i] is not None]
        numeric = bool(cells) and all(isinstance(c, int | float) and not isinstance(c, bool) for c in cells)
        out.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in materialised:
        out.add_row(*(_cell(value) for value in row))
    return out


def time_text(value: Any) -> Any:
    """Seconds since 1970, as a node keeps them, for people; text as it is."""
    if isinstance(value, str):
        return value
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def account_rows(account: dict[str, Any]) -> list[tuple[str, Any]]:
    """An agreement's privacy account in rows for `table`."""
    total = account["total"]
    rows: list[tuple[str, Any]] = [
        ("total", "none: counted, nothing is refused")
        if total is None
        else ("total", f"ε {total['epsilon']:g}, δ {total['delta']:g}"),
        ("spent", f"ε {account['epsilon_spent']:.4g}"),
    ]
    if account["share_spent"] is not None:
        rows.append(("share spent", f"{account['share_spent']:.0%}"))
    if account["epsilon_left"] is not None:
        at = account.get("epsilon_left_delta")
        largest = f"{account['epsilon_left']:.4g}" + (f" at δ {at:g}" if at else "")
        rows.append(("largest ε that one more lookalike may have", largest))
    if account["jobs_left"] is not None:
        rows.append(("lookalikes left, at the agreement's ε", account["jobs_left"]))
    if account.get("spent_by_this_job"):
        rows += [
            ("spent by this job", f"ε {s['epsilon']:g}, δ {s['delta']:g}")
            for s in account["spent_by_this_job"]
        ]
    return rows


def _cell(value: Any) -> Any:
    from rich.text import Text

    if value is None:
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    return Text(f"{value:.4g}" if isinstance(value, float) else printable(str(value)))


def printable(text: str) -> str:
    """Control characters escaped: data must not steer the terminal of whoever reads it."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)


class Bar:
    """What `progress` hands out: `advance(k)`, or `update(done, total)` with absolute numbers."""

    def __init__(self, what: str, total: float | None, show: Callable[[Bar], None]) -> None:
        self.what, self.total, self.done, self._show = what, total, 0.0, show

    def advance(self, amount: float = 1) -> None:
        self.update(self.done + amount)

    def update(self, done: float, total: float | None = None, what: str | None = None) -> None:
        self.done = done
        self.total = self.total if total is None else total
        self.what = what or self.what
        self._show(self)


@contextmanager
def progress(what: str, total: float | None = None, silent: bool | None = None) -> Iterator[Bar]:
    """A bar on standard error; plain lines, at most one in two seconds, where that is no terminal.

    `silent` defaults to whether the running command was given `--json`.
    """
    if json_wanted() if silent is None else silent:
        yield Bar(what, total, lambda _: None)
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console(stderr=True), transient=True) as bars:
            task = bars.add_task(what, total=total)
            yield Bar(
                what, total, lambda b: bars.update(task, description=b.what, completed=b.done, total=b.total)
            )
    else:
        yield Bar(what, total, _plain_lines())


def _plain_lines() -> Callable[[Bar], None]:
    last = time.monotonic()

    def show(bar: Bar) -> None:
        nonlocal last
        if time.monotonic() - last < _PLAIN_EVERY:
            return
        last = time.monotonic()
        of = f" of {bar.total:,.0f}" if bar.total else ""
        note(f"{bar.what}: {bar.done:,.0f}{of}")

    return show


def note(text: str) -> None:
    """One line for the person who watches, on standard error; nothing with `--json`."""
    if not json_wanted():
        click.echo(printable(text), err=True)


def run(cli: click.Command, argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit code: 0, 1 failed, 2 bad input, 3 refused, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in args
    try:
        # A command ends with another exit code by returning that int.
        result = cli.main(args=args, prog_name="pec", standalone_mode=False)
        return result if type(result) is int else 0
    except (click.Abort, KeyboardInterrupt):
        return report("pec.interrupted", "stopped", "", as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_INPUT
    except click.ClickException as error:
        return report("pec.usage", error.format_message(), _usage_hint(error), as_json)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone. Nothing may be written any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if os.environ.get("PEC_DEBUG"):
            traceback.print_exc()
        return report(*describe(error), as_json)


def _usage_hint(error: click.ClickException) -> str:
    ctx = getattr(error, "ctx", None)
    return f"see: {ctx.command_path} --help" if ctx else "see: pec --help"


def describe(error: BaseException) -> tuple[str, str, str]:
    """(code, what, hint) of any exception: ours by their `code`, the rest by kind."""
    code = getattr(error, "code", None)
    if isinstance(code, str) and re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code):
        what = str(getattr(error, "detail", "") or error).removeprefix(f"{code}: ")
        return code, what, str(getattr(error, "hint", ""))
    if callable(code) and callable(getattr(error, "details", None)):  # grpc.RpcError, without importing grpc
        detail = f"{error.details() or code()}"  # type: ignore[attr-defined]
        return "pec.node", detail, "check that the node runs (pec node run) and that its address is right"
    if isinstance(error, OSError) and error.filename is not None:
        return (
            "pec.file",
            f"{error.strerror or error}: {error.filename}",
            "check the path and its permissions",
        )
    what = f"{type(error).__name__}: {error}"
    return "pec.internal", what, "run again with PEC_DEBUG=1 for the trace, and report it"


def report(code: str, what: str, hint: str, as_json: bool) -> int:
    """Prints an error where it belongs and returns the exit code that goes with it."""
    exit_code = exit_code_of(code)
    if not hint and code != "pec.interrupted":
        from parties import hints

        hint = hints.of(code) or f"docs/errors.md, {code}"
    if as_json:
        error = {"code": code, "message": what, "hint": hint, "exit_code": exit_code}
        click.echo(json.dumps({"error": error}, ensure_ascii=False))
    else:
        click.echo(f"error: {code}: {printable(what)}", err=True)
        if hint:
            click.echo(f"hint: {printable(hint)}", err=True)
    return exit_code
