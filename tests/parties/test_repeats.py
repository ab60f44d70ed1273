"""Fits without noise do not differ by a few people; score jobs of a model are counted."""

from __future__ import annotations

import io
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nodes import CATEGORY, PURPOSE, LocalNode, agree, make_home, phones
from pair import ScriptedCenter, Side, agreement, run_job, spec

from consent_center.model import DecisionRequest
from parties.brand_side import _spec_of
from parties.datasets import Dataset
from parties.documents import JobSpec
from parties.errors import NodeError
from parties.kinds import KINDS
from parties.repeats import FRESH, TOGETHER, Repeats, fewest_left, hidden
from parties.store import Job

LEAST = 30


def marks(kept: Repeats, people: object, label: float = 1.0) -> np.ndarray:
    numbers = np.array(sorted(people), dtype=np.int64)  # type: ignore[call-overload]
    return kept.marks(numbers, np.full(len(numbers), label))


def take(kept: Repeats, job: str, people: object, fresh: int = 0, label: float = 1.0) -> None:
    found = marks(kept, people, label)
    kept.take(job, found, found, fresh, LEAST)


@settings(max_examples=40)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_a_set_is_refused_if_it_differs_by_some_and_fewer_than_the_least(
    tmp_path_factory: pytest.TempPathFactory, gone: int, new: int, both: int
) -> None:
    before, after = range(gone + both), range(gone, gone + both + new)
    kept = Repeats(tmp_path_factory.mktemp("node"), "dataco")
    take(kept, "a", before)
    if 0 < gone + new < LEAST:
        with pytest.raises(NodeError, match="differ from those of job a") as caught:
            take(kept, "b", after)
        assert caught.value.code == "job.repeated" and not caught.value.share
        with pytest.raises(NodeError):
            kept.check_chosen(marks(kept, after), LEAST)
    else:
        kept.check_chosen(marks(kept, after), LEAST)
        take(kept, "b", after)


def test_people_drawn_anew_hide_a_difference_and_a_changed_label_is_one(tmp_path: Path) -> None:
    kept = Repeats(tmp_path, "dataco")
    take(kept, "a", range(100))
    take(kept, "b", range(101), fresh=FRESH)
    with pytest.raises(NodeError):
        take(kept, "c", range(101 + LEAST - 2), fresh=FRESH - 1)  # one more than b, which counts as well
    labels = np.ones(100)
    labels[7] = 0.0
    with pytest.raises(NodeError):
        kept.take("d", marks(kept, ()), kept.marks(np.arange(100), labels), 0, LEAST)
    other = Repeats(tmp_path, "other")  # another partner has no such sums
    take(other, "e.f", range(100))
    take(other, "e.f", range(99))  # a second fit of the same job, which already says both
    names = sorted(path.name for folder in (kept, other) for path in folder._folder.iterdir())
    assert names == ["a.0.npz", "b.0.npz", "e.f.0.npz", "e.f.1.npz"]


def test_as_many_are_drawn_anew_as_the_partner_may_have_columns(tmp_path: Path) -> None:
    """Attack: 5,000 seeds, 300 honest columns, a holdout of ten. The difference of two such fits is 301
    equations for 21 people, and a greedy search over the provider's own rows names them all."""
    kept = Repeats(tmp_path, "dataco")
    take(kept, "a", range(1000))
    for fresh in (FRESH, 99):
        with pytest.raises(NodeError, match="job a"):
            take(kept, "b", range(1001), fresh=fresh)
    take(kept, "b", range(1001), fresh=100)
    assert [hidden(10, n) for n in (9, 100, 109, 110)] == [True, True, True, False]
    # What the default holds out is enough for every number of seeds above the least by a tenth.
    least = np.arange(10, 20_000, 7)
    count = np.ceil(1.1 * least).astype(int)
    for found in (count, count + 1, 2 * count):
        drawn = np.minimum(np.rint(0.2 * found).astype(int), found - least)
        enough = [hidden(int(f), int(n)) for f, n in zip(drawn, found - drawn, strict=True)]
        assert all(np.array(enough) | (drawn < FRESH))


def test_the_whole_less_its_halves_is_not_a_sum_over_one_person(tmp_path: Path) -> None:
    """Attack: fits over all, east and west differ by many people each; the first less the others is a sum
    over who is in neither half, one person who withdrew between."""
    east, west, few = set(range(200)), set(range(200, 500)), set(range(500, 500 + LEAST - 1))
    for extra in (set(), {500}, few, few | {999}):
        kept = Repeats(tmp_path / str(len(extra)), "dataco")
        take(kept, "all", east | west | extra)
        take(kept, "east", east)
        if 0 < len(extra) < LEAST:
            with pytest.raises(NodeError, match=f"sums over {len(extra)} people") as caught:
                take(kept, "west", west)
            assert caught.value.code == "job.repeated" and {"all", "east"} <= set(
                caught.value.detail.replace(",", "").split()
            )
            take(kept, "west", west, fresh=50)  # a share drawn anew is an answer here as well
            take(kept, "other", set(range(600, 700)))  # and what it hides is in no equation
        else:
            take(kept, "west", west)


