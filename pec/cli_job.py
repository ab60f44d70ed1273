"""`pec job`: ask for jobs, approve or decline a partner's, watch them, read results. Talks to the running
node.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from pec import wording
from pec.cli_common import account_rows, emit, json_option, note, progress, table, time_text
from pec.cli_home import client_of, home_at, home_option, read_json
from pec.cli_scores import scores
from pec.errors import PecError
from pec.figure_tables import figures, is_report

STATES = [
    *(
        "draft",
        "proposed",
        "awaiting_approval",
        "approved",
        "running",
        "held",
        "interrupted",
        "succeeded",
        "rejected",
    ),
    *("cancelled", "failed", "stopped_by_consent"),
]
#: Kinds that a request from options may ask for.
KINDS = [
    *("overlap", "lookalike", "enrich", "retarget", "feature-report"),
    *("boost", "joint-lr", "lead-score", "score"),
]
#: What a request may hold: as `NodeClient.submit` takes it.
REQUEST_FIELDS = {
    *("kind", "purpose", "agreement", "datasets", "categories", "peer", "columns", "params", "outputs"),
    *("private", "hold_before", "job_id", "expires_in_seconds"),
}


@click.group()
def job() -> None:
    """Ask for jobs, approve or decline a partner's, watch them, read results. Needs the running node."""


