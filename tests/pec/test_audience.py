"""Audiences: exactly the best, exactly as many, repeatable, and never half written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pec import audience
from pec.errors import PecError, exit_code_of


@pytest.fixture
def scores() -> audience.Scores:
    rng = np.random.default_rng(1)
    return audience.Scores(rng.permutation(1000), np.round(rng.random(1000), 2))


def test_the_best_and_no_others(scores: audience.Scores) -> None:
    made = audience.build(scores, size=100)
    left = scores.scores[~np.isin(scores.rows, made.rows)]
    assert made.size == 100 and left.max() <= made.threshold
    assert (np.diff(made.scores) <= 0).all() and np.unique(made.rows).size == 100


def test_ties_do_not_depend_on_the_order_of_the_file(scores: audience.Scores) -> None:
    shuffle = np.random.default_rng(2).permutation(1000)
    again = audience.Scores(scores.rows[shuffle], scores.scores[shuffle])
    assert (audience.build(scores, size=137).rows == audience.build(again, size=137).rows).all()


def test_share_threshold_and_seeds_left_out(scores: audience.Scores) -> None:
    assert audience.build(scores, share=0.25).size == 250
    made = audience.build(scores, threshold=0.9)
    assert made.size == (scores.scores >= 0.9).sum()
    seeds = scores.rows[scores.scores > 0.95]
    assert not np.isin(audience.build(scores, size=50, without=seeds).rows, seeds).any()


@pytest.mark.parametrize(
    "request_",
    [{}, {"size": 10, "share": 0.1}, {"size": 0}, {"size": 1001}, {"share": 1.5}, {"threshold": 2.0}],
)
def test_what_can_not_be_built_is_refused(scores: audience.Scores, request_: dict[str, float]) -> None:
    with pytest.raises(PecError) as error:
        audience.build(scores, **request_)  # type: ignore[arg-type]
    assert error.value.code == "pec.audience" and exit_code_of("pec.audience") == 2


def test_files(scores: audience.Scores, tmp_path: Path) -> None:
    made = audience.build(scores, size=10)
    for name in ("a.csv", "a.parquet"):
        audience.export(made, tmp_path / name)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["row"].to_pylist() == made.rows.tolist() and table["rank"].to_pylist() == list(range(1, 11))
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert len(lines) == 11 and lines[1].split(",")[1] == str(made.rows[0])
    for path in (tmp_path / "a.csv", tmp_path / "a.txt", tmp_path / "no" / "a.csv"):
        with pytest.raises(PecError) as error:
            audience.export(made, path)
        assert error.value.code == "pec.output"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.parquet"]


def test_scores_are_checked(tmp_path: Path) -> None:
    with pytest.raises(PecError, match=r"pec\.file"):
        audience.read_scores(tmp_path / "none.parquet")
    pq.write_table(pa.table({"row": [1, 1], "score": [0.5, 0.6]}), tmp_path / "twice.parquet")
    with pytest.raises(PecError, match=r"pec\.input"):
        audience.read_scores(tmp_path / "twice.parquet")
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(PecError, match=r"pec\.input"):
        audience.read_scores(tmp_path / "bad.parquet")


def test_only_a_lookalikes_scores_make_an_audience(tmp_path: Path) -> None:
    audience.check_kind(tmp_path, "j")  # no job at all is another message
    for kind, fine in (("lookalike", True), ("boost", False)):
        (tmp_path / "job.json").write_text(json.dumps({"spec": {"document": {"kind": kind}}}))
        if fine:
            audience.check_kind(tmp_path, "j")
            continue
        with pytest.raises(PecError, match="kind boost") as refused:
            audience.check_kind(tmp_path, "j")
        assert "pec job scores j" in refused.value.hint


def test_a_place_where_nothing_can_be_written_has_a_code(tmp_path: Path) -> None:
    taken = tmp_path / "a.csv"
    taken.mkdir()
    with pytest.raises(PecError) as refused:
        audience.write_columns(taken, {"row": np.arange(3)}, overwrite=True)
    assert refused.value.code == "pec.output" and list(tmp_path.iterdir()) == [taken]
