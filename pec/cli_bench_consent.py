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


def figures(data: dict[str, Any]) -> Any:
    return table(("figure", "value"), [(k, v) for k, v in data.items() if not isinstance(v, dict)])
