"""Importing files of consent events: what is recorded, what is refused and how it is told."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import consent_helpers
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.importer import import_events
from consent_center.model import DecisionRequest, Notice, Purpose

pytestmark = pytest.mark.usefixtures("store")

HEADER = "phone,purpose,purpose_version,notice,notice_version,action,recipient,categories,occurred_at"
ASK = DecisionRequest("ads", "partner", ("contract",))
NOW = datetime.now(UTC)


def row(
    phone: str, action: str = "granted", purpose: str = "ads", at: str = "2026-03-01T08:00:00+08:00"
) -> str:
    return f"{phone},{purpose},1,text,1,{action},partner,contract;usage,{at}"


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with Center.create(tmp_path / "center", "brand", database=consent_helpers.storage()) as center:
        center.put_purpose(Purpose("ads", 1, {"en": "Ads"}, ("contract", "usage")))
        center.put_notice(Notice("text", 1, "ads", 1, {"en": "What we do"}))
        yield center


def write(tmp_path: Path, *lines: str, name: str = "events.csv", encoding: str = "utf-8") -> Path:
    path = tmp_path / name
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def reasons(center: Center, *phones: str) -> dict[str, int]:
    counts = center.decide(ASK, pa.array(phones), "phone").counts()
    return {"eligible": counts["in"], **counts["out"]} if counts["in"] else counts["out"]


def errors_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def test_a_file_takes_effect(center: Center, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEADER,
        row("13800138000"),
        row("+86 138 0013 8001 ", "denied"),
        row("13800138002"),
        row("13800138002", "withdrawn", at="2026-03-02T00:00:00Z"),
    )
    report = import_events(center, path)
    assert (report.read, report.recorded, report.rejected, report.errors_path) == (4, 4, 0, None)
    assert reasons(center, "13800138000", "13800138001", "13800138002") == {
        "eligible": 1,
        "denied": 1,
        "withdrawn": 1,
    }


def test_bad_rows_cost_nothing_else_and_are_explained(center: Center, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEADER,  # row 1, as a spreadsheet counts
        row("13800138000"),
        "only,three,columns",
        "",
        row("13800138001", action="agreed"),
        row("13800138002", purpose="research"),
        row("13800138003", at="2026-02-30"),
        row("", at="2026-02-03"),
        row("not a phone"),
        '13800138004,ads,1,text,1,granted,partner,"contract;\nusage",2026-03-01',
        row("13800138005", at="3026-01-01"),
        "=1+1" + row("13800138006", purpose="=cmd()"),
        row("13800138007"),
    )
    report = import_events(center, path)
    assert (report.read, report.recorded, report.rejected) == (11, 3, 8)
    assert report.errors_path == tmp_path / "events.csv.errors.csv"
    assert report.errors_path.stat().st_mode & 0o077 == 0, "the error file holds personal data"
    header, *lines = errors_of(report.errors_path)
    assert header == ["row", "field", "value", "code", "what to do"]
    assert [(line[0], line[1], line[3]) for line in lines] == [
        ("3", "", "import.row"),
        ("5", "action", "event.action"),
        ("6", "purpose", "event.purpose"),
        ("7", "occurred_at", "event.time"),
        ("8", "", "event.identifier"),
        ("9", "phone", "event.identifier"),
        ("11", "occurred_at", "event.time"),
        ("12", "purpose", "event.purpose"),
    ]
    assert all(line[4] for line in lines), "each says what to do"
    assert lines[-1][2] == "'=cmd()", "a spreadsheet must not run what a stranger wrote"
    assert reasons(center, "13800138000", "13800138004", "13800138007") == {"eligible": 3}
    # The corrected file leaves no stale list behind.
    write(tmp_path, HEADER, row("13800138001"))
    assert import_events(center, path).errors_path is None
    assert not report.errors_path.exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".errors")] == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_encodings_and_chinese_headers(center: Center, tmp_path: Path, encoding: str) -> None:
    head = "手机号,目的,动作,接收方,类别,时间,告知,渠道,备注"
    lines = [f"1380013{i:04d},ads,同意,partner,contract,2026/3/1 8:00,text,门店,客户备注" for i in range(50)]
    report = import_events(center, write(tmp_path, head, *lines, encoding=encoding), timezone="Asia/Shanghai")
    assert (report.recorded, report.rejected) == (50, 0)
    assert report.ignored_columns == ("备注",)
    event = center.explain("phone", "13800130007").events[0]
    assert event["channel"] == "门店"
    assert event["occurred_at"] == "2026-03-01T00:00:00+00:00"


def test_damaged_bytes_cost_only_their_row(center: Center, tmp_path: Path) -> None:
    good = "".join(row(f"1380013{i:04d}").replace("partner", "partner") + "\n" for i in range(20))
    path = tmp_path / "events.csv"
    noted = (HEADER + ",channel\n" + good.replace("\n", ",门店与网站\n")).encode()
    path.write_bytes(noted + row("13900139000").encode() + b",\xff\xfe\n")
    report = import_events(center, path)
    assert (report.recorded, report.rejected) == (20, 1)
    assert report.errors[0].row == 22
    assert report.errors[0].field == "channel"


def test_json_lines(center: Center, tmp_path: Path) -> None:
    one = {
        "phone": 13800138000,
        "purpose": "ads",
        "notice": "text",
        "action": "grant",
        "recipient": "partner",
        "categories": ["contract", "usage"],
        "occurred_at": "2026-03-01T08:00:00+08:00",
        "evidence": {"form": 7},
    }
    lines = [
        json.dumps(one),
        "{broken",
        "",
        "[]",
        json.dumps(one | {"phone": {"a": 1}}),
        json.dumps({"x": 1}),
    ]
    report = import_events(center, write(tmp_path, *lines, name="events.jsonl"))
    assert report.recorded == 1
    assert [(p.row, p.code) for p in report.errors] == [
        (2, "import.row"),
        (4, "import.row"),
        (5, "import.row"),
        (6, "event.purpose"),
    ]
    assert reasons(center, "13800138000") == {"eligible": 1}
    assert center.explain("phone", "13800138000").events[0]["evidence"] == '{"form":7}'


def test_column_names_can_be_mapped_and_files_zipped(center: Center, tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    head = HEADER.replace("phone", "tel").replace(",", ";")
    line = row("13800138000").replace("contract;usage", "contract").replace(",", ";")
    path.write_bytes(gzip.compress(f"{head}\n{line}\n".encode()))
    with pytest.raises(ConsentError, match="an identifier"):
        import_events(center, path)
    assert import_events(center, path, {"phone": "TEL"}).recorded == 1


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", "import.file", "empty"),
        (b"PK\x03\x04....", "import.file", "save it as CSV"),
        (gzip.compress(b"phone", mtime=0), "import.file", "save it as CSV"),
        (b'[{"phone": "1"}]', "import.file", "one object on each line"),
        (
            b"phone,purpose\n1,ads\n",
            "import.column",
            "lacks action, recipient, occurred_at; it has: phone, purpose",
        ),
        (b"phone,phone,purpose,action,recipient,occurred_at\n", "import.column", "two columns named 'phone'"),
    ],
)
def test_a_file_that_can_not_be_used_says_why(
    center: Center, tmp_path: Path, content: bytes, code: str, says: str
) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(content)
    with pytest.raises(ConsentError, match=says) as caught:
        import_events(center, path)
    assert caught.value.code == code
    assert not path.with_name("events.csv.errors.csv").exists()


def test_a_damaged_archive(center: Center, tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *[row("13800138000")] * 99]).encode())[:-9])
    with pytest.raises(ConsentError, match="export it again") as caught:
        import_events(center, path)
    assert caught.value.code == "import.file"


def test_a_missing_file(center: Center, tmp_path: Path) -> None:
    with pytest.raises(ConsentError, match="No such file") as caught:
        import_events(center, tmp_path / "nothing.csv")
    assert caught.value.code == "import.file"


def test_batches_are_seamless_and_progress_is_told(center: Center, tmp_path: Path) -> None:
    lines = [row(f"1380013{i:04d}") if i % 7 else "ragged" for i in range(100)]
    told: list[int] = []
    report = import_events(center, write(tmp_path, HEADER, *lines), on_progress=told.append, batch_rows=9)
    assert (report.read, report.recorded, report.rejected) == (100, 85, 15)
    assert sorted(p.row for p in report.errors) == [i + 2 for i in range(100) if i % 7 == 0]
    assert told == sorted(told) and told[-1] == 100


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.lists(st.text(max_size=12), min_size=9, max_size=9), max_size=4),
    st.sampled_from(["csv", "jsonl"]),
)
def test_any_text_is_recorded_or_refused(
    center: Center, tmp_path: Path, cells: list[list[str]], kind: str
) -> None:
    """Whatever stands in the cells: no row gets lost and nothing but ConsentError is raised."""
    path = tmp_path / f"fuzz.{kind}"
    names = HEADER.split(",")
    with path.open("w", encoding="utf-8", newline="", errors="replace") as file:
        if kind == "csv":
            csv.writer(file).writerows([names, *cells])
        else:
            file.write("".join(json.dumps(dict(zip(names, c, strict=True))) + "\n" for c in cells))
    try:
        report = import_events(center, path)
    except ConsentError as error:
        assert error.code in ("import.file", "import.column")
        return
    assert report.read == report.recorded + report.rejected <= len(cells)


def test_naughty_strings(center: Center, tmp_path: Path, shared_data: Path) -> None:
    strings = json.loads((shared_data / "naughty" / "blns.json").read_text(encoding="utf-8"))
    path = tmp_path / "naughty.csv"
    with path.open("w", encoding="utf-8", newline="", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow([*HEADER.split(","), "channel", "evidence"])
        for text in strings:
            for where in range(11):
                cells = [*row("13800138000").split(","), "web", "none"]
                cells[where] = text
                writer.writerow(cells)
    report = import_events(center, path)
    assert report.read == report.recorded + report.rejected
    assert report.read == 11 * len(strings)
    assert center.fsck() is None


def test_a_grant_is_not_taken_for_a_version_that_came_later(center: Center, tmp_path: Path) -> None:
    """With several versions a grant that names none is refused; a withdrawal needs no version."""
    center.put_purpose(Purpose("ads", 2, {"en": "Ads"}, ("contract", "usage")))
    header = "phone,purpose,notice,notice_version,action,recipient,categories,occurred_at"
    lines = [
        "13800138000,ads,text,1,granted,partner,contract,2026-03-01T08:00:00Z",
        "13800138001,ads,,,withdrawn,partner,,2026-03-01T08:00:00Z",
    ]
    path = write(tmp_path, header, *lines)
    report = import_events(center, path)
    assert (report.recorded, report.codes) == (1, {"event.purpose": 1})
    assert "several versions" in errors_of(path.with_name("events.csv.errors.csv"))[1][4]
    assert reasons(center, "13800138001") == {"withdrawn": 1}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("dob", f"{NOW.year - 6}-01-01", "minor_without_guardian"),
        ("生日", f"{NOW.year - 6}-01-01", "minor_without_guardian"),
        ("valid_until", f"{NOW - timedelta(days=8):%Y-%m-%d}", "expired"),
        ("有效期至", f"{NOW - timedelta(days=8):%Y-%m-%d}", "expired"),
    ],
    ids=["dob", "生日", "valid_until", "有效期至"],
)
def test_ends_and_birthdays_are_found_under_their_usual_names(
    center: Center, tmp_path: Path, column: str, value: str, reason: str
) -> None:
    at = (NOW - timedelta(days=10)).isoformat(timespec="seconds")
    import_events(center, write(tmp_path, f"{HEADER},{column}", f"{row('13800138000', at=at)},{value}"))
    assert reasons(center, "13800138000") == {reason: 1}
