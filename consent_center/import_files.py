"""Reads CSV and JSON-lines files of consent events into batches of text columns; forgives nothing silently.

A row that can't be read becomes a `Problem` and costs no other row. Row numbers are those that a spreadsheet
or an editor shows: in CSV the header is row 1, in JSON-lines the first line is row 1.

Text may be UTF-8 (with or without a byte-order mark), UTF-16 with a mark, or gb18030 (which contains GBK);
files may be gzipped. A UTF-8 file with a few damaged bytes stays UTF-8; only the damaged rows are refused.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from consent_center.errors import ConsentError

_CHUNK = 4 << 20  # bytes read at a time; also the longest CSV record or JSON line
_DAMAGED = "\ufffd"

Opener = Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Problem:
    """Why a row was not recorded. `value` may be personal data: it goes to the error file, never to a log."""

    row: int
    field: str
    value: str = dataclasses.field(repr=False)
    code: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Batch:
    """`rows` int64[n]; `columns[name]` string[n], trimmed, null where empty; what could not be read apart."""

    rows: np.ndarray
    columns: dict[str, pa.Array] = dataclasses.field(repr=False)
    problems: list[Problem] = dataclasses.field(default_factory=list, repr=False)


class Source:
    """One file or upload: `columns` maps our names to the file's; `ignored` lists what nobody asked for."""

    def __init__(
        self,
        opener: Opener,
        name: str,
        fields: Mapping[str, tuple[str, ...]],
        mapping: Mapping[str, str] | None = None,
        kind: str | None = None,
    ) -> None:
        """`fields[f]` lists other spellings of field f; `mapping[f]` names the file's column for f.

        Raises `import.file`, `import.column`.
        """
        self._open, self.name = opener, name
        if name.endswith(".gz"):
            self._open = lambda: gzip.GzipFile(fileobj=opener())  # type: ignore[assignment, return-value]
        try:
            with self._open() as file:
                head = file.read(1 << 16)
            self.encoding = _encoding(self._open)  # reads the whole file, so damage shows here
        except (EOFError, zlib.error, OSError) as error:
            raise ConsentError(
                "import.file", f"{name} can't be read: {error}; copy or export it again"
            ) from error
        if not head.strip(b"\0\r\n\t \xef\xbb\xbf"):
            raise ConsentError("import.file", f"{name} is empty: export it again, with a header line")
        if head[:4] in (b"PK\x03\x04", b"PAR1", b"\x1f\x8b\x08\x00") or head[:4] == b"\xd0\xcf\x11\xe0":
            raise ConsentError(
                "import.file", f"{name} is a workbook or a binary file: save it as CSV (UTF-8)"
            )
        text = codecs.getincrementaldecoder(self.encoding)("replace").decode(head)
        self.kind = kind or _kind(name, text)
        self._delimiter = ","
        if self.kind == "csv":
            self._delimiter = _delimiter(text)
            lines = csv.reader(io.StringIO(text, newline=None), delimiter=self._delimiter)
            try:
                header = next(lines, [])
            except csv.Error as error:
                raise ConsentError("import.file", f"{name}: the header can't be read: {error}") from error
            self._raw = [h.replace("\ufeff", "").strip() for h in header]
        else:
            if text.lstrip("\ufeff \t\r\n").startswith("["):
                raise ConsentError(
                    "import.file", f"{name} is one JSON array: write one object on each line (JSON lines)"
                )
            self._raw = sorted({k for line in text.splitlines()[:200] for k in _keys(line)})
        self.columns = self._resolve(fields, mapping or {})
        self.ignored = [c for c in self._raw if c and c not in self.columns.values()]

    def _resolve(self, fields: Mapping[str, tuple[str, ...]], mapping: Mapping[str, str]) -> dict[str, str]:
        found: dict[str, str] = {}
        folded = {c.casefold(): c for c in reversed(self._raw)}
        for name, column in mapping.items():
            if name not in fields:
                raise ConsentError(
                    "import.column", f"no field is called {name!r}; fields: {', '.join(fields)}"
                )
            if column.casefold() not in folded and self.kind == "csv":
                shown = ", ".join(self._raw) or "none"
                raise ConsentError("import.column", f"{self.name} has no column {column!r}; it has: {shown}")
            found[name] = folded.get(column.casefold(), column)
        for name, others in fields.items():
            for spelling in (name, *others):
                if name not in found and spelling.casefold() in folded:
                    found[name] = folded[spelling.casefold()]
        repeated = [c for c in set(self._raw) if self._raw.count(c) > 1 and c in found.values()]
        if repeated:
            raise ConsentError(
                "import.column", f"{self.name} has two columns named {repeated[0]!r}: remove one"
            )
        return found

    @property
    def found(self) -> str:
        return ", ".join(c or "(no name)" for c in self._raw) or "none"

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of at most `size` rows. Raises `import.file` where the rest of the file can't be split."""
        return self._csv(size) if self.kind == "csv" else self._lines(size)

    # -- CSV -------------------------------------------------------------------------------------------

    def _csv(self, size: int) -> Iterator[Batch]:
        bad: list[tuple[int, pacsv.InvalidRow]] = []

        def ragged(row: pacsv.InvalidRow) -> str:
            bad.append((int(row.number), row))
            return "skip"

        names = [str(i) for i in range(len(self._raw))]
        use = {name: str(self._raw.index(column)) for name, column in self.columns.items()}
        reported, read = 0, 0
        with self._text() as file:
            try:
                reader = pacsv.open_csv(
                    file,
                    # Row numbers of ragged lines are known to the single-threaded reader only.
                    pacsv.ReadOptions(
                        column_names=names, skip_rows_after_names=0, use_threads=False, block_size=_CHUNK
                    ),
                    pacsv.ParseOptions(
                        delimiter=self._delimiter,
                        newlines_in_values=True,
                        ignore_empty_lines=False,
                        invalid_row_handler=ragged,
                    ),
                    pacsv.ConvertOptions(
                        column_types=dict.fromkeys(names, pa.string()),
                        include_columns=list(use.values()),
                        null_values=[""],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=True,
                        check_utf8=False,  # _text delivers valid UTF-8 by construction
                    ),
                )
                for block in reader:
                    # Good row g stands behind the ragged rows with smaller numbers: undo their removal.
                    before = np.array([n - 1 - i for i, (n, _) in enumerate(bad)], dtype=np.int64)
                    g = np.arange(read, read + block.num_rows, dtype=np.int64)
                    numbers = g + np.searchsorted(before, g, side="right") + 1
                    read += block.num_rows
                    for at in range(0, block.num_rows, size):
                        part, rows = block.slice(at, size), numbers[at : at + size]
                        problems = [
                            _ragged(n, r) for n, r in bad[reported:] if n < rows[-1] or at + size >= len(g)
                        ]
                        reported += len(problems)
                        columns = {name: part.column(i) for name, i in use.items()}
                        yield _batch(rows, columns, problems, header=1)
            except pa.ArrowInvalid as error:
                raise self._unsplittable(read + len(bad), error) from error
        if reported < len(bad):
            yield Batch(np.zeros(0, np.int64), {}, [_ragged(n, r) for n, r in bad[reported:]])

    def _unsplittable(self, rows: int, error: Exception) -> ConsentError:
        return ConsentError(
            "import.file",
            f"{self.name}: the rows after row {rows} can't be told apart ({error}); "
            'look there for a quotation mark (") that is never closed',
        )

    # -- JSON lines ------------------------------------------------------------------------------------

    def _lines(self, size: int) -> Iterator[Batch]:
        number = 1
        with self._text() as file, duckdb.connect(config={"threads": 1}) as db:
            rest = b""
            while block := file.read(_CHUNK):
                lines = (rest + block).split(b"\n")
                rest = lines.pop()
                if len(rest) > _CHUNK:
                    raise ConsentError(
                        "import.file", f"{self.name}: line {number + len(lines)} is over 4 MiB"
                    )
                yield from self._parse(db, lines, number, size)
                number += len(lines)
            yield from self._parse(db, [rest], number, size)

    def _parse(
        self, db: duckdb.DuckDBPyConnection, lines: list[bytes], first: int, size: int
    ) -> Iterator[Batch]:
        for at in range(0, len(lines), size):
            part = pa.table({"line": pa.array(lines[at : at + size], pa.binary()).cast(pa.string())})
            rows = np.arange(first + at, first + at + part.num_rows, dtype=np.int64)
            keys = ['$."' + c.replace('"', '\\"') + '"' for c in self.columns.values()]
            picks = "".join(
                f", CASE WHEN ok THEN line->>$k{i} END AS f{i}"
                f", CASE WHEN ok THEN json_type(line, $k{i}) END AS t{i}"
                for i in range(len(keys))
            )
            part = part.append_column("row", pa.array(rows))
            # Only json_valid decides whether the other functions see a line: they raise on the first bad one.
            query = f"""SELECT row, line, ok{picks} FROM (SELECT row, line, trim(line, ' \t\r') = '' AS blank,
                CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE FALSE END AS ok FROM part)
                WHERE NOT blank ORDER BY row"""  # noqa: S608 (names of our own; keys are parameters)
            db.register("part", part)
            out = db.sql(query, params={f"k{i}": k for i, k in enumerate(keys)}).to_arrow_table()
            if out.num_rows == 0:
                continue
            yield self._checked(out.combine_chunks())

    def _checked(self, out: pa.Table) -> Batch:
        ok = np.asarray(out["ok"])
        rows, lines = np.asarray(out["row"]), out["line"]
        problems = [
            Problem(
                int(rows[i]), "", str(lines[int(i)])[:200], "import.row", "write one JSON object on this line"
            )
            for i in np.flatnonzero(~ok)
        ]
        columns: dict[str, pa.Array] = {}
        for i, name in enumerate(self.columns):
            kind, text = out[f"t{i}"], out[f"f{i}"]
            if name == "categories":  # a JSON list is as good as text with semicolons
                listed = pc.fill_null(pc.equal(kind, "ARRAY"), False)
                plain = pc.replace_substring_regex(text, r'^\[\s*"?|"?\s*\]$', "")
                text = pc.if_else(listed, pc.replace_substring_regex(plain, r'"\s*,\s*"', ";"), text)
                kind = pc.if_else(listed, "VARCHAR", kind)
            elif name == "evidence":  # evidence may be any JSON
                kind = pc.if_else(pc.is_valid(kind), "VARCHAR", kind)
            nested = np.asarray(pc.fill_null(pc.is_in(kind, pa.array(["OBJECT", "ARRAY", "BOOLEAN"])), False))
            for j in np.flatnonzero(nested & ok):
                problems.append(
                    Problem(int(rows[j]), name, str(text[int(j)])[:200], "import.row", "text is wanted here")
                )
            ok = ok & ~nested
            columns[name] = text
        keep = pa.array(ok)
        return _batch(rows[ok], {n: c.filter(keep) for n, c in columns.items()}, problems)

    # -- text ------------------------------------------------------------------------------------------

    def _text(self) -> IO[bytes]:
        """The file as UTF-8 bytes without a mark; bytes that could not be decoded are U+FFFD."""
        return io.BufferedReader(_Utf8(self._open(), self.encoding), _CHUNK)  # type: ignore[type-var]


