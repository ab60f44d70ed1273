"""`lead-score`: how soon and how much? Two targets of the brand's, learned in one job after one alignment.

    align    the brand learns the provider's row of each of its people
    speed    the first fit: a yes/no label, such as "bought within 30 days"
    value    the second fit: a number or a yes/no label, such as the first year's revenue
    release  provider: who is still in; brand: both scores, combined score and grade of its people

Each fit is that of `boost` or, by the parameter `method`, of `joint-lr`, as it is: they run in a context of
their own, whose sessions carry the target's name, so that nothing of one can be replayed in the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from parties.datasets import Dataset
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.gate import ConsentedView
from parties.grades import CUTOFFS, Calibration, Grading, are_cutoffs
from parties.kinds import boost, common, joint_lr, supervised
from parties.stage import Channel, If, JobKind, Own, Stage, StageContext, ViewRequest
from protocols.machine import Machine

R = TypeVar("R")

TARGETS = ("speed", "value")
METHODS = {"boost": boost, "joint-lr": joint_lr}

#: What `value` is: its objective or family in each method.
VALUES = {
    "number": {"boost": "squared", "joint-lr": "linear"},
    "flag": {"boost": "logistic", "joint-lr": "logistic"},
}

#: Held-out people of each answer that a calibration needs.
LEAST_CALIBRATION = 10

_OWN = {"method": common.one_of(*METHODS), "value": common.one_of(*VALUES)}
PARAMS = {
    "boost": {**_OWN, **{k: v for k, v in boost.PARAMS.items() if k != "objective"}},
    "joint-lr": {**_OWN, **{k: v for k, v in joint_lr.PARAMS.items() if k != "family"}},
}
PRIVATE = {
    **{name: valid for name, valid in boost.PRIVATE.items() if name not in ("label", "monotone")},
    "speed": common.is_text,
    "value": common.is_text,
    "weight": common.is_number(0.0, 1.0),
    "cutoffs": are_cutoffs,
    "calibrate": common.is_yes_or_no,
}


class TargetChannel:
    """The line to the peer during the fit of one target: its sessions are bound to the target's name."""

    def __init__(self, channel: Channel, target: str) -> None:
        self._channel, self._target = channel, target

    @property
    def bytes_sent(self) -> int:
        return self._channel.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._channel.bytes_received

    def session(self, label: str) -> bytes:
        return self._channel.session(f"{self._target} {label}")

    def run(self, machine: Machine[R], label: str = "", part: tuple[int, int] | None = None) -> R:
        return self._channel.run(machine, f"{self._target} {label}", part)

    def send_json(self, value: Mapping[str, Any]) -> None:
        self._channel.send_json(value)

    def receive_json(self) -> dict[str, Any]:
        return self._channel.receive_json()

    def send_bytes(self, message: bytes) -> None:
        self._channel.send_bytes(message)

    def receive_bytes(self) -> bytes:
        return self._channel.receive_bytes()

    def progress(self, done: int, total: int, what: str = "") -> None:
        self._channel.progress(done, total, f"{self._target} {what}")


def method_of(spec: JobSpec) -> str:
    return str(spec.params.get("method", "boost"))


def check(spec: JobSpec, agreement: Agreement) -> None:
    method = method_of(spec)
    if method not in METHODS:
        raise NodeError("job.spec", f"method {method[:40]!r} is none of {', '.join(METHODS)}", share=True)
    common.check_params(spec, PARAMS[method], PRIVATE)
    for target in TARGETS:
        METHODS[method].check(_spec_of(spec, target), agreement)


def _spec_of(spec: JobSpec, target: str) -> JobSpec:
    """The job as the method's own kind would get it for this target."""
    method = method_of(spec)
    kept = {name: value for name, value in spec.params.items() if name not in _OWN}
    value = str(spec.params.get("value", "number")) if target == "value" else "flag"
    kept["objective" if method == "boost" else "family"] = VALUES[value][method]
    return replace(spec, kind=method, params=kept)


def of_target(ctx: StageContext, target: str) -> StageContext:
    """The context of one target's fit: files in a folder of its own, what it carries and finds apart."""
    folder = ctx.workdir / target
    folder.mkdir(mode=0o700, exist_ok=True)
    if target not in ctx.carry:
        ctx.carry[target] = {k: v for k, v in ctx.carry.items() if k not in TARGETS}
    private: dict[str, Any] = {}
    if ctx.role == "brand":
        own = (*TARGETS, "weight", "cutoffs", "calibrate")
        private = {k: v for k, v in ctx.private.items() if k not in own}
        labels = [ctx.private[name] for name in TARGETS]
        private |= {"label": ctx.private[target]}
        private["columns"] = [name for name in ctx.view.allowed if name not in labels]
        # The same people are held out of both fits, or the grade could be measured on hardly anybody.
        private["holdout_seed"] = ctx.carry["holdout_seed"]
    return replace(
        ctx,
        spec=_spec_of(ctx.spec, target),
        private=private,
        channel=TargetChannel(ctx.channel, target),
        workdir=folder,
        carry=ctx.carry[target],
        result=ctx.result.setdefault(target, {}),
    )


