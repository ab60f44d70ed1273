"""Normalisation: third-party answers, real messiness, and never a crash."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center.errors import ConsentError
from consent_center.identifiers import INVALID, NULL, OK, detect, normalise
from consent_center.model import KINDS


def one(value: str | None, kind: str = "phone") -> str | None:
    found: str | None = normalise(pa.array([value], pa.string()), kind).values[0].as_py()
    return found


def test_chinese_numbers_as_libphonenumber_reads_them(shared_data: Path) -> None:
    path = shared_data / "vectors/id_normalisation/china_mobile_libphonenumber.json"
    cases = json.loads(path.read_text("utf-8"))["cases"]
    found = normalise(pa.array([case["input"] for case in cases]), "phone").values.to_pylist()
    wanted = [case["e164"] if case["valid"] else None for case in cases]
    assert found == wanted


def test_numbers_of_every_country_in_international_form(shared_data: Path) -> None:
    path = shared_data / "vectors/id_normalisation/libphonenumber_examples.json.gz"
    with gzip.open(path) as file:
        cases = json.load(file)["examples"]
    for form in ("international", "rfc3966", "e164"):
        found = normalise(pa.array([case[form] for case in cases]), "phone").values.to_pylist()
        assert found == [case["e164"] for case in cases]


def test_uid2_emails_but_for_its_gmail_rule(shared_data: Path) -> None:
    table = json.loads((shared_data / "vectors/id_normalisation/uid2.json").read_text("utf-8"))
    cases = [c for name in ("docs_table", "operator_valid_email") for c in table[name]]
    plain = [c for c in cases if not c["normalized"].endswith("@gmail.com")]
    assert len(plain) > 10
    assert [one(c["input"], "email") for c in plain] == [c["normalized"] for c in plain]
    # A "+@gmail.com" is refused by UID2 because its gmail rule leaves nothing before the @.
    refused = [text for text in table["operator_invalid_email"] if text != "+@gmail.com"]
    assert [one(text, "email") for text in refused] == [None] * len(refused)


@pytest.mark.parametrize("kind", KINDS)
def test_naughty_strings_are_judged_and_counted(shared_data: Path, kind: str) -> None:
    texts = pa.array(json.loads((shared_data / "naughty/blns.json").read_text("utf-8")))
    found = normalise(texts, kind)
    assert sum(found.counts().values()) == len(texts)
    detect(texts)


@pytest.mark.parametrize(
    "text",
    [
        "13800138000.0",
        "13800138000.00",
        "'13800138000",
        '="13800138000"',
        "  13800138000\t",
        "0086-138-0013-8000",
        "+86 (0) 138 0013 8000",
        "138.0013.8000",
        "138–0013–8000",
        "\ufeff13800138000",
        "8613800138000.0",
        "138\r\n00138000",
    ],
)
def test_spellings_of_one_number(text: str) -> None:
    assert one(text) == "+8613800138000"


def test_a_point_between_groups_is_no_float_tail() -> None:
    assert one("1380013.0000") == "+8613800130000"


@pytest.mark.parametrize(
    "text",
    ["1.3800138E+10", "12345678901", "23800138000", "+86138001380", "138001380001", "+0123456789", "abc"],
)
def test_what_is_no_number_is_invalid_and_not_null(text: str) -> None:
    assert normalise(pa.array([text]), "phone").status.tolist() == [INVALID]


def test_null_blank_and_invalid_are_told_apart() -> None:
    found = normalise(pa.array([None, "", " \u3000\t", "13800138000", "x"]), "phone")
    assert found.status.tolist() == [NULL, NULL, NULL, OK, INVALID]
    assert found.values.null_count == 4
    assert found.counts() == {"ok": 1, "null": 3, "invalid": 1}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([13800138000, None]),
        pa.array([13800138000.0, None]),
        pa.array([13800138000.0, float("nan")]),
        pa.array(["13800138000", None]).dictionary_encode(),
        pa.array(["13800138000", None], pa.large_string()),
        pa.chunked_array([["13800138000"], [None]], pa.string()),
        pa.array([Decimal("13800138000"), None], pa.decimal128(12, 0)),
        pa.array([b"13800138000", None]),
        pa.array(["x", "13800138000", None])[1:],
    ],
)
def test_column_types(column: Any) -> None:
    found = normalise(column, "phone")
    assert found.values.to_pylist() == ["+8613800138000", None]
    assert found.status.tolist() == [OK, NULL]


def test_opaque_numbers_keep_their_text() -> None:
    assert one(" 00123 ", "opaque") == "00123"
    assert normalise(pa.array([7, 2**62]), "opaque").values.to_pylist() == ["7", str(2**62)]


def test_the_all_zero_device_is_nobody() -> None:
    assert one("00000000-0000-0000-0000-000000000000", "device") is None
    assert one(" ABCDEF01-0000-4000-8000-000000000001", "device") == "abcdef01-0000-4000-8000-000000000001"


def test_wrong_kind_and_wrong_type() -> None:
    with pytest.raises(ConsentError, match="identifier.kind"):
        normalise(pa.array(["x"]), "passport")
    for column in (pa.array([True]), pa.array([[1]]), pa.array([b"\xff"])):
        with pytest.raises(ConsentError, match="identifier.type"):
            normalise(column, "phone")


def test_columns_of_mobiles_in_one_form_and_in_several() -> None:
    """Plain, normal, mixed, and forms of the same length that are neither."""
    plain = [f"1{3 + n % 7}{n:09d}" for n in range(40)]
    normal = ["+86" + number for number in plain]
    odd = ["+8512345678901", "+8601234567890", "+86139a0138000", "86-13900138000", "12345678901234"]
    for column in (plain, normal, plain + normal, normal[:5] + odd, plain[:1], normal[:1], odd):
        assert normalise(pa.array(column), "phone").values.to_pylist() == [one(v, "phone") for v in column]
    assert normalise(pa.array(normal[3:9]), "phone").values.to_pylist() == normal[3:9]
    assert normalise(pa.array(normal)[3:9], "phone").values.to_pylist() == normal[3:9]
    assert normalise(pa.array(plain), "phone").values.to_pylist() == normal


def test_detect() -> None:
    assert detect(pa.array(["13800138000", "+86 139 0013 8000", "", "broken", None])) == "phone"
    assert detect(pa.array(["a@b.cn", "c@d.com", "nobody"])) == "email"
    assert detect(pa.array(["ABCDEF01-0000-4000-8000-000000000001"] * 3)) == "device"
    assert detect(pa.array(["cust-1", "cust-2"])) == "opaque"
    assert detect(pa.array([], pa.string())) == "opaque"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=40) | st.none(), max_size=10), st.sampled_from(KINDS))
def test_normal_forms_are_fixed_points_and_rows_independent(values: list[str | None], kind: str) -> None:
    column = pa.array(values, pa.string())
    found = normalise(column, kind)
    assert ((found.status == OK) == np.array([v is not None for v in found.values.to_pylist()], bool)).all()
    again = normalise(found.values, kind)
    assert again.values.equals(found.values)
    assert [one(v, kind) for v in values] == found.values.to_pylist()
