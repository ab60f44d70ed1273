"""`pec node data`: the files that a node may read through its consent gate. Works whether or not it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pec.cli_common import emit, json_option, table
from pec.cli_home import F, changes_of, client_of, home_at, home_option, shortened
from pec.errors import PecError


@click.group()
def data() -> None:
    """Data sets: files that the node may read through its consent gate."""


def _settings(new: bool) -> Callable[[F], F]:
    """The options of a data set; what is not given keeps its usual value, or in a change the earlier one."""
    ids = "A column that identifies people; repeat for several, the first match in this order counts."
    options = (
        click.option(
            "--id", "ids", multiple=True, required=new, metavar="COLUMN[:KIND]", help=_kept(ids, new)
        ),
        click.option(
            "--id-kind",
            default="phone",
            show_default=True,
            help="Of ids without KIND: phone, email, device, opaque.",
        ),
        click.option(
            "--duplicates",
            type=click.Choice(["first", "all", "refuse"]),
            help=_kept("Further rows of a person: left out, kept in own results, or an error.", new, "first"),
        ),
        click.option(
            "--nulls",
            type=click.Choice(["skip", "refuse"]),
            help=_kept("Rows without any valid identifier: left out and counted, or an error.", new, "skip"),
        ),
        click.option(
            "--category",
            "pairs",
            multiple=True,
            metavar="COLUMN=CATEGORY",
            help="Data category of a column." if new else "Another data category of a column.",
        ),
        click.option("--all", "everything", metavar="CATEGORY", help="Category of every other column."),
        click.option(
            "--show/--hide",
            "shown",
            default=None,
            help=_kept("Partners may see it in the catalogue of their agreement, or not.", new, "hide"),
        ),
        click.option(
            "--people",
            type=click.IntRange(min=0),
            help="What the catalogue tells of its size; rounded down to two digits, 0 tells nothing.",
        ),
    )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _kept(text: str, new: bool, usual: str = "") -> str:
    if new:
        return f"{text}  [default: {usual}]" if usual else text
    return f"{text} As before if not given."


@data.command("add")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@_settings(new=True)
@home_option
@json_option
def data_add(name: str, file: Path, ids: tuple[str, ...], home: Path, as_json: bool, **options: Any) -> None:
    """Register FILE (CSV or Parquet) under NAME. A column without a category can't be used: no consent
    covers it.
    """
    from parties.datasets import Dataset

    identifiers = _identifiers(ids, options["id_kind"])
    begun = Dataset(name, str(file), *identifiers[0], {}, tuple(identifiers[1:]))
    with changes_of(home) as changes:
        made = changes.add_dataset(_with(begun, options))
    emit(_looked_at(home, made), as_json, _made)


@data.command("change")
@click.argument("name")
@click.option("--file", type=click.Path(path_type=Path), help="Another file. As before if not given.")
@_settings(new=False)
@click.option(
    "--no-category", "closed", multiple=True, metavar="COLUMN", help="Nobody may use this column any more."
)
@home_option
@json_option
def data_change(
    name: str,
    file: Path | None,
    ids: tuple[str, ...],
    closed: tuple[str, ...],
    home: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Give data set NAME other settings; what is not named stays.

    It takes effect at once, in a running node too: a job that has begun to read it with the earlier settings
    stops at its next check. --show, --hide and --people stop none.
    """
    known = home_at(home).dataset(name)
    if file is not None:
        known = replace(known, path=str(file))
    if ids:
        identifiers = _identifiers(ids, options["id_kind"])
        known = replace(
            known,
            id_column=identifiers[0][0],
            id_kind=identifiers[0][1],
            further_ids=tuple(identifiers[1:]),
        )
    missing = [column for column in closed if column not in known.categories]
    if missing:
        raise PecError(
            "pec.column",
            f"--no-category {missing[0]}: data set {name} has no category for that column",
            f"it has: {', '.join(known.categories) or 'none'}",
        )
    # A column that identifies people is no column of theirs any more, unless --category says so.
    identifying = {column for column, _ in known.identifiers} if ids else set()
    left = {c: k for c, k in known.categories.items() if c not in closed and c not in identifying}
    made = _with(replace(known, categories=left), options, closed)
    with changes_of(home) as changes:
        done = changes.change_dataset(made)
    emit(_looked_at(home, done), as_json, _made)


