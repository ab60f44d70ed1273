"""`pec simulate`: evaluate the product on two files of yours, both parties on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pec import wording
from pec.cli_common import emit, json_option, progress, table
from pec.errors import EXIT_FAILED

F = TypeVar("F", bound=Callable[..., Any])
ID_KINDS = ("auto", "phone", "email", "device", "opaque")
BINS = click.Choice(["2", "4", "8", "16", "32", "64"])


def _common(command: F) -> F:
    made: Any = command
    for option in reversed(
        [
            click.option(
                "--brand", required=True, type=click.Path(path_type=Path), help="The brand's CSV or Parquet."
            ),
            click.option(
                "--provider", required=True, type=click.Path(path_type=Path), help="The provider's."
            ),
            click.option("--id", "id_", required=True, help="Column that identifies people."),
            click.option("--provider-id", default="", help="Its name in the provider's file, if another."),
            click.option("--id-kind", type=click.Choice(ID_KINDS), default="auto", show_default=True),
            click.option(
                "--assume-consent",
                "reason",
                required=True,
                help="Why consent may be assumed here. Stands in both ledgers as an assumption.",
            ),
            click.option(
                "--out", type=click.Path(path_type=Path), help="Keep report.json, report.html and the bundle."
            ),
            json_option,
        ]
    ):
        made = option(made)
    return made  # type: ignore[no-any-return]


_leave_out = click.option(
    "--leave-out",
    "leave_out",
    multiple=True,
    metavar="COLUMN",
    help="Column of either file that the model shall not use, such as one made from the label; repeat.",
)


@click.group()
def simulate() -> None:
    """A job between two files of yours: both parties run here, as two processes with throw-away identities.

    Everything is real but the consent, which is assumed and recorded as such. Because you hold both files,
    the result is compared with the truth: the plain join, and scikit-learn on the pooled rows.
    """


@simulate.command()
@_common
@click.option(
    "--label", default="", help="Column of the brand's file that marks seeds; without it, all rows are."
)
@click.option("--audience-size", type=click.IntRange(1), help="People in the audience; by default 5 %.")
@click.option(
    "--epsilon", type=click.FloatRange(min=0, min_open=True, max=100), help="Privacy budget; none: no noise."
)
@click.option(
    "--delta",
    type=click.FloatRange(min=0, min_open=True, max=1e-3),
    help="Of the privacy budget; by default 1e-6.",
)
@click.option(
    "--clip", type=click.FloatRange(1e-6, 1e6), help="With noise: longest row of features; by default 5."
)
@click.option(
    "--features",
    type=click.Choice(["linear", "bins", "splines", "crosses"]),
    default="linear",
    show_default=True,
    help="Shape of numeric columns: a line, quantile bins, hinges, hinges and products of pairs.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(1e-3, 1e6),
    default=1.0,
    show_default=True,
    help="Strength of the penalty, 1/C of scikit-learn.",
)
@click.option(
    "--l1-ratio",
    type=click.FloatRange(0, 0.999),
    default=0.0,
    show_default=True,
    help="Its part that makes weights zero (elastic net).",
)
@click.option(
    "--bags",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Average so many models, each of a random half of seeds and rows.",
)
@click.option(
    "--hidden-share",
    type=click.FloatRange(0, 0.9),
    help="Assumed share of seed-like people among the others; gives a corrected AUC.",
)
def lookalike(**given: Any) -> int:
    """Who else in the provider's file is like the brand's seeds?

    A label column may hold 1/0, true/false, yes/no, or numbers, of which those above 0 mark seeds.
    """
    if given["epsilon"] is None and (given["delta"] is not None or given["clip"] is not None):
        raise click.UsageError("--delta and --clip are settings of the noise that --epsilon asks for")
    alpha, ratio = given.pop("alpha"), given.pop("l1_ratio")
    params = {"features": given.pop("features"), "l2": alpha * (1 - ratio), "l1": alpha * ratio}
    if (bags := given.pop("bags")) > 1:
        params["bags"] = bags
    hidden = given.pop("hidden_share")
    return _run("lookalike", given, params, {} if hidden is None else {"hidden_share": hidden})


@simulate.command()
@_common
@click.option(
    "--method",
    type=click.Choice(["align", "private_join"]),
    default="align",
    show_default=True,
    help="private_join: a count with noise, and neither side's machine learns who.",
)
@click.option(
    "--epsilon", type=click.FloatRange(min=0.001, max=10), help="Of private_join's noise; by default 1."
)
def overlap(**given: Any) -> int:
    """How many people are in both files?"""
    return _run("overlap", given)


@simulate.command()
@_common
@click.option(
    "--label", default="", help="Column of the brand's file that marks the segment; without it, all rows are."
)
def retarget(**given: Any) -> int:
    """Which of the provider's people are in the brand's segment? The provider learns it, the brand a size."""
    return _run("retarget", given)


@simulate.command()
@_common
@click.option(
    "--tags", default="", help="Columns of the provider's file, separated by commas; all by default."
)
def enrich(**given: Any) -> int:
    """The provider's tags for the brand's people."""
    return _run("enrich", given)


@simulate.command()
@_common
@click.option("--label", required=True, help="Column of the brand's file to learn.")
@click.option("--trees", type=click.IntRange(1, 2000), default=50, show_default=True)
@click.option("--depth", type=click.IntRange(1, 8), default=5, show_default=True, help="Levels of splits.")
@click.option(
    "--bins",
    type=BINS,
    help="Of each of the provider's columns; by default 64, and 32 or 16 where rows and columns are many.",
)
@click.option(
    "--objective", type=click.Choice(["logistic", "squared"]), default="logistic", show_default=True
)
@click.option("--learning-rate", type=click.FloatRange(1e-4, 1), default=0.1, show_default=True)
@click.option("--l2", type=click.FloatRange(0, 1e6), default=0.0, show_default=True)
@click.option("--patience", type=click.IntRange(0), default=0, help="Trees without a better held-out loss.")
@click.option("--row-share", type=click.FloatRange(0.01, 1), default=1.0, help="Rows of a tree.")
@click.option("--column-share", type=click.FloatRange(0.01, 1), default=1.0, help="Columns of a tree.")
@click.option(
    "--monotone",
    multiple=True,
    metavar="COLUMN=1|-1",
    help="The score must not fall (1) or rise (-1) with this column of numbers, of either file; repeat.",
)
@_leave_out
def boost(**given: Any) -> int:
    """Gradient-boosted trees over columns of both files.

    The brand's other columns are its features. A fifth of the labelled people is held out to measure.
    """
    signed = {name: given.pop(name) for name in ("trees", "depth", "objective")}
    if bins := given.pop("bins"):
        signed["bins"] = int(bins)
    names = ("learning_rate", "l2", "patience", "row_share", "column_share")
    learning = {name: given.pop(name) for name in names}
    if monotone := given.pop("monotone"):
        parts = [text.rpartition("=") for text in monotone]
        if any(not name or sign not in ("1", "+1", "-1") for name, _, sign in parts):
            raise click.UsageError("--monotone takes COLUMN=1 or COLUMN=-1")
        learning["monotone"] = {name: int(sign) for name, _, sign in parts}
    return _run("boost", given, signed, learning)


@simulate.command("joint-lr")
@_common
@click.option("--label", required=True, help="Column of the brand's file to predict.")
@click.option(
    "--family",
    type=click.Choice(["logistic", "linear", "poisson"]),
    default="logistic",
    show_default=True,
    help="logistic: a yes/no label; linear: a number; poisson: a count.",
)
@click.option("--errors", is_flag=True, help="Also standard errors and p-values of each side's weights.")
@_leave_out
def joint_lr(**given: Any) -> int:
    """A regression on the columns of both files, for the brand's people. Lines without a label are scored."""
    return _run("joint-lr", given, {"errors": True} if given.pop("errors") else {})


