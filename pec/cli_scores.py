"""`pec job scores`: the scores that a job left at the brand, the best first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pec.cli_common import emit, json_option, table
from pec.cli_home import client_of, home_option
from pec.errors import PecError

#: What people are put in order by: the first of these columns that there is.
BEST = ("combined", "score")


@click.command("scores")
@click.argument("job_id")
@click.option("--best", type=click.IntRange(1), default=20, show_default=True, help="Show so many.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write all of them to this .csv or .parquet file."
)
@home_option
@json_option
def scores(job_id: str, best: int, out: Path | None, home: Path, as_json: bool) -> None:
    """At the brand: the scores of a finished job, the best first.

    `row` is a line of the own file, counted from 0 without the header; of a lookalike it is the provider's
    row, which only the provider can turn into people.
    """
    import pyarrow.parquet as pq

    from pec import audience

    with client_of(home) as client:
        found = client.job(job_id)
    if found["state"] != "succeeded":
        raise PecError(
            "pec.job_failed", f"job {job_id} is {found['state']} and has no scores", "see pec job show"
        )
    if "scores.parquet" not in found["files"]:
        raise PecError(
            "pec.input",
            f"job {job_id} ({found['kind']}) left no scores here",
            "see pec job result for its files",
        )
    read = pq.read_table(Path(found["path"]) / "scores.parquet")
    first = next((name for name in BEST if name in read.column_names), None)
    if first is not None:
        read = read.sort_by([(first, "descending"), ("row", "ascending")])
    data: dict[str, Any] = {"job_id": job_id, "kind": found["kind"], "rows": read.num_rows}
    if out is not None:
        audience.write_columns(out, {name: read[name].to_numpy() for name in read.column_names})
        emit({**data, "written": str(out)}, as_json, lambda d: f"{d['rows']:,} people in {d['written']}")
        return
    emit({**data, "scores": read.slice(0, best).to_pylist()}, as_json, lambda d: _shown(d, read.column_names))


def _shown(d: dict[str, Any], names: list[str]) -> Any:
    from rich.console import Group

    if not d["rows"]:
        return "nobody was scored: the provider has none of the people asked about, or nobody consented"
    lines = [[round(v, 4) if isinstance(v, float) else v for v in line.values()] for line in d["scores"]]
    of = f"{len(lines):,} of {d['rows']:,} people" if len(lines) < d["rows"] else f"{d['rows']:,} people"
    return Group(table(names, lines), of)
