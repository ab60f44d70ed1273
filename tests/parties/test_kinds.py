"""The kinds between two sides: right answers, minimums, withdrawals between stages, and what a peer may
send."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pair import Outcome, ScriptedCenter, Side, agreement, auc, run_job, spec

from parties import features, tags
from parties.datasets import Dataset
from parties.documents import Agreement
from parties.errors import NodeError
from parties.gate import Column
from parties.kinds import KINDS, aligning, enrich, lookalike, overlap
from parties.kinds.metrics import measure
from parties.kinds.transfer import Receiver, Sender
from protocols.errors import PeerError, ProtocolError
from protocols.machine import pump

N, CUT = 1500, 250


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Brand has people 0 … N−CUT, the provider CUT … N; `truth.parquet` knows both."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(3)
    phones = np.array([f"138{i:08d}" for i in range(N)])
    x = rng.normal(size=(N, 3))
    city = rng.choice(["上海", "北京", "广州"], N, p=[0.5, 0.3, 0.2])
    loyal = rng.random(N) < 1 / (1 + np.exp(-(1.5 * x[:, 0] - x[:, 1] + (city == "上海") - 0.5)))
    name = np.array([f"客户{i % 700}" for i in range(N)])
    truth = pd.DataFrame({"phone": phones, "x0": x[:, 0], "x1": x[:, 1], "city": city, "name": name})
    truth["loyal"] = loyal
    brand = pd.DataFrame({"手机": "+86 " + truth.phone, "loyal": np.where(loyal, "yes", "no")})[: N - CUT]
    brand.to_csv(folder / "brand.csv", index=False)
    provider = truth.drop(columns="loyal")[CUT:].sample(frac=1, random_state=1).reset_index(drop=True)
    provider.loc[provider.index[:200], "x1"] = np.nan
    provider.to_parquet(folder / "provider.parquet")
    truth.to_parquet(folder / "truth.parquet")
    return folder


def sides(files: Path, private: dict, brand_center=None, provider_center=None) -> dict[str, Side]:
    categories = dict.fromkeys(("x0", "x1", "city", "name"), "profile")
    return {
        "brand": Side(
            Dataset("people", str(files / "brand.csv"), "手机", "phone", {}),
            brand_center or ScriptedCenter(),
            private,
        ),
        "provider": Side(
            Dataset("people", str(files / "provider.parquet"), "phone", "phone", categories),
            provider_center or ScriptedCenter(),
        ),
    }


def _value(i: int) -> str:
    return f"+86138{i:08d}"


def _person_of_row(outcome: Outcome, files: Path) -> np.ndarray:
    """The number of the person in each of the provider's view rows; only a test can know."""
    provider = pd.read_parquet(files / "provider.parquet")
    return provider.phone.str[3:].astype(int).to_numpy()[outcome.provider.view.own_rows()]


# -- overlap -------------------------------------------------------------------------------------------------


def test_overlap_gives_a_rounded_count_and_nothing_else(files, tmp_path):
    done = run_job(spec("overlap"), agreement(), sides(files, {}), tmp_path)
    assert not done.errors
    assert done.brand.result["count"] == N - 2 * CUT and done.brand.result["text"] == str(N - 2 * CUT)
    assert [p.name for p in (tmp_path / "brand").iterdir()] == ["result.json"]
    assert not done.brand.carry and "count" not in done.provider.result


def test_overlap_of_a_part_and_below_the_minimum(files, tmp_path):
    few = {"where": "loyal = 'yes' AND \"手机\" LIKE '%00030_'"}
    done = run_job(spec("overlap"), agreement(), sides(files, few), tmp_path)
    assert done.brand.result["count"] is None and done.brand.result["text"] == "<20"


@pytest.mark.parametrize(("count", "text"), [(19, "<20"), (20, "20"), (24, "20"), (25, "30"), (1234, "1230")])
def test_rounding_rule(count, text):
    assert overlap.rounded(count, 20)[1] == text


def test_who_withdrew_is_not_counted(files, tmp_path):
    brand, provider = ScriptedCenter(), ScriptedCenter()

    def before(stage: str) -> None:
        if stage == "align":
            provider.withdrawn = {_value(i) for i in range(CUT, CUT + 50)}
        if stage == "release":
            brand.withdrawn = {_value(i) for i in range(CUT + 40, CUT + 100)}

    done = run_job(spec("overlap"), agreement(), sides(files, {}, brand, provider), tmp_path, before)
    assert done.brand.result["count"] == N - 2 * CUT - 100


# -- overlap by private_join ---------------------------------------------------------------------------------

JOIN = {"params": {"method": "private_join"}, "outputs": {"count": "both"}}
SUITES = {"suites": ["ecdh", "private_join"]}