@simulate.command("lead-score")
@_common
@click.option("--speed", required=True, help="Yes/no column of the brand's file: converted soon?")
@click.option("--value", required=True, help="Column of the brand's file: how much? A number, or yes/no.")
@click.option("--method", type=click.Choice(["boost", "joint-lr"]), default="boost", show_default=True)
@click.option("--trees", type=click.IntRange(1, 2000), help="Of boost, for each target; by default 50.")
@click.option("--depth", type=click.IntRange(1, 8), help="Levels of splits; by default 5.")
@click.option("--bins", type=BINS, help="By default as for boost.")
@click.option("--learning-rate", type=click.FloatRange(1e-4, 1), help="Of boost; by default 0.1.")
@click.option(
    "--weight",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Of speed in the combined score; the rest is value's.",
)
@click.option(
    "--cutoffs",
    default="0.8,0.6,0.4,0.2",
    show_default=True,
    help="Least combined scores of grades A, B, C, D.",
)
@click.option("--calibrate", is_flag=True, help="Yes/no scores become chances, by isotonic regression.")
@_leave_out
def lead_score(**given: Any) -> int:
    """How soon and how much? Two scores in 0-1 and a grade A-E for each of the brand's people, in one job.

    The brand's other columns are its features. A fifth of the labelled people is held out of both fits.
    """
    method = given.pop("method")
    trees = {name: given.pop(name) for name in ("trees", "depth", "bins", "learning_rate")}
    trees = {name: value for name, value in trees.items() if value is not None}
    if method != "boost" and trees:
        raise click.UsageError(f"{', '.join(trees)} are settings of --method boost")
    try:
        cutoffs = [float(part) for part in given.pop("cutoffs").split(",")]
    except ValueError as error:
        raise click.UsageError("--cutoffs takes four numbers, such as 0.8,0.6,0.4,0.2") from error
    if len(cutoffs) != 4 or not 1 > cutoffs[0] > cutoffs[1] > cutoffs[2] > cutoffs[3] > 0:
        raise click.UsageError("--cutoffs takes four falling numbers between 0 and 1")
    learning = {"weight": given.pop("weight"), "cutoffs": cutoffs}
    if given.pop("calibrate"):
        learning["calibrate"] = True
    if "learning_rate" in trees:
        learning["learning_rate"] = trees.pop("learning_rate")
    if "bins" in trees:
        trees["bins"] = int(trees["bins"])
    given["label"] = given.pop("speed")
    return _run("lead-score", given, {"method": method, **trees}, learning)


