"""Registers: processing activities, impact assessments, agreements, and what lapses soon."""

from __future__ import annotations

import hashlib
from typing import Any

from flask import Response, redirect, request, url_for

from consent_center.console.base import bp, embedded, field, page, say, who
from consent_center.console.dashboard import titles
from consent_center.errors import ConsentError
from consent_center.i18n import N_, language, ngettext
from consent_center.i18n import gettext as _
from consent_center.model import Assessment
from consent_center.records import model
from consent_center.records.export import LANGUAGES
from consent_center.rest import problems

#: In this order as tabs.
KINDS = {
    "processing": N_("Processing"),
    "assessment": N_("Assessments"),
    "agreement": N_("Agreements"),
}
WHAT = {
    "processing": N_("processing activity"),
    "assessment": N_("impact assessment"),
    "agreement": N_("agreement"),
    "request": N_("rights request"),
}
_TYPES = {"csv": "text/csv", "html": "text/html"}
_WITHIN = 90


@bp.get("/registers")
def registers() -> Response:
    """`?kind=` chooses the register."""
    kind = request.args.get("kind", "processing")
    return _registers(kind if kind in KINDS else "processing")


def _registers(kind: str, status: int = 200, **values: Any) -> Response:
    records = embedded().records
    return page(
        "registers.html",
        status,
        kind=kind,
        kinds=KINDS,
        what=WHAT,
        fields=model.FIELDS[kind],
        titles=model.TITLES,
        entries=records.listing(kind),
        reminders=records.reminders(_WITHIN),
        within=_WITHIN,
        named=named,
        required=embedded().assessments_required(),
        **values,
    )


def named(one: model.Field) -> str:
    """A field's name in the reader's language."""
    return one.zh if language() == "zh" else one.en


@bp.get("/registers/<kind>.<form>")
def register_export(kind: str, form: str) -> Response:
    """The register as a file; its hash is in the ledger."""
    _known(kind)
    if form not in _TYPES:
        raise ConsentError("request.not_found", f"a register is exported as {', '.join(_TYPES)}")
    code = request.args.get("in", language())
    text = embedded().records.export(kind, form, code if code in LANGUAGES else language())
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()
    embedded().accounts.note(who().name, "export.register", "", register=kind, form=form, sha256=digest)
    response = Response(data, content_type=f"{_TYPES[form]}; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{kind}.{form}"'
    return response


@bp.route("/registers/<kind>/new", methods=["GET", "POST"])
def register_put(kind: str) -> Response:
    """Enter a record or a new version of one (`?from=ID`)."""
    _known(kind)
    source = request.args.get("from", "")
    base = next((e for e in embedded().records.listing(kind) if e["id"] == source), None)
    if source and (base is None or kind == "assessment"):
        raise ConsentError("request.not_found", f"no {kind} {source!r} that could get a new version")
    shown: dict[str, Any] = {"kind": kind, "titles": model.TITLES, "base": base, "named": named}
    shown["fields"] = [f for f in model.FIELDS[kind] if f.name != "status"]
    if kind == "assessment":
        shown["purposes"] = sorted((id, f"{title} ({id})") for id, title in titles().items())
    if request.method == "GET":
        filled = {} if base is None else {f.name: _shown(base.get(f.name)) for f in shown["fields"]}
        return page("register_new.html", form=filled, **shown)
    try:
        id = base["id"] if base else field("id", 200).strip()
        _put(kind, id, {f.name: _given(f) for f in shown["fields"]})
    except ConsentError as error:
        if error.code.split(".")[0] not in ("record", "registry"):
            raise
        status = problems.status_of(error.code)
        return page("register_new.html", status, form=request.form, problem=error, **shown)
    say(_("Entered: %(id)s.", id=id))
    return redirect(url_for("console.registers", kind=kind), 303)  # type: ignore[return-value]


@bp.post("/registers/require")
def register_require() -> Response:
    """Whether jobs for other organisations need an impact assessment: `required` is 1 or 0."""
    wanted = field("required", 1)
    if wanted not in ("0", "1"):
        raise ConsentError("request.invalid", "required is 1 or 0")
    embedded().require_assessments(wanted == "1", who().name)
    if wanted == "1":
        say(_("From now on a job for another organisation needs an impact assessment in force."))
    else:
        say(_("Jobs for other organisations run without an impact assessment now."), "note")
    return redirect(url_for("console.registers", kind="assessment"), 303)  # type: ignore[return-value]


@bp.post("/registers/remind")
def register_remind() -> Response:
    """Tell the webhooks that subscribe to reminders."""
    done = embedded().records.remind(_WITHIN)
    said = ngettext("%(num)s message was queued.", "%(num)s messages were queued.", done["queued"])
    say(said, "good" if done["queued"] else "note")
    return redirect(url_for("console.registers"), 303)  # type: ignore[return-value]


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise ConsentError("request.not_found", f"no register {kind!r}; there are {', '.join(KINDS)}")


def _shown(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")


def _given(one: model.Field) -> Any:
    text = field(one.name, 100_000).replace("\r\n", "\n").strip()
    return [line.strip() for line in text.split("\n") if line.strip()] if one.kind == "list" else text


def _put(kind: str, id: str, body: dict[str, Any]) -> None:
    if kind == "assessment":
        embedded().put_assessment(Assessment(id, **body), who().name)
    else:
        embedded().records.put(kind, id, body, who().name)
