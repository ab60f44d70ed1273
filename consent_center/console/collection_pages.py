"""Collection: what is offered together (forms), where a form may be shown (sites), A/B of two notices."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from consent_center.collection.forms import COOLDOWN_DAYS
from consent_center.console.base import attempt, bp, embedded, field, lines, page, who, whole
from consent_center.console.dashboard import titles
from consent_center.errors import ConsentError
from consent_center.i18n import gettext as _

#: Empty offers below those that a form has; more are added by saving and opening again.
_SPARE, _MOST = 2, 50
_CODES = ("collection", "registry")


@bp.get("/collection")
def collection() -> Response:
    """Forms, sites and experiments in force."""
    return _collection()


def _collection(status: int = 200, **values: Any) -> Response:
    center = embedded()
    return page(
        "collection.html",
        status,
        forms=center.collection.forms(),
        sites=center.collection.sites(),
        experiments=center.collection.experiments(),
        names=titles(),
        notices=sorted({(n.id, n.version, n.purpose) for n in center.notices()}),
        cooldown=COOLDOWN_DAYS,
        **values,
    )


@bp.route("/collection/form", methods=["GET", "POST"])
def collection_form() -> Response:
    """A form, new or (`?from=ID`) changed; its offers are numbered fields."""
    source = request.args.get("from", "")
    held = next((f for f in embedded().collection.forms() if f["id"] == source), None)
    if source and held is None:
        raise ConsentError("request.not_found", f"no form {source!r} that could be changed")
    if request.method == "GET":
        return _form(held or {"offers": []}, held)
    # What the page has no fields for stays as it was.
    kept = {name: (held or {}).get(name, {}) for name in ("recipients", "categories")}
    return attempt(
        lambda: embedded().collection.put_form({**kept, **_form_of()}, who().name),
        lambda status, **told: _form(_form_of(), held, status, **told),
        _CODES,
        "console.collection",
    )


def _form(shown: dict[str, Any], held: dict[str, Any] | None, status: int = 200, **values: Any) -> Response:
    blank = {
        "purpose": "",
        "recipient": "",
        "categories": [],
        "notice": "",
        "regulation": "PIPL",
        "gpc": True,
    }
    offers = [*shown["offers"], *([blank] * _SPARE)][:_MOST]
    return page(
        "collection_form.html",
        status,
        form=shown,
        held=held,
        offers=offers,
        purposes=[("", _("none")), *sorted((id, f"{title} ({id})") for id, title in titles().items())],
        cooldown=COOLDOWN_DAYS,
        **{name: value for name, value in values.items() if name != "form"},
    )


def _form_of() -> dict[str, Any]:
    """The form as the page's fields tell it; offers without a purpose are left out."""
    offers = [
        {
            "purpose": field(f"purpose-{n}", 200),
            "recipient": field(f"recipient-{n}", 200).strip(),
            "categories": lines(f"categories-{n}"),
            "notice": field(f"notice-{n}", 200).strip(),
            "regulation": field(f"regulation-{n}", 20).strip() or "PIPL",
            "gpc": field(f"gpc-{n}", 5) == "yes",
        }
        for n in range(_MOST)
        if field(f"purpose-{n}", 200)
    ]
    told = {code: field(f"title-{code}", 2_000).strip() for code in ("zh", "en")}
    return {
        "id": field("id", 200).strip(),
        "title": {code: text for code, text in told.items() if text},
        "offers": offers,
        "cooldown_days": whole("cooldown_days", COOLDOWN_DAYS),
        "preferences": field("preferences", 5) == "yes",
    }


@bp.post("/collection/site")
def collection_site() -> Response:
    """Where the script may show a form; the same id again changes it."""
    site = {
        "id": field("id", 200).strip(),
        "form": field("form", 200),
        "origins": lines("origins"),
        "channel": field("channel", 200).strip() or "web",
        "per_minute": whole("per_minute", 6_000),
        "active": field("active", 5) == "yes",
    }
    return attempt(
        lambda: embedded().collection.put_site(site, who().name),
        lambda status, **told: _collection(status, site=site, **told),
        _CODES,
        "console.collection",
    )


@bp.post("/collection/experiment")
def collection_experiment() -> Response:
    """Start, change or end an A/B of two notices of one purpose."""
    arms = {}
    for arm in ("a", "b"):
        notice, _sep, version = field(arm, 300).rpartition(" ")
        arms[arm] = {"notice": notice, "version": int(version) if version.isdecimal() else 0}
    told = {
        "id": field("cid", 200).strip(),
        "purpose": field("purpose", 200),
        **arms,
        "share": whole("share", 50) / 100,
        "active": field("active", 5) == "yes",
    }
    return attempt(
        lambda: embedded().collection.put_experiment(told, who().name),
        lambda status, **shown: _collection(status, experiment=told, **shown),
        _CODES,
        "console.collection",
    )
