"""The hosted pages behind signed links: preferences, confirmation of a double opt-in, a guardian's consent.

Whoever has the link is the person: it is secret, short-lived and in no cookie. A GET changes nothing
(mail scanners follow links); a POST needs the ticket of a page that was loaded with the link, and a
browser that says it comes from here.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apiflask import APIBlueprint
from flask import Response, current_app, make_response, render_template, request
from markupsafe import Markup

from consent_center import collection as package
from consent_center.center import Center
from consent_center.collection.contact import QUIET
from consent_center.collection.service import Collection
from consent_center.collection.texts import TEXTS, language_of
from consent_center.errors import ConsentError
from consent_center.rest import problems
from consent_center.rest.context import CENTER

_FOLDER = Path(package.__file__).parent
bp = APIBlueprint("pages", __name__, url_prefix="/p", template_folder=str(_FOLDER), enable_openapi=False)

_CSS = (_FOLDER / "page.css").read_text(encoding="utf-8")
_STYLE = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
#: Heading and introduction by kind of link.
_WORDS = {
    "page": ("title", "intro"),
    "confirm": ("confirm_title", "confirm_intro"),
    "guardian": ("guardian_title", "guardian_intro"),
}
#: Errors that are the link's end or the page's age; others are ours and go to the application's handlers.
_TOLD = frozenset(
    ("link.invalid", "link.expired", "link.ticket", "event.guardian", "collection.unknown", "event.action")
)


def collection() -> Collection:
    """The collection of the served center. `collection.unknown` if that is a remote one."""
    center = current_app.extensions[CENTER]
    if not isinstance(center, Center):
        raise ConsentError("collection.unknown", "pages are served where the center is, not through another")
    return center.collection


@bp.get("/<string:token>")
def page(token: str) -> Response:
    """The person's own page."""
    return _show(token, "page")


@bp.post("/<string:token>")
def page_answer(token: str) -> Response:
    return _answer(token, "page")


@bp.get("/confirm/<string:token>")
def confirm(token: str) -> Response:
    """The second half of a double opt-in."""
    return _show(token, "confirm")


@bp.post("/confirm/<string:token>")
def confirm_answer(token: str) -> Response:
    return _answer(token, "confirm")


@bp.get("/guardian/<string:token>")
def guardian(token: str) -> Response:
    """The page of a child's guardian."""
    return _show(token, "guardian")


@bp.post("/guardian/<string:token>")
def guardian_answer(token: str) -> Response:
    return _answer(token, "guardian")


def _language() -> str:
    return language_of(request.args.get("lang"), request.headers.get("Accept-Language"))


def _show(token: str, kind: str, message: str = "", bad: bool = False, status: int = 200) -> Response:
    try:
        view = collection().view(token, kind, _language())
    except ConsentError as error:
        if error.code not in _TOLD:
            raise
        return _closed(TEXTS[_language()]["invalid"], problems.status_of(error.code))
    return _render(view, kind, message, bad, status)


def _closed(message: str, status: int, heading: str = "invalid_title", bad: bool = True) -> Response:
    return _render(None, heading, message, bad, status)


def _render(view: dict[str, Any] | None, kind: str, message: str, bad: bool, status: int) -> Response:
    language = _language()
    heading, intro = _WORDS.get(kind, (kind, ""))
    text = render_template(
        "collection_page.html",
        page=view,
        kind=kind,
        heading=heading,
        intro=intro,
        t=TEXTS[language],
        language=language,
        other="en" if language == "zh" else "zh",
        sep="、" if language == "zh" else ", ",
        message=message,
        bad=bad,
        quiet=QUIET,
        css=Markup(_CSS),  # noqa: S704 - our own file
        at=_clicked(),
        given={name: request.form.get(name, "") for name in ("name", "relation", "declared")},
    )
    response = make_response(text, status)
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'sha256-{_STYLE}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    # The link must not leave by a referrer; `same-origin` and not `no-referrer`, or the POST has no Origin.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Robots-Tag"] = "noindex"
    return response


def _clicked() -> dict[str, Any]:
    """The row that the click was in, which stays unfolded; nothing for a page that was only opened."""
    what = request.form.get("choice", "").partition(":")[0]
    return {
        "channel": request.form.get("channel", "*"),
        "topic": request.form.get("topic", ""),
        "limits": what in ("limit", "quiet", "resume"),
    }


def _from_here() -> bool:
    """Whether the browser says that the form was ours. Other clients send neither header."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def _answer(token: str, kind: str) -> Response:
    words = TEXTS[_language()]
    if not _from_here():
        return _closed(words["invalid"], 403)
    choice, _, key = request.form.get("choice", "").partition(":")
    given = request.form.get("ticket", "")
    try:
        if kind == "page" and request.form.get("channel"):
            about = (request.form["channel"], request.form.get("topic", "*"))
            times = {name: request.form.get(name, "") for name in ("start", "end")}
            done = collection().set_preference(token, given, *about, request.form.get("choice", ""), times)
        else:
            guardian = {name: request.form.get(name, "") for name in ("name", "relation", "declared")}
            done = collection().answer(token, kind, given, key, choice, guardian)
    except ConsentError as error:
        if error.code == "link.ticket":
            return _show(token, kind, words["outdated"], True, 409)
        if error.code == "event.guardian":
            return _show(token, kind, words["step_error" if kind == "guardian" else "minor"], True, 422)
        if error.code == "preference.quiet":
            return _show(token, kind, words["quiet_error"], True, 422)
        if error.code not in _TOLD:
            raise
        return _closed(words["invalid"], problems.status_of(error.code))
    if kind == "confirm":
        return _closed(words["confirm_done"], 200, "confirm_title", bad=False)
    return _show(token, kind, words["saved" if done["changed"] else "unchanged"])
