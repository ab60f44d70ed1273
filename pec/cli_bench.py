"""`pec bench` and `pec warmup`."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import click

from pec import wording
from pec.cli_bench_consent import gate
from pec.cli_common import emit, json_option, progress, table
from pec.errors import PecError


@click.group()
def bench() -> None:
    """Measure on synthetic data: two node processes over gRPC with mutual TLS on this machine.

    The time is that of a whole job, from submitting it to its success, on both sides, with consent decisions,
    ledger and audit bundle. Making data, importing consent and starting the nodes are not in it.
    """


@bench.command()
@click.option(
    "--receiver", type=click.IntRange(1), default=1 << 16, show_default=True, help="The brand's people."
)
@click.option(
    "--sender", type=click.IntRange(1), default=1 << 16, show_default=True, help="The provider's people."
)
@click.option("--suite", default="ecdh", show_default=True, help="Protocol suite.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the synthetic data.")
@json_option
def align(receiver: int, sender: int, suite: str, seed: int, as_json: bool) -> None:
    """Who is in both: half of the smaller side is."""
    from pec.bench import run

    with progress("bench align") as bar:
        data = run.align(receiver, sender, suite, seed=seed, show=lambda w, d, t: bar.update(d, t, w))
    emit(data, as_json, _show)


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
@json_option
def lookalike(rows: int, features: int, seeds: int, epsilon: float | None, seed: int, as_json: bool) -> None:
    """Fit to the seeds, score everybody."""
    from pec.bench import run

    with progress("bench lookalike") as bar:
        data = run.lookalike(
            rows, features, seeds, epsilon=epsilon, seed=seed, show=lambda w, d, t: bar.update(d, t, w)
        )
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
@json_option
def boost(
    rows: int,
    features_brand: int,
    features_provider: int,
    trees: int,
    depth: int,
    bins: str,
    seed: int,
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
            show=lambda w, d, t: bar.update(d, t, w),
        )
    emit(data, as_json, _show)


bench.add_command(gate)


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
@json_option
def joint_lr(rows: int, features_brand: int, features_provider: int, seed: int, as_json: bool) -> None:
    """Joint logistic regression on columns of both sides, scores of the brand's people."""
    from pec.bench import run

    with progress("bench joint-lr") as bar:
        data = run.joint_lr(
            rows, features_brand, features_provider, seed=seed, show=lambda w, d, t: bar.update(d, t, w)
        )
    emit(data, as_json, _show)


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
            [sys.executable, "-m", "parties.warmup"], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise PecError("pec.internal", f"warm-up ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    data = {"ok": True, "seconds": round(time.monotonic() - began, 3)}
    emit(data, as_json, lambda d: f"kernels are compiled ({d['seconds']:.1f} s)")
