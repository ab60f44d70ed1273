"""Both languages are complete: every text in the code has its translation, and none is left over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from flask import Flask, render_template_string

import consent_center
from consent_center import i18n
from consent_center.errors import CODES

PACKAGE = Path(consent_center.__file__).parent
METHODS = [("**.py", "python"), ("**/templates/**.html", "jinja2.ext.babel_extract")]
KEYWORDS = {"gettext": None, "_": None, "lazy_gettext": None, "ngettext": (1, 2), "N_": None}


def used() -> Iterator[tuple[str, str | tuple[str, ...]]]:
    """(file:line, text) of every text that pages show; texts with plurals are tuples."""
    found = extract_from_dir(PACKAGE, METHODS, keywords=KEYWORDS)
    for name, line, message, *_ in found:
        yield f"{name}:{line}", message


def test_every_text_is_translated() -> None:
    chinese = i18n.catalog("zh")
    missing = []
    for where, message in used():
        entry = chinese.get(message if isinstance(message, str) else message[0])
        if entry is None or not entry.string or not all(entry.string) or entry.fuzzy:
            missing.append(f"{where}: {message!r}")
    assert not missing, "add these to a file in consent_center/translations/zh:\n" + "\n".join(missing)


def test_what_the_console_can_say_is_translated() -> None:
    """Titles of errors: any call of the center may fail behind a page."""
    chinese = i18n.catalog("zh")
    for code, title in CODES.items():
        assert chinese.get(title) is not None, f"translations/zh/errors.po lacks {code}: {title}"


def test_no_translation_is_left_over() -> None:
    texts = {message if isinstance(message, str) else message[0] for _, message in used()}
    texts |= set(CODES.values())
    known = [m.id if isinstance(m.id, str) else m.id[0] for m in i18n.catalog("zh") if m.id]
    over = [text for text in known if text not in texts]
    assert not over, "texts that no page shows any more"


def test_placeholders_and_language_agree() -> None:
    for message in i18n.catalog("zh"):
        if not message.id:
            continue
        pairs = [(message.id, message.string)]
        if not isinstance(message.id, str):
            pairs = [(message.id[1], text) for text in message.string]
        for source, text in pairs:
            wanted = sorted(re.findall(r"%\(\w+\)[sd]", source))
            assert sorted(re.findall(r"%\(\w+\)[sd]", text)) == wanted, source
            words = re.sub(r"%\(\w+\)[sd]", "", source)
            if re.search(r"[a-z]{4,} [a-z]{2,}", words):
                assert re.search(r"[\u4e00-\u9fff]", text), f"not Chinese: {text!r}"


def test_who_gets_which_language() -> None:
    app = Flask("pages")
    i18n.install(app)
    text = "no such resource"

    @app.get("/")
    def page() -> str:
        return i18n.language() + render_template_string("{{ _(t) }}", t=text)

    client = app.test_client()
    chinese = "zh" + i18n.catalog("zh").get(text).string
    assert client.get("/").text == f"en{text}"
    for header in ("zh-CN,zh;q=0.9,en;q=0.8", "zh", "zh-Hans-CN", "fr,zh;q=0.5"):
        assert client.get("/", headers={"Accept-Language": header}).text == chinese, header
    for header in ("en-GB", "fr", "*", "x" * 3_000, "zh;q=0", "en;q=0.9,zh;q=0.2"):
        assert client.get("/", headers={"Accept-Language": header}).text.startswith("en"), header
    switched = client.get("/?lang=zh")
    assert switched.text == chinese and "pec_lang=zh" in switched.headers["Set-Cookie"]
    assert "HttpOnly" in switched.headers["Set-Cookie"] and "SameSite=Lax" in switched.headers["Set-Cookie"]
    assert client.get("/", headers={"Accept-Language": "en"}).text == chinese, "the choice is remembered"
    for nonsense in ("fr", "../../x", "", "zh'"):
        assert "Set-Cookie" not in client.get("/", query_string={"lang": nonsense}).headers


def test_texts_of_the_registry() -> None:
    app = Flask("pages")
    i18n.install(app)
    both = {"zh": "广告", "en": "Advertising"}
    for lang, expected in (("zh", "广告"), ("en", "Advertising")):
        with app.test_request_context(f"/?lang={lang}"):
            assert i18n.localised(both) == expected
            assert i18n.localised({"fr": "Publicité"}) == "Publicité"
            assert i18n.localised({}) == ""
    assert i18n.localised(both) == "Advertising"


def test_two_files_must_not_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zh").mkdir()
    for name, text in (("a", "一"), ("b", "二")):
        (tmp_path / "zh" / f"{name}.po").write_text(f'msgid "one"\nmsgstr "{text}"\n', encoding="utf-8")
    monkeypatch.setattr(i18n, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"b\.po"):
        i18n.catalog("zh")
