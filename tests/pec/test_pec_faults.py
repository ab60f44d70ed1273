"""Faults of data between two running nodes: a clear end on both sides, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from consent_center.records.assess import file_assessment
from parties.datasets import Dataset
from parties.errors import NodeError
from pec import plan
from pec.network import LocalNetwork

PEOPLE = 300


@pytest.mark.slow
def test_faulty_data_ends_a_job_on_both_sides(tmp_path: Path) -> None:
    phones = [f"138{n:08d}" for n in range(PEOPLE)]
    files = {name: tmp_path / f"{name}.csv" for name in ("shop", "bank")}
    good = pd.DataFrame({"phone": phones, "score": range(PEOPLE), "loyal": [n < 20 for n in range(PEOPLE)]})
    for path in files.values():
        good.to_csv(path, index=False)
    with LocalNetwork(tmp_path / "nodes", ["shop", "bank"]) as network:
        for party, other in (("shop", "bank"), ("bank", "shop")):
            home = network[party].home
            columns = {"score": "profile", "loyal": "profile"}
            home.add_dataset(Dataset("people", str(files[party]), "phone", "phone", columns))
            with home.center() as center:
                plan.register_purposes(center, ["profile"])
                for purpose in ("overlap", "lookalike"):
                    center.assume(pa.array(phones), "phone", purpose, other, ["profile"], "test", "test")
                    file_assessment(center, purpose, other, "none: a test", "test")
        network.agree(
            plan.terms(id="a1", brand="shop", provider="bank", categories=["profile"], preapproved=plan.KINDS)
        )
        network.start()
        shop, bank = network["shop"].client, network["bank"].client

        def run(kind: str, **more: object) -> tuple[str, str]:
            """Codes of both sides' errors, after checking what every failed job must leave."""
            request = plan.request(
                kind,
                provider="bank",
                agreement="a1",
                datasets=("people", "people"),
                categories=["profile"],
                **more,
            )
            job_id = shop.submit(request)
            views = [client.wait(job_id, 240) for client in (shop, bank)]
            for party, view in zip(("shop", "bank"), views, strict=True):
                assert view["state"] in ("failed", "rejected") and view["error"]["detail"]
                assert not view["files"] and not list((network[party].home.path / "work").iterdir())
                assert not (network[party].home.path / "jobs" / job_id).exists()
            return views[0]["error"]["code"], views[1]["error"]["code"]

        few = {"label": "loyal", "audience_size": 10}
        with pytest.raises(NodeError) as caught:
            run("lookalike", columns=["score"], private=few)
        assert caught.value.code == "agreement.minimum_seeds"
        files["bank"].write_bytes(b"PK\x03\x04 no table at all")
        assert run("overlap") == ("rows.unreadable", "rows.unreadable")
        good.rename(columns={"phone": "telephone"}).to_csv(files["bank"], index=False)
        assert run("overlap") == ("rows.column", "rows.column")
        good.to_csv(files["bank"], index=False)
        # The brand's own file is looked at before anybody is asked.
        files["shop"].write_bytes(b"PK\x03\x04 no table at all")
        with pytest.raises(NodeError, match=r"rows\.unreadable"):
            run("overlap")
        good.rename(columns={"phone": "telephone"}).to_csv(files["shop"], index=False)
        with pytest.raises(NodeError, match=r"rows\.column"):
            run("overlap")
        good.to_csv(files["shop"], index=False)