@simulate.command("feature-report")
@_common
@click.option("--label", required=True, help="Yes/no column of the brand's file.")
@click.option("--bins", type=BINS, default="8", show_default=True)
@click.option(
    "--minimum-iv",
    type=click.FloatRange(0, 10),
    default=0.02,
    show_default=True,
    help="Information value from which a column is selected.",
)
def feature_report(**given: Any) -> int:
    """Which of the provider's columns would help to tell the brand's people apart? Nothing is trained.

    Information value, weight of evidence and missing rate of each; `pec job submit --selected-by` takes
    `selected` as it is.
    """
    bins, least = int(given.pop("bins")), given.pop("minimum_iv")
    return _run("feature-report", given, {"bins": bins}, {"minimum_iv": least})


def _run(
    kind: str,
    given: dict[str, Any],
    params: dict[str, Any] | None = None,
    learning: dict[str, Any] | None = None,
) -> int:
    from pec import simulate as simulation

    tags = tuple(t.strip() for t in given.get("tags", "").split(",") if t.strip())
    inputs = simulation.Inputs(
        kind=kind,
        brand=given["brand"],
        provider=given["provider"],
        id=given["id_"],
        reason=given["reason"],
        provider_id=given["provider_id"],
        id_kind=given["id_kind"],
        label=given.get("label", ""),
        value=given.get("value", ""),
        tags=tags,
        leave_out=tuple(given.get("leave_out", ())),
        audience_size=given.get("audience_size"),
        epsilon=given.get("epsilon"),
        delta=given.get("delta"),
        clip=given.get("clip"),
        method=given.get("method", ""),
        params=params or {},
        learning=learning or {},
        family=given.get("family", "logistic"),
    )
    with progress("simulate") as bar:
        report = simulation.run(
            inputs, out=given["out"], watch=lambda what, done, total: bar.update(done, total, what)
        )
    emit(report, given["as_json"], _show)
    return 0 if report["ok"] else EXIT_FAILED


