"""`pec bench` and `pec warmup`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from pec import wording
from pec.cli_bench_consent import consent_api, gate, ledger
from pec.cli_common import emit, json_option, progress, table
from pec.errors import PecError

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def bench() -> None:
    """Measure: two processes over gRPC with mutual TLS on this machine.

    `align` measures whole processes, from their start to their end. `lookalike` (and `align --job`) measures
    a whole job between two nodes, from submitting it to its success, on both sides, with consent decisions,
    ledger and audit bundle; making data, importing consent and starting the nodes are not in it.
    """


@bench.command()
@click.option(
    "--receiver", type=click.IntRange(1), default=1 << 16, show_default=True, help="The receiver's people."
)
@click.option(
    "--sender", type=click.IntRange(1), default=1 << 16, show_default=True, help="The sender's people."
)
@click.option("--suite", type=click.Choice(["vole", "ecdh"]), default="vole", show_default=True)
@click.option("--malicious", is_flag=True, help="Suite vole against a receiver or sender that cheats.")
@click.option("--receiver-file", type=_FILE, help="A CSV or Parquet file in place of synthetic people.")
@click.option("--sender-file", type=_FILE, help="The other file.")
@click.option("--id", "id_", default="id", show_default=True, help="The files' column of identifiers.")
@click.option("--kind", default="", help="phone, email, device or opaque; found out if not given.")
@click.option("--bucket-rows", type=click.IntRange(256), help="Receivers of more people work by bucket.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where buckets are computed; each side has a Ray cluster of its own.",
)
@click.option(
    "--workers", type=click.IntRange(0), default=0, help="With ray: a side's workers; 0: one a core."
)
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="The fastest one counts.")
@click.option("--peer-python", type=_FILE, help="A Python that has `spu`: the same files with SecretFlow.")
@click.option("--job", is_flag=True, help="A whole job between two nodes, consent and ledger included.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the synthetic data.")
@json_option
def align(as_json: bool, job: bool, id_: str, **given: Any) -> None:
    """Who is in both: two processes, two files. Of synthetic people half of the smaller side is."""
    if job:
        from pec.bench import run

        if given["engine"] != "local" or given["malicious"]:
            what = "--job runs two nodes of its own, in process, with suite --suite and nothing else"
            raise PecError("pec.usage", what, "leave --job out, or --engine and --malicious")
        with progress("bench align") as bar:
            data = run.align(
                given["receiver"],
                given["sender"],
                given["suite"],
                seed=given["seed"],
                show=lambda w, d, t: bar.update(d, t, w),
            )
        emit(data, as_json, _show)
        return
    from pec.bench import align as lean

    with progress("bench align") as bar:
        data = lean.run(lean.Inputs(id=id_, **given), show=lambda w, d, t: bar.update(d, t, w))
    emit(data, as_json, _show_align)


@bench.command()
@click.option(
    "--rows", type=click.IntRange(10), default=100_000, show_default=True, help="The provider's people."
)
@click.option(
    "--features", type=click.IntRange(1), default=50, show_default=True, help="The provider's columns."
)
@click.option("--seeds", type=click.IntRange(1), default=5_000, show_default=True, help="The brand's people.")
@click.option(
    "--epsilon", type=click.FloatRange(min=0, min_open=True, max=100), help="Privacy budget; none: no noise."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the synthetic data.")
@click.option("--pooled/--no-pooled", default=True, show_default=True, help="Fit scikit-learn beside it.")
@json_option
def lookalike(as_json: bool, **given: Any) -> None:
    """Fit to the seeds, score everybody."""
    from pec.bench import run

    with progress("bench lookalike") as bar:
        data = run.lookalike(**given, show=lambda w, d, t: bar.update(d, t, w))
    emit(data, as_json, _show)


@bench.command()
@click.option("--rows", type=click.IntRange(200), default=20_000, show_default=True, help="People, at both.")
@click.option("--features-brand", type=click.IntRange(0), default=10, show_default=True)
@click.option("--features-provider", type=click.IntRange(1), default=10, show_default=True)
@click.option("--trees", type=click.IntRange(1, 2000), default=10, show_default=True)
@click.option("--depth", type=click.IntRange(1, 8), default=5, show_default=True, help="Levels of splits.")
@click.option(
    "--bins",
    type=click.Choice(["2", "4", "8", "16", "32", "64"]),
    default="16",
    show_default=True,
    help="Of each of the provider's columns.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the synthetic data.")
@click.option("--pooled/--no-pooled", default=True, show_default=True, help="Fit scikit-learn beside it.")
@json_option
def boost(
    rows: int,
    features_brand: int,
    features_provider: int,
    trees: int,
    depth: int,
    bins: str,
    seed: int,
    pooled: bool,
    as_json: bool,
) -> None:
    """Boosted trees over columns of both sides (scikit-learn's make_classification)."""
    from pec.bench import supervised

    with progress("bench boost") as bar:
        data = supervised.boost(
            rows,
            (features_brand, features_provider),
            {"trees": trees, "depth": depth, "bins": int(bins)},
            seed=seed,
            pooled=pooled,
            show=lambda w, d, t: bar.update(d, t, w),
        )
    emit(data, as_json, _show)


@bench.command()
@click.option("--people", type=click.IntRange(200), default=20_000, show_default=True, help="At both sides.")
@click.option("--features-brand", type=click.IntRange(1), default=10, show_default=True)
@click.option("--features-provider", type=click.IntRange(1), default=10, show_default=True)
@click.option("--leads", type=click.IntRange(1), default=20, show_default=True, help="Scored one at a time.")
@click.option("--method", type=click.Choice(["joint-lr", "boost"]), default="joint-lr", show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the synthetic data.")
@json_option
def lead(as_json: bool, features_brand: int, features_provider: int, **given: Any) -> None:
    """How long one lead waits for its scores and grade: a whole job each, p50 and p95."""
    from pec.bench import lead as single

    with progress("bench lead") as bar:
        data = single.run(
            columns=(features_brand, features_provider), **given, show=lambda w, d, t: bar.update(d, t, w)
        )
    emit(data, as_json, _show_lead)


for _command in (gate, consent_api, ledger):
    bench.add_command(_command)


@bench.command("joint-lr")
@click.option(
    "--rows", type=click.IntRange(80), default=20_000, show_default=True, help="People, the same at both."
)
@click.option(
    "--features-brand", type=click.IntRange(1), default=10, show_default=True, help="The brand's columns."
)
@click.option(
    "--features-provider", type=click.IntRange(1), default=10, show_default=True, help="The provider's."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the synthetic data.")
@click.option("--pooled/--no-pooled", default=True, show_default=True, help="Fit scikit-learn beside it.")
@json_option
def joint_lr(
    rows: int, features_brand: int, features_provider: int, seed: int, pooled: bool, as_json: bool
) -> None:
    """Joint logistic regression on columns of both sides, scores of the brand's people."""
    from pec.bench import run

    with progress("bench joint-lr") as bar:
        data = run.joint_lr(
            rows,
            features_brand,
            features_provider,
            seed=seed,
            pooled=pooled,
            show=lambda w, d, t: bar.update(d, t, w),
        )
    emit(data, as_json, _show)


def _show_lead(d: dict[str, Any]) -> Any:
    from rich.console import Group

    skip = {"cpu_seconds_a_lead", "peak_rss_mb", "stages", "bytes_sent", "bytes_received"}
    figures = [(k, v) for k, v in d.items() if k not in skip]
    figures += [(f"{k} of one lead", wording.bytes_text(d[k])) for k in ("bytes_sent", "bytes_received")]
    sides = [(s, d["cpu_seconds_a_lead"][s], d["peak_rss_mb"][s]) for s in ("brand", "provider")]
    return Group(
        table(("figure", "value"), figures),
        table(("side", "CPU seconds a lead", "peak MiB"), sides),
        table(("stage of the last one", "seconds"), list(d["stages"].items())),
    )


def _show_align(d: dict[str, Any]) -> Any:
    from rich.console import Group

    skip = {
        "peak_rss_mb",
        "cpu_seconds",
        "stages",
        "stages_sender",
        "bytes_sent",
        "bytes_received",
        "sizes",
        "peer",
    }
    figures = [(k, v) for k, v in d.items() if k not in skip and v is not None]
    figures += [(k, wording.bytes_text(d[k])) for k in ("bytes_sent", "bytes_received")]
    figures += [(f"peer: {k}", v) for k, v in d.get("peer", {}).items()]
    sides = [(s, d["sizes"][s], d["cpu_seconds"][s], d["peak_rss_mb"][s]) for s in ("receiver", "sender")]
    names = dict.fromkeys([*d["stages"], *d["stages_sender"]])
    stages = [(name, d["stages"].get(name), d["stages_sender"].get(name)) for name in names]
    return Group(
        table(("figure", "value"), figures),
        table(("side", "people", "CPU seconds", "peak MiB"), sides),
        table(("stage", "seconds at the receiver", "at the sender"), stages),
    )


def _show(d: dict[str, Any]) -> Any:
    from rich.console import Group

    skip = {
        "brand",
        "provider",
        "cpu_seconds",
        "peak_rss_mb",
        "stages",
        "stages_provider",
        "bytes_sent",
        "bytes_received",
    }
    figures = [(k, v) for k, v in d.items() if k not in skip]
    figures += [(k, wording.bytes_text(d[k])) for k in ("bytes_sent", "bytes_received")]
    sides = [(side, d[side]["cpu_seconds"], d[side]["peak_rss_mb"]) for side in ("brand", "provider")]
    stages = [(name, s, d["stages_provider"].get(name)) for name, s in d["stages"].items()]
    return Group(
        table(("figure", "value"), figures),
        table(("side", "CPU seconds", "peak MiB"), sides),
        table(("stage", "seconds at the brand", "at the provider"), stages),
    )


@click.command()
@json_option
def warmup(as_json: bool) -> None:
    """Compile the numeric kernels now; they stay on disk, and no job has to wait for them."""
    began = time.monotonic()
    with progress("compiling kernels"):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "parties.warmup"], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise PecError("pec.internal", f"warm-up ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    data = {"ok": True, "seconds": round(time.monotonic() - began, 3)}
    emit(data, as_json, lambda d: f"kernels are compiled ({d['seconds']:.1f} s)")