def test_a_private_join_gives_both_a_count_with_noise_and_nobody_rows(files, tmp_path):
    done = run_job(spec("overlap", **JOIN), agreement(**SUITES), sides(files, {}), tmp_path)
    assert not done.errors
    assert [s.name for s in KINDS["overlap"].of(spec("overlap", **JOIN)).stages] == ["join"]
    for side, outcome in (("brand", done.brand), ("provider", done.provider)):
        result = outcome.result
        assert abs(result["count"] - (N - 2 * CUT)) <= result["noise_at_most"] + 5
        assert result["count"] % 10 == 0 and "noise of scale" in result["text"]
        assert (result["noise_scale"], result["noise_at_most"]) == (1.0, 14)
        assert json.loads((tmp_path / side / "result.json").read_text()) == result
        assert [p.name for p in (tmp_path / side).iterdir()] == ["result.json"]
        assert not outcome.carry
    assert done.provider.result["asked_at_most"] == 1280  # 1,250 padded


def test_a_private_join_below_the_minimum_and_without_who_withdrew(files, tmp_path):
    few = {"where": "loyal = 'yes' AND \"手机\" LIKE '%0000000_'"}  # nobody whom the provider has
    privacy = {"epsilon": 10, "delta": 1e-3, "clip": 1.0}
    done = run_job(spec("overlap", **JOIN), agreement(**SUITES), sides(files, few), tmp_path / "few")
    assert done.brand.result["count"] is None and done.brand.result["text"].startswith("<20,")
    centers = ScriptedCenter(), ScriptedCenter()

    def before(stage: str) -> None:
        centers[1].withdrawn = {_value(i) for i in range(CUT, CUT + 50)}
        centers[0].withdrawn = {_value(i) for i in range(CUT + 40, CUT + 100)}

    terms = agreement(**SUITES, privacy=privacy)
    done = run_job(spec("overlap", **JOIN), terms, sides(files, {}, *centers), tmp_path / "less", before)
    assert done.brand.result["noise_at_most"] == 1
    assert abs(done.brand.result["count"] - (N - 2 * CUT - 100)) <= 10


# -- lookalike -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lookalike_done(files, tmp_path_factory) -> tuple[Outcome, Path]:
    folder = tmp_path_factory.mktemp("lookalike") / "job"
    private = {"label": "loyal", "audience_size": 100, "holdout_seed": 7, "hidden_share": 0.1}
    job = spec("lookalike", columns=["x0", "x1", "city"])
    return run_job(job, agreement(), sides(files, private), folder), folder / "brand"


def test_lookalike_scores_are_those_of_the_pooled_fit(lookalike_done, files):
    from sklearn.linear_model import LogisticRegression

    done, folder = lookalike_done
    assert not done.errors
    scores = pd.read_parquet(folder / "scores.parquet")
    seeds = pd.read_parquet(folder / "seeds.parquet")
    view = done.provider.view
    phi = features.matrix(features.learn(view, ["x0", "x1", "city"]), view)
    y = np.zeros(view.rows, dtype=bool)
    y[seeds.row[seeds.role == "fit"]] = True
    pooled = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(phi, y).decision_function(phi)
    assert scores.row.tolist() == list(range(view.rows))
    assert np.abs(pooled - scores.score).max() < 0.01
    measured = ~y
    held = np.isin(np.arange(view.rows), seeds.row[seeds.role == "held_out"])
    oracle = auc(pooled[measured], held[measured])
    assert abs(oracle - done.brand.result["auc"]) < 0.002
    assert done.brand.result["auc_corrected"] == pytest.approx((done.brand.result["auc"] - 0.05) / 0.9)


def test_lookalike_with_crosses_elastic_net_and_columns_that_are_streamed(files, tmp_path, monkeypatch):
    # As a Φ that is too large for memory, and to be kept until the scores.
    monkeypatch.setattr(lookalike, "KEPT_BYTES", 0)
    monkeypatch.setattr(features, "IN_MEMORY", 0)
    # And the average of two models, whose spread stands beside the weights.
    params = {"features": "crosses", "l1": 6.0, "l2": 2.0, "bags": 2}
    job = spec("lookalike", columns=["x0", "x1", "city"], params=params)
    done = run_job(job, agreement(), sides(files, {"label": "loyal", "holdout_seed": 7}), tmp_path)
    assert not done.errors and "phi" not in done.provider.carry
    weights = done.provider.result["weights"]
    assert any(" × " in name for name in weights) and any(">" in name for name in weights)
    assert 0 < sum(w == 0 for w in weights.values()) < len(weights)
    assert done.brand.result["bags"] == done.provider.result["bags"] == 2
    assert done.provider.result["spread"].keys() == weights.keys()
    assert 0 < max(done.provider.result["spread"].values()) < float("inf")
    scores = pd.read_parquet(tmp_path / "brand" / "scores.parquet")
    plan = json.loads((tmp_path / "provider" / "model.json").read_text())["plan"]
    phi = features.matrix(features.Plan.from_document(plan), done.provider.view)
    due = phi.astype(np.float64) @ np.array(list(weights.values())) + done.provider.result["intercept"]
    assert np.abs(due[scores.row] - scores.score).max() < 1e-5
    assert 0.7 < done.brand.result["auc"] < 1 and done.brand.result["calibration"]["bins"]