def open_view(request: ViewRequest) -> ConsentedView:
    """The provider's as in any kind; the brand's can read both labels and its own columns."""
    if request.role == "provider":
        return common.open_view(request)
    common.check_private(request.private, PRIVATE)
    names = common.own_columns(request.spec, request.dataset, request.private, TARGETS)
    return supervised.open_own(request, names)


def check_own(spec: JobSpec, dataset: Dataset, private: Mapping[str, Any]) -> None:
    common.check_private(private, PRIVATE, {*PARAMS["boost"], *PARAMS["joint-lr"]})
    common.own_columns(spec, dataset, private, TARGETS)


def own(spec: JobSpec) -> Own:
    """Each target's label is checked as the method's own kind checks its one."""
    kind = METHODS[method_of(spec)]
    checks = [(target, kind.own(_spec_of(spec, target)).labels[0][1]) for target in TARGETS]
    return Own(labels=tuple(checks), least="seeds")


def align_brand(ctx: StageContext) -> None:
    if method_of(ctx.spec) == "boost":
        supervised.align_brand(ctx)
    else:
        joint_lr.align_brand(ctx)
    fixed = ctx.private.get("holdout_seed")
    ctx.carry["drawn_anew"] = fixed is None
    ctx.carry["holdout_seed"] = int.from_bytes(os.urandom(6), "big") if fixed is None else int(fixed)


def _fit(target: str, role: str) -> Callable[[StageContext], None]:
    def run(ctx: StageContext) -> None:
        one, kind = of_target(ctx, target), METHODS[method_of(ctx.spec)]
        getattr(kind, f"fit_{role}")(one)
        if kind is joint_lr:
            getattr(kind, f"score_{role}")(one)

    return run


def release_provider(ctx: StageContext) -> None:
    for target in TARGETS:
        METHODS[method_of(ctx.spec)].release_provider(of_target(ctx, target))
    _write_json(ctx, "model.json", {"kind": "lead-score", "method": method_of(ctx.spec)})


def release_brand(ctx: StageContext) -> None:
    method = METHODS[method_of(ctx.spec)]
    for target in TARGETS:
        method.release_brand(of_target(ctx, target))
    tables = [pq.read_table(ctx.workdir / target / "scores.parquet") for target in TARGETS]
    rows, *places = np.intersect1d(*(t["row"].to_numpy() for t in tables), return_indices=True)
    role = [np.array(t["role"].to_pylist(), dtype=object)[at] for t, at in zip(tables, places, strict=True)]
    # A probability (speed, yes/no) or a number in the label's own unit.
    found = [
        t["prediction" if "prediction" in t.column_names else "score"].to_numpy()[at]
        for t, at in zip(tables, places, strict=True)
    ]
    fitted = (role[0] == "fit") & (role[1] == "fit")
    if not fitted.any():
        raise NodeError("job.labels", "nobody has both labels and is still in", "use more people")
    weight = float(ctx.private.get("weight", 0.5))
    grading = Grading.of(found[0][fitted], found[1][fitted], weight, ctx.private.get("cutoffs") or CUTOFFS)
    scores = [found[0], found[1] if value_of(ctx.spec) == "flag" else grading.value.share(found[1])]
    combined, grade = grading.combine(*found)
    held = (role[0] == "held_out") & (role[1] == "held_out")
    calibrated = _calibrate(ctx, rows, found, held) if ctx.private.get("calibrate") else {}
    for k, target in enumerate(TARGETS):
        if target in calibrated:
            scores[k] = calibrated[target].chance(found[k])
    roles = np.where(fitted, "fit", np.where(held, "held_out", "scored")).tolist()
    columns = {"row": rows, "speed": scores[0], "value": scores[1], "value_prediction": found[1]}
    if calibrated:
        columns["speed_prediction"] = found[0]
    columns |= {"combined": combined, "grade": pa.array(grade.tolist()), "role": pa.array(roles)}
    pq.write_table(pa.table(columns), ctx.workdir / "scores.parquet")
    ctx.result.update(
        method=method_of(ctx.spec),
        value_is=value_of(ctx.spec),
        scored=len(rows),
        held_out=int(held.sum()),
        weight=weight,
        cutoffs=list(grading.cutoffs),
        grades=_by_grade(ctx, rows, grade, held),
    )
    _write_json(
        ctx,
        "model.json",
        {
            "kind": "lead-score",
            "method": method_of(ctx.spec),
            "value_is": value_of(ctx.spec),
            "grading": grading.to_document(),
            "calibration": {target: one.to_document() for target, one in calibrated.items()},
        },
    )
    _write_json(ctx, "result.json", ctx.result)


