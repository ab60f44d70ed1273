"""The embedded script and the few calls that it makes: public, from allowed origins, within a site's rate."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from apiflask import APIBlueprint, Schema, fields
from apiflask import validators as validate
from flask import Response, current_app, request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from consent_center import collection as package
from consent_center.center import Center
from consent_center.collection.public import PublicCollection, Site
from consent_center.collection.texts import TEXTS
from consent_center.errors import ConsentError
from consent_center.rest import schemas
from consent_center.rest.context import CENTER, answer
from consent_center.rest.signals import read_and_record
from consent_center.signals import bits

bp = APIBlueprint("embed", __name__, url_prefix="/v1", tag="Embedded script")

_SCRIPT = (Path(package.__file__).parent / "embed.js").read_bytes()
#: Of one address at one site, a minute; the site's own limit counts all addresses together.
_PER_ADDRESS = 60
_LIMITS = "pec.embed.limits"


class Who(Schema):
    visitor = schemas.text(64, "Random id that the browser drew: 22 to 64 characters of base64url.", least=0)
    person = schemas.text(
        200, "Token of `POST /v1/preference-links` (kind `embed`), for who is logged in.", least=0
    )
    gpc = fields.Boolean(
        metadata={"description": "`navigator.globalPrivacyControl`; `Sec-GPC: 1` does as well."}
    )


class FormBody(Who):
    language = fields.String(
        required=True, validate=validate.OneOf(list(TEXTS)), metadata={"description": "zh or en."}
    )


class ShownBody(Who):
    ticket = schemas.text(40_000, "The form's ticket.", required=True)
    offers = schemas.texts("Keys of the offers that were on the screen.", required=True, least=1)


class AnswerBody(Who):
    ticket = schemas.text(40_000, "The form's ticket.", required=True)
    answers = fields.Dict(
        schemas.text(64),
        fields.String(validate=validate.OneOf(["grant", "refuse", "withdraw"])),
        required=True,
        validate=validate.Length(1, 50),
        metadata={"description": "Key of an offer -> grant, refuse or withdraw."},
    )
    own_initiative = fields.Boolean(
        metadata={"description": "The person opened the choices; only then a grant counts in the cooldown."}
    )


class EmbedSignalBody(Who):
    tc_string = schemas.text(bits.MAX_CHARS, "TC string of the page's consent platform.", least=0)
    gpp_string = schemas.text(bits.MAX_CHARS, "GPP string of the page's consent platform.", least=0)


@bp.get("/embed.js")
@bp.doc(hide=True)
def script() -> Response:
    """The script: one file, no dependencies."""
    response = Response(_SCRIPT, content_type="text/javascript; charset=utf-8")
    response.headers["Cache-Control"] = "public, max-age=300"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    response.set_etag(_etag())
    response.make_conditional(request)
    return response


def _etag() -> str:
    return hashlib.sha256(_SCRIPT).hexdigest()[:32]


@bp.route("/public/<string:key>/form", methods=["OPTIONS"], provide_automatic_options=False)
@bp.route("/public/<string:key>/shown", methods=["OPTIONS"], provide_automatic_options=False)
@bp.route("/public/<string:key>/answers", methods=["OPTIONS"], provide_automatic_options=False)
@bp.route("/public/<string:key>/signals", methods=["OPTIONS"], provide_automatic_options=False)
@bp.doc(hide=True)
def preflight(key: str) -> Response:
    """What a browser asks before it posts JSON from another origin."""
    _allowed(key)
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = "POST"
    response.headers["Access-Control-Allow-Headers"] = "Content-Type"
    response.headers["Access-Control-Max-Age"] = "600"
    return response


@bp.post("/public/<string:key>/form")
@bp.input(FormBody)
def form(key: str, json_data: dict[str, Any]) -> Any:
    """What the script shows: offers with notices and state, whether it may ask, and a ticket."""
    site = _allowed(key)
    return answer(_public().form(site, *_who(json_data), json_data["language"], _gpc(json_data)))


@bp.post("/public/<string:key>/shown")
@bp.input(ShownBody)
def shown(key: str, json_data: dict[str, Any]) -> Any:
    """Count that offers were shown; a number a day, without the visitor."""
    site = _allowed(key)
    return answer(_public().shown(site, *_who(json_data), json_data["ticket"], json_data["offers"]))


@bp.post("/public/<string:key>/answers")
@bp.input(AnswerBody)
def answers(key: str, json_data: dict[str, Any]) -> Any:
    """Record what a visitor chose; each answer is an event of its own, with what was shown as evidence."""
    site = _allowed(key)
    done = _public().answer(
        site,
        *_who(json_data),
        json_data["ticket"],
        json_data["answers"],
        _gpc(json_data),
        bool(json_data.get("own_initiative")),
    )
    return answer(done, 201)


@bp.post("/public/<string:key>/signals")
@bp.input(EmbedSignalBody)
def signals(key: str, json_data: dict[str, Any]) -> Any:
    """Record what the page's consent platform (TC or GPP string) and the browser (`Sec-GPC`) say of a
    visitor.
    """
    site = _allowed(key)
    who = _public().identifiers(site, json_data.get("visitor", ""))
    done = read_and_record(
        json_data.get("tc_string", ""),
        json_data.get("gpp_string", ""),
        _gpc(json_data),
        who,
        site.channel,
        "data subject",
    )
    return answer({"outcomes": done["outcomes"], "recorded": len(done["events"])}, 201)


def _public() -> PublicCollection:
    center = current_app.extensions[CENTER]
    if not isinstance(center, Center):
        raise ConsentError(
            "collection.unknown", "the script is served where the center is, not through another"
        )
    return center.public_collection


def _who(data: dict[str, Any]) -> tuple[str, str]:
    return data.get("visitor", ""), data.get("person", "")


def _gpc(data: dict[str, Any]) -> bool:
    return bool(data.get("gpc")) or request.headers.get("Sec-GPC", "").strip() == "1"


def _allowed(key: str) -> Site:
    """The site, if the page that asks may use it and has not asked too often. `collection.*`."""
    site = _public().site(key)
    origin = request.headers.get("Origin", "")
    # Without an origin it is no browser's page; with another it is somebody else's.
    if origin not in site.origins:
        raise ConsentError("collection.origin", f"{origin or 'no origin'} is not among the site's origins")
    limiter = current_app.extensions.setdefault(_LIMITS, MovingWindowRateLimiter(MemoryStorage()))
    if request.method != "OPTIONS":
        for limit, name in (
            (RateLimitItemPerMinute(_PER_ADDRESS), f"{site.id} {request.remote_addr}"),
            (RateLimitItemPerMinute(site.per_minute), f"{site.id}"),
        ):
            if not limiter.hit(limit, name):
                raise ConsentError("collection.busy", "too many requests; try again in a minute")
    return site


@bp.after_request
def _cors(response: Response) -> Response:
    """Only the very origin that asked, and only if the site names it; no cookies ever travel."""
    key = (request.view_args or {}).get("key")
    origin = request.headers.get("Origin", "")
    if key and origin:
        response.vary.add("Origin")
        try:
            if origin in _public().site(key).origins:
                response.headers["Access-Control-Allow-Origin"] = origin
        except ConsentError as error:
            if error.code != "collection.unknown":
                raise
    return response
