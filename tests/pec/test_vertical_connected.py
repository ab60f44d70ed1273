"""An estimator over two running nodes, then the node's models on the command line, then one lead alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pec_command import pec, pec_here

from parties.datasets import Dataset
from pec import plan, simulate
from pec.network import LocalNetwork
from pec.vertical import ConnectedProvider, VerticalGradientBoosting

N = 600


def two_nodes(folder: Path) -> tuple[LocalNetwork, pd.DataFrame, np.ndarray]:
    """Nodes `brand` and `provider` with consent, data and an agreement, not started; the brand's X and y."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, 3))
    y = rng.random(N) < 1 / (1 + np.exp(-2 * (x[:, 0] + x[:, 1])))
    phone = [f"138{i:08d}" for i in range(N)]
    theirs = pd.DataFrame({"phone": phone, "b": x[:, 1], "c": x[:, 2]})
    theirs.to_csv(folder / "people.csv", index=False)
    network = LocalNetwork(folder / "nodes", ["brand", "provider"])
    columns = {"b": simulate.CATEGORY, "c": simulate.CATEGORY}
    network["provider"].home.add_dataset(
        Dataset("people", str(folder / "people.csv"), "phone", "phone", columns)
    )
    for mine, other in (("brand", "provider"), ("provider", "brand")):
        simulate.assume(network[mine], other, pd.Series(phone), "phone", "boost", "a test")
    terms = plan.terms(
        id="a1",
        brand="brand",
        provider="provider",
        categories=[simulate.CATEGORY],
        kinds=("boost", "score"),
        purposes=("boost",),
        epsilon=None,
        minimum_seeds=20,
        minimum_rows=1,
        preapproved=("boost", "score"),
    )
    network.agree(terms)
    return network, pd.DataFrame({"phone": phone, "a": x[:, 0]}), y


@pytest.mark.slow
def test_a_partner_behind_the_running_node(tmp_path: Path) -> None:
    network, X, y = two_nodes(tmp_path)
    home = network["brand"].home.path
    with network:
        network.start()
        partner = ConnectedProvider(home, "a1", "people", [simulate.CATEGORY], id_kind="phone")
        model = VerticalGradientBoosting(partner, id="phone", trees=8, depth=3, learning_rate=0.4)
        model.fit(X[:400], y[:400])
        chance = model.predict_proba(X[400:])[:, 1]
        one = model.predict_proba(X[400:401])[:, 1]
    assert one[0] == pytest.approx(chance[0]) and np.mean(y[400:] == (chance > 0.5)) > 0.7
    listed = pec("model", "list", "--home", home, "--json")
    assert listed.code == 0 and [m["job_id"] for m in listed.json] == [model.job_id_]
    assert listed.json[0]["consent"]["share"] == 1.0 and not listed.json[0]["flagged"]
    assert pec_here("model", "alias", "boost.provider", "champion", "--home", home, "--json").code == 0
    card = pec_here("model", "card", "champion", "--home", home, "--out", tmp_path / "card.html", "--json")
    assert card.json["job_id"] == model.job_id_ and "模型卡" in (tmp_path / "card.html").read_text("utf-8")
    assert pec_here("model", "expire", "champion", "--home", home, "--json").json["state"] == "expired"
    shown = pec_here("model", "show", model.job_id_, "--home", home, "--json").json
    assert shown["aliases"] == ["champion"] and shown["state"] == "expired"
    assert pec_here("model", "retire", "champion", "--home", home, "--json").json["state"] == "retired"
    gone = pec_here("model", "show", "champion", "--home", home, "--json")
    assert gone.code == 2 and gone.error["code"] == "model.unknown"
    theirs = pec_here("model", "card", model.job_id_, "--home", network["provider"].home.path, "--json")
    assert theirs.code == 2 and theirs.error["code"] == "pec.file"
