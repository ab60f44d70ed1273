"""Normalisation of identifiers, column by column. Rule: nothing valid is silently lost.

A row ends in one of three ways, and every row is counted: OK with its normal form, NULL (nothing in it: null,
or blanks only), INVALID (something, but no identifier of that kind). README, "Identifiers", has the rules
with examples; they were checked against libphonenumber's answers for the region CN and UID2's e-mail table.

All steps are pyarrow kernels over whole columns (regular expressions are RE2: linear time whatever the
input).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consent_center.errors import ConsentError
from consent_center.model import KINDS

OK, NULL, INVALID = 0, 1, 2

#: Longer texts are no identifiers; bounds the memory that one row can take. Bytes.
MAX_BYTES = 1024

_SAMPLE = 10_000

# Invisible: format characters (zero width, direction marks, BOM), controls, soft hyphen, variation selectors.
_INVISIBLE = r"[\p{Cf}\p{Cc}\x{FE00}-\x{FE0F}]+"
_BLANKS = r"^[\s\p{Z}]+|[\s\p{Z}]+$"

_MOBILE = "1[3-9][0-9]{9}"
#: What people put between the digits of a telephone number, dashes of every script included.
_SEPARATORS = r"[\s\p{Z}\p{Pd}−().,·・/_\[\]]+"
#: 0, or the codes of Chinese IP telephony that are dialled before a number (17951, 12593 ...).
_CARRIER = "(?:0|1(?:[12][0-9]|79)[0-9]{2})?"
_CN = r"^(?:\+86|0086|86)?"
_PHONE_RULES: tuple[tuple[str, str], ...] = (
    (_CN + _CARRIER + "(" + _MOBILE + ")$", r"+86\1"),
    (_CN + r"0((?:10|2[0-9]|[3-9][0-9]{2})[0-9]{7,8})$", r"+86\1"),  # fixed line with its trunk 0
    (r"^(?:\+86|0086)((?:10|2[0-9]|[3-9][0-9]{2})[0-9]{7,8})$", r"+86\1"),
    (_CN + r"([48]00[0-9]{7})$", r"+86\1"),  # 400 and 800 service numbers
)
_ABROAD = r"^(?:\+|00)([1-9][0-9]{6,14})$"
_EMAIL = r"^[^\s\p{Z}@,;:<>()\[\]\\\"]+@[^\s\p{Z}@,;:<>()\[\]\\\"_]+\.[^\s\p{Z}@,;:<>()\[\]\\\"_.]+$"
_EMAIL_DOTS = r"^\.|\.\.|\.@|@\.|@-|@.*-\."
#: Advertising ids that mean "no id": all zeros, in any of the usual shapes.
_ZERO_DEVICE = r"^[0:-]+$"
_DEVICE = r"^(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})$"


@dataclass(frozen=True)
class Normalised:
    """`values`: a string column, null where unusable; `status` uint8[n]: 0 ok, 1 null, 2 invalid."""

    values: pa.StringArray
    status: npt.NDArray[np.uint8]

    def counts(self) -> dict[str, int]:
        ok, null, invalid = np.bincount(self.status, minlength=3)[:3]
        return {"ok": int(ok), "null": int(null), "invalid": int(invalid)}


def normalise(values: pa.Array, kind: str) -> Normalised:
    """Bring a column to its normal form.

    Takes strings, integers, floats with whole values, dictionaries, decimals, chunked or not. Raises
    ConsentError `identifier.kind` and `identifier.type` (a column of lists, times or booleans can't hold
    identifiers).
    """
    if kind not in KINDS:
        raise ConsentError(
            "identifier.kind", f"{kind!r} is no kind of identifier; use one of {', '.join(KINDS)}"
        )
    texts = _texts(values)
    if kind == "phone" and (ready := _plain_mobiles(texts)) is not None:
        return Normalised(ready, np.zeros(len(texts), np.uint8))
    texts = _map_some(texts, pc.invert(pc.string_is_ascii(texts)), _fold)
    texts = pc.ascii_trim_whitespace(texts)
    missing = pc.or_kleene(pc.is_null(texts), pc.equal(pc.fill_null(pc.binary_length(texts), 0), 0))
    texts = pc.if_else(missing, pa.scalar(None, pa.string()), texts)
    found = {"phone": _phones, "email": _emails, "device": _devices, "opaque": _opaque}[kind](texts)
    usable = pc.and_(pc.is_valid(found), pc.less_equal(pc.fill_null(pc.binary_length(found), 0), MAX_BYTES))
    found = pc.if_else(usable, found, pa.scalar(None, pa.string()))
    status = np.full(len(texts), INVALID, np.uint8)
    status[_mask(pc.is_valid(found))] = OK
    status[_mask(missing)] = NULL
    return Normalised(found, status)


def detect(values: pa.Array) -> str:
    """The kind that most of the first 10,000 rows with content have; opaque if none has the majority."""
    texts = pc.drop_null(_texts(values))[:_SAMPLE]
    for kind in ("email", "phone"):
        counts = normalise(texts, kind).counts()
        if counts["ok"] > counts["invalid"]:
            return kind
    shapes = pc.match_substring_regex(pc.ascii_trim_whitespace(pc.ascii_lower(texts)), _DEVICE)
    hits = int(pc.sum(shapes).as_py() or 0)
    return "device" if 2 * hits > len(texts) else "opaque"


def _mask(values: pa.Array) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = values.to_numpy(zero_copy_only=False).astype(bool)
    return mask


def _texts(values: pa.Array) -> pa.StringArray:
    """Any column that can hold identifiers as strings; whole numbers keep their digits."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
        if isinstance(values, pa.ChunkedArray):
            values = values.chunk(0) if values.num_chunks else pa.array([], pa.string())
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _texts(values.dictionary_decode())
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.string())
    if pa.types.is_floating(kind):
        return _floats(values.cast(pa.float64()))
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_decimal)
    if any(check(kind) for check in known) or pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            return values.cast(pa.string())
        except pa.ArrowInvalid:
            raise ConsentError("identifier.type", "a column of bytes is not UTF-8; decode it first") from None
    raise ConsentError(
        "identifier.type", f"a column of type {kind} can't hold identifiers; give text or numbers"
    )


