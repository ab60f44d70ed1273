"""The pages' two languages. Texts in the code are English; `translations/zh/*.po` has each in Chinese.

A catalog a part (`console.po`, `requests.po` …): they are read together when the program starts, so there is
nothing to compile. `tests/consent_center/test_i18n.py` fails for a text without its translation.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import flask_babel
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations
from flask import Flask, Response, request
from flask_babel import Babel, Domain, get_locale, lazy_gettext

__all__ = ["N_", "gettext", "install", "language", "lazy_gettext", "localised", "ngettext"]

#: Language -> its own name. English is the source.
LANGUAGES = {"zh": "中文", "en": "English"}
FOLDER = Path(__file__).parent / "translations"
PARAMETER, COOKIE = "lang", "pec_lang"
_YEAR = 365 * 86_400


def catalog(lang: str) -> Catalog:
    """All of a language's files as one. ValueError if two files translate a text differently."""
    merged = Catalog(locale=lang)
    for path in sorted((FOLDER / lang).glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale=lang):
                if not message.id:
                    continue
                known = merged.get(message.id, message.context)
                if known is not None and known.string != message.string:
                    raise ValueError(f"{path.name}: {message.id!r} is translated otherwise in another file")
                merged.add(message.id, message.string, flags=message.flags, context=message.context)
    return merged


@cache
def translations(lang: str) -> NullTranslations:
    """The catalog as gettext wants it."""
    if lang == "en":
        return Translations()
    compiled = io.BytesIO()
    write_mo(compiled, catalog(lang))
    compiled.seek(0)
    return Translations(compiled)


class _Texts(Domain):  # type: ignore[misc]
    """Catalogs from the `.po` files themselves, instead of compiled files beside them."""

    def get_translations(self) -> NullTranslations:
        return translations(language())


class _Babel(Babel):  # type: ignore[misc]
    domain_instance = _Texts()


def gettext(text: str, **values: object) -> str:
    """The text in the reader's language, with `%(name)s` filled in."""
    return str(flask_babel.gettext(text, **values))


def ngettext(one: str, many: str, num: int, **values: object) -> str:
    """The text for `num` things; `%(num)s` is filled in too."""
    return str(flask_babel.ngettext(one, many, num, **values))


def N_(text: str) -> str:
    """Marks a text that is translated later, by `gettext(variable)`."""
    return text


def language() -> str:
    """`zh` or `en`: of the running request, or English outside of one."""
    locale = get_locale()
    return "en" if locale is None else str(locale.language)


def localised(texts: Mapping[str, str]) -> str:
    """A registry's text ({"zh": …, "en": …}) in the reader's language, or in one that there is."""
    for lang in (language(), "en", "zh", *texts):
        if texts.get(lang):
            return texts[lang]
    return ""


def install(app: Flask, timezone: str = "Asia/Shanghai") -> None:
    """`_()` in templates, and the choice: `?lang=zh`, which is remembered, then the browser's languages."""
    _Babel(app, default_locale="en", default_timezone=timezone, locale_selector=_choose)
    app.after_request(_remember)


def _choose() -> str:
    for wish in (request.args.get(PARAMETER), request.cookies.get(COOKIE)):
        if wish in LANGUAGES:
            return str(wish)
    return request.accept_languages.best_match(["en", "zh"]) or "en"


def _remember(response: Response) -> Response:
    wish = request.args.get(PARAMETER)
    if wish in LANGUAGES and request.cookies.get(COOKIE) != wish:
        response.set_cookie(
            COOKIE, wish, max_age=_YEAR, httponly=True, samesite="Lax", secure=request.is_secure
        )
    return response
