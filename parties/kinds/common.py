"""What the kinds share: checks of a spec, opening the view, choosing the brand's people, aligning.

A *view row* is a row of one side's `ConsentedView`. The provider's view rows are what the brand learns after
`align`; they are in a secret random order that is drawn anew for every job.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parties import private_files
from parties.cost import AUTO
from parties.datasets import Dataset
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.gate import ConsentedView, Gate
from parties.kinds import aligning, bucket_store, transfer
from parties.stage import StageContext, ViewRequest

#: A column list of one star asks for every column that has an allowed category.
ALL = ("*",)

#: The suite of jobs that have only one: `enrich`.
SUITE = "ecdh"

#: The suite of `overlap` by method private_join.
PRIVATE_JOIN = "private_join"

#: Largest set that one job aligns.
MAX_ROWS = bucket_store.MAX_ROWS

#: Largest set of the protocol that runs in one piece, in memory: `private_join` (its README, section 4).
MEMORY_ROWS = 1 << 24


# -- checks of the spec --------------------------------------------------------------------------------------


def check_params(
    spec: JobSpec, allowed: Mapping[str, Callable[[Any], bool]], private: Iterable[str] = ()
) -> None:
    """Every parameter must be known and well-formed; `job.spec` names the first that is not.

    `private`: the kind's private parameters, for the hint to whoever gave one of them here.
    """
    for name, value in spec.params.items():
        if name not in allowed and name in private:
            text = f"{name!r} is a private parameter of {spec.kind}, which the partner does not see"
            raise NodeError("job.spec", text, f"give it with --private {name}=…, not --param", share=True)
        if name not in allowed:
            text = f"{spec.kind} has no parameter {name!r}{nearest(name, allowed)}"
            raise NodeError("job.spec", text, share=True)
        if not allowed[name](value):
            text = f"parameter {name!r} can't be {str(value)[:60]!r}{_wanted(allowed[name])}"
            raise NodeError("job.spec", text, share=True)


def check_suite(spec: JobSpec, agreement: Agreement, runs: tuple[str, ...] = aligning.SUITES) -> None:
    """The protocol suite must be one that this version runs and that the parties agreed to.

    `auto` (also if the job names none) leaves the choice to the receiver, among the agreed ones. Where the
    agreement asks for security against a side that deviates, a job may be silent about it, and not ask for
    less.
    """
    suite = spec.params.get("suite", AUTO)
    if aligning.VOLE not in runs or suite == "ecdh" or spec.params.get("malicious") is False:
        check_security(agreement, f"this {spec.kind}")
    if spec.params.get("malicious") and (suite == "ecdh" or aligning.VOLE not in agreement.suites):
        what = "the malicious variant is one of suite vole, which must be asked for and agreed"
        raise NodeError("agreement.suite", what, share=True)
    if suite not in (AUTO, *runs):
        known = ", ".join((AUTO, *runs))
        raise NodeError("job.spec", f"suite {str(suite)[:40]!r} is none of {known}", share=True)
    if suite == AUTO and set(runs) & set(agreement.suites):
        return
    if suite not in agreement.suites:
        raise NodeError("agreement.suite", f"suite {suite!r} is not in agreement {agreement.id}", share=True)


def check_security(agreement: Agreement, what: str) -> None:
    """`agreement.malicious` if the agreement asks for more than `what` has."""
    if agreement.malicious_security:
        raise NodeError(
            "agreement.malicious",
            f"agreement {agreement.id} has malicious_security, which {what} has not",
            "leave suite and malicious out of the job, or sign an agreement of its own for it",
            share=True,
        )


def check_columns(asked: tuple[str, ...], agreed: tuple[str, ...], what: str, agreement: Agreement) -> None:
    """The provider's columns that a job asks for must be among those agreed."""
    if not asked:
        raise NodeError("job.spec", f"the job names no {what}", share=True)
    if len(set(asked)) != len(asked):
        raise NodeError("job.spec", f"a {what} is named twice", share=True)
    beyond = [] if agreed == ALL else [name for name in asked if name not in agreed]
    if beyond:
        raise NodeError(
            "agreement.column",
            f"{what} {', '.join(map(repr, beyond))} not in agreement {agreement.id}",
            "ask for what is agreed, or sign a new agreement",
            share=True,
        )


