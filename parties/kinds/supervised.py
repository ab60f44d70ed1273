"""What the kinds share that learn from the brand's labels with columns of both sides.

The brand's private parameters name its label and its own columns; they are columns of its data set under a
category
of the job, like the provider's, so that its own people's consent covers them. People with a label are split
into
those of the fit and those held out; people without one are only scored.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from parties import binning, column_texts
from parties.documents import JobSpec
from parties.errors import NodeError
from parties.gate import ConsentedView, Gate
from parties.kinds import common
from parties.stage import StageContext, ViewRequest

#: Share of the labelled people that are kept from the fit, to measure it.
HOLDOUT = 0.2

#: A label's square must be a number.
LARGEST = 1e100

ROLES = ("fit", "held_out", "scored")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(common.is_text(v) for v in value) and len(set(value)) == len(value)


#: The brand's private parameters of every such kind.
PRIVATE = {
    "label": common.is_text,
    "columns": _is_names,
    "where": common.is_text,
    "holdout": common.is_number(0.0, 0.5),
    "holdout_seed": common.is_whole(0, 2**53),
}


@dataclass(frozen=True)
class People:
    """The brand's aligned people, k of them, in the order of `view_rows`.

    view_rows  int64[k], rows of the brand's view; rows int64[k], the provider's rows of the fit
    y          float64[k], NaN without a label; `train`, `held` bool[k]
    """

    view_rows: np.ndarray
    rows: np.ndarray
    y: np.ndarray
    train: np.ndarray
    held: np.ndarray

    def roles(self) -> list[str]:
        codes = np.where(self.train, 0, np.where(self.held, 1, 2))
        return [ROLES[code] for code in codes]


def open_view(request: ViewRequest) -> ConsentedView:
    """As `common.open_view`; the brand's view can read its label and its own columns, and nothing else."""
    if request.role == "provider":
        return common.open_view(request)
    return open_own(request, common.own_columns(request.spec, request.dataset, request.private))


def open_own(request: ViewRequest, names: Sequence[str]) -> ConsentedView:
    """The brand's view of these columns of its own; each needs a category of the job (`dataset.category`)."""
    common.covered(names, request.spec, request.dataset)
    view = Gate(request.center, request.home).open(
        request.dataset.name,
        request.spec.purpose,
        request.recipient,
        request.spec.categories,
        tuple(names),
        request.job_id,
    )
    if view.rows < request.agreement.minimum_rows:
        raise NodeError(
            "agreement.minimum_rows",
            f"{view.rows} eligible people at the brand, the agreement asks for "
            f"{request.agreement.minimum_rows}",
            counts=view.counts["out"],
        )
    return view


def align_brand(ctx: StageContext) -> None:
    """Learn the provider's row of each of the brand's people (those of `where`, or all)."""
    mask = common.alive(ctx)
    if ctx.private.get("where"):
        mask &= ctx.view.where(ctx.private["where"])
    people = np.flatnonzero(mask)
    if len(people) < ctx.agreement.minimum_seeds:
        raise NodeError(
            "job.labels",
            f"{len(people)} of the brand's people are in, the agreement asks for "
            f"{ctx.agreement.minimum_seeds}",
        )
    common.align_brand(ctx, people)


def send_columns(ctx: StageContext, plan: binning.BinPlan, bins: int) -> None:
    """Provider: which of the columns that the brand asked for can be used, which have missing values, and how
    many bins a column has at the most."""
    missing = [bool(getattr(step, "missing", False)) for step in plan.steps]
    ctx.channel.send_json({"columns": list(plan.names), "missing": missing, "bins": bins})


def received_columns(ctx: StageContext, allowed: Sequence[int]) -> tuple[list[tuple[str, bool]], int]:
    """Brand: (name, whether bin 0 is for missing values) of each, and how many bins; `kind.message` if that
    can't be, or is none of the `allowed`."""
    message = ctx.channel.receive_json()
    names, missing, bins = message.get("columns"), message.get("missing"), message.get("bins")
    if (
        isinstance(names, list)
        and isinstance(missing, list)
        and len(names) == len(missing)
        and all(common.is_text(name) for name in names)
        and all(isinstance(flag, bool) for flag in missing)
        and type(bins) is int
        and bins in allowed
    ):
        return list(zip(names, missing, strict=True)), bins
    raise NodeError("kind.message", "the provider's list of columns is malformed", share=True)