def _batch(rows: np.ndarray, columns: dict[str, pa.Array], problems: list[Problem], header: int = 0) -> Batch:
    """Trims, turns empty text into null, drops blank rows and the header, sets damaged rows apart."""
    n = len(rows)
    filled, damaged = np.zeros(n, bool), np.zeros(n, bool)
    out: dict[str, pa.Array] = {}
    for name, column in columns.items():
        text = pc.utf8_trim_whitespace(column)
        text = pc.if_else(pc.equal(text, ""), None, text)
        filled |= np.asarray(pc.is_valid(text))
        bad = np.asarray(pc.fill_null(pc.match_substring(text, _DAMAGED), False))
        for i in np.flatnonzero(bad & ~damaged):
            problems.append(
                Problem(int(rows[i]), name, str(text[int(i)])[:200], "import.row", "save the file as UTF-8")
            )
        damaged |= bad
        out[name] = text
    # A JSON object without any known field is a mistake; a blank line of a CSV file is none.
    keep = ~damaged & (rows > header) & (filled if header else True)
    mask = pa.array(keep)
    return Batch(
        rows[keep],
        {n: c.filter(mask) for n, c in out.items()},
        sorted(problems, key=lambda p: p.row),
    )


def _ragged(number: int, row: pacsv.InvalidRow) -> Problem:
    fix = f"{row.actual_columns} columns, the header has {row.expected_columns}: put such text in quotes"
    return Problem(number, "", str(row.text)[:200], "import.row", fix)