def check_outputs(spec: JobSpec, allowed: Mapping[str, str]) -> None:
    """Nobody gets an output that the kind does not declare for that side."""
    for name, receiver in spec.outputs.items():
        if allowed.get(name) != receiver:
            raise NodeError("job.spec", f"{spec.kind} gives no {name!r} to {receiver!r}", share=True)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say after "there is no …": the nearest known name, and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name).casefold(), names, n=1, cutoff=0.5)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" It has: {', '.join(names) or 'none'}"


@dataclass(frozen=True)
class Rule:
    """Whether a parameter's value is allowed, and in words which ones are."""

    holds: Callable[[Any], bool]
    wants: str

    def __call__(self, value: Any) -> bool:
        return self.holds(value)


def _wanted(rule: Callable[[Any], bool]) -> str:
    return f": it is {rule.wants}" if isinstance(rule, Rule) else ""


def is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4000


def is_yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def is_number(low: float, high: float) -> Callable[[Any], bool]:
    return Rule(
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high,
        f"a number from {low:g} to {high:g}",
    )


def is_whole(low: int, high: int) -> Callable[[Any], bool]:
    return Rule(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
        f"a whole number from {low} to {high}",
    )


def one_of(*values: Any) -> Callable[[Any], bool]:
    return Rule(
        lambda v: not isinstance(v, bool | list | dict) and v in values,
        "one of " + ", ".join(map(str, values)),
    )


def check_private(
    private: Mapping[str, Any], allowed: Mapping[str, Callable[[Any], bool]], signed: Iterable[str] = ()
) -> None:
    """The brand's own parameters; `job.parameter` names the first that is unknown or malformed.

    `signed`: the parameters that both sides sign, for the hint to whoever gave one of them here.
    """
    for name, value in private.items():
        if name not in allowed and name in signed:
            text = f"{name!r} is a parameter that both sides sign, and no private one"
            raise NodeError("job.parameter", text, f"give it with --param {name}=…, not --private")
        if name not in allowed:
            text = f"there is no private parameter {name!r}{nearest(name, allowed)}"
            raise NodeError("job.parameter", text)
        if value is not None and not allowed[name](value):
            text = f"private parameter {name!r} can't be {str(value)[:60]!r}{_wanted(allowed[name])}"
            raise NodeError("job.parameter", text)


# -- views and people ----------------------------------------------------------------------------------------


def open_view(request: ViewRequest, own: Iterable[str] = ()) -> ConsentedView:
    """The gate's view of this side's people, for the job's purpose and the peer as recipient.

    The provider's view can read the asked columns and nothing else, the brand's its `own` ones. Raises
    `dataset.category` for a column without a category that the job covers, `agreement.minimum_rows` for too
    few people.
    """
    columns: Iterable[str] = own
    if request.role == "provider":
        columns = provider_columns(request.spec, request.dataset)
    view = Gate(request.center, request.home).open(
        request.dataset.name,
        request.spec.purpose,
        request.recipient,
        request.spec.categories,
        tuple(columns),
        request.job_id,
    )
    if view.rows < request.agreement.minimum_rows:
        raise NodeError(
            "agreement.minimum_rows",
            f"{view.rows} eligible people at the {request.role}, the agreement asks for "
            f"{request.agreement.minimum_rows}",
            counts=view.counts["out"],
        )
    return view


