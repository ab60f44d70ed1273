"""Several identifiers a person: whose they are, the first match in the declared order, rows of one person."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pair import ScriptedCenter, Side, agreement, run_job, spec

from consent_center.center import Center
from consent_center.model import CODE, ConsentEvent, DecisionRequest, Notice, Purpose
from consent_center.records.assess import file_assessment
from parties import persons
from parties.datasets import Dataset
from parties.errors import NodeError
from parties.gate import Gate
from parties.kinds import common

LOOSE = agreement(minimum_seeds=1, minimum_rows=1, suites=["ecdh", "private_join"])


def dataset(path: Path, text: str, *ids: tuple[str, str], **declared: Any) -> Dataset:
    path.write_text(text)
    header = text.splitlines()[0].split(",")
    rest = {c: "profile" for c in header if c not in {c for c, _ in ids}}
    return Dataset("people", str(path), *ids[0], rest, tuple(ids[1:]), **declared)


class OneHome:
    def __init__(self, entry: Dataset) -> None:
        self.dataset = lambda name: entry


def view_of(entry: Dataset, center: Any, columns: tuple[str, ...] = ()) -> Any:
    return Gate(center, OneHome(entry)).open("people", "ads", "acme", ("profile",), columns, "job-1")


IDS = (("a", "opaque"), ("b", "opaque"))


def test_who_is_who_and_every_row_is_counted_once(tmp_path: Path) -> None:
    text = "a,b,n\n" + "\n".join(
        [
            "x1,y1,0",  # person 1, by both
            "x1,,1",  # person 1 again
            ",y2,2",  # person 2, by the second only
            "x3,y1,3",  # x3 is person 3, y1 is person 1: a conflict
            "x3,new,4",  # person 3, with an identifier that nobody knows
            "zz,,5",  # unknown
            "zz,,6",  # the same unknown
            ",,7",  # nothing
        ]
    )
    entry = dataset(tmp_path / "p.csv", text, *IDS)
    center = ScriptedCenter(subjects={"x1": 1, "y1": 1, "y2": 2, "x3": 3})
    view = view_of(entry, center, ("n",))
    assert sorted(view.own_rows()) == [0, 2, 4]
    assert view.counts == {
        "in": 3,
        "out": {
            "identifier_null": 1,
            "identifier_conflict": 1,
            "identifier_duplicate": 2,
            "unknown_subject": 1,
        },
    }
    names = {0: {"x1", "y1"}, 2: {"y2"}, 4: {"x3"}}  # `new` is nobody's, so it is never matched by
    for at, line in enumerate(view.own_rows()):
        items, who = view.items_of(np.array([at]))
        due = {persons.digests(pa.array([v]), "opaque")[0].tobytes() for v in names[int(line)]}
        assert {i.tobytes() for i in items} == due and (who == 0).all()
    report = Gate(center, OneHome(entry)).preflight("people")
    assert (report.read, report.normalised, report.null, report.invalid) == (8, 7, 1, 0)
    assert [i["distinct"] for i in report.identifiers] == [3, 3] and report.duplicate == 4


def test_the_gate_closes_when_the_people_change_between_two_questions(tmp_path: Path) -> None:
    entry = dataset(tmp_path / "p.csv", "a,b\nx1,y1\n", *IDS)

    class Moving(ScriptedCenter):
        def snapshot(self, *arguments: Any) -> Any:
            self.subjects = {"x1": 9, "y1": 9}
            return super().snapshot(*arguments)

    with pytest.raises(NodeError, match=r"gate\.snapshot"):
        view_of(entry, Moving(subjects={"x1": 1, "y1": 1}))

    class Behind(ScriptedCenter):
        def decide(self, *arguments: Any) -> Any:
            from dataclasses import replace

            return replace(super().decide(*arguments), sequence=-1)

    with pytest.raises(NodeError, match=r"consent\.unavailable"):
        view_of(entry, Behind(subjects={"x1": 1, "y1": 1}))


@pytest.mark.parametrize(
    ("declared", "code"), [({"nulls": "refuse"}, "gate.nulls"), ({"duplicates": "refuse"}, "gate.duplicates")]
)
def test_what_the_data_set_declares_is_held_before_anybody_is_asked(
    tmp_path: Path, declared: dict[str, str], code: str
) -> None:
    center = ScriptedCenter()
    center.snapshot = None  # type: ignore[assignment]
    entry = dataset(tmp_path / "p.csv", "a,b\nx1,y1\nx1,\n,\n", *IDS, **declared)
    with pytest.raises(NodeError, match=code):
        view_of(entry, center)


def test_first_match_wins() -> None:
    rows = np.array([-1, 7, 5, -1, -1, 3])
    who = np.array([0, 0, 0, 1, 2, 2])
    found, by = common.first_match(rows, who, 4)
    assert found.tolist() == [7, -1, 3, -1] and by.tolist() == [1, -1, 5, -1]


def plain(left: list[list[str]], right: list[list[str]]) -> list[int]:
    """The oracle: for each of the brand's rows, the provider's row of its first identifier that has one."""
    owner = {v: j for j, ids in enumerate(right) for v in ids if v}
    return [next((owner[v] for v in ids if v in owner), -1) for ids in left]


def run(tmp_path: Path, left: list[list[str]], right: list[list[str]], **changes: Any) -> Any:
    sides, width = {}, max(len(r) for r in left + right)
    for role, table in (("brand", left), ("provider", right)):
        columns = [chr(ord("a") + i) for i in range(width)]
        text = ",".join([*columns, "tag"]) + "\n"
        text += "\n".join(",".join([*(r + [""] * (width - len(r))), f"t{i}"]) for i, r in enumerate(table))
        entry = dataset(tmp_path / f"{role}.csv", text, *((c, "opaque") for c in columns))
        subjects = {v: i for i, ids in enumerate(table) for v in ids if v}
        sides[role] = Side(entry, ScriptedCenter(subjects=subjects))
    return run_job(spec(**changes), LOOSE, sides, tmp_path / "work")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_the_multi_key_examples_of_private_id(tmp_path: Path, shared_data: Path, number: int) -> None:
    """Inputs of facebookresearch/Private-ID, private_id_multi_key: each person takes the first match."""
    found = json.loads((shared_data / "vectors/psi_examples/private_id_examples.json").read_text())
    texts = (found[f"private_id_multi_key/Ex{number}_{who}.csv"] for who in ("company", "partner"))
    left, right = ([[v.strip() for v in row] for row in csv.reader(io.StringIO(t))] for t in texts)
    outcome = run(tmp_path, left, right, kind="enrich", columns=["tag"])
    assert not outcome.errors
    table = pd.read_parquet(tmp_path / "work" / "brand" / "enriched.parquet")
    due = {i: f"t{j}" for i, j in enumerate(plain(left, right)) if j >= 0}
    assert dict(zip(table["row"], table["tag"], strict=True)) == due


def test_the_first_example_written_out(tmp_path: Path) -> None:
    """Ex1 of the above: email1 of person 0 and phone2 of person 1 are one row of the partner's."""
    left = [["email1", "phone1"], ["phone2"], ["email3"], ["nobody"]]
    right = [["email1", "phone2"], ["phone1"], ["email3"]]
    assert plain(left, right) == [0, 0, 2, -1]
    outcome = run(tmp_path, left, right, kind="overlap")
    ctx, other = outcome.brand, outcome.provider
    # The count is of the provider's people: two of the brand's are one of them, so 2 are shared.
    assert (
        not outcome.errors and ctx.result["count"] == 0 and ctx.result["matched_by"] == {"a": "0", "b": "<1"}
    )
    assert ctx.result["alignment"]["sender_rows"] == 4 and other.view.rows == 3


