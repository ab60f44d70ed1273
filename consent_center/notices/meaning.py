"""What changed between two versions of a notice: the words, and what they mean for a person.

The meaning of a notice is its purpose's entry in the registry: purpose, method, categories, recipients,
retention. Whatever there changes is a new version of the purpose, so consent under the older is outdated
(PIPL 14): a person agreed to something else.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

from consent_center.errors import ConsentError
from consent_center.model import Notice, Purpose

#: Aspect that people are told of -> the fields of Purpose that it consists of.
ASPECTS: dict[str, tuple[str, ...]] = {
    "purpose": ("title", "dpv", "legal_basis", "separate_consent", "needs_guardian"),
    "method": ("methods",),
    "category": ("categories", "sensitive"),
    "recipient": ("recipient_kinds", "recipients"),
    "retention": ("duration_days", "retention_days"),
}
#: Fields of a purpose that a draft may change.
CHANGEABLE = tuple(name for names in ASPECTS.values() for name in names)
_LISTS = ("methods", "categories", "sensitive", "recipient_kinds", "recipients")


def changed_purpose(purpose: Purpose, changes: dict[str, Any]) -> Purpose:
    """The purpose with a draft's changes. ConsentError `notice.draft` names the field that is wrong."""
    strange = set(changes) - set(CHANGEABLE)
    if strange:
        raise ConsentError("notice.draft", f"purpose: unknown fields {', '.join(sorted(map(str, strange)))}")
    ready: dict[str, Any] = {}
    for name, value in changes.items():
        if name in _LISTS:
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                raise ConsentError("notice.draft", f"purpose.{name} must be a list of names")
            ready[name] = tuple(value)
        elif name == "title":
            if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
                raise ConsentError("notice.draft", "purpose.title must be texts by language")
            ready[name] = dict(value)
        elif name in ("separate_consent", "needs_guardian"):
            if not isinstance(value, bool):
                raise ConsentError("notice.draft", f"purpose.{name} must be true or false")
            ready[name] = value
        elif name in ("duration_days", "retention_days"):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConsentError("notice.draft", f"purpose.{name} must be a number of days, or null")
            ready[name] = value
        else:
            if not isinstance(value, str):
                raise ConsentError("notice.draft", f"purpose.{name} must be a text")
            ready[name] = value
    return replace(purpose, **ready)


def compare_purposes(old: Purpose, new: Purpose) -> list[dict[str, Any]]:
    """One entry a field that differs: {aspect, field, old, new}, lists with what was added and removed."""
    found = []
    for aspect, names in ASPECTS.items():
        for name in names:
            before, after = getattr(old, name), getattr(new, name)
            same = sorted(before) == sorted(after) if name in _LISTS else before == after
            if same:
                continue
            entry: dict[str, Any] = {"aspect": aspect, "field": name, "old": before, "new": after}
            if name in _LISTS:
                entry |= {"old": list(before), "new": list(after)}
                entry["added"] = [value for value in after if value not in before]
                entry["removed"] = [value for value in before if value not in after]
            found.append(entry)
    return found


def compare_texts(old: dict[str, str], new: dict[str, str]) -> dict[str, list[str]]:
    """By language: a unified diff, by sentences where a paragraph is long. Languages that did not
    change are left out.
    """
    found = {}
    for language in sorted({*old, *new}):
        before, after = old.get(language, ""), new.get(language, "")
        if before != after:
            lines = difflib.unified_diff(
                _sentences(before), _sentences(after), "old", "new", lineterm="", n=1
            )
            found[language] = list(lines)[2:]
    return found


def _sentences(text: str) -> list[str]:
    """Lines, cut behind the ends of sentences, so that one changed word does not mark a whole paragraph."""
    cut = text
    for mark in ("。", "！", "？", "；"):
        cut = cut.replace(mark, mark + "\n")
    for mark in (". ", "! ", "? ", "; "):
        cut = cut.replace(mark, mark.strip() + "\n")
    return [line for line in cut.splitlines() if line.strip()]


def diff(old: Notice, old_purpose: Purpose, new: Notice, new_purpose: Purpose) -> dict[str, Any]:
    """{texts, meaning, aspects, material, outdates}: `outdates` says whether consent under `old` still
    stands.
    """
    meaning = compare_purposes(old_purpose, new_purpose)
    return {
        "old": {"notice": old.id, "version": old.version, "hash": old.hash},
        "new": {"notice": new.id, "version": new.version, "hash": new.hash},
        "texts": compare_texts(old.text, new.text),
        "meaning": meaning,
        "aspects": sorted({entry["aspect"] for entry in meaning}),
        "material": new.material,
        "outdates": bool(meaning) or new.purpose_version > old.purpose_version or new.material,
    }