def _floats(values: pa.Array) -> pa.StringArray:
    """13800138000.0 is what a CSV reader makes of a number column with gaps: take it as 13800138000."""
    numbers = np.array(values.fill_null(np.nan).to_numpy(zero_copy_only=False))
    whole = np.isfinite(numbers) & (np.abs(np.nan_to_num(numbers)) < 2**53)
    whole &= np.nan_to_num(numbers) == np.floor(np.nan_to_num(numbers))
    digits = pa.array(np.where(whole, np.nan_to_num(numbers), 0).astype(np.int64)).cast(pa.string())
    texts = pc.if_else(pa.array(whole), digits, pa.array(numbers).cast(pa.string()))
    return pc.if_else(pa.array(np.isnan(numbers)), pa.scalar(None, pa.string()), texts)


def _map_some(texts: pa.StringArray, where: pa.BooleanArray, step: object) -> pa.StringArray:
    """Apply a column function to the rows in `where` only."""
    where = pc.fill_null(where, False)
    if not pc.any(where).as_py():
        return texts
    return pc.replace_with_mask(texts, where, step(pc.filter(texts, where)))  # type: ignore[operator]


def _fold(texts: pa.StringArray) -> pa.StringArray:
    """Full-width forms to ASCII, odd blanks and invisible characters away."""
    texts = pc.utf8_normalize(texts, form="NFKC")
    texts = pc.replace_substring_regex(texts, _INVISIBLE, "")
    return pc.replace_substring_regex(texts, _BLANKS, "")


