"""Tag records: how the agreed columns of one person become bytes of a fixed width, and back.

A record is a 4-byte handle, then one field a tag:

    number      8 bytes, IEEE 754 double, little-endian; NaN is "no value"
    dictionary  2 bytes, 1-based index of the schema's levels; 0 is "no value"
    (dates and times are text: 2024-02-29, 2024-02-29 12:30:00)
    inline      UTF-8 padded with zero bytes to the schema's width; all zero is "no value"

The schema travels in the clear, so it must not speak of single people: a tag goes as a dictionary only if
every level has `MIN_PEOPLE`, otherwise its text stays inside the encrypted records. The handle is the
provider's row number in the view's secret order; it says nothing, and it lets the provider name a record that
the brand has to delete because the person withdrew after the table was built.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from parties.errors import PartyError
from parties.gate import Column

#: A level that fewer people have never appears in the schema.
MIN_PEOPLE = 10

MAX_LEVELS = 1000
MAX_INLINE = 256
MAX_TAGS = 256

HANDLE = 4


@dataclass(frozen=True)
class Tag:
    """One field of the record; `width` in bytes."""

    name: str
    form: str
    width: int
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """The fields in order. `width` is that of a whole record, handle included."""

    tags: tuple[Tag, ...]

    @property
    def width(self) -> int:
        return HANDLE + sum(tag.width for tag in self.tags)

    def to_document(self) -> list[dict[str, Any]]:
        return [
            {"name": t.name, "form": t.form, "width": t.width, "levels": list(t.levels)} for t in self.tags
        ]

    @staticmethod
    def from_document(document: Any, agreed: Sequence[str]) -> Schema:
        """The peer's schema; `tags.schema` unless it has exactly the agreed tags, in order, in known
        forms."""
        try:
            if len(document) > MAX_TAGS:
                raise ValueError("too many tags")
            tags = tuple(
                Tag(str(t["name"]), str(t["form"]), int(t["width"]), tuple(str(x) for x in t["levels"]))
                for t in document
            )
        except (TypeError, KeyError, ValueError) as error:
            raise PartyError("tags.schema", "the provider's tag schema can't be read") from error
        for tag in tags:
            widths = {"number": (8,), "dictionary": (2,), "inline": range(1, MAX_INLINE + 1)}
            if tag.width not in widths.get(tag.form, ()) or len(tag.levels) > MAX_LEVELS:
                raise PartyError(
                    "tags.schema", f"tag {tag.name!r}: {tag.form} of {tag.width} bytes is not allowed"
                )
        if [t.name for t in tags] != list(agreed):
            # A field that nobody agreed to could carry anything.
            raise PartyError(
                "tags.schema", f"the provider sent tags {[t.name for t in tags]}, not {list(agreed)}"
            )
        return Schema(tags)


def encode(columns: Iterable[Column], count: int, names: Sequence[str]) -> tuple[Schema, np.ndarray]:
    """(schema, records uint8[count, width]) of columns of `count` rows each; handles are the row numbers.

    `names` are what the tags are called in the agreement, in the order of the columns.

    Raises `tags.wide` for a text longer than `MAX_INLINE` bytes, `tags.type` for nested or binary columns.
    """
    tags: list[Tag] = []
    parts = [np.arange(count, dtype="<u4").view(np.uint8).reshape(count, HANDLE)]
    for name, column in zip(names, columns, strict=True):
        if column.unit:
            column = _moments(column)
        if column.kind in ("numeric", "empty"):
            tags.append(Tag(name, "number", 8))
            parts.append(np.ascontiguousarray(column.values, dtype="<f8").view(np.uint8).reshape(count, 8))
        elif column.kind == "categorical":
            tag, part = _encode_text(name, column, count)
            tags.append(tag)
            parts.append(part)
        else:
            raise PartyError("tags.type", f"tag {name!r} is nested or binary; leave it out of the agreement")
    return Schema(tuple(tags)), np.concatenate(parts, axis=1)


def decode(schema: Schema, records: np.ndarray) -> tuple[np.ndarray, pa.Table]:
    """(handles int64[n], table of n rows) from uint8[n, width]; `tags.record` for a value outside the
    schema."""
    count = len(records)
    if records.shape[1:] != (schema.width,):
        raise PartyError("tags.record", f"records of {records.shape[1:]} bytes where {schema.width} were due")
    handles = np.ascontiguousarray(records[:, :HANDLE]).view("<u4").reshape(count).astype(np.int64)
    at, columns = HANDLE, {}
    for tag in schema.tags:
        raw = np.ascontiguousarray(records[:, at : at + tag.width])
        at += tag.width
        if tag.form == "number":
            values = raw.view("<f8").reshape(count)
            columns[tag.name] = pa.array(values, mask=np.isnan(values))
        elif tag.form == "dictionary":
            codes = raw.view("<u2").reshape(count).astype(np.int32) - 1
            if count and int(codes.max()) >= len(tag.levels):
                raise PartyError("tags.record", f"tag {tag.name!r} has a level outside the schema")
            levels = pa.array(tag.levels, pa.string())
            columns[tag.name] = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), levels)
        else:
            columns[tag.name] = _inline(tag, raw)
    return handles, pa.table(columns)


def _moments(column: Column) -> Column:
    """Dates and times as text: 2024-02-29, 2024-02-29 12:30:00."""
    present = ~np.isnan(column.values)
    distinct, inverse = np.unique(column.values[present], return_inverse=True)
    moments = distinct.astype(np.int64).astype(f"datetime64[{column.unit}]")
    text = np.datetime_as_string(moments)
    levels = tuple(str(t).replace("T", " ").removesuffix(".000000") for t in text)
    codes = np.full(len(column.values), -1, dtype=np.int32)
    codes[present] = inverse
    return Column(column.name, "categorical", codes, levels)


def _encode_text(name: str, column: Column, count: int) -> tuple[Tag, np.ndarray]:
    codes = column.values
    times = np.bincount(codes + 1, minlength=len(column.levels) + 1)[1:]
    used = np.flatnonzero(times)
    # order by text: the order of first appearance would speak of the secret permutation
    used = used[np.argsort([column.levels[code] for code in used], kind="stable")] if len(used) else used
    levels = [column.levels[code] for code in used]
    place = np.zeros(len(column.levels) + 1, dtype=np.int64)
    place[used] = np.arange(1, len(used) + 1)
    numbers = place[codes]  # code -1 reads the last entry, which stays 0
    if len(used) <= MAX_LEVELS and all(times[used] >= MIN_PEOPLE):
        part = numbers.astype("<u2").view(np.uint8).reshape(count, 2)
        return Tag(name, "dictionary", 2, tuple(levels)), part
    encoded = [level.replace("\0", "").encode() for level in levels]
    longest = max(map(len, encoded))
    if longest > MAX_INLINE:
        raise PartyError("tags.wide", f"tag {name!r} has a text of {longest} bytes, {MAX_INLINE} allowed")
    width = min(
        MAX_INLINE, -(-longest // 16) * 16
    )  # multiples of 16: the schema tells the length only coarsely
    lookup = np.zeros((len(levels) + 1, width), dtype=np.uint8)
    for row, text in enumerate(encoded, start=1):
        lookup[row, : len(text)] = np.frombuffer(text, dtype=np.uint8)
    return Tag(name, "inline", width), lookup[numbers]


def _inline(tag: Tag, raw: np.ndarray) -> pa.Array:
    lengths = np.where(raw.any(axis=1), tag.width - np.argmax(raw[:, ::-1] != 0, axis=1), 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    data = raw[np.arange(tag.width) < lengths[:, None]].tobytes()
    array = pa.Array.from_buffers(
        pa.string(), len(raw), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)]
    )
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise PartyError("tags.record", f"tag {tag.name!r} holds bytes that are no UTF-8 text") from error
    return pa.compute.if_else(pa.array(lengths > 0), array, pa.scalar(None, pa.string()))
