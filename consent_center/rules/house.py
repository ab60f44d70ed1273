"""Evaluation of the rules: they choose and combine bitmaps, and are called once a decision, never once a
person.

    blocked = ⋃ deny   ∪   (everybody ∖ ⋃ allow), the latter where any allow rule speaks of the purpose
    and recipient

Limits are judged where the decision is written, alone in the writer's turn: of two requests for the last
place one gets it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa
from pyroaring import BitMap

from consent_center.model import DecisionRequest
from consent_center.rules.document import WINDOWS, DeclaredRule, RuleSet
from consent_center.rules.regions import RegionIndex
from consent_center.rules.tables import rule_uses


@dataclass(frozen=True)
class House:
    """A `decide.Rule` made of a rule file, for one moment of the center. `everybody` is all ordinals."""

    rules: RuleSet
    version: int
    regions: RegionIndex = field(repr=False)
    everybody: BitMap = field(repr=False)

    @property
    def name(self) -> str:
        """Goes into the snapshot's rules_hash, and with it the whole file."""
        return f"house:{self.rules.sha256}"

    def blocked(self, request: DecisionRequest, as_of: int) -> BitMap:
        """Ordinals that the rules refuse."""
        blocked, permitted, bounded = BitMap(), BitMap(), False
        for rule in self.rules.rules:
            if not rule.scope(request):
                continue
            if rule.effect == "deny" and rule.touches(request) and rule.applies_at(as_of):
                blocked |= self._people(rule)
            elif rule.effect == "allow":
                bounded = True
                if rule.covers(request) and rule.applies_at(as_of):
                    permitted |= self._people(rule)
        return blocked | (self.everybody - permitted) if bounded else blocked

    def _people(self, rule: DeclaredRule) -> BitMap:
        if not rule.regions:
            return self.everybody
        found = self.regions.members(rule.regions)
        return found | (self.everybody - self.regions.known) if rule.unknown_region else found


def exceeded(
    connection: sa.Connection, rules: RuleSet, request: DecisionRequest, kind: str, people: int, now: int
) -> str:
    """The limit that one more decision or snapshot of `people` would exceed, in words; empty if none.

    Windows are rolling and end now. `jobs` counts snapshots, `decisions` both, `people` the eligible rows
    of both.
    """
    for rule in rules.rules:
        if rule.effect != "limit" or not rule.scope(request) or not rule.touches(request):
            continue
        if not rule.applies_at(now):
            continue
        for name, bound in (("jobs", rule.jobs), ("decisions", rule.decisions), ("people", rule.people)):
            if bound is None or (name == "jobs" and kind != "snapshot"):
                continue
            used = _used(connection, rule, request.recipient, name, now - WINDOWS[rule.per])
            if used + (people if name == "people" else 1) > bound:
                told = f"rule {rule.id}: at most {bound} {name} a {rule.per} for {request.recipient}"
                return f"{told}, {used} used"
    return ""


def _used(connection: sa.Connection, rule: DeclaredRule, recipient: str, name: str, since: int) -> int:
    table = rule_uses
    what = sa.func.coalesce(sa.func.sum(table.c.people), 0) if name == "people" else sa.func.count()
    # Of each recipient by itself: what one used does not take from another.
    query = sa.select(what).where(table.c.at > since, table.c.recipient == recipient)
    if rule.purposes:
        query = query.where(table.c.purpose.in_(rule.purposes))
    if name == "jobs":
        query = query.where(table.c.kind == "snapshot")
    return int(connection.execute(query).scalar_one())


def note_use(
    connection: sa.Connection, leaf: int, now: int, kind: str, request: DecisionRequest, people: int
) -> None:
    """Count a decision or snapshot, by the leaf that it has in the ledger."""
    connection.execute(
        rule_uses.insert().values(
            leaf=leaf, at=now, kind=kind, purpose=request.purpose, recipient=request.recipient, people=people
        )
    )


def has_limits(rules: RuleSet) -> bool:
    return any(rule.effect == "limit" for rule in rules.rules)
