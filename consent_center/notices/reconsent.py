"""Who agreed to what no longer stands, and so must be asked again. Bitmaps only; nobody is looked at
singly.
"""

from __future__ import annotations

from typing import Any

from pyroaring import BitMap

from consent_center.collection.asking import is_outdated
from consent_center.model import GRANTS
from consent_center.registry import Registry
from consent_center.state import State, ordinals_of


def outdated(
    state: State, registry: Registry, controller: str, purpose: str, now: int
) -> list[dict[str, Any]]:
    """One entry a recipient, regulation and version agreed to: {…, people: BitMap}. Ended consent is
    not in it.
    """
    found = []
    for context in state.contexts.values():
        if (context.controller, context.purpose) != (controller, purpose):
            continue
        for number, members in context.members.items():
            descriptor = state.descriptors[number]
            if descriptor["action"] not in GRANTS or not is_outdated(registry, descriptor):
                continue
            people = members - state.erased
            people -= context.ends.ended(now, people)
            if people:
                found.append(
                    {
                        "recipient": context.recipient,
                        "regulation": context.regulation,
                        "purpose_version": descriptor["purpose_version"],
                        "notice": descriptor["notice"],
                        "notice_version": descriptor["notice_version"],
                        "people": people,
                    }
                )
    return found


def summary(entries: list[dict[str, Any]], start: int = 0, limit: int = 0) -> dict[str, Any]:
    """Counts, and `limit` ordinals from `start` on: row numbers of people, which mean nothing outside
    of the center.
    """
    everybody = BitMap()
    for entry in entries:
        everybody |= entry["people"]
    ordinals = ordinals_of(everybody)
    listed = ordinals[ordinals >= start][:limit].tolist()
    groups = [{**{k: v for k, v in e.items() if k != "people"}, "count": len(e["people"])} for e in entries]
    groups.sort(key=lambda g: (g["recipient"], g["regulation"], g["purpose_version"], g["notice_version"]))
    return {
        "people": len(everybody),
        "groups": groups,
        "ordinals": listed,
        "next": listed[-1] + 1 if limit and len(listed) == limit else None,
    }
