"""`pec model`: models that jobs made: versions, cards, aliases, expiry, what became of their consent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pec.cli_common import emit, json_option, table
from pec.cli_home import home_option
from pec.errors import PecError


@click.group()
def model() -> None:
    """Models that the node's jobs made: versions, cards, aliases, expiry. Works whether or not the node runs.

    A MODEL is named by its training job's id, NAME@VERSION, an alias, or NAME for its newest version.
    """


def _models(home: Path) -> tuple[Any, Any]:
    from parties.home import Home
    from parties.models import Models

    opened = Home.open(home)
    return opened, Models(opened)


def _row(found: Any, standing: dict[str, Any] | None) -> dict[str, Any]:
    from parties import documents

    state = found.state(documents.now())
    return {
        **found.to_document(),
        "aliases": list(found.aliases),
        "state": state,
        "consent": standing,
        "flagged": bool(standing and standing["flagged"]),
    }


@model.command("list")
@click.option("--all", "everything", is_flag=True, help="Retired and expired ones too.")
@home_option
@json_option
def list_(everything: bool, home: Path, as_json: bool) -> None:
    """All models, and whether the consent that they were trained on still stands."""
    opened, models = _models(home)
    with opened.center() as center:
        rows = [_row(m, models.standing(m, center)) for m in models.all()]
    rows = [row for row in rows if everything or row["state"] == "active"]
    emit(rows, as_json, _table)


def _table(rows: list[dict[str, Any]]) -> Any:
    heads = ("model", "job", "state", "expires", "aliases", "training consent")
    lines = [
        (
            f"{r['name']}@{r['version']}",
            r["job_id"],
            r["state"],
            r["expires_at"],
            ", ".join(r["aliases"]) or "–",
            _consent(r["consent"]),
        )
        for r in rows
    ]
    return table(heads, lines, title="Models")


def _consent(standing: dict[str, Any]) -> str:
    text = f"{100 * standing['share']:.1f} % of {standing['people']:,}"
    return f"{text}, BELOW {100 * standing['declared']:.0f} %" if standing["flagged"] else text


@model.command()
@click.argument("reference", metavar="MODEL")
@home_option
@json_option
def show(reference: str, home: Path, as_json: bool) -> None:
    """One model, and how many of its training people are still in."""
    opened, models = _models(home)
    found = models.find(reference)
    with opened.center() as center:
        row = _row(found, models.standing(found, center))
    emit(
        {**row, "folder": str(models.folder(found))}, as_json, lambda d: table(("field", "value"), _shown(d))
    )


def _shown(row: dict[str, Any]) -> list[tuple[str, Any]]:
    shown = {**row, "consent": _consent(row["consent"]), "aliases": ", ".join(row["aliases"]) or "–"}
    return [(name, value) for name, value in shown.items() if value not in ("", None)]


@model.command()
@click.argument("reference", metavar="MODEL")
@click.option("--out", type=click.Path(path_type=Path), help="Write the page there; .json for the data.")
@home_option
@json_option
def card(reference: str, out: Path | None, home: Path, as_json: bool) -> None:
    """The model card: data, consent, parameters, figures, columns, privacy spent, what each side learned."""
    _, models = _models(home)
    found = models.find(reference)
    folder = models.folder(found)
    if not (folder / "model_card.json").exists():
        raise PecError(
            "pec.file",
            f"model {found.job_id} has no card here",
            "only the brand's node writes one; ask there",
        )
    data = json.loads((folder / "model_card.json").read_text(encoding="utf-8"))
    if out is not None:
        name = "model_card.json" if out.suffix == ".json" else "model_card.html"
        try:
            out.write_bytes((folder / name).read_bytes())
        except OSError as error:
            raise PecError("pec.output", f"{out}: {error.strerror}", "choose another path") from error
    emit(data, as_json, lambda d: str(out or folder / "model_card.html"))


def _changed(
    home: Path,
    as_json: bool,
    change: Callable[[Any], Any],
    told: Callable[[dict[str, Any]], str] | None = None,
) -> None:
    """Makes the change, and says which state the model has now, and what `told` says was set."""
    _, models = _models(home)
    emit(
        _row(change(models), None),
        as_json,
        lambda d: f"{d['name']}@{d['version']} ({d['job_id']}): {d['state']}{told(d) if told else ''}",
    )


@model.command()
@click.argument("reference", metavar="MODEL")
@click.argument("alias")
@home_option
@json_option
def alias(reference: str, alias: str, home: Path, as_json: bool) -> None:
    """Let ALIAS (such as champion) point to this model, and to no other any more."""
    _changed(home, as_json, lambda models: models.alias(reference, alias))


@model.command()
@click.argument("reference", metavar="MODEL")
@click.option(
    "--at",
    help="When it ends: 2027-01-31T00:00:00Z, or the day, at whose beginning (UTC) it ends; by default now.",
)
@click.option(
    "--standing-below",
    type=click.FloatRange(0, 1),
    help="Instead: flag it when fewer than this share of its training people are still in.",
)
@home_option
@json_option
def expire(reference: str, at: str | None, standing_below: float | None, home: Path, as_json: bool) -> None:
    """Set when a model ends, or the share of training consent below which it is flagged.

    An expired model scores nobody. It can't outlive the agreement that it was made under.
    """
    from parties import documents

    if at is not None and standing_below is not None:
        raise click.UsageError("give --at or --standing-below, one at a time")
    if standing_below is not None:
        _changed(
            home,
            as_json,
            lambda models: models.declare(reference, standing_below),
            lambda d: f", flagged below {d['standing_below']:.4g} of its training people",
        )
        return
    end = _moment(at) if at else documents.timestamp(documents.now())
    _changed(
        home,
        as_json,
        lambda models: models.expire(reference, end),
        lambda d: f", {'ended' if d['state'] == 'expired' else 'ends'} at {d['expires_at']}",
    )


def _moment(text: str) -> str:
    """A day as its beginning in UTC; anything else as it is."""
    return f"{text}T00:00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else text


@model.command()
@click.argument("reference", metavar="MODEL")
@click.option("--note", default="", help="Why; stands in the registry.")
@home_option
@json_option
def retire(reference: str, note: str, home: Path, as_json: bool) -> None:
    """End a model for good: it scores nobody and loses its aliases. Its job's files stay for the audit."""
    _changed(home, as_json, lambda models: models.retire(reference, note))


