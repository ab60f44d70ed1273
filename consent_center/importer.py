"""Imports consent events from CSV and JSON-lines files, in batches, and lists the rows that did not fit.

A row that can't be recorded costs no other row: it goes to an error file beside the input with its row
number, the field, the value, a code and what to do. The columns are the fields of an event; see `COLUMNS`.

Speed comes from checking whole columns (DuckDB, pyarrow): only a rejected row costs a line of Python.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consent_center.client import CenterClient
from consent_center.errors import ConsentError
from consent_center.import_files import Batch, Opener, Problem, Source
from consent_center.model import ACTIONS, GRANTS, KINDS

#: Rows in one transaction. Every one touches most pages of the index of identifiers, so few are quicker; but
#: other writers wait for some two seconds.
BATCH = 1 << 17
KEPT = 1_000  # problems that a report keeps in memory; the error file has all

#: Fields and other spellings of their columns (letter case does not matter).
COLUMNS: dict[str, tuple[str, ...]] = {
    "phone": ("mobile", "msisdn", "phone_number", "手机号", "手机", "手机号码"),
    "email": ("mail", "e-mail", "email_address", "邮箱", "电子邮箱"),
    "device": ("device_id", "idfa", "oaid", "imei", "设备号"),
    # Not "id" or "user_id": a row number of two files must not make one person of two.
    "opaque": ("open_id", "openid"),
    "purpose": ("目的",),
    "purpose_version": ("目的版本",),
    "notice": ("告知",),
    "notice_version": ("告知版本",),
    "action": ("event", "动作"),
    "recipient": ("接收方",),
    "categories": ("category", "类别"),
    "regulation": ("法规",),
    "channel": ("渠道",),
    "method": ("方式",),
    "occurred_at": ("time", "timestamp", "occurred", "时间"),
    # Many spellings: an end or a birthday in a column that nobody recognises would be lost.
    "expires_at": (
        "expires",
        "expiry",
        "expiry_date",
        "expiration",
        "expiration_date",
        "valid_until",
        "到期时间",
        "到期日",
        "过期时间",
        "有效期至",
    ),
    "birth_date": ("birthday", "birthdate", "date_of_birth", "dob", "出生日期", "生日"),
    "evidence": ("凭证",),
    "actor": ("操作人",),
}
_NEEDED = ("purpose", "action", "recipient", "occurred_at")
_DEFAULTS = {"regulation": "PIPL", "channel": "import", "method": "explicit"}
_ACTION_WORDS = {
    "grant": "granted",
    "deny": "denied",
    "withdraw": "withdrawn",
    "renew": "renewed",
    "expire": "expired",
    "同意": "granted",
    "拒绝": "denied",
    "撤回": "withdrawn",
}
_FORMATS = "['%Y/%m/%d %H:%M:%S', '%Y/%m/%d %H:%M', '%Y/%m/%d', '%Y%m%d']"


@dataclass(frozen=True)
class ImportReport:
    """`read` = `recorded` + `rejected` rows; `errors` has the first thousand, `errors_path` all, if any."""

    read: int
    recorded: int
    rejected: int
    errors_path: Path | None = None
    ignored_columns: tuple[str, ...] = ()
    codes: dict[str, int] = field(default_factory=dict)
    errors: tuple[Problem, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "recorded": self.recorded,
            "rejected": self.rejected,
            "errors_path": None if self.errors_path is None else str(self.errors_path),
            "ignored_columns": list(self.ignored_columns),
            "codes": self.codes,
            "errors": [vars(p) for p in self.errors],
        }


def import_events(
    center: CenterClient,
    path: str | Path,
    mapping: Mapping[str, str] | None = None,
    on_progress: Callable[[int], None] | None = None,
    timezone: str = "UTC",
    batch_rows: int = BATCH,
) -> ImportReport:
    """Imports a file; `mapping` names the file's column for a field (`{"phone": "tel"}`).

    `on_progress(rows read so far)` is called after each batch. `timezone` is that of times without an offset.
    The error file is `<name>.errors.csv` beside the input (mode 0600: it holds what was wrong, personal data
    included). Raises `import.file`, `import.column`.
    """
    file = Path(path)
    try:
        file.open("rb").close()
    except OSError as error:
        raise ConsentError(
            "import.file", f"{file} can't be read: {error.strerror}; check the path and its permissions"
        ) from error
    errors = file.with_name(file.name + ".errors.csv")
    with _error_file(errors) as write:
        report = import_source(
            center,
            lambda: file.open("rb"),
            file.name,
            mapping,
            None,
            on_progress,
            timezone,
            batch_rows,
            write,
        )
    if report.rejected:
        return ImportReport(**{**vars(report), "errors_path": errors})
    errors.unlink(missing_ok=True)  # of an earlier run: nothing is wrong any more
    return report


def import_source(
    center: CenterClient,
    opener: Opener,
    name: str,
    mapping: Mapping[str, str] | None = None,
    kind: str | None = None,
    on_progress: Callable[[int], None] | None = None,
    timezone: str = "UTC",
    batch_rows: int = BATCH,
    on_problem: Callable[[Problem], None] | None = None,
) -> ImportReport:
    """As `import_events`, from anything that can be opened twice; `kind` is `csv`, `jsonl` or None: look."""
    source = Source(opener, name, COLUMNS, mapping, kind)
    missing = [c for c in _NEEDED if c not in source.columns]
    if not set(KINDS) & source.columns.keys():
        missing.insert(0, f"an identifier ({', '.join(KINDS)})")
    if missing:
        raise ConsentError("import.column", f"{name} lacks {', '.join(missing)}; it has: {source.found}")
    newest: dict[str, int] = {}
    texts: dict[str, int] = {}
    several: set[tuple[str, str]] = set()
    for field_name, known, listed in (
        ("purpose", newest, center.purposes()),
        ("notice", texts, center.notices()),
    ):
        for entry in listed:
            if entry.id in known:
                several.add((field_name, entry.id))
            known[entry.id] = max(known.get(entry.id, 0), entry.version)
    read = recorded = rejected = 0
    kept: list[Problem] = []
    codes: dict[str, int] = {}
    with duckdb.connect(config={"threads": 1}) as db:
        try:
            db.execute("SET TimeZone = ?", [timezone])
        except duckdb.Error as error:
            raise ConsentError("request.invalid", f"no time zone {timezone!r}: try Asia/Shanghai") from error
        for batch in _joined(source.batches(batch_rows), batch_rows):
            problems = list(batch.problems)
            table, rows = _checked(db, batch, newest, texts, several, problems)
            if table.num_rows:
                done = center.record_many(table, on_error="skip")
                recorded += done.count
                problems += [_refused(table, rows, e.row, e.code, e.detail) for e in done.errors]
            read += len(batch.rows) + len(batch.problems)
            rejected += len(problems)
            for problem in sorted(problems, key=lambda p: p.row):
                codes[problem.code] = codes.get(problem.code, 0) + 1
                if len(kept) < KEPT:
                    kept.append(problem)
                if on_problem is not None:
                    on_problem(problem)
            if on_progress is not None:
                on_progress(read)
    return ImportReport(read, recorded, rejected, None, tuple(source.ignored), codes, tuple(kept))


def _joined(batches: Iterator[Batch], rows: int) -> Iterator[Batch]:
    """Batches of up to `rows` rows out of smaller ones: what a reader gives at once depends on its buffer."""
    held: list[Batch] = []
    try:
        for batch in batches:
            if held and sum(len(b.rows) for b in held) + len(batch.rows) > rows:
                yield _one(held)
                held = []
            held.append(batch)
    except ConsentError:
        if held:  # what was read before the place that can't be
            yield _one(held)
        raise
    if held:
        yield _one(held)


def _one(batches: list[Batch]) -> Batch:
    filled = [batch for batch in batches if len(batch.rows)]
    names = filled[0].columns if filled else ()
    columns = {name: pa.concat_arrays([_whole(batch.columns[name]) for batch in filled]) for name in names}
    numbers = [batch.rows for batch in batches]
    return Batch(np.concatenate(numbers), columns, [p for batch in batches for p in batch.problems])


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def lines_of_array(body: bytes) -> bytes:
    """A JSON array of objects as JSON lines. Raises `request.invalid`."""
    try:
        items = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConsentError("request.invalid", f"the body is no JSON: {error}") from error
    if not isinstance(items, list) or not items:
        raise ConsentError("request.invalid", "the body is a JSON array of at least one event")
    try:
        return b"\n".join(json.dumps(item).encode() for item in items)
    except RecursionError as error:
        raise ConsentError("request.invalid", "the body is nested too deeply") from error


def _checked(
    db: duckdb.DuckDBPyConnection,
    batch: Batch,
    newest: Mapping[str, int],
    notices: Mapping[str, int],
    several: Set[tuple[str, str]],
    problems: list[Problem],
) -> tuple[pa.Table, np.ndarray]:
    """The batch as a table for `record_many`, and the file's row of each of its rows."""
    n = len(batch.rows)
    if n == 0:
        return pa.table({}), batch.rows
    null = pa.nulls(n, pa.string())
    text = {name: batch.columns.get(name, null) for name in COLUMNS}
    bad = np.zeros(n, bool)

    def refuse(where: Any, name: str, code: str, fix: str) -> None:
        """Each row has one problem: the first that was found."""
        mask = np.asarray(where, dtype=bool) & ~bad
        for i in np.flatnonzero(mask):
            value = text[name][int(i)].as_py() if name else ""
            problems.append(Problem(int(batch.rows[i]), name, str(value or "")[:200], code, fix))
        bad[mask] = True

    for name in _NEEDED:
        code = {"occurred_at": "event.time"}.get(name, f"event.{name}")
        refuse(pc.is_null(text[name]), name, code, "this field may not be empty")
    present = np.zeros(n, bool)
    for kind in KINDS:
        present |= np.asarray(pc.is_valid(text[kind]))
    refuse(~present, "", "event.identifier", f"give at least one of {', '.join(KINDS)}")
    words, lower = list(_ACTION_WORDS), pc.utf8_lower(text["action"])
    at = pc.index_in(lower, pa.array(words))
    action = pc.coalesce(pc.take(pa.array(list(_ACTION_WORDS.values())), at), lower)
    refuse(_unlike(action, ACTIONS), "action", "event.action", f"use one of {', '.join(ACTIONS)}")
    columns: dict[str, pa.Array] = {k: text[k] for k in KINDS} | {"action": action}
    for name, known in (("purpose", newest), ("notice", notices)):
        shown = ", ".join(sorted(known)[:20]) or "none"
        if name == "purpose":
            refuse(_unlike(text[name], known), name, f"event.{name}", f"not registered; registered: {shown}")
        columns[name] = text[name]
        version = pc.cast(_numbers(text[f"{name}_version"]), pa.int64())
        wrong = np.asarray(pc.is_valid(text[f"{name}_version"])) & np.asarray(pc.is_null(version))
        refuse(wrong, f"{name}_version", f"event.{name}", "a version is a whole number from 1")
        # Nobody agreed to a version that came later: with several, a grant must say which one it was.
        unclear = pc.is_in(
            text[name], pa.array([id for field_, id in several if field_ == name], pa.string())
        )
        unclear = np.asarray(pc.and_(unclear, pc.is_in(action, pa.array(sorted(GRANTS)))))
        unclear &= np.asarray(pc.is_null(text[f"{name}_version"]))
        refuse(
            unclear, f"{name}_version", f"event.{name}", "there are several versions: say which one it was"
        )
        ids, versions = list(known), pa.array(list(known.values()), pa.int64())
        found = pc.take(versions, pc.index_in(text[name], pa.array(ids, pa.string())))
        columns[f"{name}_version"] = pc.fill_null(pc.coalesce(version, found), 0)
    for name in ("recipient", "evidence", "actor"):
        columns[name] = text[name]
    for name, default in _DEFAULTS.items():
        columns[name] = pc.fill_null(text[name], default)
    split = pc.split_pattern_regex(pc.fill_null(text["categories"], ""), r"\s*[;；]\s*")
    columns["categories"] = split
    times = _times(db, text)
    for name in ("occurred_at", "expires_at", "birth_date"):
        columns[name] = times[name]
        wrong = np.asarray(pc.is_valid(text[name])) & np.asarray(pc.is_null(times[name]))
        code, like = ("event.expiry", "") if name == "expires_at" else ("event.time", "")
        like = "2012-03-01" if name == "birth_date" else "2026-03-01T08:00:00+08:00"
        refuse(wrong, name, code, f"no date or time between 1900 and 2200: write it like {like}")
    keep = pa.array(~bad)
    return pa.table({k: v.filter(keep) for k, v in columns.items()}), batch.rows[~bad]