def _show(d: dict[str, Any]) -> Any:
    from rich.console import Group

    names = [
        "kind",
        "id_kind",
        "count",
        "count_plain_join",
        "noise_scale",
        "family",
        "people_matched",
        "rows",
        "rows_fit",
        "steps",
        "converged",
        "seeds_matched",
        "epsilon",
        "fitted",
        "held_out",
        "trees",
        "auc",
        "pooled_auc",
        "r2",
        "pooled_r2",
        "deviance_explained",
        "lift_at_5pct",
        "audience_size",
        "asked",
        "found",
        "wrong",
        "missed",
    ]
    figures: list[tuple[str, Any]] = [(name, d[name]) for name in names if d.get(name) is not None]
    figures += [
        ("time", wording.seconds_text(d["seconds"])),
        *((name, wording.seconds_text(d[name])) for name in ("train_seconds", "score_seconds") if name in d),
        *((f"peak MiB of the {s}", mib) for s, mib in d["peak_rss_mb"].items() if mib is not None),
        ("bytes sent by the brand", wording.bytes_text(d["bytes_sent"])),
        ("bytes received by the brand", wording.bytes_text(d["bytes_received"])),
        ("audit bundle verified", d["audit_verified"]),
        ("consent", f"assumed: {d['assumed_consent']}"),
    ]
    people = [
        (side, report["read"], report["normalised"], report["duplicate"], report["null"], report["invalid"])
        for side, report in d["preflight"].items()
    ]
    parts: list[Any] = [
        table(("side", "rows", "normalised", "duplicate", "null", "invalid"), people, title="Identifiers"),
        table(("figure", "value"), figures, title="Result"),
    ]
    if d["kind"] == "feature-report":
        shown = [
            (c["column"], f"{c['iv']:.4f}", _percent(c["missing_rate"]), len(c["bins"]), c["bins_suppressed"])
            for c in d["columns"]
        ]
        heads = ("column", "IV", "missing", "bins", "bins suppressed")
        parts += [table(heads, shown, title="Columns"), "selected: " + (",".join(d["selected"]) or "none")]
    if d["kind"] == "lead-score":
        parts += _leads(d)
    if d["kind"] == "lookalike" and d.get("auc") is not None:
        parts += _ranking(d)
    if d.get("notes"):
        parts.append("\n".join(("notes:", *(f"  {note}" for note in d["notes"]))))
    if d["failures"]:
        parts.append("FAILED: " + "; ".join(d["failures"]))
    return Group(*parts)


def _ranking(d: dict[str, Any]) -> list[Any]:
    """How good the ranking is, each figure with its interval."""
    names = [
        "auc",
        "pr_auc",
        "ks",
        *(f"{f}_at_{p}pct" for f in ("recall", "lift") for p in (1, 2, 5, 10, 20)),
    ]
    rows = []
    for name in names:
        low, high = (d.get("intervals") or {}).get(name, (None, None))
        rows.append((name, *("–" if v is None else f"{v:.4f}" for v in (d.get(name), low, high))))
    found = d.get("calibration")
    out: list[Any] = [table(("figure", "value", "from", "to (95 %)"), rows, title="Held-out seeds")]
    if found:
        out.append(f"calibration: expected error {found['ece']:.5f}, Brier {found['brier']:.5f}")
    return out


def _leads(d: dict[str, Any]) -> list[Any]:
    def figure(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}"

    targets = [
        (t, d[t]["label"], d[t]["held_out"], *(figure(d[t].get(f)) for f in _QUALITY))
        for t in ("speed", "value")
    ]
    heads = ("target", "label", "held out", "AUC", "pooled", "R²", "pooled")
    grades = [
        (g, f"{found['people']:,}", f"{found['held_out']:,}", figure(found["speed"]), figure(found["value"]))
        for g, found in d["grades"].items()
    ]
    return [
        table(heads, targets, title="Targets"),
        table(("grade", "people", "held out", "rate of speed", "mean value"), grades, title="Grades"),
    ]


_QUALITY = ("auc", "pooled_auc", "r2", "pooled_r2")


def _percent(share: float | None) -> str:
    return "suppressed" if share is None else f"{100 * share:.1f} %"
