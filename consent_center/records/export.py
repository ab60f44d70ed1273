"""The register of one kind as CSV, JSON or a page, in Chinese or English."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from consent_center.errors import ConsentError
from consent_center.records.model import FIELDS, TITLES, check_kind

FORMATS = ("csv", "json", "html")
LANGUAGES = ("zh", "en")
_OWN = (("id", "编号", "Number"), ("version", "版本", "Version"))
#: A cell that begins so is a formula to a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # most centers are opened for no page

    return Environment(
        loader=PackageLoader("consent_center.records"), autoescape=True, undefined=StrictUndefined
    )


def export(
    kind: str, entries: Sequence[dict[str, Any]], form: str, language: str, controller: str, day: str
) -> str:
    """The text of the export. `record.field` for an unknown kind, form or language."""
    check_kind(kind, tuple(FIELDS))
    if form not in FORMATS or language not in LANGUAGES:
        raise ConsentError(
            "record.field", f"form is {', '.join(FORMATS)}; language is {', '.join(LANGUAGES)}"
        )
    if form == "json":
        return json.dumps(
            {"kind": kind, "controller": controller, "day": day, "records": list(entries)},
            ensure_ascii=False,
            indent=1,
        )
    zh = language == "zh"
    names = [own[0] for own in _OWN] + [field.name for field in FIELDS[kind]]
    heads = [own[1] if zh else own[2] for own in _OWN]
    heads += [field.zh if zh else field.en for field in FIELDS[kind]]
    rows = [[_cell(entry.get(name)) for name in names] for entry in entries]
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(heads)
        writer.writerows([[f"'{c}" if c.startswith(_FORMULA) else c for c in row] for row in rows])
        return "\ufeff" + out.getvalue()  # spreadsheets take UTF-8 for what it is
    sources = ["", ""] + [field.source for field in FIELDS[kind]]
    page: str = (
        _environment()
        .get_template("register.html")
        .render(
            zh=zh,
            title=TITLES[kind][0 if zh else 1],
            controller=controller,
            day=day,
            entries=[list(zip(heads, sources, row, strict=True)) for row in rows],
        )
    )
    return page


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return "; ".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)