def own_columns(
    spec: JobSpec, dataset: Dataset, private: Mapping[str, Any], labels: Sequence[str] = ("label",)
) -> tuple[str, ...]:
    """The brand's columns that a job reads: its labels, then those that it learns from.

    These are the private parameter `columns`, or without it all columns of the data set under a category of
    the job, but for identifiers; never a label. Raises `job.parameter` and `dataset.category`.
    """
    known, names = dataset.categories, [private.get(label) for label in labels]
    if None in names:
        which = " and ".join(f"`{label}`" for label in labels)
        text = f"the job learns from the brand's people: name the column in {which}"
        raise NodeError("job.parameter", text)
    if len(set(names)) != len(names):
        raise NodeError("job.parameter", f"{' and '.join(labels)} are the same column", "name two columns")
    asked = private.get("columns")
    if asked is None:
        out = {*names, *(column for column, _ in dataset.identifiers)}
        asked = [n for n, c in known.items() if c in spec.categories and n not in out]
    if set(asked) & set(names):
        raise NodeError("job.parameter", "the label can't be one of the columns that the model learns from")
    wanted = tuple(dict.fromkeys((*names, *asked)))
    covered(wanted, spec, dataset)
    return wanted


def covered(names: Sequence[str], spec: JobSpec, dataset: Dataset) -> None:
    """Each of the brand's columns needs a category of the job (`dataset.category`)."""
    for name in names:
        if dataset.categories.get(name) not in spec.categories:
            raise NodeError(
                "dataset.category",
                f"the brand's column {name!r} has {dataset.categories.get(name) or 'no category'}, and the "
                f"job covers {', '.join(spec.categories)}",
                "check its name, and give it a category of the job: pec node data add",
            )


def provider_columns(spec: JobSpec, dataset: Dataset) -> tuple[str, ...]:
    """The data set's columns that the job reads: those asked for, each under a category of the job.

    The refusal is for the brand too; it says the same of a column that is not there and of one under another
    category.
    """
    covered_ones = [name for name, category in dataset.categories.items() if category in spec.categories]
    if spec.columns == ALL:
        if not covered_ones:
            text = f"no column of {dataset.name} is in {', '.join(spec.categories)}"
            raise NodeError("dataset.category", text, share=True)
        return tuple(covered_ones)
    for name in spec.columns:
        if name not in covered_ones:
            raise NodeError(
                "dataset.category",
                f"{dataset.name} of {spec.provider} has no column {name!r} in {', '.join(spec.categories)}",
                "check its name; the provider gives columns a category when it registers the data set",
                share=True,
            )
    return spec.columns


def spec_columns(ctx: StageContext) -> tuple[str, ...]:
    """The columns that the provider's view was opened with."""
    return tuple(ctx.view.allowed)


def alive(ctx: StageContext) -> np.ndarray:
    """bool[m]: this side's view rows that may be used in this stage."""
    mask = np.ones(ctx.view.rows, dtype=bool)
    mask[ctx.dropped] = False
    return mask


def chosen_people(ctx: StageContext) -> np.ndarray:
    """int64[n]: the brand's view rows that the job is about: all, or those of `where` or `label`; all
    alive."""
    mask = alive(ctx)
    if ctx.private.get("where"):
        mask &= ctx.view.where(ctx.private["where"])
    if ctx.private.get("label"):
        mask &= ctx.view.label(ctx.private["label"])
    return np.flatnonzero(mask)


def drawn_anew(ctx: StageContext, held: np.ndarray) -> int:
    """How many of the people `held` out of the fit this job has drawn by chance, as no other job will."""
    return len(held) if ctx.carry.get("drawn_anew", ctx.private.get("holdout_seed") is None) else 0


def write_json(ctx: StageContext, name: str, value: Any) -> None:
    """A result file of this side's, with sorted keys."""
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    (ctx.workdir / name).write_text(text, encoding="utf-8")


# -- stages that several kinds have --------------------------------------------------------------------------


def align_brand(ctx: StageContext, people: np.ndarray) -> None:
    """Learn the provider's row of each of `people` (brand's view rows): carry `people`, `rows`,
    `sender_rows`. See `align_receiver`.
    """
    align_receiver(ctx, people)


