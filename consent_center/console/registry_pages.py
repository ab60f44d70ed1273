"""Purposes and notices: list, versions, differences, drafts with their preview, publication."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flask import Response, redirect, request, url_for
from markupsafe import Markup, escape

from consent_center.analytics.service import LEAST
from consent_center.console.base import bp, embedded, field, page, say, who
from consent_center.console.dashboard import figures
from consent_center.errors import ConsentError
from consent_center.i18n import gettext as _
from consent_center.model import Notice, Purpose
from consent_center.rest import problems
from consent_center.rest.roles import ENDPOINTS, allowed

_WORDS = re.compile(r"[\u3400-\u9fff]|\w+|\s+|.", re.DOTALL)
_MOST_WORDS = 20_000  # beyond it texts are compared by line: word by word would take too long


@bp.get("/registry")
def registry() -> Response:
    """The newest version of each purpose with its notices."""
    center = embedded()
    newest = {p.id: p for p in sorted(center.purposes(), key=lambda p: p.version)}
    notices: dict[str, dict[str, Notice]] = {}
    for notice in sorted(center.notices(), key=lambda n: n.version):
        notices.setdefault(notice.purpose, {})[notice.id] = notice
    assessed = {a.purpose for a in center.assessments()}
    return page(
        "registry.html",
        purposes=[newest[id] for id in sorted(newest)],
        notices=notices,
        assessed=assessed,
        drafts=center.notice_board.drafts(),
        totals=figures().totals(),
        least=LEAST,
    )


@bp.get("/registry/purpose/<id>")
def purpose(id: str) -> Response:
    versions = _purpose(id)
    notices = sorted((n for n in embedded().notices() if n.purpose == id), key=lambda n: (n.id, -n.version))
    assessments = [a for a in embedded().assessments() if a.purpose == id]
    return page(
        "purpose.html",
        newest=versions[0],
        versions=versions,
        notices=notices,
        assessments=assessments,
        today=datetime.now(UTC).date().isoformat(),
        may_edit=allowed(who().role, ENDPOINTS["console.purpose_switch"]),
    )


@bp.post("/registry/purpose/<id>/switch")
def purpose_switch(id: str) -> Response:
    """Off: every decision for it is no, and running jobs stop at their next stage."""
    active = field("active", 5) == "yes"
    embedded().switch_purpose(id, active, who().name)
    say(_("The purpose is on.") if active else _("The purpose is off: nobody's data may be used for it."))
    return redirect(url_for("console.purpose", id=id), 303)  # type: ignore[return-value]


@bp.route("/registry/new-purpose", methods=["GET", "POST"])
def purpose_new() -> Response:
    """Register a purpose, or a new version of one (`?from=ID`), which makes older consent outdated."""
    source = request.args.get("from", "")
    base = _purpose(source)[0] if source else None
    if request.method == "GET":
        return page("purpose_new.html", base=base, form={})
    try:
        made = embedded().put_purpose(_from_form(base), who().name)
    except ConsentError as error:
        if not error.code.startswith("registry."):
            raise
        status = problems.status_of(error.code)
        return page("purpose_new.html", status, base=base, form=request.form, problem=error)
    say(_("Registered: %(id)s, version %(version)s.", id=made.id, version=made.version))
    return redirect(url_for("console.purpose", id=made.id), 303)  # type: ignore[return-value]


def _from_form(base: Purpose | None) -> Purpose:
    title = {code: text for code in ("zh", "en") if (text := field(f"title_{code}", 1_000).strip())}
    days = field("duration_days", 6).strip()
    if days and not days.isdecimal():
        raise ConsentError("registry.purpose", "the duration is a number of days, or empty for no end")
    fresh = base or Purpose("", 0, {}, ())
    return replace(
        fresh,
        id=base.id if base else field("id", 200).strip(),
        version=fresh.version + 1,
        title=title,
        categories=tuple(field("categories", 10_000).replace(",", " ").replace("，", " ").split()),
        recipient_kinds=tuple(field("recipient_kinds", 10_000).replace(",", " ").replace("，", " ").split()),
        dpv=field("dpv", 200).strip(),
        legal_basis=field("legal_basis", 100).strip() or "consent",
        separate_consent=field("separate_consent", 5) == "yes",
        needs_guardian=field("needs_guardian", 5) == "yes",
        duration_days=int(days) if days else None,
        active=True,
    )


@bp.get("/registry/notice/<id>")
def notice(id: str) -> Response:
    """All versions of a notice; `?old=1&new=2` shows what changed, `?show=2` one version."""
    versions = _notice(id)
    newest = versions[0].version
    new = _version(versions, request.args.get("new") or request.args.get("show"), newest)
    old = _version(versions, request.args.get("old"), 0)
    compared = None
    if old is not None and new is not None and old.version != new.version:
        languages = sorted(set(old.text) | set(new.text), reverse=True)
        compared = [(code, compare(old.text.get(code, ""), new.text.get(code, ""))) for code in languages]
    return page(
        "notice.html",
        versions=versions,
        shown=new,
        old=old,
        compared=compared,
        may_edit=allowed(who().role, ENDPOINTS["console.notice_new"]),
    )


@bp.route("/registry/new-notice", methods=["GET", "POST"])
def notice_new() -> Response:
    """Write a draft of a notice or of a new version of one (`?from=ID`), or go on with it (`?draft=ID`)."""
    board, draft = embedded().notice_board, None
    if source := request.args.get("draft", ""):
        draft = next((d for d in board.drafts() if d["id"] == source), None)
        if draft is None:
            raise ConsentError("notice.unknown", f"there is no draft of a notice {source!r}")
    source = draft["id"] if draft else request.args.get("from", "")
    known = [n for n in embedded().notices() if n.id == source]
    base = max(known, key=lambda n: n.version, default=None)
    if source and base is None and draft is None:
        raise ConsentError("registry.unknown", f"no notice {source!r} is registered")
    purposes = {p.id: p for p in sorted(embedded().purposes(), key=lambda p: p.version)}
    about = purposes.get(draft["purpose"] if draft else base.purpose if base else "")
    values: dict[str, Any] = {"base": base, "draft": draft, "about": about}
    values |= {"purposes": [purposes[id] for id in sorted(purposes)]}
    if request.method == "GET":
        return page("notice_new.html", form=_filled(base, about, draft), **values)
    try:
        document = {
            "id": source or field("id", 200).strip(),
            "purpose": about.id if about else field("purpose", 200),
            "text": {
                c: t for c in ("zh", "en") if (t := field(f"text_{c}", 100_000).replace("\r\n", "\n").strip())
            },
            "material": field("material", 5) == "yes",
            # What the form does not show of a draft that was made elsewhere stays.
            "changes": {**(draft["changes"] if draft else {}), **(_changes(about) if about else {})},
        }
        if about is None and any(d["id"] == document["id"] for d in board.drafts()):
            raise ConsentError(
                "notice.draft", f"there is a draft of {document['id']} already: go on with that"
            )
        kept = board.draft(document, who().name)
    except ConsentError as error:
        if error.code.split(".")[0] not in ("registry", "notice"):
            raise
        status = problems.status_of(error.code)
        return page("notice_new.html", status, form=request.form, problem=error, **values)
    return redirect(url_for("console.draft", id=kept["id"]), 303)  # type: ignore[return-value]


#: What a draft may change of its purpose by this form; the rest is a new version of the purpose.
_CHANGED_LISTS = ("methods", "categories", "sensitive", "recipient_kinds", "recipients")
_CHANGED_DAYS = ("duration_days", "retention_days")


def _filled(base: Notice | None, about: Purpose | None, draft: dict[str, Any] | None) -> dict[str, str]:
    """The form as it begins: the draft, else the version in force."""
    texts = draft["text"] if draft else base.text if base else {}
    found = {f"text_{code}": texts.get(code, "") for code in ("zh", "en")}
    # A new version is proposed as material: whoever only mends the wording says so.
    found["material"] = "yes" if (draft["material"] if draft else True) else ""
    changes = draft["changes"] if draft else {}
    for name in (*_CHANGED_LISTS, *_CHANGED_DAYS) if about else ():
        value = changes.get(name, getattr(about, name))
        found[name] = ", ".join(value) if name in _CHANGED_LISTS else "" if value is None else str(value)
    return found


def _changes(about: Purpose) -> dict[str, Any]:
    """What the form says of the purpose, as far as it was filled in at all."""
    found: dict[str, Any] = {}
    for name in _CHANGED_LISTS:
        if name in request.form:
            found[name] = field(name, 10_000).replace(",", " ").replace("，", " ").split()
    for name in _CHANGED_DAYS:
        if name in request.form:
            days = field(name, 6).strip()
            if days and not (days.isascii() and days.isdecimal()):
                raise ConsentError("notice.draft", f"purpose.{name} must be a number of days, or empty")
            found[name] = int(days) if days else None
    return {name: value for name, value in found.items() if value != _plain(getattr(about, name))}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@bp.get("/registry/draft/<id>")
def draft(id: str) -> Response:
    return _draft(id)


def _draft(id: str, status: int = 200, **values: Any) -> Response:
    """What publishing would do: the texts, what changes in words and meaning, who would be asked again."""
    shown = embedded().notice_board.preview(id)
    notice, old = shown["notice"], None
    if notice["version"] > 1:
        old = max((n for n in embedded().notices() if n.id == id), key=lambda n: n.version)
    compared = []
    if old is not None:
        languages = sorted(set(old.text) | set(notice["text"]), reverse=True)
        pairs = [(code, old.text.get(code, ""), notice["text"].get(code, "")) for code in languages]
        compared = [(code, compare(before, after)) for code, before, after in pairs if before != after]
    return page("draft.html", status, shown=shown, notice=notice, old=old, compared=compared, **values)


@bp.post("/registry/draft/<id>/publish")
def draft_publish(id: str) -> Response:
    """The draft that was previewed becomes the notice in force; another one since then is refused."""
    try:
        done = embedded().notice_board.publish(id, who().name, field("base", 100))
    except ConsentError as error:
        if error.code.split(".")[0] not in ("registry", "notice") or error.code == "notice.unknown":
            raise
        return _draft(id, problems.status_of(error.code), problem=error)
    say(_("Published: %(id)s, version %(version)s.", id=id, version=done["notice"]["version"]))
    return redirect(url_for("console.notice", id=id), 303)  # type: ignore[return-value]


@bp.post("/registry/draft/<id>/discard")
def draft_discard(id: str) -> Response:
    embedded().notice_board.discard(id)
    say(_("The draft of %(id)s is gone.", id=id), "note")
    return redirect(url_for("console.registry"), 303)  # type: ignore[return-value]


def _purpose(id: str) -> list[Purpose]:
    versions = sorted((p for p in embedded().purposes() if p.id == id), key=lambda p: -p.version)
    if not versions:
        raise ConsentError("registry.unknown", f"no purpose {id!r} is registered")
    return versions


def _notice(id: str) -> list[Notice]:
    versions = sorted((n for n in embedded().notices() if n.id == id), key=lambda n: -n.version)
    if not versions:
        raise ConsentError("registry.unknown", f"no notice {id!r} is registered")
    return versions


def _version(versions: list[Notice], text: str | None, default: int) -> Notice | None:
    wanted = int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else default
    return next((n for n in versions if n.version == wanted), None)


def compare(old: str, new: str) -> Markup:
    """What went (`<del>`) and what came (`<ins>`), word by word; Chinese character by character."""
    pieces = _WORDS.findall(old), _WORDS.findall(new)
    if max(map(len, pieces)) > _MOST_WORDS:
        pieces = old.splitlines(keepends=True), new.splitlines(keepends=True)
    before, after = pieces
    shown = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        gone, come = "".join(before[i:j]), "".join(after[k:m])
        if kind == "equal":
            shown.append(escape(come))
            continue
        if gone:
            shown.append(Markup("<del>{}</del>").format(gone))
        if come:
            shown.append(Markup("<ins>{}</ins>").format(come))
    return Markup("").join(shown)
