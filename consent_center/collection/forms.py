"""Forms (what is offered together, and how) and sites (where the script may show one).

A form only groups offers for display; each answer is still an event of its own, for one recipient and
purpose. The layout hash covers everything that decides how a form looks: its document, the template and
the script.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from consent_center.errors import ConsentError
from consent_center.ledger.verify import canonical
from consent_center.model import Notice, Purpose
from consent_center.registry import Registry, is_name

LANGUAGES = ("zh", "en")
_OPTIONS = ("cooldown_days", "preferences")
COOLDOWN_DAYS = 180
_ORIGIN = re.compile(r"https?://[a-z0-9.-]{1,253}(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
_ROOT = Path(__file__).parent
#: The page's and the script's own files: what people see is these and the form.
_LAYOUT_FILES = (_ROOT / "embed.js", _ROOT / "collection_page.html", _ROOT / "page.css", _ROOT / "texts.py")


@dataclass(frozen=True)
class Offer:
    """One question of a form, with the texts in force: one purpose, one recipient, one notice."""

    number: int
    purpose: Purpose
    recipient: str
    recipient_title: dict[str, str]
    contact: dict[str, str]
    categories: tuple[str, ...]
    regulation: str
    notice: Notice
    gpc: bool  # Global Privacy Control answers it with no
    category_titles: dict[str, dict[str, str]]

    @property
    def key(self) -> str:
        """Names the offer to the page and the script; changes when the person must be asked anew."""
        named = (self.purpose.id, self.recipient, self.regulation)
        return hashlib.sha256("\x00".join(named).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _layout_files() -> str:
    joined = b"\x00".join(hashlib.sha256(path.read_bytes()).digest() for path in _LAYOUT_FILES)
    return hashlib.sha256(joined).hexdigest()


def layout_hash(form: dict[str, Any], language: str) -> str:
    """SHA-256 (hex) over the form, the language and the files that lay it out."""
    return hashlib.sha256(
        canonical({"form": form, "language": language, "files": _layout_files()})
    ).hexdigest()


def parse_form(document: Any) -> dict[str, Any]:
    """A form in its canonical shape. ConsentError `collection.form` names the member that is wrong."""
    if not isinstance(document, dict):
        raise ConsentError("collection.form", "a form is one JSON object with `id` and `offers`")
    strange = set(document) - {"id", "title", "offers", "recipients", "categories", *_OPTIONS}
    if strange:
        raise ConsentError("collection.form", f"unknown members: {', '.join(sorted(map(str, strange)))}")
    if not is_name(document.get("id")):
        raise ConsentError("collection.form", "id must be a name without blanks")
    offers = document.get("offers")
    if not isinstance(offers, list) or not 0 < len(offers) <= 50:
        raise ConsentError("collection.form", "offers must be a list of 1 to 50 objects")
    days = document.get("cooldown_days", COOLDOWN_DAYS)
    if not isinstance(days, int) or isinstance(days, bool) or not 0 <= days <= 3_650:
        raise ConsentError("collection.form", "cooldown_days must be 0 to 3650")
    titles = document.get("recipients", {})
    if not isinstance(titles, dict):
        raise ConsentError("collection.form", "recipients must be an object: name -> {title, contact}")
    recipients = {}
    for name, entry in titles.items():
        if not is_name(name) or not isinstance(entry, dict) or set(entry) - {"title", "contact"}:
            raise ConsentError("collection.form", f"recipients[{name!r}] may have title and contact")
        recipients[name] = {
            part: _texts(entry.get(part, {}), f"recipients[{name!r}].{part}") for part in entry
        }
    named = document.get("categories", {})
    if not isinstance(named, dict) or not all(is_name(name) for name in named):
        raise ConsentError("collection.form", "categories must be an object: name -> texts")
    return {
        "id": document["id"],
        "title": _texts(document.get("title", {}), "title"),
        "categories": {name: _texts(texts, f"categories[{name!r}]") for name, texts in named.items()},
        "offers": [_offer(number, offer) for number, offer in enumerate(offers)],
        "recipients": recipients,
        "cooldown_days": days,
        "preferences": _flag(document.get("preferences", True), "preferences"),
    }


def _offer(number: int, offer: Any) -> dict[str, Any]:
    where = f"offers[{number}]"
    if not isinstance(offer, dict):
        raise ConsentError("collection.form", f"{where} must be an object")
    strange = set(offer) - {"purpose", "recipient", "categories", "notice", "regulation", "gpc"}
    if strange:
        raise ConsentError("collection.form", f"{where} has unknown members: {', '.join(sorted(strange))}")
    categories = offer.get("categories", [])
    if not isinstance(categories, list) or not all(is_name(c) for c in categories):
        raise ConsentError("collection.form", f"{where}.categories must be a list of names")
    named = {
        "purpose": offer.get("purpose"),
        "recipient": offer.get("recipient"),
        "regulation": offer.get("regulation", "PIPL"),
    }
    for name, value in named.items():
        if not is_name(value):
            raise ConsentError("collection.form", f"{where}.{name} must name exactly one")
    notice = offer.get("notice", "")
    if notice != "" and not is_name(notice):
        raise ConsentError("collection.form", f"{where}.notice must name a notice")
    gpc = _flag(offer.get("gpc", True), f"{where}.gpc")
    return {**named, "categories": sorted(set(categories)), "notice": notice, "gpc": gpc}


def _texts(texts: Any, where: str) -> dict[str, str]:
    good = isinstance(texts, dict) and all(
        key in LANGUAGES and isinstance(text, str) and len(text) <= 2_000 for key, text in texts.items()
    )
    if not good:
        raise ConsentError("collection.form", f"{where} must be texts by language ({', '.join(LANGUAGES)})")
    return dict(texts)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConsentError("collection.form", f"{where} must be true or false")
    return value


def parse_site(document: Any) -> dict[str, Any]:
    """A site in its canonical shape, without its key. ConsentError `collection.site`."""
    if not isinstance(document, dict) or not is_name(document.get("id")) or not is_name(document.get("form")):
        raise ConsentError("collection.site", "a site is an object with the names `id` and `form`")
    strange = set(document) - {"id", "form", "origins", "channel", "per_minute", "active"}
    if strange:
        raise ConsentError("collection.site", f"unknown members: {', '.join(sorted(map(str, strange)))}")
    origins = document.get("origins")
    if (
        not isinstance(origins, list)
        or not 0 < len(origins) <= 100
        or not all(isinstance(o, str) and _ORIGIN.fullmatch(o) for o in origins)
    ):
        raise ConsentError(
            "collection.site", "origins must list what browsers send, for instance https://shop.example"
        )
    channel = document.get("channel", "web")
    if not is_name(channel):
        raise ConsentError("collection.site", "channel must be a name without blanks")
    limit = document.get("per_minute", 6_000)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 1_000_000:
        raise ConsentError("collection.site", "per_minute must be 1 to 1000000")
    active = document.get("active", True)
    if not isinstance(active, bool):
        raise ConsentError("collection.site", "active must be true or false")
    return {
        "id": document["id"],
        "form": document["form"],
        "origins": sorted(set(origins)),
        "channel": channel,
        "per_minute": limit,
        "active": active,
    }


def offers_of(
    form: dict[str, Any], registry: Registry, pick: dict[str, tuple[str, int]] | None = None
) -> list[Offer]:
    """The offers that can be made now: purpose on, notice there. `pick` names another notice by purpose."""
    found = []
    for number, offer in enumerate(form["offers"]):
        purpose = registry.current.get(offer["purpose"])
        if purpose is None or not purpose.active:
            continue
        notice = newest_notice(registry, purpose, offer["notice"], (pick or {}).get(purpose.id))
        if notice is None:
            continue
        about = form["recipients"].get(offer["recipient"], {})
        categories = tuple(c for c in offer["categories"] if c in purpose.categories) or purpose.categories
        if offer["categories"] and set(categories) != set(offer["categories"]):
            continue  # the form asks for a category that the purpose no longer has: it must be mended
        found.append(
            Offer(
                number,
                purpose,
                offer["recipient"],
                about.get("title", {}),
                about.get("contact", {}),
                categories,
                offer["regulation"],
                notice,
                offer["gpc"],
                form["categories"],
            )
        )
    return found


def newest_notice(
    registry: Registry, purpose: Purpose, named: str = "", pick: tuple[str, int] | None = None
) -> Notice | None:
    """The notice to show for a purpose's current version: the picked one, else the newest of that name."""
    if pick is not None and pick in registry.notices:
        chosen = registry.notices[pick]
        if (chosen.purpose, chosen.purpose_version) == (purpose.id, purpose.version):
            return chosen
    fitting = [
        n
        for n in registry.notices.values()
        if (n.purpose, n.purpose_version) == (purpose.id, purpose.version) and named in ("", n.id)
    ]
    return max(fitting, key=lambda n: n.version, default=None)


def in_language(texts: dict[str, str], language: str, default: str = "") -> tuple[str, str]:
    """(text, language that it is in): the wanted language, else the other, else any."""
    for one in (language, *LANGUAGES, *texts):
        if texts.get(one):
            return texts[one], one
    return default, language