def align_receiver(ctx: StageContext, people: np.ndarray) -> None:
    """Learn the other side's row of each of `people`: carry `people`, `rows`, `sender_rows`.

    `rows` is int64[n], -1 where the other side does not have the person. With several identifiers the first
    match in the declared order of this side's data set counts.
    """
    people = same_people(ctx, people)
    items, who = ctx.view.items_of(people)
    found = aligning.receive(ctx, items, alive(ctx)[people][who])
    rows, by = first_match(found.rows, who, len(people))
    if ctx.view.several:
        declared = ctx.view.preflight.identifiers
        ranks = ctx.view.rank_of(people)
        by_rank = np.bincount(ranks[by[by >= 0]], minlength=len(declared))
        ctx.result["matched_by"] = {str(d["column"]): int(n) for d, n in zip(declared, by_rank, strict=True)}
    ctx.carry.update(people=people, rows=rows, sender_rows=found.sender_rows)


def same_people(ctx: StageContext, people: np.ndarray) -> np.ndarray:
    """`people`, or those with whom the stage began before it was interrupted.

    The buckets that are done already are of them; who has withdrawn since is not asked about any more.
    """
    if ctx.state is None:
        return people
    path = private_files.folder(ctx.state) / "people.npy"
    if path.exists():
        kept: np.ndarray = np.load(path, allow_pickle=False)
        return kept
    with private_files.writing(path) as file:
        np.save(file, people, allow_pickle=False)
    return people


def first_match(rows: np.ndarray, who: np.ndarray, people: int) -> tuple[np.ndarray, np.ndarray]:
    """(int64[people]: the row of each one's first item that has one; int64[people]: that item), else -1.

    `rows` int64[k] are those of items, `who` int64[k] (rising) whose item each is.
    """
    out, by = np.full(people, -1, dtype=np.int64), np.full(people, -1, dtype=np.int64)
    hit = np.flatnonzero(rows >= 0)[::-1]  # backwards, so that the first one is written last
    out[who[hit]] = rows[hit]
    by[who[hit]] = hit
    return out, by


def align_provider(ctx: StageContext) -> None:
    aligning.send(ctx, ctx.view.items, alive(ctx)[ctx.view.owner], ctx.view.owner, ctx.view.rows, True)


def record_asked(ctx: StageContext, size: int) -> None:
    """Into the provider's result and ledger (and so into its audit bundle): how many items were asked about.

    Nothing in the protocols ties them to the brand's snapshot; this number is what an auditor can compare.
    """
    ctx.result["asked_at_most"] = int(size)
    ctx.record("job.asked", {"job": ctx.job_id, "asked_at_most": int(size)})


def send_alive(ctx: StageContext, label: str) -> np.ndarray:
    """Provider: tell the brand which of the own rows are still in, as a bitmap; returns bool[m]."""
    mask = alive(ctx)
    ctx.channel.run(transfer.Sender(np.packbits(mask), label, ctx.channel.session(label)), label)
    return mask


def receive_alive(ctx: StageContext, label: str) -> np.ndarray:
    """Brand: bool[m] of the provider's rows that are still in."""
    m = ctx.carry["sender_rows"]
    raw = ctx.channel.run(transfer.Receiver((m + 7) // 8, label, ctx.channel.session(label)), label)
    return np.unpackbits(raw, count=m).astype(bool)


def matched(ctx: StageContext, provider_alive: np.ndarray) -> np.ndarray:
    """int64[k]: distinct provider rows of those aligned people who are still in on both sides."""
    rows = ctx.carry["rows"]
    here = alive(ctx)[ctx.carry["people"]]
    rows = rows[here & (rows >= 0)]
    return np.unique(rows[provider_alive[rows]])


def withdrawn_here(ctx: StageContext) -> np.ndarray:
    """int64[k]: provider rows of the brand's own aligned people who are not in any more."""
    rows = ctx.carry["rows"]
    gone = ~alive(ctx)[ctx.carry["people"]]
    return np.unique(rows[gone & (rows >= 0)])
