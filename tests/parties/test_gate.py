"""The gate lets in who may take part, nobody else, and closes when it can't know."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pair import ScriptedCenter

from consent_center.errors import ConsentError
from parties.datasets import Dataset
from parties.errors import NodeError
from parties.gate import ConsentedView, Gate, digests

PHONES = [
    "+86 138 0000 0000",
    "13800000001",
    "0086-138-0000-0002",
    "13800000001",
    "",
    "12",
    "13800000003",
    "13800000004",
]
#: What the consent center is asked about: valid, distinct.
KNOWN = [f"+8613800000{i:03d}" for i in range(5)]


class OneHome:
    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def dataset(self, name: str) -> Dataset:
        assert name == self._dataset.name
        return self._dataset


@pytest.fixture
def home(tmp_path: Path) -> OneHome:
    path = tmp_path / "people.csv"
    lines = "\n".join(f'"{phone}",{i},x{i % 2}' for i, phone in enumerate(PHONES))
    path.write_text(f"手机,n,c\n{lines}\n")
    return OneHome(Dataset("people", str(path), "手机", "phone", {"n": "profile", "c": "profile"}))


def _open(center, home, columns=("n", "c"), categories=("profile",)) -> ConsentedView:
    return Gate(center, home).open("people", "ads", "acme", categories, columns, "job-1")


def _code(center, home, **arguments) -> str:
    with pytest.raises(NodeError) as caught:
        _open(center, home, **arguments)
    return caught.value.code


def test_preflight_counts_every_row_once(home):
    report = Gate(ScriptedCenter(), home).preflight("people")
    assert (report.read, report.normalised, report.duplicate, report.null, report.invalid) == (8, 6, 1, 1, 1)
    assert report.read == report.normalised + report.null + report.invalid
    assert "138" not in str(report.to_document())


def test_only_eligible_unique_people_enter_with_their_first_row(home):
    center = ScriptedCenter({KNOWN[2]: "denied", KNOWN[3]: "withdrawn"})
    view = _open(center, home)
    assert sorted(view.own_rows().tolist()) == [0, 1, 7]
    assert view.rows == 3 and view.alive.all()
    assert view.counts == {
        "in": 3,
        "out": {
            "identifier_null": 1,
            "identifier_invalid": 1,
            "identifier_duplicate": 1,
            "denied": 1,
            "withdrawn": 1,
        },
    }
    assert view.counts["in"] + sum(view.counts["out"].values()) == len(PHONES)


def test_items_columns_and_filters_agree_row_by_row(home):
    view = _open(ScriptedCenter(), home)
    by_row = dict(zip([0, 1, 2, 6, 7], KNOWN, strict=True))
    for item, row in zip(view.items, view.own_rows(), strict=True):
        assert item.tobytes() == hashlib.sha256(b"phone\0" + by_row[row].encode()).digest()
    table = view.columns(["n", "c"])
    assert table["n"].to_pylist() == [float(r) for r in view.own_rows()]
    assert table["c"].to_pylist() == [f"x{r % 2}" for r in view.own_rows()]
    assert (view.where("n >= 2 AND c = 'x0'") == np.isin(view.own_rows(), [2, 6])).all()
    (column,) = view.read(["n"], np.array([2, 0]))
    assert column.values.tolist() == view.own_rows()[[2, 0]].tolist()


def test_columns_outside_the_job_stay_closed(home):
    view = _open(ScriptedCenter(), home, columns=("n",))
    for name in ("c", "手机"):
        with pytest.raises(NodeError) as caught:
            next(view.read([name]))
        assert caught.value.code == "gate.column"


def test_the_order_is_drawn_anew_and_uniform_enough(tmp_path):
    path = tmp_path / "many.csv"
    path.write_text("id\n" + "\n".join(f"u{i}" for i in range(2000)))
    home = OneHome(Dataset("people", str(path), "id", "opaque", {}))
    first, second = (_open(ScriptedCenter(), home, columns=()).own_rows() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(2000))
    assert (first == second).mean() < 0.02
    assert abs(np.corrcoef(first, np.arange(2000))[0, 1]) < 0.15


def test_recheck_drops_for_good_and_counts(home):
    center = ScriptedCenter()
    view = _open(center, home)
    assert view.recheck().dropped.tolist() == []
    center.withdrawn = {KNOWN[1]}
    found = view.recheck()
    assert view.own_rows()[found.dropped].tolist() == [1]
    assert found.active and found.reasons == {"withdrawn": 1} and found.lag_seconds == 0.5
    assert view.counts["in"] == 4 and view.counts["out"]["withdrawn_midway"] == 1
    center.withdrawn = set()  # a center that forgets must not bring anybody back
    assert view.recheck().dropped.tolist() == found.dropped.tolist()
    center.active = False
    assert not view.recheck().active


def test_nobody_eligible_is_refused_with_the_reasons(home):
    center = ScriptedCenter(dict.fromkeys(KNOWN, "no_event"))
    with pytest.raises(NodeError) as caught:
        _open(center, home)
    assert caught.value.code == "consent.nobody" and caught.value.share
    assert caught.value.counts["no_event"] == 5
    assert "with all its categories (" in caught.value.detail


class Broken(ScriptedCenter):
    def snapshot(self, *arguments):
        raise ConsentError("center.unreachable", "no answer")

    def delta(self, snapshot_id):
        raise OSError("no answer")


class Altered(ScriptedCenter):
    """Answers something else than what was asked."""

    def __init__(self, change) -> None:
        super().__init__()
        self._change = change

    def snapshot(self, *arguments):
        return self._change(super().snapshot(*arguments))


def _document(**changes):
    return lambda s: replace(s, document={**s.document, **changes})


def test_closed_when_the_center_fails(home):
    assert _code(Broken(), home) == "consent.unavailable"
    view = _open(ScriptedCenter(), home)
    view._center = Broken()
    with pytest.raises(NodeError) as caught:
        view.recheck()
    assert caught.value.code == "consent.unavailable"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_document(purpose="other"), "gate.snapshot"),
        (_document(recipient="mallory"), "gate.snapshot"),
        (_document(job_id="job-2"), "gate.snapshot"),
        (_document(categories=["profile", "health"]), "gate.snapshot"),
        (lambda s: replace(s, disclosure={"counts": {"in": 99, "out": {}}}), "gate.snapshot"),
        (lambda s: replace(s, decisions=replace(s.decisions, codes=s.decisions.codes[:-1])), "gate.snapshot"),
        (
            lambda s: replace(s, decisions=replace(s.decisions, ordinals=s.decisions.ordinals[:-1])),
            "gate.snapshot",
        ),
        (
            lambda s: replace(s, decisions=replace(s.decisions, sequence=-1, detail="behind")),
            "consent.unavailable",
        ),
    ],
)
def test_closed_when_the_answer_is_for_another_question(home, change, code):
    assert _code(Altered(change), home) == code


WRONG_KINDS = [
    ("phone", ["a@b.cn", "c@d.cn"], "email"),
    ("phone", ["a@b.cn"] * 19 + ["13800138000", ""], "email"),  # nearly all; the empty one does not count
    ("email", ["13800138000", "13800138001", ""], "phone"),
    ("email", ["0123456789abcdef" * 2, "fedcba9876543210" * 2], "device"),
    ("phone", ["a@b.cn"] * 8 + ["13800138000"] * 2, ""),  # a file with gaps, not a wrong column
    ("phone", ["x", "y"], ""),  # no kind stands out: gate.identifiers, as before
    ("opaque", ["a@b.cn"], ""),
]


@pytest.mark.parametrize(("declared", "values", "looks"), WRONG_KINDS)
def test_a_column_of_another_kind_is_told_before_anybody_is_asked(tmp_path, declared, values, looks):
    path = tmp_path / "people.csv"
    path.write_text("id,n\n" + "".join(f"{value},1\n" for value in values))
    home = OneHome(Dataset("people", str(path), "id", declared, {"n": "profile"}))
    gate = Gate(None, home)
    (found,) = gate.preflight("people").identifiers
    assert found.get("looks_like", "") == looks
    if not looks:
        gate.check_kinds("people")
        return
    for look in (lambda: gate.check_kinds("people"), lambda: _open(None, home, columns=("n",))):
        with pytest.raises(NodeError) as caught:
            look()
        assert caught.value.code == "gate.kind" and f"--id id:{looks}" in caught.value.hint
        filled = sum(1 for value in values if value)
        assert f" of {filled} values" in caught.value.detail and f"like {looks}" in caught.value.detail


def test_no_valid_identifier_and_missing_column(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("phone,n\nabc,1\n,2\n")
    assert (
        _code(ScriptedCenter(), OneHome(Dataset("people", str(path), "phone", "phone", {}))) == "rows.column"
    )
    home = OneHome(Dataset("people", str(path), "phone", "phone", {}))
    assert _code(ScriptedCenter(), home, columns=("n",)) == "gate.identifiers"
    home = OneHome(Dataset("people", str(path), "telephone", "phone", {}))
    assert _code(ScriptedCenter(), home, columns=()) == "rows.column"


def test_digests_are_sha256_of_any_text():
    import pyarrow as pa

    values = ["", "a", "é上海🀄", "x" * 300, "nul\0inside"] * 7
    found = digests(pa.array(values), "opaque")
    assert [d.tobytes() for d in found] == [hashlib.sha256(b"opaque\0" + v.encode()).digest() for v in values]


def test_the_view_does_not_print_people(home):
    assert "138" not in repr(_open(ScriptedCenter(), home))
