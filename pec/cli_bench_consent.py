"""`pec bench gate`, `consent-api`, `ledger`: what the consent center alone can do."""

from __future__ import annotations

from typing import Any

import click

from pec.cli_common import emit, json_option, progress, table


@click.command()
@click.option("--subjects", type=click.IntRange(1000, 100_000_000), default=1_000_000, show_default=True)
@click.option("--purposes", type=click.IntRange(1, 50), default=5, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the synthetic population.")
@json_option
def gate(subjects: int, purposes: int, seed: int, as_json: bool) -> None:
    """Decide with reasons for everybody at once, from a cold start; and how fast a withdrawal is enforced."""
    from pec.bench import gate as measure

    with progress("bench gate") as bar:
        data = measure.run(subjects, purposes, seed=seed, show=lambda w, d, t: bar.update(d, t, w))
    emit(data, as_json, figures)


@click.command("consent-api")
@click.option("--clients", type=click.IntRange(1, 256), default=16, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.5, 600), default=20, show_default=True)
@click.option("--batch", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--threads", type=click.IntRange(1, 256), default=16, show_default=True)
@json_option
def consent_api(clients: int, seconds: float, batch: int, workers: int, threads: int, as_json: bool) -> None:
    """Single decisions, single events and batches over HTTP, every one durable before its answer."""
    from pec.bench import consent_api as measure

    with progress("bench consent-api") as bar:
        data = measure.run(
            clients, seconds, batch, workers, threads, show=lambda w, d, t: bar.update(d, t, w)
        )
    emit(data, as_json, figures)


@click.command()
@click.option("--events", type=click.IntRange(1000, 100_000_000), default=1_000_000, show_default=True)
@click.option("--batch", type=click.IntRange(1, 1_000_000), default=50_000, show_default=True)
@json_option
def ledger(events: int, batch: int, as_json: bool) -> None:
    """Append leaves durably, in batches, and prove that leaves are in the log."""
    from pec.bench import ledger as measure

    with progress("bench ledger") as bar:
        data = measure.run(events, batch, show=lambda w, d, t: bar.update(d, t, w))
    emit(data, as_json, figures)


def figures(data: dict[str, Any]) -> Any:
    return table(("figure", "value"), [(k, v) for k, v in data.items() if not isinstance(v, dict)])
