"""`pec audit`: verify a job's bundle offline; checkpoints, proofs and self-check of the own ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pec.cli_common import emit, json_option, table
from pec.cli_node import home_option, read_json
from pec.errors import EXIT_FAILED, EXIT_REFUSED

CONSISTENT = (
    "consistent with the keys inside the bundle; whose they are, --trust with the parties' cards tells"
)


@click.group()
def audit() -> None:
    """Verify a job's whole story offline; checkpoints and proofs of the own ledger."""


@audit.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--trust",
    "cards",
    multiple=True,
    metavar="CARD",
    type=click.Path(path_type=Path),
    help="A party's card that you got from that party; repeat for both.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Folder with the job's result files, to compare with the bundle.",
)
@json_option
def verify(bundles: tuple[Path, ...], cards: tuple[Path, ...], results: Path | None, as_json: bool) -> int:
    """Check bundles with nothing but the files: no database, no network, no clock.

    Without --trust the signatures are checked against the keys inside the bundle, which proves that the
    story is consistent, not who told it. The exit code is 0 only if every check of every bundle holds.
    """
    from parties import bundle

    trusted = [read_json(c) for c in cards] or None
    found = []
    for path in bundles:
        report = bundle.verify(path, trusted, results)
        checks = [{"check": name, "holds": holds, "found": text} for name, holds, text in report.checks]
        found.append({"bundle": str(path), "ok": report.ok, "checks": checks})
    data = {"ok": all(f["ok"] for f in found), "trusted": trusted is not None, "bundles": found}
    emit(data, as_json, _show)
    return 0 if data["ok"] else EXIT_REFUSED


def _show(data: dict[str, Any]) -> Any:
    from rich.console import Group

    parts: list[Any] = []
    for one in data["bundles"]:
        rows = [(c["check"], "holds" if c["holds"] else "FAILS", c["found"]) for c in one["checks"]]
        parts.append(table(("check", "", "found"), rows, title=one["bundle"]))
        parts.append(("verified" if data["trusted"] else CONSISTENT) if one["ok"] else "NOT VERIFIED")
    return Group(*parts)


@audit.command()
@home_option
@json_option
def checkpoint(home: Path, as_json: bool) -> None:
    """The signed head of the own ledger (a C2SP checkpoint), and the key that verifies it."""
    with _center(home) as center:
        data = {"checkpoint": center.checkpoint(), "verifier_key": center.verifier_key()}
    emit(data, as_json, lambda d: d["checkpoint"].rstrip("\n") + f"\n\nverifier key: {d['verifier_key']}")


@audit.command()
@click.argument("index", type=int)
@click.option("--size", type=int, help="Size of the tree; by default that of the newest checkpoint.")
@home_option
@json_option
def prove(index: int, size: int | None, home: Path, as_json: bool) -> None:
    """That leaf INDEX is in the own ledger: its opening and the path to the root, with the checkpoint."""
    with _center(home) as center:
        note = center.checkpoint()
        newest = int(note.splitlines()[1])  # C2SP tlog-checkpoint: origin, size, root
        data = {
            "index": index,
            "size": size or newest,
            "path": [step.hex() for step in center.prove(index, size or newest)],
            "opening": center.opening(index),
            "checkpoint": note,
        }
    emit(data, as_json)


@audit.command()
@click.argument("old", type=click.IntRange(0))
@click.argument("new", type=click.IntRange(0), required=False)
@click.option(
    "--checkpoint",
    "known",
    type=click.Path(path_type=Path),
    help="An older checkpoint that was kept elsewhere: OLD must be its size, and its root is compared.",
)
@home_option
@json_option
def consistency(old: int, new: int | None, known: Path | None, home: Path, as_json: bool) -> None:
    """That the own ledger of NEW leaves (by default: all) only extends that of OLD leaves: the proof.

    It was checked before it is printed, with --checkpoint against the root that somebody else kept.
    """
    from consent_center.ledger import verify as check

    with _center(home) as center:
        note, key = center.checkpoint(), center.verifier_key()
        size = int(note.splitlines()[1]) if new is None else new
        path = center.prove_consistency(old, size)
        if known is not None:
            first = check.checkpoint(known.read_text(encoding="utf-8"), key)
            if first.size != old:
                raise click.UsageError(f"the checkpoint in {known} has {first.size} leaves, not {old}")
            newest = check.checkpoint(note, key)
            check.consistency(first, newest, center.prove_consistency(old, newest.size))
    data = {"old": old, "new": size, "path": [step.hex() for step in path], "checkpoint": note}
    emit({**data, "compared": known is not None}, as_json)


@audit.command()
@home_option
@json_option
def fsck(home: Path, as_json: bool) -> int:
    """Recompute the own ledger from its entries; exit code 1 names the first that was changed or is
    missing.
    """
    with _center(home) as center:
        finding = center.fsck()
    data: dict[str, Any] = {"ok": finding is None}
    if finding is not None:
        data |= {"what": finding.what, "where": finding.where, "detail": finding.detail}
    emit(
        data,
        as_json,
        lambda d: "the ledger is intact" if d["ok"] else f"{d['what']} at {d['where']}: {d['detail']}",
    )
    return 0 if finding is None else EXIT_FAILED


def _center(home: Path) -> Any:
    from parties.home import Home

    return Home.open(home).center()
