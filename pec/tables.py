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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from pec.errors import PecError

MISSING = {"", "-", "--", "na", "n/a", "#n/a", "nan", "null", "\\n"}
TRUE, FALSE = (
    {"1", "1.0", "true", "t", "yes", "y", "是"},
    {"0", "0.0", "-1", "-1.0", "false", "f", "no", "n", "否"},
)


def read(path: Path) -> pd.DataFrame:
    """All rows and columns; text that is a number in every row becomes numeric. Raises `pec.file`,
    `pec.input`.
    """
    with _failing(path):
        frame = pd.read_parquet(path) if _magic(path) == b"PAR1" else _csv(path)
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

            return [str(n) for n in pq.read_schema(path).names]
        return [str(c) for c in _csv(path, rows=0).columns]


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


def _csv(path: Path, rows: int | None = None) -> pd.DataFrame:
    encoding = _encoding(path)
    with _open(path, encoding) as file:
        first = file.read(1 << 16)
    skip = 0
    delimiter = ","
    if first[:4].lower() == "sep=":
        skip, delimiter = 1, first[4:5] or ","
    else:
        delimiter = max(",;\t|", key=lambda d: _columns(first, d))
    frame = pd.read_csv(
        path,
        sep=delimiter,
        dtype=str,
        keep_default_na=False,
        encoding=encoding,
        skiprows=skip,
        compression="gzip" if _zipped(path) else None,
        skipinitialspace=False,
        index_col=False,
        nrows=rows,
    )
    for name in frame.columns:
        text = frame[name].str.strip()
        text = text.mask(text.str.lower().isin(MISSING))
        numbers = pd.to_numeric(text, errors="coerce")
        frame[name] = numbers if (numbers.notna() == text.notna()).all() and text.notna().any() else text
    return frame


def _columns(text: str, delimiter: str) -> int:
    rows = [len(r) for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if r][:20]
    return rows[0] if rows and len(set(rows[:-1] or rows)) == 1 else 0


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