def _phones(texts: pa.StringArray) -> pa.StringArray:
    plain = pc.match_substring_regex(texts, f"^{_MOBILE}$")
    found = pc.if_else(plain, pc.binary_join_element_wise("+86", texts, ""), pa.scalar(None, pa.string()))
    # What has been brought to its normal form before, as the columns that a gate asks about, stays.
    ready = pc.match_substring_regex(texts, rf"^\+86{_MOBILE}$")
    found = pc.if_else(ready, texts, found)
    rest = pc.fill_null(pc.invert(pc.or_(plain, ready)), False)
    if not pc.any(rest).as_py():
        return found
    return pc.replace_with_mask(found, rest, _messy_phones(pc.filter(texts, rest)))


def _plain_mobiles(texts: pa.StringArray) -> pa.StringArray | None:
    """The normal forms of a column of nothing but mobile numbers (`_MOBILE`), all plain or all in their
    normal form already; otherwise None.

    The commonest columns there are: looked at as one array of digits it takes a tenth of the general way.
    """
    n = len(texts)
    if not n or texts.null_count or n > np.iinfo(np.int32).max // 14:
        return None
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + n + 1]
    width = int(ends[1]) - int(ends[0])
    if data is None or width not in (11, 14) or (np.diff(ends) != width).any():
        return None
    found = np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]].reshape(n, width)
    country, digits = found[:, :-11], found[:, -11:]
    if int(digits.min()) < ord("0") or int(digits.max()) > ord("9"):
        return None
    if (digits[:, 0] != ord("1")).any() or (digits[:, 1] < ord("3")).any():
        return None
    if width == 14:
        return texts if (country == np.frombuffer(b"+86", dtype=np.uint8)).all() else None
    whole = np.empty((n, 14), dtype=np.uint8)
    whole[:, :3] = np.frombuffer(b"+86", dtype=np.uint8)
    whole[:, 3:] = digits
    starts = np.arange(0, 14 * n + 1, 14, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(starts), pa.py_buffer(whole))


def _messy_phones(texts: pa.StringArray) -> pa.StringArray:
    texts = pc.replace_substring_regex(texts, r"[\x00-\x1f\x7f]+", " ")
    texts = pc.replace_substring_regex(texts, r"^(?i:tel:)\s*", "")
    # Excel's ways to keep a number as text: '138..., ="138..."
    texts = pc.replace_substring_regex(texts, r'^(?:=?"|[\'`’]\s*)|"$', "")
    # A float's tail, only after a whole number: in 1380013.0000 the point separates groups of digits.
    texts = pc.replace_substring_regex(texts, r"^([0-9]{11,15})\.0+$", r"\1")
    texts = pc.replace_substring_regex(texts, _SEPARATORS, "")
    found = pa.nulls(len(texts), pa.string())
    for pattern, form in _PHONE_RULES:
        hit = pc.match_substring_regex(texts, pattern)
        found = pc.if_else(
            pc.and_(hit, pc.is_null(found)), pc.replace_substring_regex(texts, pattern, form), found
        )
    # 0086… and +86… are Chinese numbers and were judged above; a Chinese number of a wrong length is invalid.
    abroad = pc.and_(
        pc.match_substring_regex(texts, _ABROAD), pc.invert(pc.match_substring_regex(texts, r"^(?:\+|00)86"))
    )
    return pc.if_else(abroad, pc.replace_substring_regex(texts, _ABROAD, r"+\1"), found)


def _emails(texts: pa.StringArray) -> pa.StringArray:
    texts = pc.utf8_lower(pc.replace_substring_regex(texts, r"^(?i:mailto:)\s*", ""))
    good = pc.and_(
        pc.match_substring_regex(texts, _EMAIL), pc.invert(pc.match_substring_regex(texts, _EMAIL_DOTS))
    )
    return pc.if_else(good, texts, pa.scalar(None, pa.string()))


def _devices(texts: pa.StringArray) -> pa.StringArray:
    texts = pc.utf8_lower(texts)
    # One all-zero advertising id would join everybody who switched tracking off.
    return pc.if_else(pc.match_substring_regex(texts, _ZERO_DEVICE), pa.scalar(None, pa.string()), texts)


def _opaque(texts: pa.StringArray) -> pa.StringArray:
    return texts