def test_differences_of_two_pairs_of_fits_are_compared(tmp_path: Path) -> None:
    """Attack: two lists, each asked about twice; what each gained is large, and all but one person the same.
    A file of before `hidden` was kept counts as one that nothing hides."""
    gain, kept = set(range(1000, 1000 + 2 * LEAST)), Repeats(tmp_path, "dataco")
    a, b = set(range(100)), set(range(300, 500))
    take(kept, "a1", a)
    take(kept, "a2", a | gain)
    take(kept, "b1", b)
    for path in kept._folder.glob("*.npz"):
        with np.load(path) as old:
            held = {name: old[name] for name in ("chosen", "fitted")}
        np.savez(path, **held)
    with pytest.raises(NodeError, match="sums over 1 people"):
        take(kept, "b2", b | gain | {77_777})
    take(kept, "b2", b | gain)


@settings(max_examples=40)
@given(st.lists(st.sets(st.integers(0, 11), min_size=4), min_size=1, max_size=5), st.integers(2, 5))
def test_what_is_left_is_that_of_every_combination(fits: list[set[int]], least: int) -> None:
    """Against all signs of all earlier fits, person by person."""
    new, *earlier = (np.array(sorted(people), dtype=np.uint64) for people in fits)
    rows = np.array([[person in people for person in range(12)] for people in fits], dtype=int)
    left = {
        int(np.count_nonzero(rows[0] + np.array(signs, dtype=int) @ rows[1:]))
        for signs in product((-1, 0, 1), repeat=len(earlier))
        if 0 < np.count_nonzero(signs) < TOGETHER
    }
    found, which = fewest_left(new, earlier, least)
    assert (found > 0) == any(0 < n < least for n in left)
    assert found == 0 or (found in left and 0 < len(which) < TOGETHER)


