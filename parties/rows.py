"""Opens data sets: CSV and Parquet files as real people have them. Imported by `parties.gate` alone.

Whoever holds a `Rows` sees every row of a data set, people without consent included. That is why nothing but
the gate may import this module (an import contract and a test keep it so).

What is forgiven, and noted in `Rows.notes`: a byte-order mark, blank or repeated column names, gb18030 and
UTF-16 text, compressed CSV, a `sep=` line, any of the delimiters `, ; tab |`. What is refused, with a code: a
file that can't be read, a ragged line, an empty file, a column that isn't there, a file that changed while
the job ran (row numbers would name other people).
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from parties import sql_filter
from parties.errors import PartyError, examples
from protocols.parallel import read_only

#: Text that means "no value", compared in lower case after trimming.
MISSING = ("", "-", "--", "na", "n/a", "#n/a", "nan", "null", "\\n")

#: Text that one batch of CSV columns may take, in bytes: bounds memory, and the number of passes with it.
_BATCH_BYTES = 256 << 20

#: Rows that are looked at before a whole text column is taken for numbers.
_GLANCE = 2000

#: Above it a double skips integers.
_LARGEST = 1 << 53

_TRUE = ("1", "1.0", "true", "t", "yes", "y", "是")
_FALSE = ("0", "0.0", "-1", "-1.0", "false", "f", "no", "n", "否")


@dataclass(frozen=True)
class Column:
    """One column in the file's row order.

    kind `numeric`: `values` float64[rows], NaN where missing (infinities count as missing); float32 where the
    file has that and the reader asked for it (`single`), then read-only.
    kind `categorical`: `values` int32[rows] index `levels`, -1 where missing.
    kind `empty`: no value at all; kind `unsupported`: nested or binary, `values` is empty, `unit` its type.
    `unit` of a numeric column: `D` days or `us` microseconds since 1970, where the file has dates.
    """

    name: str
    kind: str
    values: np.ndarray = field(repr=False)
    levels: tuple[str, ...] = field(default=(), repr=False)
    unit: str = ""

    def take(self, rows: np.ndarray) -> Column:
        """The same column at these row numbers, in their order."""
        return (
            self
            if self.kind == "unsupported"
            else Column(self.name, self.kind, self.values[rows], self.levels, self.unit)
        )


class Rows:
    """A data set on disk. Nothing is kept in memory but names; each call reads what it needs.

    `columns` are the cleaned names in file order, `notes` what had to be forgiven, `count` the rows.
    """

    def __init__(self, path: str | Path, first: str | None = None) -> None:
        """Open and count. `first` names a column that will be asked for at once: a CSV file is then read
        through once for both, and the column is handed out the first time that it is asked for."""
        self.path = Path(path)
        self._ready: tuple[str, pa.ChunkedArray] | None = None
        self.notes: list[str] = []
        try:
            self._stamp = _stamp(self.path)
            with self.path.open("rb") as file:
                head = file.read(1 << 16)
        except OSError as error:
            raise PartyError(
                "rows.unreadable", f"{self.path.name}: {error.strerror}; check the path and its permissions"
            ) from error
        if not head:
            raise PartyError("rows.empty", f"{self.path.name} has no bytes")
        if head[:4] == b"PK\x03\x04" or head[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
            raise PartyError(
                "rows.unreadable", f"{self.path.name} is a workbook or an archive; save it as CSV"
            )
        self._parquet = head[:4] == b"PAR1"
        if self._parquet:
            try:
                file_ = pq.ParquetFile(self.path)
            except (pa.ArrowException, OSError) as error:
                raise self._unreadable(error) from error
            raw = list(file_.schema_arrow.names)
            self.count: int = file_.metadata.num_rows
            self._fields = [str(i) for i in range(len(raw))]
            self.columns = self._clean(raw)
        else:
            raw = self._sniff()
            self._fields = [f"f{i}" for i in range(len(raw))]
            self.columns = self._clean(raw)
            wanted = self._fields[self.columns.index(self.resolve(first))] if first else self._fields[0]
            batches = list(self._csv_batches([wanted])) if first else self._csv_batches([wanted])
            self.count = sum(batch.num_rows for batch in batches)
            if first and self.count:
                self._ready = wanted, pa.Table.from_batches(batches).column(wanted)
        if self.count == 0:
            raise PartyError("rows.empty", f"{self.path.name} has a header and no rows")

    @property
    def stamp(self) -> tuple[int, int, int, int]:
        """Time of change, size and inode of the file as it was opened: whether it is the same one later."""
        return self._stamp

    # -- names -----------------------------------------------------------------------------------------

    def _clean(self, raw: Sequence[str]) -> tuple[str, ...]:
        names: list[str] = []
        for number, text in enumerate(raw, start=1):
            name = (
                unicodedata.normalize("NFC", str(text)).replace("\ufeff", "").strip(" \t\r\n\u00a0\u3000'\"")
            )
            if not name:
                name = f"column_{number}"
                self.notes.append(f"column {number} has no name and is called {name}")
            unique, again = name, 1
            while unique in names:
                again += 1
                unique = f"{name}_{again}"
            if unique != name:
                self.notes.append(f"a second column named {name} is called {unique}")
            names.append(unique)
        return tuple(names)

    def resolve(self, name: str) -> str:
        """The column of this name (letter case forgiven when unambiguous); `rows.column` lists what
        exists."""
        wanted = unicodedata.normalize("NFC", name).strip()
        if wanted in self.columns:
            return wanted
        folded = [c for c in self.columns if c.casefold() == wanted.casefold()]
        if len(folded) == 1:
            return folded[0]
        lower = {c.casefold(): c for c in self.columns}
        near = difflib.get_close_matches(wanted.casefold(), list(lower), n=1, cutoff=0.5)
        hint = f"; did you mean {lower[near[0]]!r}?" if near else ""
        shown = ", ".join(self.columns[:40]) + (" …" if len(self.columns) > 40 else "")
        raise PartyError("rows.column", f"{self.path.name} has no column {name!r}{hint} It has: {shown}")

    # -- values ----------------------------------------------------------------------------------------

    def text(self, name: str) -> pa.StringArray:
        """One column as trimmed text, length `count`; missing values are null, zeros and signs survive."""
        name = self.resolve(name)
        (column,) = self._raw([name])
        return _text(column)

    def read(self, names: Sequence[str], *, single: bool = False) -> Iterator[Column]:
        """The named columns, in that order, a bounded number in memory at a time.

        `single`: float32 columns stay as they are, at half of the memory, and of the work.
        """
        resolved = [self.resolve(name) for name in names]
        step = self._columns_a_batch()
        for at in range(0, len(resolved), step):
            part = resolved[at : at + step]
            raw = self._raw(part)
            for position, name in enumerate(part):
                column = _typed(name, raw[position], single)
                raw[position] = None
                yield column

    def where(self, expression: str) -> np.ndarray:
        """bool[count]: where an SQL expression over the columns holds; unknown (NULL) counts as false."""
        used = sql_filter.columns_of(expression)
        names = list(dict.fromkeys(self.resolve(name) for name in used))
        arrays = {}
        for name in names:
            (raw,) = self._raw([name])
            if (
                pa.types.is_boolean(raw.type)
                or pa.types.is_integer(raw.type)
                or pa.types.is_temporal(raw.type)
            ):
                arrays[name] = raw  # SQL has these types; what the file calls a date is compared as a date
                continue
            column = _typed(name, raw)
            if column.kind == "unsupported":
                raise PartyError("rows.filter", f"column {name!r} is nested or binary and can't be used")
            arrays[name] = _for_sql(column)
        return sql_filter.evaluate(expression, arrays, self.count)

    def flag(self, name: str) -> np.ndarray:
        """bool[count]: where a yes/no column says yes; `rows.label` if it holds anything else."""
        text = pc.utf8_lower(self.text(name))
        present = set(pc.unique(text).to_pylist()) - {None}
        if not present <= {*_TRUE, *_FALSE} or not present & set(_TRUE):
            odd = present - {*_TRUE, *_FALSE}
            raise PartyError(
                "rows.label",
                f"column {name!r} is no yes/no column: {len(odd)} other values"
                f"{examples(odd, len(present))}, {len(present)} in all"
                "; give 1 and 0, or use a filter expression",
            )
        return np.asarray(pc.fill_null(pc.is_in(text, value_set=pa.array(_TRUE)), False))

    # -- files -----------------------------------------------------------------------------------------

    def _unreadable(self, error: Exception) -> PartyError:
        first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        return PartyError("rows.unreadable", f"{self.path.name}: {first}; mend the file and start again")

    def _columns_a_batch(self) -> int:
        if self._parquet:
            return max(1, _BATCH_BYTES // max(1, 16 * self.count))
        return max(2, _BATCH_BYTES // max(1, self._bytes // max(1, len(self.columns))))

    def _raw(self, names: Sequence[str]) -> list[pa.ChunkedArray]:
        if _stamp(self.path) != self._stamp:
            # Row numbers of the snapshot would now name other people.
            raise PartyError(
                "rows.changed", f"{self.path.name} was changed while the job ran; start a new job"
            )
        positions = [self.columns.index(name) for name in names]
        try:
            if self._parquet:
                table = pq.ParquetFile(self.path).read(columns=self._parquet_paths(positions))
                schema = pq.ParquetFile(self.path).schema_arrow
                return [table.column(schema.names[p]) for p in positions]
            fields = [self._fields[p] for p in positions]
            if self._ready is not None and fields == [self._ready[0]]:
                (_, column), self._ready = self._ready, None
                return [column]
            table = pa.Table.from_batches(list(self._csv_batches(fields)))
            return [table.column(f) for f in fields]
        except (pa.ArrowException, OSError, UnicodeError, KeyError) as error:
            raise self._unreadable(error) from error

    def _parquet_paths(self, positions: Sequence[int]) -> list[str]:
        names = pq.ParquetFile(self.path).schema_arrow.names
        if any(names.count(names[p]) > 1 for p in positions):
            raise PartyError("rows.unreadable", f"{self.path.name} has two columns of one name; rename one")
        return [names[p] for p in positions]

    def _sniff(self) -> list[str]:
        """Encoding, delimiter and header of a CSV file; sets what `_csv_batches` needs."""
        self._encoding, first, self._bytes = self._detect()
        text = first.lstrip("\ufeff")
        self._skip = 0
        if text[:4].lower() == "sep=":
            line, _, text = text.partition("\n")
            self._skip, self._delimiter = 1, line[4:5] or ","
        else:
            self._delimiter = _delimiter(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter)
        try:
            for record in reader:
                if any(cell.strip() for cell in record):
                    self._skip += reader.line_num
                    return record
        except csv.Error as error:
            raise self._unreadable(error) from error
        raise PartyError("rows.empty", f"{self.path.name} has no header")

    def _detect(self) -> tuple[str, str, int]:
        """(encoding, beginning as text, uncompressed bytes). The whole file must decode: nothing is
        replaced."""
        with self._stream() as probe:
            head = probe.read(4)
        if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            candidates = ["utf-16"]
        else:
            candidates = ["utf-8", "gb18030"]
        for encoding in candidates:
            decoder = codecs.getincrementaldecoder(encoding)()
            beginning, size = "", 0
            try:
                with self._stream() as stream:
                    while chunk := stream.read(1 << 20):
                        size += len(chunk)
                        text = decoder.decode(chunk)
                        beginning = beginning or text
                    decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                continue
            except OSError as error:
                raise self._unreadable(error) from error
            if encoding != "utf-8":
                self.notes.append(f"read as {encoding}")
            if "\0" in beginning:
                raise PartyError("rows.unreadable", f"{self.path.name} is binary, neither CSV nor Parquet")
            return encoding, beginning, size
        raise PartyError(
            "rows.unreadable", f"{self.path.name} is neither UTF-8 nor gb18030; save it as UTF-8"
        )

    def _stream(self) -> pa.NativeFile:
        return pa.input_stream(str(self.path), compression="detect")

    def _csv_batches(self, fields: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            reader = pacsv.open_csv(
                self._stream(),
                read_options=pacsv.ReadOptions(
                    column_names=self._fields,
                    skip_rows=self._skip,
                    encoding=self._encoding,
                    block_size=4 << 20,
                ),
                parse_options=pacsv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(
                    column_types={f: pa.string() for f in fields},
                    include_columns=list(fields),
                    strings_can_be_null=False,
                ),
            )
            yield from reader
        except StopIteration:
            return
        except (pa.ArrowException, OSError, UnicodeError) as error:
            if "Empty CSV" in str(error):
                return
            raise self._unreadable(error) from error


def _stamp(path: Path) -> tuple[int, int, int, int]:
    """What changes with every write: a program may put the time of modification back, not that of change."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns


def _delimiter(text: str) -> str:
    """The delimiter that splits the first records most evenly; a comma if none splits at all."""
    sample = text[: 1 << 15].splitlines(keepends=True)[:50]
    best, best_score = ",", (0.0, 0)
    for candidate in (",", ";", "\t", "|"):
        try:
            widths = [
                len(r) for r in csv.reader(io.StringIO("".join(sample), newline=""), delimiter=candidate) if r
            ]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            score = (sum(w == widths[0] for w in widths) / len(widths), widths[0])
            if score > best_score:
                best, best_score = candidate, score
    return best


def _text(column: pa.ChunkedArray) -> pa.StringArray:
    """Trimmed text, null where missing. Floats that are whole lose their '.0' (ids that a tool made
    floats)."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, kind))
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid:
            column = column.cast(pa.string())
    try:
        text = column.cast(pa.string()).combine_chunks()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise PartyError("rows.column", f"a column of type {kind} can't be read as text") from error
    if isinstance(text, pa.ChunkedArray):
        text = pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], pa.string())
    if _is_clean(text):
        return text
    text = pc.utf8_trim_whitespace(text)
    missing = pc.is_in(pc.utf8_lower(text), value_set=pa.array(MISSING))
    return pc.if_else(missing, pa.scalar(None, pa.string()), text)


def _is_clean(text: pa.StringArray) -> bool:
    """Whether trimming and looking for "no value" can't change a text: all printable ASCII and longer than
    MISSING.

    Most columns of identifiers are, and this costs a tenth of the steps that it saves.
    """
    if not len(text) or text.null_count or not pa.types.is_string(text.type):
        return False
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[text.offset : text.offset + len(text) + 1]
    if data is None or int(np.diff(ends).min()) <= max(map(len, MISSING)):
        return False
    used = np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]]
    return int(used.min()) > 0x20 and int(used.max()) < 0x7F


def _typed(name: str, column: pa.ChunkedArray, single: bool = False) -> Column:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if column.null_count == len(column):
        return Column(name, "empty", np.full(len(column), np.nan))
    if pa.types.is_date(kind):
        return _numeric(name, column.cast(pa.date32()).cast(pa.int32()).cast(pa.float64()), "D")
    if pa.types.is_timestamp(kind):
        return _numeric(name, _microseconds(column), "us")
    if pa.types.is_duration(kind):  # in seconds
        micro = column.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.float64(), safe=False)
        return _numeric(name, pc.divide(micro, 1e6))
    if pa.types.is_time(kind):
        whole = pa.int32() if pa.types.is_time32(kind) else pa.int64()
        return _numeric(name, column.cast(whole).cast(pa.float64(), safe=False))
    if pa.types.is_integer(kind) and not _exact(column):
        return _levels(name, _text(column))
    if pa.types.is_floating(kind) and not pa.types.is_float16(kind):
        return _single(name, column) if single and pa.types.is_float32(kind) else _numeric(name, column)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numeric(name, column.cast(pa.float64(), safe=False))
    if pa.types.is_decimal(kind):
        return _numeric(name, column.cast(pa.float64()))
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return Column(name, "unsupported", np.empty(0), unit=str(kind))
    text = _text(column)
    if text.null_count == len(text):
        return Column(name, "empty", np.full(len(text), np.nan))
    try:
        # A cast that fails still looks at every value and is slow; a short look tells most texts from
        # numbers.
        text[:_GLANCE].cast(pa.float64())
        numbers = text.cast(pa.float64())
    except pa.ArrowInvalid:
        return _levels(name, text)
    if _codes(text, numbers):
        return _levels(name, text)
    return _numeric(name, numbers)


def _levels(name: str, text: pa.StringArray) -> Column:
    encoded = pc.dictionary_encode(text)
    codes = np.asarray(pc.fill_null(encoded.indices, -1), dtype=np.int32)
    return Column(name, "categorical", codes, tuple(encoded.dictionary.to_pylist()))


def _codes(text: pa.StringArray, numbers: pa.DoubleArray) -> bool:
    """Text that reads as numbers and isn't: 00123, or more digits than a double holds."""
    if pc.any(pc.match_substring_regex(text, r"^[+-]?0[0-9]")).as_py():
        return True
    large = pc.filter(text, pc.greater(pc.abs(numbers), _LARGEST))
    return bool(pc.any(pc.match_substring_regex(large, r"^[+-]?[0-9]+$")).as_py())


def _exact(column: Any) -> bool:
    """Whether every integer is one that a double holds."""
    ends = pc.min_max(column).as_py()
    return bool(max(-ends["min"], ends["max"]) <= _LARGEST)


def _microseconds(column: Any) -> Any:
    if column.type.unit != "us":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column.cast(pa.int64()).cast(pa.float64(), safe=False)


def _numeric(name: str, column: Any, unit: str = "") -> Column:
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype != np.float64 or not values.flags.writeable:
        values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        values[~finite] = np.nan
    return Column(name, "numeric", values, unit=unit)


def _single(name: str, column: pa.ChunkedArray) -> Column:
    values = column.to_numpy(zero_copy_only=False)  # often the file's pages as they are
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, np.float32(np.nan))
    return Column(name, "numeric", read_only(values))


def _for_sql(column: Column) -> pa.Array:
    if column.kind == "categorical":
        indices = pa.array(column.values, mask=column.values < 0)
        return pa.DictionaryArray.from_arrays(indices, pa.array(column.levels, pa.string())).cast(pa.string())
    return pa.array(column.values, mask=np.isnan(column.values))