@data.command("remove")
@click.argument("name")
@home_option
@json_option
def data_remove(name: str, home: Path, as_json: bool) -> None:
    """Forget data set NAME; its file stays. Jobs that wait for it end, a running one stops at its next check.

    Results that name lines of the file need it registered again.
    """
    with changes_of(home) as changes:
        done = changes.remove_dataset(name)
    emit(done, as_json, lambda d: f"data set {d['name']} is not registered any more; {d['path']} stays")


def _identifiers(ids: Sequence[str], id_kind: str) -> list[tuple[str, str]]:
    """(column, kind) of each --id."""
    from parties.datasets import ID_KINDS

    out = []
    for text in ids:
        column, _, kind = text.rpartition(":")
        out.append((column, kind) if column and kind in ID_KINDS else (text, id_kind))
    return out


def _with(dataset: Any, options: dict[str, Any], closed: Sequence[str] = ()) -> Any:
    """The data set with the settings that the options name."""
    from parties.datasets import rounded

    categories = dict(dataset.categories)
    for pair in options["pairs"]:
        column, sign, category = pair.partition("=")
        if not (column and sign and category):
            raise PecError("pec.usage", f"--category {pair!r} is no COLUMN=CATEGORY")
        categories[column] = category
    columns = [column for column, _ in dataset.identifiers]
    file = Path(dataset.path)
    if file.is_file():
        from pec import tables

        names = tables.header(file)
        for column in (*columns, *categories):
            tables.find(names, column, file)
        if options["everything"]:
            known = {tables.find(names, column, file) for column in columns}
            rest = [c for c in names if c not in categories and c not in known and c not in closed]
            categories.update(dict.fromkeys(rest, options["everything"]))
    given = {n: options[n] for n in ("duplicates", "nulls", "shown") if options[n] is not None}
    if options["people"] is not None:
        given["people"] = rounded(options["people"])
    return replace(dataset, categories=categories, **given)


def _looked_at(home: Path, made: dict[str, Any]) -> dict[str, Any]:
    """What was registered, with a `warning` if jobs would refuse its identifiers."""
    from consent_center.errors import ConsentError
    from parties.errors import NodeError
    from parties.gate import Gate

    try:
        Gate(None, home_at(home)).check_kinds(made["name"])
    except (NodeError, ConsentError) as error:
        return {**made, "warning": f"{error.code}: {error.detail}; {getattr(error, 'hint', '')}".strip("; ")}
    return made


def _made(d: dict[str, Any]) -> str:
    size = f", some {d['people']:,} people" if d.get("people") else ""
    shown = f"shown to partners{size}" if d.get("shown") else "not shown to partners"
    text = f"data set {d['name']}: {d['path']}, {len(d['categories'])} columns with a category; {shown}"
    return f"{text}\nwarning: {d['warning']}" if d.get("warning") else text


@data.command("list")
@home_option
@json_option
def data_list(home: Path, as_json: bool) -> None:
    """The registered data sets."""
    listed = [d.to_json() for d in home_at(home).datasets()]
    columns = ("name", "file", "identifiers", "columns", "shown")

    def ids(s: dict[str, Any]) -> str:
        return ", ".join(f"{c}:{k}" for c, k in [(s["id_column"], s["id_kind"]), *s.get("further_ids", [])])

    emit(
        listed,
        as_json,
        lambda d: table(
            columns,
            [(s["name"], s["path"], ids(s), len(s["categories"]), s.get("shown", False)) for s in d],
        ),
    )


@data.command("preflight")
@click.argument("name")
@home_option
@json_option
def data_preflight(name: str, home: Path, as_json: bool) -> None:
    """Count identifiers: read, normalised, duplicate, null, invalid. Needs the running node."""
    with client_of(home) as client:
        report = client.preflight(name)
    emit(report, as_json, _preflight)


def _preflight(d: dict[str, Any]) -> Any:
    from rich.console import Group

    by_id = d.get("identifiers") or []
    names = ["column", "kind", "normalised", "null", "invalid", "distinct"]
    if any("looks_like" in i for i in by_id):
        names.append("looks_like")
    whole = [(k, shortened(v)) for k, v in d.items() if k != "identifiers"]
    rows = [tuple(i.get(n) for n in names) for i in by_id]
    return Group(table(("what", "rows"), whole), table(names, rows))
