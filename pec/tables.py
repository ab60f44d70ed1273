"""Reads a CSV or Parquet file into a data frame, for the oracle of `pec simulate`, `pec demo` and `pec
bench`.

Only where one person holds both parties' files. In a job, rows are read by the node's gate and by nothing
else.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from pec.errors import PecError

MISSING = {"", "-", "--", "na", "n/a", "#n/a", "nan", "null", "\\n"}
TRUE, FALSE = (
    {"1", "1.0", "true", "t", "yes", "y", "是"},
    {"0", "0.0", "-1", "-1.0", "false", "f", "no", "n", "否"},
)


def read(path: Path, text: Collection[str] = ()) -> pd.DataFrame:
    """All rows and columns; text that is a number in every row becomes numeric, but not the columns `text`
    of a CSV file, nor codes like 00123. Raises `pec.file`, `pec.input`.
    """
    with _failing(path):
        if _magic(path) == b"PAR1":
            frame = pd.read_parquet(path)
            frame.columns = pd.Index(_clean(list(frame.columns)))
        else:
            frame = _csv(path, text=text)
    if not len(frame):
        raise PecError("pec.input", f"{path.name} has a header and no rows", "give a file with rows")
    return frame


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    """What the readers raise, as our own errors. pandas' and pyarrow's are ValueErrors."""
    try:
        yield
    except PecError:
        raise
    except (OSError, ValueError, UnicodeError, csv.Error, EOFError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise PecError("pec.input", f"{path.name} can't be read: {first}", "save it as CSV (UTF-8)") from None


def _magic(path: Path) -> bytes:
    if path.is_dir():
        raise PecError("pec.file", f"{path} is a folder", "give a file")
    if not path.is_file():
        raise PecError("pec.file", f"no such file: {path}", "check the path")
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise PecError("pec.input", f"{path.name} is empty", "give a file with a header and rows")
    if magic in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise PecError("pec.input", f"{path.name} is a workbook or an archive", "save it as CSV")
    return magic


def header(path: Path) -> list[str]:
    """Names of the columns, without reading rows. Raises `pec.file`, `pec.input`."""
    with _failing(path):
        if _magic(path) == b"PAR1":
            import pyarrow.parquet as pq

            return _clean(pq.read_schema(path).names)
        return [str(c) for c in _csv(path, rows=0).columns]


def _clean(raw: Sequence[object]) -> list[str]:
    """Names as the node's own reader gives them: trimmed, unnamed ones numbered, repeated ones too."""
    names: list[str] = []
    for number, text in enumerate(raw, start=1):
        name = unicodedata.normalize("NFC", str(text)).replace("\ufeff", "").strip(" \t\r\n\u00a0\u3000'\"")
        name = name or f"column_{number}"
        unique, again = name, 1
        while unique in names:
            again += 1
            unique = f"{name}_{again}"
        names.append(unique)
    return names


def find(names: Iterable[str], wanted: str, file: Path) -> str:
    """The column of that name, letter case and blanks forgiven. Raises `pec.column` with the nearest
    names.
    """
    listed = [str(n) for n in names]
    folded = {n.replace("\ufeff", "").strip(" \t\r\n\u00a0\u3000'\"").casefold(): n for n in reversed(listed)}
    key = wanted.strip().casefold()
    if key in folded:
        return folded[key]
    near = [folded[k] for k in difflib.get_close_matches(key, list(folded), n=3, cutoff=0.5)]
    meant = f"did you mean {', '.join(map(repr, near))}? " if near else ""
    shown = ", ".join(listed[:30]) + (" …" if len(listed) > 30 else "")
    raise PecError("pec.column", f"{file.name} has no column {wanted!r}", f"{meant}it has: {shown}")


def flags(values: pd.Series, name: str) -> pd.Series:
    """bool[n] of a label column: 1/0, true/false, yes/no, 是/否, or numbers, where above 0 is yes; missing
    is no.

    Raises `pec.input` for anything else, and when no row says yes.
    """
    if pd.api.types.is_bool_dtype(values):
        out = values.fillna(False).astype(bool)
    elif pd.api.types.is_numeric_dtype(values):
        out = values.fillna(0) > 0
    else:
        text = values.astype("string").str.strip().str.lower()
        text = text.mask(text.isin(MISSING))
        numbers = pd.to_numeric(text, errors="coerce")
        odd = text.notna() & ~text.isin(TRUE | FALSE) & numbers.isna()
        if odd.any():
            examples = ", ".join(map(repr, text[odd].unique()[:3]))
            raise PecError(
                "pec.input",
                f"label column {name!r} has values like {examples}",
                "use 1/0, true/false, yes/no, or numbers of which those above 0 are seeds",
            )
        out = (text.isin(TRUE) | (numbers > 0)).fillna(False).astype(bool)
    if not out.any():
        raise PecError(
            "pec.input", f"label column {name!r} marks nobody as a seed", "at least one row must say yes"
        )
    return out


def _csv(path: Path, rows: int | None = None, text: Collection[str] = ()) -> pd.DataFrame:
    encoding = _encoding(path)
    with _open(path, encoding) as file:
        first = file.read(1 << 16)
    skip = 0
    delimiter = ","
    if first[:4].lower() == "sep=":
        skip, delimiter = 1, first[4:5] or ","
    else:
        delimiter = max(",;\t|", key=lambda d: _columns(first, d))
    options: dict[str, Any] = {
        "sep": delimiter,
        "dtype": str,
        "keep_default_na": False,
        "encoding": encoding,
        "skiprows": skip,
        "compression": "gzip" if _zipped(path) else None,
        "skipinitialspace": False,
        "index_col": False,
    }
    raw = pd.read_csv(path, header=None, nrows=1, **options)
    frame = pd.read_csv(path, nrows=rows, **options)
    frame.columns = pd.Index(_clean(raw.iloc[0].tolist()))
    for name in frame.columns:
        values = frame[name].str.strip()
        values = values.mask(values.str.lower().isin(MISSING))
        frame[name] = values if name in text else _typed(values)
    return frame


def _typed(values: pd.Series) -> pd.Series:
    """Numbers where all values are, unless some read like 00123 or have more digits than a double holds."""
    numbers = pd.to_numeric(values, errors="coerce")
    if not ((numbers.notna() == values.notna()).all() and values.notna().any()):
        return values
    large = values.str.fullmatch(r"[+-]?\d+") & (numbers.astype(float).abs() > 2**53)
    codes = values.str.match(r"[+-]?0\d") | large
    return values if codes.fillna(False).astype(bool).any() else numbers


def _columns(text: str, delimiter: str) -> tuple[float, int]:
    """How evenly the delimiter splits the first records, and in how many columns."""
    rows = [len(r) for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if r][:20]
    if not rows or rows[0] < 2:
        return 0.0, 0
    whole = rows[:-1] or rows  # the last one may be cut
    return sum(r == rows[0] for r in whole) / len(whole), rows[0]


def _zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _open(path: Path, encoding: str) -> io.TextIOBase:
    if _zipped(path):
        import gzip

        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            with _open(path, encoding) as text:
                while text.read(1 << 20):
                    pass
        except UnicodeDecodeError:
            continue
        return encoding
    raise PecError("pec.input", f"{path.name} is neither UTF-8 nor gb18030", "save it as UTF-8")
