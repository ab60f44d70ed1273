"""What an error says in detail, in Chinese: the code's sentences as templates, each with its translation.

An error is raised with a finished English sentence, in which names and numbers have been filled in. Whoever
wants it in Chinese gets the translation of the template that it was made from, with the same names and
numbers: `translations/details/zh.po` has every template with `{}` for what is filled in, and the tests read
the code to see that none is missing. A sentence of no template (another library's) stays as it is.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from babel.messages.pofile import read_po

from consent_center.i18n import language

FILE = Path(__file__).parent / "translations" / "details" / "zh.po"
_HOLE = re.compile(r"\{\}")
_LONGEST = 4_000  # a longer detail quotes somebody's body
#: A template with fewer letters of its own would match anything that is quoted inside another.
_LEAST = 8


@cache
def catalog() -> dict[str, str]:
    """{English template: Chinese template}; `{}` or `{0}` is what is filled in, `{{` a brace."""
    with FILE.open("rb") as file:
        return {str(m.id): str(m.string) for m in read_po(file, locale="zh") if m.id}


@cache
def _patterns() -> list[tuple[re.Pattern[str], str, int]]:
    """(pattern, translation, letters of its own), the most particular first."""
    found = []
    for english, chinese in catalog().items():
        parts = [part.replace("{{", "{").replace("}}", "}") for part in _HOLE.split(english)]
        pattern = re.compile("(.*?)".join(map(re.escape, parts)), re.DOTALL)
        found.append((pattern, chinese, sum(map(len, parts))))
    # Of two that match, the one whose beginning is fixed says what the sentence is about.
    return sorted(found, key=lambda one: (one[0].pattern.startswith("(.*?)"), -one[2]))


def chinese(detail: str, inside: bool = False) -> str:
    """The sentence in Chinese, with what it quotes; unchanged if it is of no template."""
    if len(detail) > _LONGEST:
        return detail
    for pattern, template, letters in _patterns():
        if inside and letters < _LEAST:
            continue
        if found := pattern.fullmatch(detail):
            return template.format(*(chinese(text or "", inside=True) for text in found.groups()))
    return detail


def told(detail: str) -> str:
    """The detail of an error in the reader's language."""
    return chinese(detail) if language() == "zh" else detail