def test_all_rows_of_a_person_are_in_the_brands_own_result(tmp_path: Path, shared_data: Path) -> None:
    """FATE's file with repeated ids (2,139 rows, 569 people): one-to-many, as declared."""
    fate = shared_data / "datasets/fate"
    guest = pd.read_csv(fate / "breast_hetero_guest_repeated_id.csv.gz", dtype=str)
    host = pd.read_csv(fate / "breast_hetero_host_sample_id.csv.gz", dtype=str)
    host = host.drop_duplicates("id")
    guest[["mock_id", "id"]].to_csv(tmp_path / "guest.csv", index=False)
    host[["id", "x0"]].to_csv(tmp_path / "host.csv", index=False)
    truth = guest[["id"]].reset_index().merge(host[["id", "x0"]], on="id")
    for declared, due in (("all", truth), ("first", truth.drop_duplicates("id"))):
        brand = Dataset("people", str(tmp_path / "guest.csv"), "id", "opaque", {}, duplicates=declared)
        provider = Dataset("people", str(tmp_path / "host.csv"), "id", "opaque", {"x0": "profile"})
        work = tmp_path / declared
        outcome = run_job(
            spec("enrich", columns=["x0"]),
            LOOSE,
            {"brand": Side(brand, ScriptedCenter()), "provider": Side(provider, ScriptedCenter())},
            work,
        )
        assert not outcome.errors
        table = pd.read_parquet(work / "brand" / "enriched.parquet")
        assert table["row"].tolist() == sorted(due["index"].tolist())
        assert np.allclose(table["x0"], due.sort_values("index")["x0"].astype(float))


def test_a_private_join_needs_to_know_by_which_identifier(tmp_path: Path) -> None:
    left, right = [["u1", "v1"], ["u2", "v2"]], [["u2", "v2"], ["u9", "v1"]]
    join = {"method": "private_join"}
    outcome = run(tmp_path, left, right, kind="overlap", params=join, outputs={"count": "both"})
    assert {e.code for e in outcome.errors.values()} <= {"job.spec", "peer.failed"}
    again = tmp_path / "again"
    again.mkdir()
    params = {**join, "identifier": "opaque"}
    outcome = run(again, left, right, kind="overlap", params=params, outputs={"count": "both"})
    assert not outcome.errors and outcome.brand.result["asked"] == 2