class _Utf8(io.RawIOBase):
    """Decodes a binary file and delivers it as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder(encoding)("replace").decode
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while not self._ready:
            block = self._file.read(_CHUNK)
            self._ready = self._decode(block, not block).encode("utf-8", "replace")
            if not block:
                break
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()


def _encoding(opener: Opener) -> str:
    """Reads the whole file: the first megabyte of a list of Chinese customers may well be plain ASCII."""
    with opener() as file:
        mark = file.read(4)
        if mark[:3] == codecs.BOM_UTF8:
            return "utf-8-sig"
        if mark[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    damaged, foreign = 0, 0
    with opener() as file:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while block := file.read(_CHUNK):
            if block.isascii():
                continue
            text = decoder.decode(block)
            damaged += text.count(_DAMAGED)
            foreign += len(text) - len(text.encode("ascii", "ignore"))
    # gb18030 text read as UTF-8 is damaged nearly everywhere; a few broken bytes in UTF-8 text are not.
    if damaged * 4 <= foreign - damaged or not damaged:
        return "utf-8"
    return "gb18030"


def _kind(name: str, text: str) -> str:
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        return "jsonl"
    if Path(name.removesuffix(".gz")).suffix.lower() in (".jsonl", ".ndjson", ".json"):
        raise ConsentError("import.file", f"{name} does not start with a JSON object")
    return "csv"


def _delimiter(text: str) -> str:
    line = text.lstrip("\ufeff").split("\n", 1)[0]
    return max(",;\t|", key=line.count)


def _keys(line: str) -> list[str]:
    import json

    try:
        value = json.loads(line)
    except ValueError:
        return []
    return list(value) if isinstance(value, dict) else []