def test_lookalike_seeds_are_the_matched_seeds(lookalike_done, files):
    done, folder = lookalike_done
    truth = pd.read_parquet(files / "truth.parquet")
    person = _person_of_row(done, files)
    seeds = pd.read_parquet(folder / "seeds.parquet")
    expected = {i for i in range(CUT, N - CUT) if truth.loyal[i]}
    assert set(person[seeds.row]) == expected
    assert done.brand.result["seeds_matched"] == len(expected)
    assert (seeds.role == "held_out").sum() == round(0.2 * len(expected)) == done.brand.result["held_out"]


def test_lookalike_audience_is_the_best_without_the_seeds(lookalike_done):
    done, folder = lookalike_done
    audience = pd.read_parquet(folder / "audience.parquet")
    scores = pd.read_parquet(folder / "scores.parquet").set_index("row").score
    seeds = set(pd.read_parquet(folder / "seeds.parquet").row)
    assert len(audience) == 100 == done.brand.result["audience_size"]
    assert not seeds & set(audience.row) and audience["rank"].tolist() == list(range(1, 101))
    others = scores.drop([*audience.row, *seeds])
    assert audience.score.is_monotonic_decreasing and audience.score.min() >= others.max()
    written = json.loads((folder / "result.json").read_text())
    assert written["auc"] == done.brand.result["auc"] and "weights" not in written


def test_the_provider_sees_neither_labels_nor_membership(lookalike_done):
    done, _ = lookalike_done
    learned = done.provider.result
    assert "seeds_matched" not in learned and not {"rows", "seeds"} & set(done.provider.carry)
    in_fit = done.brand.result["seeds_matched"] - done.brand.result["seeds_held_out"]
    assert learned["padded_seeds"] >= in_fit and learned["padded_seeds"] != in_fit
    assert learned["asked_at_most"] >= done.brand.result["seeds_asked"]


def test_noise_is_added_when_agreed_and_costs_little(files, tmp_path):
    terms = agreement(privacy={"epsilon": 2.0, "delta": 1e-6, "clip": 3.0})
    private = {"label": "loyal", "holdout_seed": 7}
    job = spec("lookalike", columns=["x0", "x1", "city"])
    done = run_job(job, terms, sides(files, private), tmp_path)
    assert not done.errors
    assert done.brand.result["epsilon"] == 2.0 and done.brand.result["noise_scale"] > 0
    assert done.brand.result["auc"] > 0.7


def test_withdrawals_between_stages_leave_every_output(files, tmp_path):
    brand, provider = ScriptedCenter(), ScriptedCenter()
    out_provider = {"fit": (300, 310), "score": (310, 320), "release": (320, 330)}
    out_brand = {"fit": (400, 410), "release": (410, 420)}

    def before(stage: str) -> None:
        provider.withdrawn |= {_value(i) for i in range(*out_provider.get(stage, (0, 0)))}
        brand.withdrawn |= {_value(i) for i in range(*out_brand.get(stage, (0, 0)))}

    private = {"label": "loyal", "audience_size": N, "include_seeds": True}
    job = spec("lookalike", columns=["x0", "x1"])
    done = run_job(job, agreement(), sides(files, private, brand, provider), tmp_path, before)
    assert not done.errors
    person = _person_of_row(done, files)
    truth = pd.read_parquet(files / "truth.parquet")
    for name in ("scores", "audience", "seeds"):
        rows = pd.read_parquet(tmp_path / "brand" / f"{name}.parquet").row
        found = set(person[rows])
        assert not found & set(range(300, 330)), name
        # The brand knows the rows of its seeds alone; those who withdrew at the brand are gone as well,
        assert not {i for i in found & set(range(410, 420)) if truth.loyal[i]}, name
        assert not {i for i in found & set(range(400, 410)) if truth.loyal[i]}, name
    # and nobody who stayed is lost.
    scores = set(person[pd.read_parquet(tmp_path / "brand/scores.parquet").row])
    gone = set(range(300, 330)) | {i for i in range(400, 420) if truth.loyal[i]}
    assert scores == set(range(CUT, N)) - gone
    assert done.provider.result["rows"] == N - CUT - 10


def test_too_few_seeds_stop_both_sides(files, tmp_path):
    few = {"where": "loyal = 'yes' AND \"手机\" LIKE '%0003__'"}  # about fifty seeds
    done = run_job(
        spec("lookalike", columns=["x0"]), agreement(minimum_seeds=100), sides(files, few), tmp_path
    )
    assert done.errors["brand"].code == "lookalike.seeds"
    assert done.errors["provider"].code == "peer.failed"
    unmatched = {"where": f"\"手机\" < '+86 138{CUT:08d}'"}
    done = run_job(spec("lookalike", columns=["x0"]), agreement(), sides(files, unmatched), tmp_path / "2")
    assert done.errors["brand"].code == "lookalike.seeds" and "0 matched" in str(done.errors["brand"])