@job.command()
@click.argument("request_file", metavar="[REQUEST]", type=click.Path(path_type=Path), required=False)
@click.option("--kind", type=click.Choice(KINDS))
@click.option(
    "--method",
    type=click.Choice(["align", "private_join"]),
    help="How an overlap counts; private_join: with noise, and nobody learns who.",
)
@click.option("--job-id", help="A name for the job; made up by default.")
@click.option("--provider", help="The partner, as its card names it; by default the agreement's.")
@click.option("--agreement", help="Id of the agreement.")
@click.option(
    "--purpose",
    help="Purpose that people consented to; by default the agreement's only one, or named like the kind.",
)
@click.option("--brand-data", help="The own data set.")
@click.option("--provider-data", help="The partner's data set.")
@click.option("--category", "categories", multiple=True, help="Data category; repeat for several.")
@click.option("--column", "columns", multiple=True, help="Provider's column or tag; * for all; repeat.")
@click.option(
    "--selected-by", metavar="JOB", help="Instead of --column: the columns that this feature-report selected."
)
@click.option("--param", "params", multiple=True, metavar="NAME=JSON", help="Parameter that both sides see.")
@click.option("--private", "private", multiple=True, metavar="NAME=JSON", help="Parameter that stays here.")
@click.option("--hold-before", help="Stop before this stage until `pec job resume`.")
@click.option(
    "--suite",
    type=click.Choice(["auto", "ecdh", "vole"]),
    help="How to align; auto (the default) takes the one that is forecast to end first.",
)
@click.option(
    "--sum",
    "summed",
    metavar="SIDE.COLUMN",
    help="With --method private_join: also the sum of that column over shared people, as agreed.",
)
@click.option("--peer-rows", type=click.IntRange(0), help="People of the partner, for the forecast.")
@click.option("--estimate-only", is_flag=True, help="Print the forecast of time and bytes; ask for nothing.")
@click.option("--no-estimate", is_flag=True, help="Do not count the rows of the own file beforehand.")
@click.option("--watch", is_flag=True, help="Stay until the job has ended.")
@home_option
@json_option
def submit(
    request_file: Path | None,
    watch: bool,
    peer_rows: int | None,
    estimate_only: bool,
    no_estimate: bool,
    selected_by: str | None,
    home: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Ask for a job, from a REQUEST file (JSON, - for standard input) or from options, which win over the
    file.

    Private parameters of the kinds: `where` (an SQL condition on the own file) or `label` (a yes/no column)
    choose the people; a lookalike also takes `audience_size`, `holdout`, `include_seeds`.
    """
    if selected_by and options["columns"]:
        raise click.UsageError("--column and --selected-by both say which columns; give one of them")
    if selected_by:
        options["columns"] = _selected(home, selected_by)
    request = _request(
        read_json(request_file) if request_file else {}, options, lambda agreement: _purposes(home, agreement)
    )
    if request["kind"] == "score":
        request["params"] = _named_model(home, request["params"])
    with client_of(home) as client:
        forecast: dict[str, Any] | None = None
        if estimate_only or not no_estimate:
            asked = request if peer_rows is None else {**request, "peer_rows": peer_rows}
            forecast = client.estimate(asked)
        if estimate_only:
            emit(forecast, as_json, _forecast)
            return
        if forecast and forecast["cost"]:
            note(_forecast(forecast))
        job_id = client.submit(request)
        if watch:
            _watch(client, job_id, as_json)
            return
    emit({"job_id": job_id, "estimate": forecast}, as_json, lambda d: d["job_id"])
    note(f"asked for: pec job watch {job_id}, pec job show {job_id}, and at its end pec job result {job_id}")


def _purposes(home: Path, agreement: str) -> tuple[str, ...]:
    """Those of the agreement, as far as it is here; what is not here is for the node to refuse."""
    return next((a.purposes for a in home_at(home).agreements() if a.id == agreement), ())


def _named_model(home: Path, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with the model as both sides name it, by its training job, and with its method.

    Aliases, names and versions are this organisation's own, and the partner knows none of them.
    """
    from parties.models import Models

    if not isinstance(params.get("model"), str):
        return params
    model = Models(home_at(home)).find(params["model"])
    return {"method": model.method, **params, "model": model.job_id}


def _selected(home: Path, job_id: str) -> list[str]:
    """The provider's columns that this node's finished feature-report selected, best first."""
    opened = home_at(home)
    record, result = (opened.job(job_id) / name for name in ("job.json", "result.json"))
    found = read_json(result) if record.exists() and result.exists() else {}
    if "selected" not in found:
        what = f"{job_id!r} is no feature-report that this node asked for and has finished"
        raise PecError("pec.input", what, "pec job list shows this node's jobs")
    if not found["selected"]:
        what = f"{job_id!r} selected no column: no information value is {found['minimum_iv']:g} or more"
        raise PecError("pec.input", what, "ask for a report with a lower minimum_iv, or name columns")
    return [str(name) for name in found["selected"]]


def _forecast(found: dict[str, Any]) -> str:
    cost = found["cost"]
    if not cost:
        return str(found["why"])
    sides = []
    for whose, side in (("own", "own"), ("the partner's", "peer")):
        people, identifiers = found[f"{side}_people"], found[f"{side}_identifiers"]
        text = f"{identifiers:,} identifiers" if people is None else f"{people:,} people"
        several = "" if people in (None, identifiers) else f" with {identifiers:,} identifiers"
        sides.append(f"{whose} {text}{several}")
    cold = ""
    if not found.get("warmed", True):
        cold = "; a first job may compile kernels for a minute or two: pec warmup does it beforehand"
    return (
        f"forecast of the alignment: {cost['suite']}, {wording.seconds_text(cost['seconds'])}, "
        f"{wording.bytes_text(cost['bytes'])} in {cost['buckets']} bucket(s) ({found['why']}; "
        f"{', '.join(sides)}, {found['basis']}); before it the gates open in about "
        f"{wording.seconds_text(found['opening_seconds'])}; {_training(found.get('training'))}{cold}"
    )


def _training(found: dict[str, Any] | None) -> str:
    """Of the forecast of a forest, in words."""
    if not found:
        return "what the job computes afterwards comes on top"
    text = (
        f"forecast of the fit: {wording.seconds_text(found['seconds'])}, {wording.bytes_text(found['bytes'])}"
    )
    for side in ("brand", "provider"):
        disk = found["disk_bytes"][side]
        text += f"; {side}: {wording.bytes_text(found['memory_bytes'][side])} of memory"
        text += f" and {wording.bytes_text(disk)} of disk" if disk else ""
    return text


def _request(
    made: dict[str, Any],
    options: dict[str, Any],
    purposes: Callable[[str], Sequence[str]] = lambda agreement: (),
) -> dict[str, Any]:
    """What `NodeClient.submit` takes. `purposes`: those of an agreement, of which an only one is taken."""
    from pec import plan

    unknown = sorted(set(made) - REQUEST_FIELDS)
    if unknown:
        allowed = ", ".join(sorted(REQUEST_FIELDS))
        raise PecError(
            "pec.usage", f"the request has unknown fields: {', '.join(unknown)}", f"allowed: {allowed}"
        )
    simple = {"kind": "kind", "provider": "peer", "agreement": "agreement", "purpose": "purpose"}
    simple |= {"job_id": "job_id", "hold_before": "hold_before"}
    made.update({key: options[name] for name, key in simple.items() if options[name] is not None})
    datasets = dict(made.get("datasets") or {})
    for side in ("brand", "provider"):
        if options[f"{side}_data"]:
            datasets[side] = options[f"{side}_data"]
    made["datasets"] = datasets
    for name in ("categories", "columns"):
        made[name] = list(options[name]) or made.get(name, [])
    for name in ("params", "private"):
        made[name] = {**made.get(name, {}), **dict(_pair(text, name) for text in options[name])}
    for name in ("method", "suite"):
        if options.get(name) is not None:
            made["params"][name] = options[name]
    if options.get("summed"):
        side, _, column = options["summed"].partition(".")
        made["params"]["sum"] = options["summed"]
        if side == "provider" and not made["columns"]:
            made["columns"] = [column]
    for key, option in (("kind", "kind"), ("agreement", "agreement"), ("categories", "category")):
        if not made.get(key):
            raise PecError(
                "pec.usage", f"the request has no {key}", f"give --{option}, or put it in the file"
            )
    for side in ("brand", "provider"):
        if not datasets.get(side):
            what = f"the request has no data set of the {side}"
            raise PecError("pec.usage", what, f"give --{side}-data, or put it in the file")
    if "purpose" not in made:
        agreed = purposes(made["agreement"])
        made["purpose"] = agreed[0] if len(agreed) == 1 else made["kind"]
    made.setdefault("outputs", plan.outputs(made["kind"], made["params"]))
    return made


def _pair(text: str, what: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise PecError("pec.usage", f"{text!r} of --{what.rstrip('s')} is no NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # plain words need no quotation marks


@job.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@home_option
@json_option
def list_(state: str | None, home: Path, as_json: bool) -> None:
    """The jobs of this node, the newest first."""
    with client_of(home) as client:
        jobs = [j for j in client.jobs() if state in (None, j["state"])]
    columns = ("job", "kind", "role", "with", "state", "seconds")
    emit(
        jobs,
        as_json,
        lambda d: table(
            columns,
            [(j["job_id"], j["kind"], j.get("role"), j.get("peer"), j["state"], j.get("seconds")) for j in d],
        ),
    )


@job.command()
@click.argument("job_id")
@home_option
@json_option
def show(job_id: str, home: Path, as_json: bool) -> None:
    """One job: what is asked for, what each side learns, people in and out, stages, result or error."""
    with client_of(home) as client:
        found = client.job(job_id)
    emit(found, as_json, _show)


def _show(found: dict[str, Any]) -> Any:
    from rich.console import Group

    fields = [(k, v) for k, v in found.items() if isinstance(v, str | int | float) and v != ""]
    if found.get("progress"):
        step = found["progress"]
        left = step.get("seconds_left")
        words = f"{step['what']}: {step['done']:,} of {step['total']:,}"
        fields.append(
            ("progress", words + (f", {wording.seconds_text(left)} left" if left is not None else ""))
        )
    if found.get("interrupted"):
        fields.append(("interrupted", f"{found['interrupted']['code']}: {found['interrupted']['detail']}"))
    parts: list[Any] = [
        table(("field", "value"), [(k, time_text(v) if k.endswith("_at") else v) for k, v in fields])
    ]
    if found.get("spec"):
        parts.append(table(("asked for", ""), _asked(found["spec"]), title="What the brand asks for"))
    if found.get("leakage"):
        lines = [(side, line) for side in ("brand", "provider") for line in found["leakage"].get(side, [])]
        parts.append(table(("who", "learns"), lines, title="What each side learns"))
    if found.get("privacy"):
        parts.append(table(("what", "value"), account_rows(found["privacy"]), title="Privacy account"))
    counts = (found.get("counts") or {}).get("own")
    if counts:
        people = [("in", counts["in"]), *((wording.reason(k)[1], v) for k, v in counts["out"].items())]
        parts.append(table(("reason", "people"), people, title="People on this side"))
    if found.get("stages"):
        rows = [
            (s["name"], s.get("seconds"), s.get("bytes_sent"), s.get("bytes_received"))
            for s in found["stages"]
        ]
        parts.append(table(("stage", "seconds", "bytes sent", "bytes received"), rows))
    alignment = (found.get("result") or {}).get("alignment")
    if alignment:
        parts.append(_alignment(alignment))
    error = found.get("error")
    if error:
        told = [(k, error[k]) for k in ("code", "detail", "hint", "origin") if error.get(k)]
        parts.append(table(("error", ""), told))
    elif found.get("result"):
        parts.append(figures(_without_alignment(found["result"])))
    return Group(*parts)


def _alignment(found: dict[str, Any]) -> Any:
    """The forecast beside what happened; a sender makes none."""
    guess = found.get("estimate") or {}
    fact = {**found, "bytes": found["bytes_sent"] + found["bytes_received"]}
    rows = [(name, guess.get(name), fact[name]) for name in ("suite", "buckets", "seconds", "bytes")]
    opening = found.get("opening") or {}
    rows.append(("the gate's seconds before it", opening.get("estimate"), opening.get("seconds")))
    rows.append(("why", found.get("why"), None))
    rows += [("far from the forecast", None, text) for text in found.get("warnings", ())]
    return table(("alignment", "forecast", "happened"), rows)


def _asked(spec: dict[str, Any]) -> list[tuple[str, Any]]:
    """What the provider's operator has to know before approving."""
    rows = [(f"data set of the {side}", name) for side, name in (spec.get("datasets") or {}).items()]
    for name in ("categories", "columns"):
        rows.append((name, ", ".join(spec.get(name) or []) or None))
    rows += [
        (name, json.dumps(value, ensure_ascii=False)) for name, value in (spec.get("params") or {}).items()
    ]
    return [*rows, ("open until", spec.get("expires_at"))]


@job.command()
@click.argument("job_id")
@click.option("--timeout", type=float, help="Give up after so many seconds; the job goes on.")
@home_option
@json_option
def watch(job_id: str, timeout: float | None, home: Path, as_json: bool) -> None:
    """Stay with a job until it has ended; exit code 0 only if it succeeded."""
    with client_of(home) as client:
        _watch(client, job_id, as_json, timeout)


def _until(client: Any, job_id: str, timeout: float | None) -> Iterator[dict[str, Any]]:
    """What the node tells of a job; ends when the time is over, which is no fault of the node."""
    from parties.errors import NodeError

    began = time.monotonic()
    try:
        yield from client.watch(job_id, timeout)
    except NodeError as error:
        if error.code != "transport.silent" or timeout is None or time.monotonic() - began < timeout * 0.9:
            raise


def _follow(client: Any, job_id: str, timeout: float | None) -> tuple[str, dict[str, Any]]:
    """Shows states and progress; the last state, and all that the node told with it."""
    from pec import jobs

    state, last = "", dict[str, Any]()
    with progress(job_id) as bar:
        for last in _until(client, job_id, timeout):
            step = last.get("progress") or {}
            if step.get("total"):
                words = _step_words(step)
                if step.get("seconds_left") is not None:
                    words += f", {wording.seconds_text(step['seconds_left'])} left"
                bar.update(step["done"], step["total"], words)
            if last["state"] != state:
                state = last["state"]
                note(f"{job_id}: {state}")
            if state in jobs.FINAL:
                break
    return state, last


def _step_words(step: dict[str, Any]) -> str:
    """Stage and part, once where they are the same."""
    stage, what = step.get("stage", ""), step.get("what", "")
    return what if stage in what.split() else f"{stage} {what}".strip()


def _watch(client: Any, job_id: str, as_json: bool, timeout: float | None = None) -> None:
    from pec import jobs

    try:
        state, last = _follow(client, job_id, timeout)
    except KeyboardInterrupt:
        note(f"the job goes on: pec job watch {job_id}; to end it: pec job cancel {job_id}")
        raise
    if state not in jobs.FINAL:
        raise PecError(
            "pec.timeout", f"job {job_id} is still {state or 'unknown'}", "watch again: the job goes on"
        )
    if state != jobs.DONE:
        raise jobs.failure(last)
    emit(last, as_json, _show)


@job.command()
@click.argument("job_id")
@click.option("--note", "words", default="", help="Stands in the ledger with the approval.")
@home_option
@json_option
def approve(job_id: str, words: str, home: Path, as_json: bool) -> None:
    """Let a partner's job run. Look at `pec job show` first: it says what is asked for and what each side
    learns.
    """
    with client_of(home) as client:
        emit(client.approve(job_id, words), as_json, _one_line)


@job.command()
@click.argument("job_id")
@click.option("--reason", required=True, help="The partner is told.")
@home_option
@json_option
def reject(job_id: str, reason: str, home: Path, as_json: bool) -> None:
    """Decline a partner's job."""
    with client_of(home) as client:
        emit(client.reject(job_id, reason), as_json, _one_line)


@job.command()
@click.argument("job_id")
@click.option("--reason", default="", help="The partner is told.")
@home_option
@json_option
def cancel(job_id: str, reason: str, home: Path, as_json: bool) -> None:
    """End a job that has not ended; it leaves no result on either side."""
    with client_of(home) as client:
        emit(client.cancel(job_id, reason), as_json, lambda d: _on_its_way(d, "cancelling"))


@job.command()
@click.argument("job_id")
@home_option
@json_option
def resume(job_id: str, home: Path, as_json: bool) -> None:
    """Let a held job go on."""
    with client_of(home) as client:
        emit(client.resume(job_id), as_json, lambda d: _on_its_way(d, "resuming"))


@job.command()
@click.argument("job_id")
@click.option(
    "--audience", type=click.Path(path_type=Path), help="Only the rows in this file (column `row`)."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write `row, line` to this .csv or .parquet file."
)
@home_option
@json_option
def rows(job_id: str, audience: Path | None, out: Path | None, home: Path, as_json: bool) -> None:
    """At the provider: which line of the own file each row number of a job is. Stays in the organisation.

    A line is counted from 0, the header not counted. With --audience, only the rows that the brand delivered.
    """
    import numpy as np

    from pec import audience as audiences

    with client_of(home) as client:
        lines = client.rows(job_id)
    chosen = np.arange(lines.size) if audience is None else audiences.read_rows(audience)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= lines.size):
        raise PecError(
            "pec.audience",
            f"{audience} has a row outside the job's 0 to {lines.size - 1}",
            "is it of this job?",
        )
    data: dict[str, Any] = {"job_id": job_id, "rows": int(chosen.size)}
    if out is None:
        data["lines"] = lines[chosen].tolist()
        emit(data, as_json, lambda d: "\n".join(map(str, d["lines"])))
        return
    audiences.write_columns(out, {"row": chosen, "line": lines[chosen]})
    emit({**data, "written": str(out)}, as_json, lambda d: f"{d['rows']:,} rows in {d['written']}")


job.add_command(scores)


@job.command()
@click.argument("job_id")
@click.option("--bins", is_flag=True, help="Of a feature report: people, rate and WOE of each bin too.")
@home_option
@json_option
def result(job_id: str, bins: bool, home: Path, as_json: bool) -> None:
    """What this side got: the figures, and where its files are. How the alignment went: pec job show."""
    with client_of(home) as client:
        found = client.job(job_id)
    if found["state"] != "succeeded":
        raise PecError(
            "pec.job_failed", f"job {job_id} is {found['state']} and has no result", "see pec job show"
        )
    files = [str(Path(found["path"]) / name) for name in found["files"]]
    data = {"job_id": job_id, "kind": found["kind"], "result": found.get("result", {}), "files": files}
    emit(data, as_json, lambda d: _result(d, bins))


def _result(d: dict[str, Any], bins: bool = False) -> Any:
    from rich.console import Group

    parts = [
        figures(_without_alignment(d["result"]), bins=bins),
        table(("file",), [(f,) for f in d["files"]]),
    ]
    if is_report(d["result"].get("columns")) and not bins:
        parts.append(f"people, rate and WOE of each bin: pec job result {d['job_id']} --bins")
    return Group(*parts)


def _without_alignment(result: dict[str, Any]) -> dict[str, Any]:
    """The figures that an analyst looks for; `pec job show` has a table of the alignment."""
    return {k: v for k, v in result.items() if k not in ("alignment", "disk_bytes")}


def _on_its_way(found: dict[str, Any], what: str) -> str:
    """A running job does what it was told at its next message; until then its state is the old one."""
    if found["state"] in ("running", "held"):
        return f"{found['job_id']}: {what}; see pec job watch {found['job_id']}"
    return _one_line(found)


def _one_line(found: dict[str, Any]) -> str:
    return f"{found['job_id']}: {found['state']}"
