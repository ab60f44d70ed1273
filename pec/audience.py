"""Audiences: the best of a lookalike's scores, as row numbers that only the provider can turn into people.

The brand has a score by the provider's row number and nothing else about those people. An audience is
therefore a
list of row numbers; the provider's operator turns them into lines of its own file (`pec job rows`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pec.errors import PecError


@dataclass(frozen=True)
class Scores:
    """A lookalike's result at the brand: `rows` int64[n] of the provider, `scores` float64[n], NaN-free."""

    rows: npt.NDArray[np.int64] = field(repr=False)
    scores: npt.NDArray[np.float64] = field(repr=False)

    @property
    def n(self) -> int:
        return int(self.rows.size)


@dataclass(frozen=True)
class Audience:
    """The chosen rows, best first. `threshold` is the lowest score among them."""

    rows: npt.NDArray[np.int64] = field(repr=False)
    scores: npt.NDArray[np.float64] = field(repr=False)
    of: int

    @property
    def size(self) -> int:
        return int(self.rows.size)

    @property
    def threshold(self) -> float:
        return float(self.scores[-1])

    def summary(self) -> dict[str, Any]:
        return {
            "audience_size": self.size,
            "of": self.of,
            "share": self.size / self.of,
            "highest_score": float(self.scores[0]),
            "lowest_score": self.threshold,
        }


def check_kind(folder: Path, job_id: str) -> None:
    """Raises `pec.input` unless the job is a lookalike.

    In other kinds' scores a row is a line of the brand's own file; at the provider it would be somebody else.
    """
    try:
        record = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # nothing was made; what follows says so
    kind = record["spec"]["document"]["kind"]
    if kind != "lookalike":
        raise PecError(
            "pec.input",
            f"job {job_id} is of kind {kind}; an audience is made of a lookalike's scores",
            f"its own people with their scores: pec job scores {job_id} --out FILE",
        )


def read_scores(path: Path) -> Scores:
    """The `scores.parquet` of a job: columns `row` and `score`. Raises `pec.file`, `pec.input`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["row", "score"])
    except FileNotFoundError:
        raise PecError(
            "pec.file",
            f"no scores at {path}",
            "only a lookalike that has succeeded has them; see pec job show",
        ) from None
    except (OSError, pa.ArrowException) as error:
        first = (str(error).splitlines() or [""])[0]
        raise PecError("pec.input", f"{path} holds no scores: {first}", "see pec job show") from None
    rows = table["row"].to_numpy().astype(np.int64)
    scores = table["score"].to_numpy().astype(np.float64)
    if np.isnan(scores).any() or np.unique(rows).size != rows.size:
        raise PecError("pec.input", f"{path} has a score that is no number, or a row twice")
    return Scores(rows, scores)


def build(
    scores: Scores,
    *,
    size: int | None = None,
    share: float | None = None,
    threshold: float | None = None,
    without: npt.NDArray[np.int64] | None = None,
) -> Audience:
    """The best `size` people, or the best `share` of them, or all who score at least `threshold`.

    `without` are rows to leave out, such as the seeds themselves. Ties at the edge are broken by row
    number, so the
    same scores give the same audience; rows are in a secret random order, so that favours nobody. Raises
    `pec.audience` when nobody is left or the request is not exactly one of the three.
    """
    if sum(v is not None for v in (size, share, threshold)) != 1:
        raise PecError("pec.audience", "say exactly one of size, share and threshold")
    keep = np.ones(scores.n, dtype=bool) if without is None else ~np.isin(scores.rows, without)
    rows, values = scores.rows[keep], scores.scores[keep]
    order = np.lexsort((rows, -values))
    if threshold is not None:
        take = int(np.count_nonzero(values >= threshold))
    elif share is not None:
        if not 0 < share <= 1:
            raise PecError("pec.audience", f"the share must be above 0 and at most 1, not {share}")
        take = round(share * rows.size)
    else:
        take = int(size or 0)
    if take < 1:
        raise PecError(
            "pec.audience", "the audience would be empty", "ask for more people or a lower threshold"
        )
    if take > rows.size:
        raise PecError(
            "pec.audience", f"{take:,} people were asked for and {rows.size:,} were scored", "ask for fewer"
        )
    chosen = order[:take]
    return Audience(rows[chosen], values[chosen], int(rows.size))


def read_rows(path: Path) -> npt.NDArray[np.int64]:
    """The column `row` of a CSV or Parquet file, int64[k]. Raises `pec.file`, `pec.input`."""
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    if not path.is_file():
        raise PecError("pec.file", f"no such file: {path}", "check the path, and that the job has succeeded")
    try:
        table = pacsv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
        rows: npt.NDArray[np.int64] = table["row"].cast(pa.int64()).to_numpy()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise PecError("pec.input", f"{path} has no column `row` of whole numbers: {error}") from None
    return rows


def export(audience: Audience, path: Path, *, overwrite: bool = False) -> None:
    """`rank, row, score` as CSV or Parquet, by the file's name. Raises `pec.output`."""
    ranks = np.arange(1, audience.size + 1)
    columns = {"rank": ranks, "row": audience.rows, "score": audience.scores}
    write_columns(path, columns, overwrite=overwrite)


def write_columns(path: Path, columns: Mapping[str, npt.NDArray[Any]], *, overwrite: bool = False) -> None:
    """A CSV or Parquet file, written beside and renamed. Raises `pec.output`."""
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    writers = {".csv": pacsv.write_csv, ".parquet": pq.write_table}
    if path.suffix not in writers:
        raise PecError("pec.output", f"{path.name}: only .csv and .parquet are written")
    if path.exists() and not overwrite:
        raise PecError("pec.output", f"{path} is already there", "name another file, or give --overwrite")
    if not path.parent.is_dir():
        raise PecError("pec.output", f"no such directory: {path.parent}", "make it first")
    part = path.with_name(f".{path.name}.part")
    try:
        writers[path.suffix](pa.table(dict(columns)), part)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise PecError("pec.output", f"{path} can't be written: {error}", "choose another path") from None
