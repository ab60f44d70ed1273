"""`pec audience`: choose the best of a lookalike's scores and deliver them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pec.cli_common import emit, json_option, table
from pec.cli_home import home_option


def _choice(command: Any) -> Any:
    for option in (
        click.option("--size", type=int, help="So many people."),
        click.option("--share", type=float, help="This share of everybody, such as 0.05."),
        click.option("--threshold", type=float, help="Everybody who scores at least this."),
        click.option(
            "--include-seeds", is_flag=True, help="Seeds may be in it; by default they are left out."
        ),
        home_option,
        json_option,
    ):
        command = option(command)
    return command


@click.group()
def audience() -> None:
    """Audiences from a lookalike: row numbers that only the provider can turn into people."""


@audience.command()
@click.argument("job_id")
@_choice
def show(job_id: str, home: Path, as_json: bool, **choice: Any) -> None:
    """How large an audience is and which scores it holds. By default the one that the job made."""
    made, _ = _build(job_id, home, choice)
    emit(made.summary(), as_json, lambda d: table(("what", "value"), list(d.items())))


@audience.command()
@click.argument("job_id")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A .csv or .parquet file.")
@click.option("--overwrite", is_flag=True)
@_choice
def export(job_id: str, out: Path, overwrite: bool, home: Path, as_json: bool, **choice: Any) -> None:
    """Write `rank, row, score` for the provider, who finds the people with `pec job rows JOB --audience
    FILE`.
    """
    from pec import audience as audiences

    made, _ = _build(job_id, home, choice)
    audiences.export(made, out, overwrite=overwrite)
    emit(
        {**made.summary(), "written": str(out)},
        as_json,
        lambda d: f"{d['audience_size']:,} people in {d['written']}",
    )


def _build(job_id: str, home: Path, choice: dict[str, Any]) -> tuple[Any, Any]:
    from parties.home import Home
    from pec import audience as audiences

    folder = Home.open(home).job(job_id)
    audiences.check_kind(folder, job_id)
    scores = audiences.read_scores(folder / "scores.parquet")
    seeds = None if choice["include_seeds"] else audiences.read_rows(folder / "seeds.parquet")
    size, share, threshold = choice["size"], choice["share"], choice["threshold"]
    if size is None and share is None and threshold is None:
        size = audiences.read_rows(folder / "audience.parquet").size
    return audiences.build(scores, size=size, share=share, threshold=threshold, without=seeds), scores
