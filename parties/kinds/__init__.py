"""Job kinds by name. A kind is a list of stages with what each role does in them; see `parties.stage`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping

from parties.stage import JobKind


class Kinds(MutableMapping[str, JobKind]):
    """Kinds by name; `modules`: where each one is. A kind is imported when it is first asked for."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._entries: dict[str, JobKind | str] = dict(modules)

    def __getitem__(self, name: str) -> JobKind:
        found = self._entries[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            kind: JobKind = getattr(importlib.import_module(f"parties.kinds.{module}"), attribute)
            found = self._entries[name] = kind
        return found

    def __setitem__(self, name: str, kind: JobKind) -> None:
        self._entries[name] = kind

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


KINDS: MutableMapping[str, JobKind] = Kinds(
    {
        "overlap": "overlap:OVERLAP",
        "retarget": "retarget:RETARGET",
        "lookalike": "lookalike:LOOKALIKE",
        "enrich": "enrich:ENRICH",
        "feature-report": "feature_report:FEATURE_REPORT",
        "boost": "boost:BOOST",
        "joint-lr": "joint_lr:JOINT_LR",
        "lead-score": "lead_score:LEAD_SCORE",
        "score": "score:SCORE",
    }
)

__all__ = ["KINDS", "Kinds"]