def people_of(ctx: StageContext, provider_alive: np.ndarray, binary: bool, holdout: bool = True) -> People:
    """Those who matched and are still in on both sides; raises `job.labels` below the agreement's minimum.

    Provider rows are renumbered without those who are out, as the provider does.
    """
    people, rows = ctx.carry["people"], ctx.carry["rows"]
    usable = (rows >= 0) & common.alive(ctx)[people]
    usable[usable] = provider_alive[rows[usable]]
    people, rows = people[usable], rows[usable]
    y = labels(ctx, str(ctx.private["label"]), people, binary)
    known = np.flatnonzero(~np.isnan(y))
    if len(known) < ctx.agreement.minimum_seeds:
        raise NodeError(
            "job.labels",
            f"{len(known)} matched people with a label, the agreement asks for {ctx.agreement.minimum_seeds}",
            "use more people or another provider",
        )
    held = np.zeros(len(people), dtype=bool)
    if holdout:
        held[_held_out(ctx, people, known)] = True
    position = np.cumsum(provider_alive) - 1
    return People(people, position[rows], y, ~np.isnan(y) & ~held, held)


def labels(ctx: StageContext, name: str, people: np.ndarray, binary: bool) -> np.ndarray:
    """float64[k] of the brand's view rows `people`, NaN where missing; 1 and 0 if `binary`."""
    column = next(iter(ctx.view.read([name], people)))
    if not binary:
        check_number(column)
        if np.nanmax(np.abs(column.values), initial=0.0) > LARGEST:
            raise NodeError("job.labels", f"label {name!r} has values beyond {LARGEST:g}; use a larger unit")
        return np.asarray(column.values, dtype=np.float64)
    missing = np.isnan(column.values) if column.kind == "numeric" else column.values < 0
    if column.kind == "empty":
        raise NodeError("job.labels", f"label {name!r} has no value")
    y: np.ndarray = ctx.view.label(name)[people].astype(np.float64)
    y[missing] = np.nan
    return y


def check_number(column: Any) -> None:
    """`job.labels` if a label column (`rows.Column`) is not one of numbers."""
    if column.kind != "numeric":
        raise NodeError(
            "job.labels",
            f"label {column.name!r} is not a column of numbers{column_texts.not_numbers(column)}",
        )


def _held_out(ctx: StageContext, people: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Positions of the people that are held out; with `holdout_seed` a function of the seed and the file's
    order."""
    share = ctx.private.get("holdout")
    count = round(float(HOLDOUT if share is None else share) * len(known))
    fixed = ctx.private.get("holdout_seed")
    if fixed is None:
        keys = np.frombuffer(os.urandom(8 * len(known)), dtype=np.uint64)
        return known[np.argsort(keys, kind="stable")[:count]]
    by_file = known[np.argsort(ctx.view.own_rows()[people[known]], kind="stable")]
    # Not a secret: who is held out is the brand's own affair. A counter-based generator, the same everywhere.
    chosen: np.ndarray = by_file[
        np.random.Generator(np.random.Philox(fixed)).permutation(len(by_file))[:count]
    ]
    return chosen


def write_scores(ctx: StageContext, people: People, kept: np.ndarray, **columns: np.ndarray) -> None:
    """`scores.parquet`: `row` is the line of the brand's own file, `role` one of `ROLES`; of the people in
    `kept`."""
    data: dict[str, Any] = {"row": ctx.view.own_rows()[people.view_rows[kept]]}
    data |= {name: values[kept] for name, values in columns.items()}
    data["role"] = pa.array(np.array(people.roles(), dtype=object)[kept], pa.string())
    pq.write_table(pa.table(data), ctx.workdir / "scores.parquet")


def still_in(ctx: StageContext, people: People, provider_alive: np.ndarray) -> np.ndarray:
    """Positions of the people who are in on both sides at release; `provider_alive` bool[m] of all its
    rows."""
    rows = np.full(ctx.view.rows, -1, dtype=np.int64)
    rows[ctx.carry["people"]] = ctx.carry["rows"]
    mine = rows[people.view_rows]
    return np.flatnonzero(common.alive(ctx)[people.view_rows] & provider_alive[mine])


def check_no_noise(spec: JobSpec, privacy: Any, kind: str) -> None:
    """A kind without noise on the labels can't keep an agreement that asks for it."""
    if privacy is not None:
        raise NodeError(
            "agreement.privacy",
            f"the agreement asks for noise on the labels (epsilon {privacy.epsilon}), and {kind} has none",
            "ask for a lookalike, or sign an agreement without epsilon for this kind",
            share=True,
        )


def learned_from(ctx: StageContext) -> list[str]:
    """The brand's columns of the model: those asked for, or all that its view may read but the label."""
    asked = ctx.private.get("columns")
    return [n for n in ctx.view.allowed if n != ctx.private["label"] and (asked is None or n in asked)]