def test_marks_are_of_one_node_and_files_that_cant_be_read_stop_the_job(tmp_path: Path) -> None:
    one, two = Repeats(tmp_path / "one", "p"), Repeats(tmp_path / "two", "p")
    assert not set(marks(one, range(50)).tolist()) & set(marks(two, range(50)).tolist())
    assert (marks(one, range(50)) == marks(Repeats(tmp_path / "one", "q"), range(50))).all()
    take(one, "a", range(50))
    path = tmp_path / "one" / "repeats" / "p" / "a.0.npz"
    assert {f.stat().st_mode & 0o777 for f in (path, tmp_path / "one" / "repeats" / "key")} == {0o600}
    whole = path.read_bytes()
    single, pickled = io.BytesIO(), io.BytesIO()
    np.save(single, np.arange(50, dtype=np.uint64))  # an array where there must be three, by name
    odd = np.array([print], dtype=object)  # code, which numpy would run
    np.savez(pickled, chosen=odd, fitted=odd, hidden=False)
    cut = [whole[:left] for left in (0, 2, len(whole) // 2, len(whole) - 30)]
    for content in (*cut, single.getvalue(), pickled.getvalue()):
        path.write_bytes(content)
        with pytest.raises(NodeError) as caught:
            take(one, "b", range(50))
        assert caught.value.code == "node.home"
    path.write_bytes(whole)
    take(one, "b", range(50))


# -- the kinds -----------------------------------------------------------------------------------------------

N = 300


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(5)
    table = pd.DataFrame({"phone": phones(0, N), "x": rng.normal(size=N)})
    table.assign(buys=rng.random(N) < 0.6).to_csv(folder / "brand.csv", index=False)
    table.to_csv(folder / "provider.csv", index=False)
    return folder


def told(files: Path, folder: Path, kind: str, private: dict[str, object], **changes: object) -> list[tuple]:
    """What the brand's stage says of the people of its fit."""
    brand = Dataset("people", str(files / "brand.csv"), "phone", "phone", {"buys": "profile"})
    theirs = Dataset("people", str(files / "provider.csv"), "phone", "phone", {"x": "profile"})
    sides = {"brand": Side(brand, ScriptedCenter(), private), "provider": Side(theirs, ScriptedCenter())}
    done = run_job(
        spec(kind, columns=["x"], **changes), agreement(kinds=[kind], minimum_rows=20), sides, folder
    )
    assert not done.errors and not sides["provider"].fitted
    return sides["brand"].fitted


def test_a_fit_says_who_is_in_it_and_how_many_were_drawn_anew(files: Path, tmp_path: Path) -> None:
    yes = int(pd.read_csv(files / "brand.csv").buys.sum())
    [(chosen, people, labels, fresh)] = told(files, tmp_path / "a", "lookalike", {"label": "buys"})
    assert (
        len(chosen) == yes and len(people) == len(labels) == yes - round(0.2 * yes) and set(labels) == {1.0}
    )
    assert fresh == round(0.2 * yes) >= FRESH
    for n, private in enumerate(({"holdout": 0}, {"holdout_seed": 3})):
        [(_, people, _, fresh)] = told(files, tmp_path / f"b{n}", "lookalike", {"label": "buys", **private})
        assert fresh == 0 and len(people) == (yes if "holdout" in private else yes - round(0.2 * yes))
    noisy = {"params": {"privacy": {"epsilon": 5.0, "delta": 1e-6}}}
    assert told(files, tmp_path / "c", "lookalike", {"label": "buys"}, **noisy) == []


def test_a_joint_fit_says_it_too(files: Path, tmp_path: Path) -> None:
    [(_, people, labels, fresh)] = told(files, tmp_path, "joint-lr", {"label": "buys"})
    assert len(people) == len(labels) == N - fresh and set(labels) == {0.0, 1.0} and fresh == round(0.2 * N)


# -- a node --------------------------------------------------------------------------------------------------


def test_such_a_lookalike_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    brand, provider = (
        make_home(tmp_path, "acme", ("dataco",), 200),
        make_home(tmp_path, "dataco", ("acme",), 20),
    )
    brand.trust(provider.card())
    provider.trust(brand.card())
    agree(brand, provider, kinds=["lookalike"], preapproved=[], columns=["*"], minimum_seeds=LEAST)
    terms, kind, values = brand.agreement("acme-dataco"), KINDS["lookalike"], phones(0, 200)
    node = LocalNode(brand)
    node.engine._kinds = KINDS

    def request(seeds: int, **private: object) -> dict[str, object]:
        where = f"CAST(phone AS BIGINT) <= {values[seeds - 1]}"
        return {
            "kind": "lookalike",
            "purpose": PURPOSE,
            "peer": "dataco",
            "agreement": terms.id,
            "datasets": {"brand": "people", "provider": "people"},
            "categories": [CATEGORY],
            "columns": ["x"],
            "private": {"where": where, **private},
        }

    def tried(seeds: int, **private: object) -> None:
        wanted = request(seeds, **private)
        node.engine._try_own(_spec_of(wanted, "acme", "dataco"), kind, wanted["private"], terms)

    try:
        tried(100, holdout=0)  # there is nothing to compare with
        kept = Repeats(brand.path, "dataco")
        asked = DecisionRequest(PURPOSE, "dataco", (CATEGORY,))
        numbers = node.center.decide(asked, pa.array(values[:100]), "phone").ordinals
        found = kept.marks(np.asarray(numbers), np.ones(100))
        kept.take("earlier", found, found, 0, LEAST)
        tried(100, holdout=0)
        tried(100 + LEAST, holdout=0)
        tried(101)  # a fifth is drawn anew
        for private in ({"holdout": 0}, {"holdout_seed": 1}, {"holdout": 0.05}):
            with pytest.raises(NodeError, match="job earlier") as caught:
                node.engine.submit(request(101, **private))
            assert caught.value.code == "job.repeated" and "holdout" in caught.value.hint
        assert node.store.all() == []  # not even a draft
    finally:
        node.stop()


def test_score_jobs_are_counted_by_model_and_partner(tmp_path: Path) -> None:
    home = make_home(tmp_path, "dataco", ("acme",), settings="score_jobs_per_day = 2\n")
    node = LocalNode(home)
    made = iter(range(100))

    def proposed(model: str, peer: str = "acme", hours: float = 0.0, state: str = "approved") -> JobSpec:
        asked = spec("score", params={"model": model})
        signed = {"type": "job", "document": asked.to_json(), "signatures": []}
        job = Job(f"job-{next(made)}", "provider", "score", peer, signed, state)
        assert node.store.add(job)
        if hours:
            with node.store._write() as db:
                then = time.time() - 3600 * hours
                db.execute("UPDATE jobs SET created = ? WHERE job_id = ?", (then, job.job_id))
        return asked

    try:
        for model in ("m", "n"):
            for _ in range(2):
                node.engine._daily(proposed(model), "acme")
        with pytest.raises(NodeError, match="2 score jobs for a model") as caught:
            node.engine._daily(proposed("m", state="proposed"), "acme")
        assert caught.value.code == "job.daily" and caught.value.share
        for change in ({"peer": "other"}, {"hours": 25.0}, {"state": "rejected"}):
            proposed("k", **change)
        node.engine._daily(proposed("k"), "acme")
        node.engine._daily(proposed("k", state="failed"), "acme")
        with pytest.raises(NodeError):
            node.engine._daily(proposed("k"), "acme")
        node.engine._daily(spec("lookalike"), "acme")
    finally:
        node.stop()