def test_small_seed_sets_are_fitted_and_notmeasured(files, tmp_path):
    some = {"where": "loyal = 'yes' AND \"手机\" LIKE '%0003__'"}
    done = run_job(
        spec("lookalike", columns=["x0"]), agreement(minimum_seeds=40), sides(files, some), tmp_path
    )
    assert not done.errors
    result = done.brand.result
    assert result["seeds_matched"] - result["seeds_held_out"] >= 40
    if not result["seeds_held_out"]:
        assert result["auc"] is None


# -- enrich --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bucket_rows", [1 << 20, 200])
def test_enrich_gives_the_right_tags_to_the_right_lines(files, tmp_path, monkeypatch, bucket_rows):
    monkeypatch.setattr(aligning, "BUCKET_ROWS", bucket_rows)
    job = spec("enrich", columns=["city", "x1", "name"])
    done = run_job(job, agreement(), sides(files, {"where": "loyal = 'no'"}), tmp_path)
    assert not done.errors
    truth = pd.read_parquet(files / "truth.parquet")
    provider = pd.read_parquet(files / "provider.parquet").set_index("phone")
    table = pd.read_parquet(tmp_path / "brand/enriched.parquet")
    expected = [i for i in range(CUT, N - CUT) if not truth.loyal[i]]
    assert table.row.tolist() == expected
    for tag in ("city", "x1", "name"):
        due = provider.loc[truth.phone[expected], tag]
        assert all(a == b or (pd.isna(a) and pd.isna(b)) for a, b in zip(table[tag], due, strict=True)), tag
    result = done.brand.result
    assert result["found"] == len(expected) and result["asked"] == int((~truth.loyal[: N - CUT]).sum())
    assert done.provider.result["asked_at_most"] >= result["asked"]
    assert (result["buckets"] > 1) == (bucket_rows == 200)


def test_enrich_deletes_who_withdrew_after_the_table_was_built(files, tmp_path):
    brand, provider = ScriptedCenter(), ScriptedCenter()

    def before(stage: str) -> None:
        if stage == "enrich":
            provider.withdrawn = {_value(i) for i in range(300, 310)}
        if stage == "release":
            provider.withdrawn |= {_value(i) for i in range(310, 330)}
            brand.withdrawn = {_value(i) for i in range(400, 415)}

    done = run_job(
        spec("enrich", columns=["city"]), agreement(), sides(files, {}, brand, provider), tmp_path, before
    )
    assert not done.errors
    table = pd.read_parquet(tmp_path / "brand/enriched.parquet")
    gone = set(range(300, 330)) | set(range(400, 415))
    assert set(table.row) == set(range(CUT, N - CUT)) - gone
    assert done.brand.result["deleted"] == 35


def test_rare_levels_travel_only_inside_encrypted_records(files, tmp_path):
    done = run_job(spec("enrich", columns=["city", "name"]), agreement(), sides(files, {}), tmp_path)
    clear = done.provider.channel.log[0].decode()
    assert "\\u5ba2\\u6237" not in clear and "客户" not in clear  # names are near-unique
    assert json.loads(clear)["tags"][0]["levels"] == ["上海", "北京", "广州"]
    assert not any("客户".encode() in message for message in done.provider.channel.log)


def test_tag_records_round_trip():
    city = Column("city", "categorical", np.array([0, 1, -1, 0] * 10, np.int32), ("上海", "x"))
    name = Column("n", "categorical", np.arange(40, dtype=np.int32) - 1, tuple(f"客户{i}" for i in range(39)))
    number = Column("v", "numeric", np.array([1.5, np.nan, -0.0, 1e300] * 10))
    empty = Column("e", "empty", np.full(40, np.nan))
    names = ["city", "n", "v", "e"]
    schema, records = tags.encode([city, name, number, empty], 40, names)
    assert [t.form for t in schema.tags] == ["dictionary", "inline", "number", "number"]
    again = tags.Schema.from_document(json.loads(json.dumps(schema.to_document())), names)
    handles, table = tags.decode(again, records)
    assert handles.tolist() == list(range(40))
    assert table["city"].to_pylist() == ["上海", "x", None, "上海"] * 10
    assert table["n"].to_pylist() == [None] + [f"客户{i}" for i in range(39)]
    assert table["v"].to_pylist() == [1.5, None, -0.0, 1e300] * 10
    assert table["e"].to_pylist() == [None] * 40
    none, table = tags.decode(again, records[:0])
    assert len(none) == 0 and table.num_rows == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.append(dict(d[0], name="secret")),
        lambda d: d.pop(),
        lambda d: d[0].update(name="other"),
        lambda d: d[0].update(width=9),
        lambda d: d[0].update(form="pickle"),
        lambda d: d[0].update(levels=7),
        lambda d: d[0].pop("form"),
        lambda d: d.__setitem__(0, "text"),
    ],
)
def test_a_schema_that_was_not_agreed_is_refused(change):
    document = tags.Schema(
        (tags.Tag("city", "dictionary", 2, ("a",)), tags.Tag("v", "number", 8))
    ).to_document()
    change(document)
    with pytest.raises(NodeError) as caught:
        tags.Schema.from_document(document, ["city", "v"])
    assert caught.value.code == "tags.schema"


