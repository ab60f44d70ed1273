"""Check, try out and put in force a rule file; say where people are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pyroaring import BitMap

from consent_center import decide as deciding
from consent_center import subjects
from consent_center.collection import settings
from consent_center.errors import ConsentError
from consent_center.model import REASONS, DecisionRequest
from consent_center.preferences import store as preference_store
from consent_center.room import Room
from consent_center.rules import regions
from consent_center.rules.document import RuleSet, parse
from consent_center.rules.house import House
from consent_center.state import State, ordinals_of

KIND, ID = "rules", "house"
_MAX_QUESTIONS, _MAX_SAMPLE = 1_000, 1_000


def in_force(connection: sa.Connection) -> tuple[int, str] | None:
    """(leaf, text) of the rules in force, or None."""
    held = settings.get(connection, KIND, ID)
    return None if held is None or not held["text"] else (int(held["leaf"]), str(held["text"]))


@dataclass(frozen=True)
class Rules:
    """One center's rules of the house. `index` are the regions in memory, under the center's lock."""

    room: Room
    index: regions.RegionIndex
    built_in: Sequence[deciding.Rule]

    def check(self, text: str) -> dict[str, Any]:
        """Whether a file can be put in force: its rules, and names that nothing here has. `rules.file`."""
        rules = parse(text)
        with self.room.read() as connection:
            known = self.room.registry(connection)
        warnings = []
        for rule in rules.rules:
            for name in rule.purposes:
                if name not in known.current:
                    warnings.append(f"rule {rule.id}: no purpose {name!r} is registered")
            categories = {c for p in known.current.values() for c in p.categories}
            warnings += [
                f"rule {rule.id}: no purpose has the category {name!r}"
                for name in rule.categories
                if name not in categories
            ]
        return {"sha256": rules.sha256, "rules": [_shown(rule) for rule in rules.rules], "warnings": warnings}

    def show(self) -> dict[str, Any]:
        """The rules in force: {text, sha256, version, leaf, rules, regions}."""
        with self.room.read() as connection:
            held = settings.get(connection, KIND, ID)
            by_region = regions.counts(connection)
        text = str(held["text"]) if held else ""
        rules = parse(text) if text else RuleSet((), "")
        return {
            "text": text,
            "sha256": rules.sha256 if text else "",
            "version": int(held["version"]) if held else 0,
            "leaf": int(held["leaf"]) if held else None,
            "rules": [_shown(rule) for rule in rules.rules],
            "regions": by_region,
        }

    def apply(self, text: str, actor: str = "", base: str = "") -> dict[str, Any]:
        """Put a file in force (an empty one: no rules). `base`: SHA-256 of the rules that the dry run
        compared with.

        `rules.file`; `rules.changed` if other rules are in force meanwhile.
        """
        rules = parse(text) if text.strip() else RuleSet((), "")
        with self.room.write() as connection:
            held = in_force(connection)
            now = parse(held[1]).sha256 if held else ""
            if base and base != (now or "none"):
                raise ConsentError(
                    "rules.changed", "other rules are in force since that dry run; try it again"
                )
            done = settings.put(connection, KIND, ID, {"id": ID, "text": rules.text}, actor)
        return {
            "version": done["version"],
            "leaf": done["leaf"],
            "sha256": rules.sha256 if rules.text else "",
        }

    def dry_run(self, text: str, sample: int = 20, as_of: int | None = None) -> dict[str, Any]:
        """Who would change: per purpose, recipient and category the counts by reason before and after,
        and a sample.

        {"base", "people_blocked", "people_freed", "changes": [{purpose, recipient, category, before,
        after, blocked, freed, sample}]}; `base` is for `apply`, "none" for no rules; `sample` are
        ordinals, for officers. Limits change nobody by themselves and are not in it.
        """
        proposed = parse(text) if text.strip() else RuleSet((), "")
        if not 0 <= sample <= _MAX_SAMPLE:
            raise ConsentError("request.invalid", f"sample is 0 to {_MAX_SAMPLE}")
        with self.room.state() as (connection, state):
            at = self.room.now() if as_of is None else as_of
            self.index.catch_up(connection, self.room.keys)
            everybody = regions.universe(subjects.count(connection))
            held = in_force(connection)
            current = [House(parse(held[1]), held[0], self.index, everybody)] if held else []
            future = [House(proposed, 0, self.index, everybody)] if proposed.text else []
            changes, blocked, freed = [], BitMap(), BitMap()
            for request in self._questions(state):
                old = self._judge(state, request, everybody, at, current)
                new = self._judge(state, request, everybody, at, future)
                out, back = old["eligible"] - new["eligible"], new["eligible"] - old["eligible"]
                if not out and not back:
                    continue
                blocked |= out
                freed |= back
                changes.append(
                    {
                        "purpose": request.purpose,
                        "recipient": request.recipient,
                        "category": request.categories[0],
                        "before": _counts(old),
                        "after": _counts(new),
                        "blocked": len(out),
                        "freed": len(back),
                        "sample": ordinals_of(out | back)[:sample].tolist(),
                    }
                )
            base = current[0].rules.sha256 if current else "none"
        return {
            "base": base,
            "sha256": proposed.sha256 if proposed.text else "",
            "people_blocked": len(blocked),
            "people_freed": len(freed),
            "changes": changes,
        }

    def _questions(self, state: State) -> list[DecisionRequest]:
        """One question a purpose, recipient and category that anybody ever answered."""
        known = state.registry
        pairs = sorted(
            {
                (context.purpose, context.recipient)
                for context in state.contexts.values()
                if context.controller == self.room.controller
            }
        )
        found = [
            DecisionRequest(purpose, recipient, (category,))
            for purpose, recipient in pairs
            if known is not None and purpose in known.current
            for category in known.current[purpose].categories
        ]
        if len(found) > _MAX_QUESTIONS:
            raise ConsentError(
                "rules.file", f"over {_MAX_QUESTIONS} purposes, recipients and categories to try"
            )
        return found

    def _judge(
        self, state: State, request: DecisionRequest, people: BitMap, at: int, house: Sequence[House]
    ) -> dict[str, BitMap]:
        rules = (*self.built_in, *house)
        found, left = {}, people.copy()
        for code, who in deciding.classify(state, self.room.controller, request, people, at, rules):
            found[REASONS[code]] = who
            left -= who
        found["eligible"] = left
        return found

    # ---- regions -------------------------------------------------------------------------------------------

    def set_regions(self, people: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
        """Say where known people are: (kind, value, code) each. {set, unknown}. `rules.region`,
        `identifier.kind`.
        """
        if not 0 < len(people) <= 100_000:
            raise ConsentError("request.invalid", "give 1 to 100000 people")
        with self.room.write() as connection:
            found, _ = preference_store.ordinals_of(
                connection, self.room.keys, [(kind, value) for kind, value, _ in people]
            )
            placed = {
                int(ordinal): code
                for ordinal, (_, _, code) in zip(found.tolist(), people, strict=True)
                if ordinal >= 0
            }
            for _, _, code in people:
                if not regions.CODE.fullmatch(code):
                    raise ConsentError("rules.region", f"{code!r} is no region code like CN or CN-31")
            if placed:
                regions.put(connection, self.room.keys, list(placed), list(placed.values()))
        return {"set": len(placed), "unknown": int((found < 0).sum())}


def _counts(parts: dict[str, BitMap]) -> dict[str, Any]:
    out = {name: len(who) for name, who in parts.items() if name != "eligible" and who}
    return {"in": len(parts["eligible"]), "out": out}


def _shown(rule: Any) -> dict[str, Any]:
    told = {name: value for name, value in vars(rule).items() if value not in (None, "", ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}
