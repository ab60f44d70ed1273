"""Rules of the house: what is in force, what a pasted file would change, putting it in force."""

from __future__ import annotations

import difflib
from typing import Any

from flask import Response, redirect, url_for

from consent_center.console.base import bp, embedded, field, page, say, who
from consent_center.console.dashboard import titles
from consent_center.errors import ConsentError
from consent_center.i18n import gettext as _
from consent_center.model import REASONS
from consent_center.rest import problems

_MOST = 1 << 20
#: Rows of the comparison by reason that a page shows; the REST interface has all of them.
_SHOWN = 100


@bp.get("/rules")
def rules() -> Response:
    return _rules()


def _rules(status: int = 200, **values: Any) -> Response:
    held = embedded().rules.show()
    return page("rules.html", status, held=held, names=titles(), **{"text": held["text"], **values})


@bp.post("/rules")
def rules_try() -> Response:
    """Check a pasted file and show who would change; nothing is put in force."""
    text, rules = _text(), embedded().rules
    try:
        checked = (
            rules.check(text)
            if text.strip()
            else {"rules": [], "warnings": [_("Without rules, none applies.")]}
        )
        trial = rules.dry_run(text, sample=0)
    except ConsentError as error:
        if not error.code.startswith("rules."):
            raise
        return _rules(problems.status_of(error.code), text=text, problem=error)
    changes = [{**change, "rows": by_reason(change)} for change in trial["changes"][:_SHOWN]]
    more = len(trial["changes"]) - len(changes)
    lines = compare_lines(rules.show()["text"], text)
    return _rules(text=text, checked=checked, trial=trial, changes=changes, more=more, lines=lines)


@bp.post("/rules/apply")
def rules_apply() -> Response:
    """Put in force what was tried; refused if other rules are in force since then."""
    text = _text()
    try:
        done = embedded().rules.apply(text, who().name, field("base", 100))
    except ConsentError as error:
        if not error.code.startswith("rules."):
            raise
        return _rules(problems.status_of(error.code), text=text, problem=error)
    said = _("In force from the next decision on: version %(version)s, leaf %(leaf)s.", **_numbers(done))
    say(said)
    return redirect(url_for("console.rules"), 303)  # type: ignore[return-value]


def _numbers(done: dict[str, Any]) -> dict[str, Any]:
    return {"version": done["version"], "leaf": done["leaf"]}


def _text() -> str:
    # Browsers send CRLF; the hash of the file must not depend on the way that it came.
    return field("text", _MOST).replace("\r\n", "\n").replace("\r", "\n")


def by_reason(change: dict[str, Any]) -> list[tuple[str, int, int]]:
    """(reason, before, after) in the order of decisions, `eligible` first; reasons of nobody left out."""
    before = {"eligible": change["before"]["in"], **change["before"]["out"]}
    after = {"eligible": change["after"]["in"], **change["after"]["out"]}
    order = ["eligible", *(reason for reason in REASONS if reason != "eligible")]
    rows = [(reason, before.get(reason, 0), after.get(reason, 0)) for reason in order]
    return [row for row in rows if row[1] or row[2]]


def compare_lines(old: str, new: str) -> list[tuple[str, str]]:
    """(`same`, `gone`, `come` or `skip`, line): what differs, with two lines around it."""
    found: list[tuple[str, str]] = []
    a, b = old.splitlines(), new.splitlines()
    if a == b:
        return found
    for group in difflib.SequenceMatcher(None, a, b, autojunk=False).get_grouped_opcodes(2):
        if found:
            found.append(("skip", "…"))
        for kind, i, j, k, m in group:
            if kind == "equal":
                found += [("same", line) for line in a[i:j]]
                continue
            found += [("gone", line) for line in a[i:j]]
            found += [("come", line) for line in b[k:m]]
    return found
