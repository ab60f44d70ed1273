"""What every page of the console needs: the blueprint, the center, rendering, messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from flask import (
    Blueprint,
    Response,
    current_app,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from markupsafe import Markup

from consent_center.center import Center
from consent_center.errors import CODES, ConsentError
from consent_center.i18n import gettext, language
from consent_center.rest import problems
from consent_center.rest.context import center
from consent_center.rest.roles import ENDPOINTS, Principal, allowed, principal

PREFIX = "/console"
bp = Blueprint(
    "console",
    __name__,
    url_prefix=PREFIX,
    template_folder="templates",
    static_folder="static",
    static_url_path="/static",
)


def embedded() -> Center:
    """The center in this process; pages look into its database, which a remote one does not offer."""
    found = center()
    if not isinstance(found, Center):
        raise ConsentError("center.location", "the console runs where the center is, not on a remote one")
    return found


def zone() -> ZoneInfo:
    """In which pages show times: PEC_CONSOLE_TIMEZONE, or China's."""
    return ZoneInfo(os.environ.get("PEC_CONSOLE_TIMEZONE", "Asia/Shanghai"))


def who() -> Principal:
    return principal()


def say(text: str, kind: str = "good") -> None:
    """A message on the next page: `good`, `bad` or `note`."""
    flash(text, kind)


def page(template: str, status: int = 200, **values: Any) -> Response:
    return make_response(render_template(f"console/{template}", **values), status)


def field(name: str, limit: int = 1_000, default: str = "") -> str:
    """A text field of the form, without NUL and lone surrogates, which no database takes."""
    text = request.form.get(name, default)
    if len(text) > limit:
        raise ConsentError("request.invalid", f"{name} has over {limit:,} characters")
    if any(c == "\0" or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise ConsentError("request.invalid", f"{name} has characters that are no text")
    return text


def lines(name: str) -> list[str]:
    """A text area with one entry a line, without empty ones."""
    text = field(name, 100_000).replace("\r\n", "\n")
    return [line.strip() for line in text.split("\n") if line.strip()]


def whole(name: str, default: int) -> int:
    """A whole number from 0 in a field; `default` for an empty one."""
    text = field(name, 20).strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConsentError("request.invalid", f"{name}: {text!r} is no whole number from 0 to 999999999")
    return int(text)


def attempt(
    act: Callable[[], Any], again: Callable[..., Response], areas: Sequence[str], to: str
) -> Response:
    """Do what a form asks for, say so and go to the page `to`. An error of one of `areas` (the part of its
    code before the point) shows the page `again(status, form=, problem=)` with what was typed.
    """
    try:
        act()
    except ConsentError as error:
        if error.code.split(".")[0] not in areas:
            raise
        return again(problems.status_of(error.code), form=request.form, problem=error)
    say(gettext("Done, and in the ledger."))
    return redirect(url_for(to), 303)  # type: ignore[return-value]


def moment(value: Any) -> datetime | None:
    """Microseconds, an ISO text or a datetime as a datetime in the console's zone; None for "no time"."""
    if value in (None, "", 0, -1):
        return None
    if isinstance(value, int):
        value = datetime.fromtimestamp(value / 1e6, UTC)
    elif isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.astimezone(zone()) if isinstance(value, datetime) else None


def time_tag(value: Any, seconds: bool = False) -> Markup:
    """A `<time>` element in the console's zone; an en dash for none."""
    at = moment(value)
    if at is None:
        return Markup("–")
    shown = at.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(), at.strftime("%Y-%m-%d %H:%M:%S %z"), shown
    )


def in_order(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """A notice's texts as (language, text), the reader's language first."""
    return sorted(texts.items(), key=lambda item: (item[0] != language(), item[0]))


def short(text: Any, keep: int = 12) -> Markup:
    """The beginning of a hash or id, whole in its title."""
    text = str(text)
    if len(text) <= keep + 1:
        return Markup('<code class="hash">{}</code>').format(text)
    return Markup('<code class="hash" title="{}">{}…</code>').format(text, text[:keep])


def protect(response: Response) -> Response:
    """Headers of a page: only this origin's files, no inline script or style, no framing."""
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    if request.endpoint == "console.static":
        response.headers["Cache-Control"] = "private, max-age=3600"
    return response


@bp.app_context_processor
def _globals() -> dict[str, Any]:
    from consent_center.console import nav, words
    from consent_center.i18n import LANGUAGES, localised

    return {
        "codes": CODES,
        "nav_items": nav.items,
        "who": who,
        "time": time_tag,
        "in_order": in_order,
        "word": words.word,
        "act": words.act,
        "may": lambda endpoint: allowed(principal().role, ENDPOINTS[endpoint]),
        "tone": words.tone,
        "short": short,
        "localised": localised,
        "language": language,
        "languages": LANGUAGES,
        "controller": current_app.extensions["pec.center"].controller,
        "zone_name": zone().key,
    }


bp.after_request(protect)
