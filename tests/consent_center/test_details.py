"""Errors speak Chinese to whoever asks for it: every sentence of the code has its translation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from consent_helpers import Clock, make, phone

import consent_center
from consent_center import details
from consent_center.errors import CODES
from consent_center.rest.app import create_app

PACKAGE = Path(consent_center.__file__).parent
#: Sentences of the framework and of places where a detail is put together from parts.
FOREIGN = frozenset(
    text
    for text in details.catalog()
    if re.fullmatch(r"(Missing|Unknown|Field|Not|Invalid|Must|Length|Longer|Shorter|String)\b.*\.", text)
) | {
    *("Not Found", "Method Not Allowed", "Unsupported Media Type", "Request Entity Too Large"),
    *("Bad Request", "Validation error", "the body", "the center failed on this request; its log says why"),
}


def template(node: ast.expr) -> str | None:
    """A text or f-string as the catalog writes it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "{{").replace("}", "}}")
    if isinstance(node, ast.JoinedStr):
        parts = [(template(v) if isinstance(v, ast.Constant) else "{}") or "" for v in node.values]
        return "".join(parts)
    return None


def said(path: Path) -> Iterator[tuple[str, str]]:
    """(code, template) of every error that a file raises or notes; code empty where a variable names it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        arguments: list[ast.expr] = []
        if isinstance(node, ast.Tuple) and len(node.elts) == 2:
            arguments = node.elts
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name == "ConsentError" and len(node.args) > 1:
                if text := template(node.args[1]):
                    code = node.args[0]
                    yield (str(code.value) if isinstance(code, ast.Constant) else ""), text
                continue
            arguments = node.args
        for first, second in zip(arguments, arguments[1:], strict=False):
            if isinstance(first, ast.Constant) and first.value in CODES and (text := template(second)):
                yield str(first.value), text


@cache
def all_said() -> list[tuple[str, str, str]]:
    """(file, code, template) of the whole package; not at import, which every process of the suite does."""
    return [
        (path.relative_to(PACKAGE).as_posix(), *one)
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "errors.py"
        for one in said(path)
    ]


def test_every_sentence_of_every_code_is_translated() -> None:
    known = details.catalog()
    missing = [f"{where}: {code}: {text}" for where, code, text in all_said() if text not in known]
    assert not missing, "add these to translations/details/zh.po:\n" + "\n".join(missing)
    codes = {code for _, code, _ in all_said() if code}
    assert len(codes) > 115 and codes <= set(CODES)
    over = set(known) - {text for *_, text in all_said()} - FOREIGN
    assert not over, f"nothing says these any more: {over}"


def test_translations_are_chinese_and_fill_in_the_same() -> None:
    for english, chinese in details.catalog().items():
        holes = re.findall(r"\{(\d?)\}", chinese.replace("{{", "").replace("}}", ""))
        count = len(re.findall(r"\{\}", english))
        assert len(holes) == count, english
        assert all(hole == "" for hole in holes) or sorted(map(int, holes)) == list(range(count)), english
        words = re.sub(r"`[^`]*`|'[^']*'|\{\w*\}", "", english)
        if re.search(r"[a-z]{4,} [a-z]{2,}", words):
            assert re.search(r"[\u4e00-\u9fff]", chinese), chinese


def test_each_template_is_found_again() -> None:
    """A sentence made from a template is translated by that template, not by one that matches by chance."""
    for english, chinese in details.catalog().items():
        values = [f"v{i}" for i in range(english.replace("{{", "").count("{}"))]
        assert details.chinese(english.format(*values)) == chinese.format(*values), english


@pytest.mark.parametrize(
    ("detail", "chinese"),
    [
        ("purpose ads is switched off; only refusals are taken", "目的 ads 已停用；只接受拒绝与撤回"),
        ("{x} {0} %s", "{x} {0} %s"),
        ("line 3: id must be a name without blanks", "第 3 行：id 须为不含空格的名称"),
        ("", ""),
        ("no purpose 'a: b' is registered", "没有登记过目的 'a: b'"),
        ("x" * 5_000, "x" * 5_000),
    ],
)
def test_what_is_filled_in_stays(detail: str, chinese: str) -> None:
    assert details.chinese(detail) == chinese


def test_the_api_answers_in_the_language_of_the_client(tmp_path: Path) -> None:
    with make(tmp_path / "center", Clock()) as center:
        client = create_app(center, "t" * 43).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = "Bearer " + "t" * 43
        for accepts, words in (
            ("zh-CN,zh;q=0.9", ("没有使用该 phone 的人", "缺少必填字段。", "没有此资源")),
            ("en", ("no person with that phone is known here", "Missing data", "Not Found")),
        ):
            heard = {"Accept-Language": accepts}
            unknown = client.post(
                "/v1/people/explain", json={"kind": "phone", "value": phone(9)}, headers=heard
            )
            assert unknown.status_code == 404 and words[0] in unknown.get_json()["detail"], unknown.text
            assert unknown.get_json()["code"] == "subject.unknown"
            assert unknown.headers["Content-Language"] == accepts[:2]
            assert "Accept-Language" in unknown.headers["Vary"]
            short = client.post("/v1/people/explain", json={"kind": "phone"}, headers=heard)
            assert words[1] in short.get_json()["detail"]
            assert words[2] in client.get("/v1/nothing", headers=heard).get_json()["detail"]
