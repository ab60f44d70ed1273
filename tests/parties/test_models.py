"""Models after their job: card, registry, scoring of new people, expiry, the consent that they rest on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import real_job
from pair import agreement

from consent_center.model import ConsentEvent
from parties import bundle, documents, model_card
from parties.datasets import Dataset
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from parties.home import Home
from parties.kinds import KINDS
from parties.kinds.metrics import detailed, measure
from parties.models import Models

LEARNED = ("boost", "joint-lr", "lead-score")
N = 600


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(N, 4))
    phone = [f"138{i:08d}" for i in range(N)]
    fast = (rng.random(N) < 1 / (1 + np.exp(-2 * (x[:, 0] + x[:, 2])))).astype(int)
    spend = np.exp(3 + 0.5 * x[:, 1] + 0.5 * x[:, 3])
    brand = pd.DataFrame({"phone": phone, "a": x[:, 0], "b": x[:, 1], "fast": fast, "spend": spend})
    provider = pd.DataFrame({"phone": phone, "c": x[:, 2], "d": x[:, 3], "city": rng.choice(["x", "y"], N)})
    return brand[:500], provider[100:].sample(frac=1, random_state=1)


class Trained:
    """Two homes after one job of each kind that leaves a model at both."""

    def __init__(self, folder: Path) -> None:
        brand, provider = tables()
        self.homes: dict[str, Home] = {
            "brand": real_job.make_home(folder, "acme", "dataco", brand, "phone"),
            "provider": real_job.make_home(folder, "dataco", "acme", provider, "phone"),
        }
        # New leads: the same people in another file, without labels, in another order, and one stranger.
        leads = pd.concat([brand[["phone", "a", "b"]].iloc[::-1], brand[["phone", "a", "b"]].iloc[:1]])
        leads["phone"] = [*leads["phone"][:-1], "13900000000"]
        leads.to_csv(folder / "leads.csv", index=False)
        columns = {"a": "profile", "b": "profile"}
        self.homes["brand"].add_dataset(
            Dataset("leads", str(folder / "leads.csv"), "phone", "phone", columns)
        )
        terms = agreement(kinds=[*LEARNED, "score"]).to_json()
        real_job.introduce(self.homes["brand"], self.homes["provider"], terms)
        small = {"trees": 6, "depth": 3, "bins": 8}
        own = {"columns": ["a", "b"], "holdout_seed": 1}
        self.ran = {
            "boost": self.run("boost", "boost-1", small, {"label": "fast", **own, "learning_rate": 0.3}),
            "joint-lr": self.run("joint-lr", "joint-1", {}, {"label": "fast", **own}),
            "lead-score": self.run(
                "lead-score", "lead-1", small, {"speed": "fast", "value": "spend", "calibrate": True, **own}
            ),
        }

    def run(
        self, kind: str, job_id: str, params: dict[str, Any], private: dict[str, Any], data: str = "people"
    ) -> Any:
        changes = {"params": params, "columns": ["*"], "outputs": {"scores": "brand"}}
        changes["datasets"] = {"brand": data, "provider": "people"}
        return real_job.run(self.homes, real_job.spec_of(kind, job_id, **changes), private)

    def score(self, job_id: str, model: str, method: str = "boost", **private: Any) -> Any:
        return self.run("score", job_id, {"model": model, "method": method}, private, "leads")

    def scores(self, job_id: str) -> pd.DataFrame:
        return pd.read_parquet(self.homes["brand"].job(job_id) / "scores.parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    made = Trained(tmp_path_factory.mktemp("models"))
    for kind, outcome in made.ran.items():
        for role, found in outcome.items():
            if isinstance(found, Exception):
                raise AssertionError(f"{kind} at the {role}") from found
    return made


def ok(outcome: dict[str, Any]) -> dict[str, Any]:
    for role, found in outcome.items():
        if isinstance(found, Exception):
            raise AssertionError(role) from found
    return outcome


@pytest.mark.parametrize(
    ("job", "kind"), [("boost-1", "boost"), ("joint-1", "joint-lr"), ("lead-1", "lead-score")]
)
def test_new_leads_get_the_scores_of_the_fit(trained: Trained, job: str, kind: str) -> None:
    """Everybody of the training file is scored again from another file: the same number, to rounding."""
    method = "joint-lr" if kind == "joint-lr" else "boost"
    outcome = ok(trained.score(f"score-{kind}", job, method))
    assert outcome["brand"]["result"]["asked"] == 500 and outcome["brand"]["result"]["matched"] == 400
    then, now = trained.scores(job), trained.scores(f"score-{kind}")
    assert len(now) == 400 and 500 not in set(now["row"])  # the stranger has consented to nothing
    now.index = pd.Index(499 - now["row"])  # the leads' file is the other way round
    then = then.set_index("row").loc[now.index]
    names = ["speed", "value", "combined"] if kind == "lead-score" else ["score"]
    if kind == "boost":
        then["score"] = then["margin"]
    assert np.allclose(then[names], now[names], atol=1e-5)
    if kind == "lead-score":
        assert then["grade"].tolist() == now["grade"].tolist()
    else:
        assert now["prediction"].between(0, 1).all()
    assert bundle.verify(
        trained.homes["brand"].job(f"score-{kind}") / "audit.zip",
        [home.card() for home in trained.homes.values()],
        results=trained.homes["brand"].job(f"score-{kind}"),
    ).ok
    assert not list(trained.homes["provider"].job(f"score-{kind}").rglob("*.parquet"))


def test_one_lead(trained: Trained) -> None:
    ok(trained.score("score-one", "lead-1", where="phone = '13800000300'"))
    one, all_ = trained.scores("score-one"), trained.scores("lead-1").set_index("row")
    assert one["row"].tolist() == [199] and abs(one["speed"][0] - all_.loc[300, "speed"]) < 1e-6
    assert one["grade"][0] == all_.loc[300, "grade"]
    nobody = trained.score("score-none", "boost-1", where="phone = '13800000005'")  # not at the provider
    assert ok(nobody)["brand"]["result"]["scored"] == 0


def code_of(outcome: Any, role: str = "brand") -> str:
    return str(getattr(outcome[role], "code", ""))


def test_models_that_may_not_score(trained: Trained) -> None:
    assert code_of(trained.score("no-1", "nothing")) == "model.unknown"
    assert code_of(trained.score("no-2", "boost-1", "joint-lr")) == "job.spec"
    theirs, mine = (Models(trained.homes[role]) for role in ("provider", "brand"))
    theirs.expire("joint-1", "2020-01-02T00:00:00Z")
    assert code_of(trained.score("no-3", "joint-1", "joint-lr"), "provider") == "model.expired"
    assert code_of(trained.score("no-4", "joint-1", "joint-lr"), "brand") != ""
    with pytest.raises(NodeError, match=r"model\.agreement"):
        mine.expire("joint-1", "2040-01-01T00:00:00Z")
    at = documents.now()
    for peer, agreed in (("other", "a1"), ("dataco", "a2")):
        with pytest.raises(NodeError, match=r"model\.agreement"):
            mine.usable("boost-1", peer, agreed, "boost", at)
    with pytest.raises(NodeError, match=r"model\.expired"):
        mine.usable("boost-1", "dataco", "a1", "boost", documents.moment("2036-01-01T00:00:00Z"))


def test_versions_aliases_and_retirement(trained: Trained, tmp_path: Path) -> None:
    models = Models(trained.homes["brand"])
    ok(
        trained.run(
            "boost", "boost-2", {"trees": 2, "depth": 2, "bins": 4}, {"label": "fast", "columns": ["a"]}
        )
    )
    found = {m.job_id: m for m in models.all()}
    assert set(found) == {"boost-1", "boost-2", "joint-1", "lead-1"}
    assert (found["boost-1"].version, found["boost-2"].version) == (1, 2)
    assert (
        models.find("boost.dataco").job_id == "boost-2" and models.find("boost.dataco@1").job_id == "boost-1"
    )
    assert models.alias("boost-2", "champion").aliases == ("champion",)
    assert models.alias("boost-1", "champion").job_id == "boost-1" == models.find("champion").job_id
    assert models.find("boost-2").aliases == ()
    with pytest.raises(NodeError, match=r"model\.alias"):
        models.alias("boost-1", "boost.dataco")
    models.alias("boost-2", "old")
    retired = models.retire("boost-2", "worse than the first")
    assert retired.state(documents.now()) == "retired" and retired.note and not retired.aliases
    for change in (lambda: models.retire("boost-2"), lambda: models.alias("boost-2", "again")):
        with pytest.raises(NodeError, match=r"model\.retired"):
            change()
    assert models.find("boost.dataco").job_id == "boost-1"
    assert code_of(trained.score("no-5", "boost-2")) == "model.retired"
    # The registry is only an index: without it, the same models are found again.
    fresh = Models(replace_home(trained.homes["brand"], tmp_path))
    assert {m.job_id for m in fresh.all()} == set(found)


def replace_home(home: Home, folder: Path) -> Home:
    copy = Home(home.path, home.settings, home.identity)
    copy.path = folder
    (folder / "jobs").symlink_to(home.path / "jobs")
    return copy


def test_training_consent_that_falls_flags_the_model(trained: Trained) -> None:
    home = trained.homes["brand"]
    models = Models(home)
    with home.center() as center:
        before = models.standing(models.find("boost-1"), center)
        assert before["people"] == before["still_in"] == 500 and not before["flagged"]
        for n in range(420, 480):
            center.record(
                ConsentEvent(
                    identifiers=(("phone", f"138{n:08d}"),),
                    purpose="ads",
                    purpose_version=1,
                    action="withdrawn",
                    recipient="dataco",
                    categories=real_job.CATEGORIES,
                    occurred_at=documents.now(),
                )
            )
        after = models.standing(models.find("boost-1"), center)
        assert after["still_in"] == 440 and after["share"] == 0.88 and after["flagged"]
        assert not models.standing(models.declare("boost-1", 0.8), center)["flagged"]
        with pytest.raises(NodeError, match=r"model\.share"):
            models.declare("boost-1", 1.5)
    flagged = ok(trained.score("score-flagged", "lead-1"))["brand"]["result"]
    assert flagged["training_consent"]["flagged"] and flagged["training_consent"]["still_in"] == 440


def test_the_card_says_what_the_model_is(trained: Trained) -> None:
    home = trained.homes["brand"]
    for kind, job in (("boost", "boost-1"), ("joint-lr", "joint-1"), ("lead-score", "lead-1")):
        card = json.loads((home.job(job) / "model_card.json").read_text())
        assert (
            card["kind"] == kind
            and card["agreement"] == "a1"
            and card["expires_at"] == "2036-01-01T00:00:00Z"
        )
        assert set(card["consent"]) == {"acme", "dataco"} and all(
            c["snapshot"] for c in card["consent"].values()
        )
        record = json.loads((home.job(job) / "job.json").read_text())
        signed = (JobSpec.from_json(record["spec"]["document"]), record["agreement"]["document"])
        assert card["leakage"] == KINDS[kind].learned(signed[0], Agreement.from_json(signed[1]))
        assert "standard errors" not in json.dumps(card["leakage"])  # none were asked for
        assert card["privacy"] == {"noise": False, "epsilon": None, "delta": None, "agreed": None}
        assert card["data"]["own_columns"] == ["a", "b"] and card["data"]["people"]["in"] == 500
        for target, listed in card["columns"].items():
            assert {c["column"] for c in listed if c["side"] == "brand"} == {"a", "b"}, target
            assert card["metrics"][target].get("auc") or card["metrics"][target].get("r2") is not None
        page = (home.job(job) / "model_card.html").read_text()
        assert "模型卡" in page and card["consent"]["dataco"]["snapshot"] in page
        assert "http" not in page.replace("http-equiv", "")
        assert not (trained.homes["provider"].job(job) / "model_card.json").exists()
        if kind == "joint-lr":
            assert card["metrics"][kind]["converged"] is True and "拟合到达最小值" in page
    assert "grade" in page


def test_settings_on_a_card_are_words_and_no_programs_text() -> None:
    given = {"columns": ["年龄", "tenure"], "monotone": {"tenure": 1}, "errors": True, "none": [], "l2": 0.5}
    shown = [model_card._setting(value) for value in given.values()]
    assert shown == ["年龄, tenure", "tenure: 1", "true", "–", "0.5"]


def test_the_card_of_a_lookalike_has_every_figure_of_the_held_out_seeds(trained: Trained) -> None:
    rng = np.random.default_rng(6)
    seeds = rng.random(4000) < 0.1
    scores = rng.normal(size=4000) + seeds
    record = json.loads((trained.homes["brand"].job("boost-1") / "job.json").read_text())
    record["spec"]["document"]["kind"] = "lookalike"
    record["result"] = {
        **measure(scores, seeds),
        **detailed(scores, seeds, 0.1),
        "epsilon": 2.0,
        "delta": 1e-6,
    }
    card = model_card.document(record, {})
    found, page = card["metrics"]["lookalike"], model_card.render(card)
    assert card["privacy"]["epsilon"] == 2.0 and len(found["calibration"]["bins"]) == 10
    names = ("auc", "pr_auc", "ks", "auc_corrected")
    assert all(f"{found[name]:.4f}" in page for name in names)
    for at in ("1", "2", "5", "10", "20"):
        assert f"{found['recall_at'][at]:.4f}" in page and f"{found['lift_at'][at]:.4f}" in page
        assert {f"recall_at_{at}", f"lift_at_{at}"} <= set(found["intervals"])
    low, high = found["intervals"]["pr_auc"]
    assert f"pr_auc: {low:.4f}–{high:.4f}" in page and f"ece: {found['calibration']['ece']:.4f}" in page


def test_a_card_is_safe_against_names(trained: Trained) -> None:
    card = json.loads((trained.homes["brand"].job("boost-1") / "model_card.json").read_text())
    card["columns"]["boost"][0]["column"] = "<script>alert(1)</script>"
    card["parameters"]["own"]["label"] = '"><img src=x>'
    page = model_card.render(card)
    assert "<script>" not in page and "<img" not in page


def test_a_registry_entry_that_is_damaged_says_so(trained: Trained, tmp_path: Path) -> None:
    home = replace_home(trained.homes["brand"], tmp_path)
    models = Models(home)
    assert models.all()
    (tmp_path / "models" / "boost-1.model.json").write_text("{")
    with pytest.raises(NodeError, match=r"model\.unreadable"):
        models.all()


def test_what_is_flagged_by_state(trained: Trained) -> None:
    model = Models(trained.homes["brand"]).find("boost-1")
    now = documents.now()
    assert model.state(now) == "active"
    assert replace(model, expires_at="2020-01-02T00:00:00Z").state(now) == "expired"
    assert replace(model, retired_at="2020-01-02T00:00:00Z").state(now) == "retired"