def test_records_outside_the_schema_are_refused():
    schema = tags.Schema((tags.Tag("c", "dictionary", 2, ("a",)), tags.Tag("t", "inline", 16)))
    good = np.zeros((3, schema.width), np.uint8)
    assert tags.decode(schema, good)[1]["c"].null_count == 3
    for at, value in ((4, 2), (6, 0xFF)):
        bad = good.copy()
        bad[1, at] = value
        with pytest.raises(NodeError) as caught:
            tags.decode(schema, bad)
        assert caught.value.code == "tags.record"
    with pytest.raises(NodeError):
        tags.decode(schema, good[:, :-1])


# -- checks of specs -----------------------------------------------------------------------------------------

EXACT = {"kinds": ["joint-lr"], "privacy": None}
#: Every job is to align so that a side that deviates gains nothing.
SECURE = {"suites": ["ecdh", "vole", "private_join"], "malicious_security": True}

PRIVACY = {"epsilon": 2.0, "delta": 1e-6, "clip": 3.0}


@pytest.mark.parametrize(
    ("job", "terms", "code"),
    [
        (spec("overlap", columns=["x"]), {}, "job.spec"),
        (spec("overlap", params={"suite": "vole"}), {}, "agreement.suite"),
        (spec("overlap", params={"suite": "other"}), {}, "job.spec"),
        (
            spec("overlap", params={"suite": "ecdh", "malicious": True}),
            {"suites": ["ecdh", "vole"]},
            "agreement.suite",
        ),
        (spec("overlap", params={"malicious": True}), {}, "agreement.suite"),
        (spec("overlap", params={"malicious": 1}), {"suites": ["vole"]}, "job.spec"),
        (spec("overlap"), {"suites": ["private_join"]}, "agreement.suite"),
        (spec("overlap", params={"malicious": False}), SECURE, "agreement.malicious"),
        (
            spec("joint-lr", columns=["*"], params={"errors": True}, outputs={"scores": "brand"}),
            EXACT,
            "agreement.errors",
        ),
        (spec("overlap", params={"suite": "ecdh"}), SECURE, "agreement.malicious"),
        (spec("overlap", **JOIN), SECURE, "agreement.malicious"),
        (spec("enrich", columns=["city"]), SECURE, "agreement.malicious"),
        (spec("retarget", params={"suite": "ecdh"}), SECURE, "agreement.malicious"),
        (spec("overlap", params={"surprise": 1}), {}, "job.spec"),
        (spec("overlap", params={"method": "magic"}), {}, "job.spec"),
        (spec("overlap", params={"method": ["private_join"]}), {}, "job.spec"),
        (spec("overlap", **JOIN), {}, "agreement.suite"),
        (spec("overlap", params=JOIN["params"], outputs={"count": "brand"}), SUITES, "job.spec"),
        (spec("overlap", **JOIN, columns=["x"]), SUITES, "job.spec"),
        (
            spec("overlap", params={**JOIN["params"], "suite": "ecdh"}, outputs=JOIN["outputs"]),
            SUITES,
            "job.spec",
        ),
        (
            spec("overlap", **JOIN),
            SUITES | {"privacy": {"epsilon": 1e-5, "delta": 1e-6, "clip": 1.0}},
            "job.spec",
        ),
        (spec("overlap", outputs={"rows": "brand"}), {}, "job.spec"),
        (spec("lookalike"), {}, "job.spec"),
        (spec("lookalike", columns=["x", "x"]), {}, "job.spec"),
        (spec("lookalike", columns=["x", "y"]), {"columns": ["x"]}, "agreement.column"),
        (spec("lookalike", columns=["*"]), {"columns": ["x"]}, "agreement.column"),
        (spec("lookalike", columns=["x"], outputs={"scores": "provider"}), {}, "job.spec"),
        (spec("lookalike", columns=["x"], params={"l2": 0}), {}, "job.spec"),
        (spec("lookalike", columns=["x"], params={"l2": True}), {}, "job.spec"),
        (spec("lookalike", columns=["x"], params={"bags": 65}), {}, "job.spec"),
        (
            spec("lookalike", columns=["x"], params={"privacy": None}),
            {"privacy": PRIVACY},
            "agreement.privacy",
        ),
        (
            spec("lookalike", columns=["x"], params={"privacy": {**PRIVACY, "epsilon": 3.0}}),
            {"privacy": PRIVACY},
            "agreement.privacy",
        ),
        (
            spec("lookalike", columns=["x"], params={"privacy": {**PRIVACY, "delta": 1e-5}}),
            {"privacy": PRIVACY},
            "agreement.privacy",
        ),
        (
            spec("lookalike", columns=["x"], params={"privacy": {"epsilon": -1, "delta": 1e-6}}),
            {},
            "document.type",
        ),
        (spec("enrich", columns=["*"]), {}, "job.spec"),
        (spec("enrich", columns=["row"]), {}, "job.spec"),
        (spec("enrich", columns=["x"]), {"tags": ["y"]}, "agreement.column"),
    ],
)
def test_what_is_outside_the_agreement_is_refused(job, terms, code):
    with pytest.raises(NodeError) as caught:
        KINDS[job.kind].of(job).check(job, agreement(**terms))
    assert caught.value.code == code


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_more_privacy_than_agreed_and_the_plain_spec_pass(kind):
    columns = {"overlap": [], "retarget": []}.get(kind, ["x"])
    params = {"score": {"model": "job-earlier"}}.get(kind, {})
    KINDS[kind].check(spec(kind, columns=columns, params=params), agreement())
    stricter = {"privacy": {**PRIVACY, "epsilon": 1.0}}
    terms = agreement(privacy=PRIVACY)
    job = spec("lookalike", columns=["x"], params=stricter)
    KINDS["lookalike"].check(job, terms)
    assert lookalike.terms_of(job, terms).epsilon == 1.0
    assert lookalike.terms_of(spec("lookalike", columns=["x"]), terms).epsilon == 2.0


