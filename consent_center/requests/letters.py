"""Letters to the person, in Chinese and English: one autoescaped template, all words in one table."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from consent_center.errors import ConsentError
from consent_center.requests.model import GROUNDS, KINDS, LANGUAGES, LETTERS, Request

KIND_NAMES: dict[str, tuple[str, str]] = {
    "access": ("查阅", "access"),
    "copy": ("复制", "a copy"),
    "portability": ("转移", "portability"),
    "correction": ("更正、补充", "correction"),
    "deletion": ("删除", "deletion"),
    "restriction": ("限制处理", "restriction"),
    "explanation": ("解释说明", "an explanation"),
}
GROUND_NAMES: dict[str, tuple[str, str]] = {
    "identity_not_proven": ("未能核实您的身份", "your identity could not be proven"),
    "nothing_held": ("我们没有保存与您有关的信息", "we hold nothing about you"),
    "manifestly_unfounded": ("请求明显没有依据", "the request is manifestly unfounded"),
    "excessive": ("请求过于频繁或过度", "the request is excessive"),
    "legal_obligation": (
        "法律、行政法规规定的保存期限未届满",
        "a legal obligation requires us to keep the data",
    ),
    "legal_claims": ("数据为主张或应对法律请求所必需", "the data is needed for legal claims"),
    "rights_of_others": ("会损害他人的权益", "the rights of others would be affected"),
    "secrecy_by_law": ("法律、行政法规规定应当保密或者不需要告知", "the law requires secrecy"),
    "not_accurate": ("经核实，原有信息准确", "the data was checked and is accurate"),
    "not_feasible": (
        "技术上难以实现；我们将停止除存储和必要安全保护之外的处理",
        "it is technically not feasible; apart from storage and protection we stop using the data",
    ),
}
OUTCOME_NAMES: dict[str, tuple[str, str]] = {
    "granted": ("同意您的请求", "We grant your request."),
    "partly": ("部分同意您的请求", "We grant your request in part."),
    "refused": ("不能同意您的请求", "We can't grant your request."),
}
TITLES: dict[str, tuple[str, str]] = {
    "acknowledgement": ("收到您的个人信息请求", "We have received your request"),
    "identity": ("请证明您的身份", "Please show who you are"),
    "extension": ("延长答复期限", "We need more time"),
    "pause": ("请补充信息", "We need information from you"),
    "decision": ("对您的请求的答复", "Our answer to your request"),
}


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # most centers are opened for no letter

    return Environment(
        loader=PackageLoader("consent_center.requests"), autoescape=True, undefined=StrictUndefined
    )


def render(letter: str, language: str, request: Request, controller: str, day: str, text: str) -> str:
    """The letter as an HTML page. `text` is what staff adds; it is shown as text, whatever it contains."""
    if letter not in LETTERS:
        raise ConsentError("rights.request", f"letter {letter!r} is none of {', '.join(LETTERS)}")
    if language not in LANGUAGES:
        raise ConsentError("rights.request", f"language {language!r} is none of {', '.join(LANGUAGES)}")
    at = LANGUAGES.index(language)
    page: str = (
        _environment()
        .get_template("letter.html")
        .render(
            letter=letter,
            language=language,
            zh=language == "zh",
            title=TITLES[letter][at],
            kind=KIND_NAMES[request.kind][at],
            articles=KINDS[request.kind],
            outcome=OUTCOME_NAMES[request.outcome][at] if request.outcome else "",
            grounds=[(GROUND_NAMES[name][at], GROUNDS[name]) for name in request.grounds],
            request=request,
            controller=controller,
            day=day,
            text=text,
        )
    )
    return page


def digest(page: str) -> str:
    """SHA-256 (hex) of a letter, which the ledger keeps."""
    return hashlib.sha256(page.encode()).hexdigest()


def names(language: str) -> dict[str, dict[str, Any]]:
    """The words for kinds, grounds and outcomes in one language, for pages."""
    at = LANGUAGES.index(language)
    tables = {"kinds": KIND_NAMES, "grounds": GROUND_NAMES, "outcomes": OUTCOME_NAMES}
    return {what: {name: words[at] for name, words in table.items()} for what, table in tables.items()}