def test_a_real_center_decides_by_identifiers_of_several_kinds(tmp_path: Path) -> None:
    phone, mail = ("phone", "13800000001"), ("email", "one@example.com")
    with Center.create(tmp_path / "consent", "shop") as center:
        center.put_purpose(Purpose("ads", 1, {"en": "ads"}, ("profile",), needs_guardian=False))
        from datetime import UTC, datetime

        now = datetime.now(UTC)
        center.put_notice(Notice("text", 1, "ads", 1, {"en": "we compare"}))
        center.record(ConsentEvent((phone, mail), "ads", 1, "granted", "acme", ("profile",), now, "text", 1))
        center.assume(pa.array(["13800000002"]), "phone", "ads", "acme", ["profile"], "test", "test")
        file_assessment(center, "ads", "acme", "none: a test", "test")
        request = DecisionRequest("ads", "acme", ("profile",))
        values = pa.array(["one@example.com", "13800000002", "two@example.com", None])
        kinds = pa.array(["email", "phone", "email", "email"])
        found = center.snapshot(request, values, kinds, "job-1")
        assert found.decisions.codes.tolist() == [
            0,
            0,
            CODE["unknown_subject"],
            CODE["identifier_null"],
        ]
        assert found.document["kind"] == "email+phone" and found.disclosure["token_count"] == 2
        entry = dataset(
            tmp_path / "p.csv",
            "tel,mail,n\n138 0000 0001,ONE@example.com,1\n13800000002,one@example.com,2\n13800000002,,3\n",
            ("tel", "phone"),
            ("mail", "email"),
        )
        view = view_of(entry, center, ("n",))
        assert sorted(view.own_rows()) == [0, 2] and view.counts["out"] == {"identifier_conflict": 1}
        assert len(view.items) == 3 and view.several
        assert len(view.items_by("email", np.arange(2))[0]) == 1
        with pytest.raises(NodeError, match=r"gate\.column"):
            view.items_by("device", np.arange(2))


def test_a_withdrawal_by_an_identifier_that_was_unknown_ends_the_row(tmp_path: Path) -> None:
    """Consent came by telephone; while the job runs the person withdraws by an address nobody knew before."""
    from datetime import UTC, datetime

    with Center.create(tmp_path / "consent", "shop") as center:
        center.put_purpose(Purpose("ads", 1, {"en": "ads"}, ("profile",), needs_guardian=False))
        now = datetime.now(UTC)
        center.put_notice(Notice("text", 1, "ads", 1, {"en": "we compare"}))
        people = pa.array(["13800000001", "13800000002", "13800000003"])
        center.assume(people, "phone", "ads", "acme", ["profile"], "test", "test")
        file_assessment(center, "ads", "acme", "none: a test", "test")
        text = "tel,mail,n\n"
        text += "".join(f"1380000000{i},p{i}@example.com,{i}\n" for i in (1, 2, 3))
        entry = dataset(tmp_path / "p.csv", text, ("tel", "phone"), ("mail", "email"))
        view = view_of(entry, center)
        assert len(view) == 3 and not len(view.recheck().dropped)
        view.save(tmp_path / "saved")
        mail = ("email", "p2@example.com")
        center.record(ConsentEvent((mail,), "ads", 1, "withdrawn", "acme", ("profile",), now))
        restored = Gate(center, OneHome(entry)).restore(tmp_path / "saved", "people")
        for held in (view, restored):
            assert held.own_rows()[held.recheck().dropped].tolist() == [1]
            assert held.counts["in"] == 2
        # Known to the same person since: nothing is wrong with that.
        both = (("phone", "13800000003"), ("email", "p3@example.com"))
        center.record(ConsentEvent(both, "ads", 1, "granted", "acme", ("profile",), now, "text", 1))
        assert view.own_rows()[view.recheck().dropped].tolist() == [1]


def test_a_data_set_keeps_its_declaration(tmp_path: Path) -> None:
    entry = dataset(tmp_path / "p.csv", "a,b,n\nx,y,1\n", *IDS, duplicates="all", nulls="refuse")
    assert Dataset.from_json(json.loads(json.dumps(entry.to_json()))) == entry
    assert set(Dataset("d", "p", "a", "phone", {}).to_json()) == {
        "name", "path", "id_column", "id_kind", "categories",
    }  # fmt: skip
    for wrong in ({"further_ids": "ab"}, {"further_ids": [["a"]]}, {"further_ids": [["a", "x"]]}):
        with pytest.raises(NodeError, match=r"document\.type"):
            Dataset.from_json({**entry.to_json(), **wrong})
    for wrong in ({"duplicates": "some"}, {"nulls": "x"}, {"further_ids": [["a", "phone"]]}):
        with pytest.raises(NodeError, match=r"document\.type"):
            Dataset.from_json({**entry.to_json(), **wrong})