@pytest.mark.parametrize(
    ("kind", "private", "code"),
    [
        ("lookalike", {}, "job.parameter"),
        ("lookalike", {"label": "loyal", "audience_size": 0}, "job.parameter"),
        ("lookalike", {"label": "loyal", "shell": "x"}, "job.parameter"),
        ("lookalike", {"label": "loyal", "holdout": 0.9}, "job.parameter"),
        ("enrich", {"audience_size": 1}, "job.parameter"),
        ("overlap", {"where": 7}, "job.parameter"),
    ],
)
def test_private_parameters_are_checked_before_anything_runs(files, tmp_path, kind, private, code):
    columns = [] if kind == "overlap" else ["city"]
    with pytest.raises(NodeError) as caught:
        run_job(spec(kind, columns=columns), agreement(), sides(files, private), tmp_path)
    assert caught.value.code == code


def test_columns_need_a_category_that_the_job_covers(files, tmp_path):
    both = sides(files, {"label": "loyal"})
    for columns, categories in ((["phone"], ["profile"]), (["city"], ["identity"]), (["*"], ["identity"])):
        with pytest.raises(NodeError) as caught:
            job = spec("lookalike", columns=columns, categories=categories)
            run_job(job, agreement(), both, tmp_path / columns[0].replace("*", "all") / categories[0])
        assert caught.value.code == "dataset.category"


def test_the_minimum_of_people(files, tmp_path):
    with pytest.raises(NodeError) as caught:
        run_job(spec("overlap"), agreement(minimum_rows=N), sides(files, {}), tmp_path)
    assert caught.value.code == "agreement.minimum_rows"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_leakage_is_declared_for_both_in_both_languages(kind):
    for table in (KINDS[kind].leakage, *(method.leakage for method in KINDS[kind].methods.values())):
        assert set(table) == {"brand", "provider", "brand.zh", "provider.zh"}
        assert len(table["brand"]) == len(table["brand.zh"])
        assert len(table["provider"]) == len(table["provider.zh"])


NOISE = {"privacy": {"epsilon": 1.0, "delta": 1e-6, "clip": 1.0}}
#: (kind, parameters, terms, role): words that then stand in the table of what is learned, and others.
CONDITIONAL = [
    ("joint-lr", {"errors": True}, {}, "brand", "as it gives standard errors", None),
    ("joint-lr", {"errors": True}, {}, "provider", "by these errors, who", None),
    ("joint-lr", {}, {}, "provider", "and the label", "errors"),
    (
        "lookalike",
        {},
        {"privacy": {"epsilon": 1.0, "delta": 1e-6, "clip": 1.0}},
        "provider",
        "with noise",
        "exactly",
    ),
    ("lookalike", {}, {"privacy": None}, "provider", "exactly, without noise", "with noise"),
    ("lookalike", {"bags": 3}, {}, "provider", "each random half", None),
    ("lookalike", {}, {}, "provider", "over the matched seeds", "random half"),
    ("overlap", {"method": "private_join"}, {}, "brand", "padded", "sum"),
    (
        "overlap",
        {"method": "private_join", "sum": "provider.spend"},
        {"sums": ["provider.spend:brand:100"]},
        "brand",
        "the sum that the job asks for",
        None,
    ),
    (
        "overlap",
        {"method": "private_join", "sum": "provider.spend"},
        {"sums": ["provider.spend:brand:100"]},
        "provider",
        "padded",
        "sum",
    ),
]