@model.command("stack")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="NAME=PATH",
    help="A job's folder or its scores.parquet; two or more.",
)
@click.option("--labels", required=True, type=click.Path(path_type=Path), help="The brand's file.")
@click.option("--label", required=True, help="Its yes/no column.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@json_option
def stack(models: tuple[str, ...], labels: Path, label: str, out: Path, as_json: bool) -> None:
    """Combine the scores of several providers' models by the brand's own labels. Nothing leaves the brand.

    Learned on people whom no model was fitted to: give the same holdout_seed to every job. Writes
    scores.parquet and stack.json.
    """
    import numpy as np

    from pec import tables
    from pec.vertical import stacking

    given: dict[str, Path] = {}
    for text in models:
        name, sign, path = text.partition("=")
        if not sign or not name or name in given:
            raise click.UsageError(f"--model {text!r} is no NAME=PATH, or the name stands twice")
        given[name] = Path(path)
    column = tables.find(tables.header(labels), label, labels)
    values = tables.read(labels, ())[column]
    flags = tables.flags(values, column).to_numpy(np.float64)
    flags[values.isna().to_numpy()] = np.nan
    found = stacking.stack({name: stacking.read(path) for name, path in given.items()}, flags)
    stacking.write(found, out)
    emit({**found.to_document(), "out": str(out)}, as_json, _stacked)


def _stacked(d: dict[str, Any]) -> Any:
    rows = [(name, f"{d['auc_of'][name]:.4f}", f"{d['weights'][name]:.4f}") for name in d["auc_of"]]
    rows.append(("stacked, out of fold", f"{d['auc']:.4f}", ""))
    return table(("model", "AUC", "weight"), rows, title=f"On {d['rows_stacked']:,} people in no fit")
