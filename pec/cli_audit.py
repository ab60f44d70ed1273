"""`pec audit`: verify a job's bundle offline; checkpoints, proofs and self-check of a center's ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pec.cli_common import emit, json_option, table
from pec.cli_home import read_json
from pec.consent_options import checkpoint_of, here_if_unsaid, open_at, where
from pec.errors import EXIT_FAILED, EXIT_REFUSED

CONSISTENT = (
    "consistent with the keys inside the bundle; whose they are, --trust with the parties' cards tells"
)


@click.group()
def audit() -> None:
    """Verify a job's whole story offline; checkpoints and proofs of a center's ledger, a node's or not."""


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
        found.append({"bundle": str(path), "ok": report.ok, "keys": report.keys, "checks": checks})
    data = {"ok": all(f["ok"] for f in found), "trusted": trusted is not None, "bundles": found}
    emit(data, as_json, _show)
    return 0 if data["ok"] else EXIT_REFUSED


def _show(data: dict[str, Any]) -> Any:
    from rich.console import Group

    parts: list[Any] = []
    for one in data["bundles"]:
        rows = [(c["check"], "holds" if c["holds"] else "FAILS", c["found"]) for c in one["checks"]]
        parts.append(table(("check", "", "found"), rows, title=one["bundle"]))
        names = ("fingerprint", "identity_key", "verifier_key")
        parts += [f"{party}: {name} {key[name]}" for party, key in one["keys"].items() for name in names]
        parts.append(("verified" if data["trusted"] else CONSISTENT) if one["ok"] else "NOT VERIFIED")
    return Group(*parts)


@audit.command()
@where
@json_option
def checkpoint(location: str | None, as_json: bool) -> None:
    """The signed head of a center's ledger (a C2SP checkpoint), and the key that verifies it."""
    with open_at(here_if_unsaid(location)) as center:
        data = {"checkpoint": center.checkpoint(), "verifier_key": center.verifier_key()}
    emit(data, as_json, lambda d: d["checkpoint"].rstrip("\n") + f"\n\nverifier key: {d['verifier_key']}")


@audit.command()
@where
@click.argument("index", type=int)
@click.option("--size", type=int, help="Size of the tree; by default that of the newest checkpoint.")
@json_option
def prove(location: str | None, index: int, size: int | None, as_json: bool) -> None:
    """That leaf INDEX is in the ledger: its opening and the path to the root, with the checkpoint."""
    with open_at(here_if_unsaid(location)) as center:
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
@where
@json_option
def consistency(old: int, new: int | None, known: Path | None, location: str | None, as_json: bool) -> None:
    """That the ledger of NEW leaves (by default: all) only extends that of OLD leaves: the proof.

    It was checked before it is printed, with --checkpoint against the root that somebody else kept.
    """
    from consent_center.ledger import verify as check

    with open_at(here_if_unsaid(location)) as center:
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
@where
@click.option(
    "--checkpoint",
    "known",
    type=click.Path(),
    metavar="FILE",
    help="A checkpoint kept elsewhere: finds a log put back or rewritten since (`-`: standard input).",
)
@json_option
def fsck(location: str | None, known: str | None, as_json: bool) -> int:
    """Recompute a center's ledger from its entries; exit code 1 names the first that was changed or is
    missing.
    """
    with open_at(here_if_unsaid(location)) as center:
        finding = center.fsck(checkpoint_of(known) if known else "")
    data: dict[str, Any] = {"ok": finding is None}
    if finding is not None:
        data |= {"what": finding.what, "where": finding.where, "detail": finding.detail}
    emit(
        data,
        as_json,
        lambda d: "the ledger is intact" if d["ok"] else f"{d['what']} at {d['where']}: {d['detail']}",
    )
    return 0 if finding is None else EXIT_FAILED