def _unlike(column: pa.Array, known: Any) -> np.ndarray:
    """bool[n]: filled in, and none of the known."""
    inside = np.asarray(pc.is_in(column, pa.array(list(known), pa.string())))
    unlike: np.ndarray = np.asarray(pc.is_valid(column)) & ~inside
    return unlike


def _numbers(column: pa.Array) -> pa.Array:
    """Whole numbers from 1 to 9 digits, also as a spreadsheet writes them (`2.0`); null where it is none."""
    plain = pc.replace_substring_regex(column, r"\.0+$", "")
    good = pc.match_substring_regex(plain, r"^[0-9]{1,9}$")
    return pc.if_else(good, plain, None)


def _times(db: duckdb.DuckDBPyConnection, text: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """Microseconds since 1970 UTC (and a date for the birthday); null where the text is no time."""
    part = pa.table({name: text[name] for name in ("occurred_at", "expires_at", "birth_date")})
    db.register("part", part)

    def stamp(name: str) -> str:
        read = f"coalesce(try_cast({name} AS TIMESTAMPTZ), try_strptime({name}, {_FORMATS})::TIMESTAMPTZ)"
        return (
            f"CASE WHEN {read} >= '1900-01-01' AND {read} < '2200-01-01' THEN epoch_us({read}) END AS {name}"
        )

    day = f"coalesce(try_cast(birth_date AS DATE), try_strptime(birth_date, {_FORMATS})::DATE)"
    born = f"CASE WHEN {day} >= '1900-01-01' AND {day} < '2200-01-01' THEN {day} END AS birth_date"
    query = f"SELECT {stamp('occurred_at')}, {stamp('expires_at')}, {born} FROM part"  # noqa: S608 (our names)
    out = db.sql(query).to_arrow_table().combine_chunks()
    utc = pa.timestamp("us", "UTC")
    one = {name: out[name].combine_chunks() for name in out.schema.names}
    return {
        "occurred_at": one["occurred_at"].cast(utc),
        "expires_at": one["expires_at"].cast(utc),
        "birth_date": one["birth_date"].cast(pa.date32()),
    }


def _refused(table: pa.Table, rows: np.ndarray, row: int, code: str, detail: str) -> Problem:
    """What the center itself refused: the field is named by the code."""
    name = code.partition(".")[2].removesuffix("_conflict")
    name = {"identifier": next((k for k in KINDS if table[k][row].is_valid), ""), "time": "occurred_at"}.get(
        name, "expires_at" if name == "expiry" else name
    )
    value = str(table[name][row].as_py() or "") if name in table.schema.names else ""
    return Problem(int(rows[row]), name, value[:200], code, detail)


@contextmanager
def _error_file(path: Path) -> Iterator[Callable[[Problem], None]]:
    """Writes beside the target and renames at the end, so that no half-written list stands there."""
    handle, name = tempfile.mkstemp(prefix=".errors-", dir=path.parent, suffix=".csv")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("row", "field", "value", "code", "what to do"))

            def write(problem: Problem) -> None:
                value = problem.value
                # A spreadsheet would run a cell that starts like a formula.
                value = f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t") else value
                writer.writerow((problem.row, problem.field, value, problem.code, problem.fix))

            yield write
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