@pytest.mark.parametrize(("kind", "params", "terms", "role", "there", "absent"), CONDITIONAL)
def test_what_is_learned_is_that_of_this_very_job(kind, params, terms, role, there, absent):
    asked, agreed = spec(kind, params=params), agreement(**terms)
    chosen = KINDS[kind].of(asked)
    table = chosen.learned(asked, agreed)
    assert all(lines and all(lines) for lines in table.values())
    assert len(table[role]) == len(table[f"{role}.zh"])
    said = " ".join(table[role])
    assert there in said and (absent is None or absent not in said)
    # Whoever has no agreement at hand is told all that may be.
    assert set(map(len, chosen.learned(asked, None).values())) == set(map(len, chosen.leakage.values()))


# -- metrics and transfer ------------------------------------------------------------------------------------


def test_metrics_against_plain_definitions():
    rng = np.random.default_rng(4)
    scores = np.round(rng.normal(size=1000), 1)  # with ties
    positive = rng.random(1000) < 0.1 + 0.2 * (scores > 0.5)
    found = measure(scores, positive)
    assert found["auc"] == pytest.approx(auc(scores, positive))
    low, high = found["auc_interval"]
    assert low < found["auc"] < high
    thresholds = np.unique(scores)
    ks = max(abs((scores[positive] >= t).mean() - (scores[~positive] >= t).mean()) for t in thresholds)
    assert found["ks"] == pytest.approx(ks)
    top = positive[np.argsort(-scores, kind="stable")][:50]
    assert found["recall_at"]["5"] == pytest.approx(top.sum() / positive.sum())
    assert found["lift_at_5pct"] == pytest.approx(top.mean() / positive.mean())
    assert measure(scores, np.zeros(1000, bool))["auc"] is None


def test_transfer_carries_arrays_larger_than_a_message():
    data = np.arange(700_000, dtype="<f4")
    receiver = Receiver(data.nbytes, "scores", b"s" * 32)
    pump(Sender(data, "scores", b"s" * 32), receiver)
    assert np.array_equal(receiver.result.view("<f4"), data)
    empty = Receiver(0, "scores", b"s" * 32)
    pump(Sender(data[:0], "scores", b"s" * 32), empty)
    assert len(empty.result) == 0


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        (Sender(np.zeros(9, np.uint8), "scores", b"s" * 32), "protocol.malformed"),
        (Sender(np.zeros(8, np.uint8), "alive", b"s" * 32), "protocol.binding"),
        (Sender(np.zeros(8, np.uint8), "scores", b"t" * 32), "protocol.binding"),
    ],
)
def test_transfer_refuses_another_array(sender, code):
    receiver = Receiver(8, "scores", b"s" * 32)
    list(receiver.start())
    with pytest.raises(PeerError) as caught:
        list(receiver.receive(next(sender.start())))
    assert caught.value.code == code


def test_transfer_refuses_a_wrong_part():
    first, *_ = list(Sender(np.zeros(8, np.uint8), "scores", b"s" * 32).start())
    for part in (b"", b"1234567", b"123456789"):
        receiver = Receiver(8, "scores", b"s" * 32)
        list(receiver.start())
        list(receiver.receive(first))
        with pytest.raises(ProtocolError):
            list(receiver.receive(part))


def test_results_are_typed(files, tmp_path):
    run_job(spec("enrich", columns=["city", "x0"]), agreement(), sides(files, {}), tmp_path)
    schema = pq.read_schema(tmp_path / "brand/enriched.parquet")
    assert schema.field("row").type == pa.int64() and schema.field("x0").type == pa.float64()
    assert pa.types.is_dictionary(schema.field("city").type)
    assert enrich.ROW == "row"


# -- retarget ------------------------------------------------------------------------------------------------

TO_MEDIA = {"kinds": ["retarget"], "minimum_seeds": 20}


def _retarget(files: Path, tmp_path: Path, before=None, private=None, **centers) -> Outcome:
    asked = spec("retarget", outputs={"audience": "provider", "size": "brand"})
    chosen = {"label": "loyal"} if private is None else private
    return run_job(asked, agreement(**TO_MEDIA), sides(files, chosen, **centers), tmp_path / "job", before)


def _segment(files: Path) -> set[str]:
    truth = pd.read_parquet(files / "truth.parquet")
    return set(truth.phone[: N - CUT][truth.loyal[: N - CUT]]) & set(truth.phone[CUT:])


def test_retarget_tells_the_provider_who_and_the_brand_how_many(files, tmp_path):
    outcome = _retarget(files, tmp_path)
    assert not outcome.errors
    provider = pd.read_parquet(files / "provider.parquet")
    lines = pq.read_table(tmp_path / "job/provider/audience.parquet")["row"].to_pylist()
    due = _segment(files)
    assert set(provider.phone.iloc[lines]) == due and len(lines) == len(due)
    assert outcome.brand.result["count"] == (len(due) + 5) // 10 * 10
    assert outcome.provider.result["addressed"] == len(due) and outcome.provider.result["released"]
    # The brand's machine never has a row of the provider's, and the provider's none of the unmatched segment.
    assert "rows" not in outcome.brand.carry and not list((tmp_path / "job/brand").glob("*.parquet"))
    assert outcome.provider.result["alignment"]["role"] == "receiver"