def value_of(spec: JobSpec) -> str:
    return str(spec.params.get("value", "number"))


def _calibrate(
    ctx: StageContext, rows: np.ndarray, found: list[np.ndarray], held: np.ndarray
) -> dict[str, Calibration]:
    """By target that is a yes or no: its chance by prediction, from the people held out of both fits; not of
    a target whose predictions are no worse as they are.

    `calibration` of the result has the Brier score of the predictions as they were and of the chances, the
    latter on people whom the calibration that gives them has not seen, and which of the two is `used`.
    """
    out, figures, notes = dict[str, Calibration](), dict[str, Any](), list[str]()
    for k, target in enumerate(TARGETS):
        if target == "value" and value_of(ctx.spec) != "flag":
            continue
        y = _labels_of(ctx, target, rows[held]) > 0
        said = found[k][held]
        if min(int(y.sum()), int((~y).sum())) < LEAST_CALIBRATION:
            raise NodeError(
                "job.labels",
                f"{int(y.sum())} of {len(y)} held-out people are yes in {target}, and a calibration needs "
                f"{LEAST_CALIBRATION} of each answer",
                "hold out more people, or leave calibrate away",
            )
        learned, before, after = Calibration.compared(said, y)
        if after < before:
            out[target] = learned
        else:
            notes.append(
                f"{target}: not calibrated; on people not seen its Brier score would be {after:.5f} and is "
                f"{before:.5f} without ({len(y)} held out)"
            )
        figures[target] = {
            "held_out": len(y),
            "brier": before,
            "brier_calibrated": after,
            "used": target in out,
        }
    ctx.result.update(calibration=figures, notes=notes)
    return out


def _labels_of(ctx: StageContext, target: str, lines: np.ndarray) -> np.ndarray:
    """The brand's own labels of these lines of its file, float64[n]."""
    line = {int(r): i for i, r in enumerate(ctx.view.own_rows().tolist())}
    people = np.array([line[int(r)] for r in lines], dtype=np.int64)
    return supervised.labels(
        ctx, str(ctx.private[target]), people, target == "speed" or value_of(ctx.spec) == "flag"
    )


def _by_grade(ctx: StageContext, rows: np.ndarray, grade: np.ndarray, held: np.ndarray) -> dict[str, Any]:
    """By grade: people, those held out, and the held-out ones' rate of speed and mean of value."""
    labels = [_labels_of(ctx, target, rows[held]) for target in TARGETS]
    out: dict[str, Any] = {}
    for letter in "ABCDE":
        here = grade[held] == letter
        means = [float(np.nanmean(y[here])) if here.any() else None for y in labels]
        out[letter] = {
            "people": int((grade == letter).sum()),
            "held_out": int(here.sum()),
            "speed": means[0],
            "value": means[1],
        }
    return out


def _write_json(ctx: StageContext, name: str, value: Any) -> None:
    (ctx.workdir / name).write_text(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def _leakage(kind: JobKind) -> dict[str, tuple[str | If, ...]]:
    """The union of two fits of the kind, and what is special here."""
    both = "all of this for two fits, one after the other: speed and value"
    both_zh = "以上各项对应先后两次拟合：速度与价值"
    table = {
        role: (*lines, both_zh if role.endswith(".zh") else both) for role, lines in kind.leakage.items()
    }
    table["brand"] += ("speed score, value score, combined score and grade of its own people",)
    table["brand.zh"] += ("自有人员的速度分、价值分、综合分与等级",)
    return table


def _kind(base: JobKind) -> JobKind:
    return JobKind(
        name="lead-score",
        stages=(
            Stage("align", align_brand, common.align_provider),
            *(Stage(target, _fit(target, "brand"), _fit(target, "provider")) for target in TARGETS),
            Stage("release", release_brand, release_provider),
        ),
        check=check,
        open_view=open_view,
        leakage=_leakage(base),
        aligned="brand",
        check_own=check_own,
        own=own,
    )


LEAD_SCORE = replace(
    _kind(boost.BOOST), methods={"boost": _kind(boost.BOOST), "joint-lr": _kind(joint_lr.JOINT_LR)}
)