def test_who_withdraws_before_the_release_is_addressed_by_nobody(files, tmp_path):
    brand, provider = ScriptedCenter(), ScriptedCenter()
    gone = sorted(_segment(files))

    def before(stage: str) -> None:
        if stage == "release":
            brand.withdrawn = {"+86" + p for p in gone[:30]}
            provider.withdrawn = {"+86" + p for p in gone[20:60]}

    outcome = _retarget(files, tmp_path, before, brand_center=brand, provider_center=provider)
    assert not outcome.errors
    table = pd.read_parquet(files / "provider.parquet")
    lines = pq.read_table(tmp_path / "job/provider/audience.parquet")["row"].to_pylist()
    assert set(table.phone.iloc[lines]) == set(gone[60:])


def test_below_the_minimum_nobody_is_addressed(files, tmp_path):
    asked = spec("retarget", outputs={"audience": "provider", "size": "brand"})
    terms = agreement(kinds=["retarget"], minimum_seeds=400, minimum_rows=1)
    private = {"where": "loyal = 'yes' OR loyal = 'no'"}
    shifted = sides(files, private)
    shifted["provider"].center.reasons = {f"+86138{i:08d}": "denied" for i in range(CUT, N - CUT - 100)}
    outcome = run_job(asked, terms, shifted, tmp_path / "job")
    assert not outcome.errors
    assert outcome.brand.result["count"] is None and "<400" in outcome.brand.result["text"]
    assert pq.read_table(tmp_path / "job/provider/audience.parquet").num_rows == 0
    few = _retarget(files, tmp_path / "few", private={"where": "1 = 0"})
    assert few.errors["brand"].code == "agreement.minimum_seeds"


@pytest.mark.parametrize("message", [{"size": 7}, {"size": -10}, {"size": True}, {"size": 10, "more": 1}, {}])
def test_a_size_that_no_honest_provider_sends(files, tmp_path, monkeypatch, message):
    from parties.kinds import retarget as kind

    def deviate(ctx):
        offered = ctx.carry["sender_rows"]
        session = ctx.channel.session("release")
        ctx.channel.run(Receiver((offered + 7) // 8, "release", session), "release")
        ctx.channel.send_json(message)

    stages = (KINDS["retarget"].stages[0], replace(KINDS["retarget"].stages[1], provider=deviate))
    monkeypatch.setitem(KINDS, "retarget", replace(kind.RETARGET, stages=stages))
    outcome = _retarget(files, tmp_path)
    assert outcome.errors["brand"].code == "kind.message"


# -- sums ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "learner"), [("provider", "brand"), ("provider", "provider"), ("brand", "provider")]
)
def test_a_join_gives_the_sum_to_whom_the_agreement_names(tmp_path, side, learner):
    n, shared, bound = 120, 80, 50
    spend = {role: np.random.default_rng(1).integers(0, 60, n) for role in ("brand", "provider")}
    made = {}
    for role, first in (("brand", 0), ("provider", n - shared)):
        rows = "\n".join(f"138{first + i:08d},{v}" for i, v in enumerate(spend[role]))
        (tmp_path / f"{role}.csv").write_text(f"phone,spend\n{rows}\n")
        entry = Dataset("people", str(tmp_path / f"{role}.csv"), "phone", "phone", {"spend": "profile"})
        made[role] = Side(entry, ScriptedCenter(), {})
    entry = f"{side}.spend:{learner}:{bound}"
    terms = agreement(suites=["private_join"], sums=[entry], minimum_seeds=10, minimum_rows=10)
    asked = spec(
        "overlap",
        params={"method": "private_join", "sum": f"{side}.spend"},
        outputs={"count": "both", "sum": learner},
        columns=["spend"] if side == "provider" else [],
    )
    outcome = run_job(asked, terms, made, tmp_path / "job")
    assert not outcome.errors, outcome.errors
    values = np.minimum(spend[side][:shared] if side == "provider" else spend[side][n - shared :], bound)
    for role, ctx in (("brand", outcome.brand), ("provider", outcome.provider)):
        assert ("sum" in ctx.result) == (role == learner) and not ctx.result["sum_withheld"]
        if role == learner:
            assert abs(ctx.result["sum"] - int(values.sum())) <= ctx.result["sum_noise_at_most"]
    with pytest.raises(NodeError, match=r"agreement\.column"):
        KINDS["overlap"].of(asked).check(asked, agreement(suites=["private_join"]))
    assert agreement().to_json().get("sums") is None and Agreement.from_json(terms.to_json()) == terms
