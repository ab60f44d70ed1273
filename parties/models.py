"""The node's models: every succeeded job that learned one, its version, aliases, expiry and training consent.

A model is the files of its job (`jobs/<id>`), which never change: the audit bundle has their hashes. What may
change, its expiry, whether it is retired, which alias points to it, stands beside them in `models/`: one JSON
file a model, named by its job, and `aliases.json`. Every change is made under a lock and written whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parties import documents
from parties.errors import NodeError
from parties.private_files import write_json

if TYPE_CHECKING:
    from parties.home import Home

#: Kinds whose jobs leave a model.
KINDS = ("lookalike", "boost", "joint-lr", "lead-score")

#: Share of the training snapshot's people who must still be in; below it a model is flagged.
STANDING = 0.9

CARD = "model_card.json"


@dataclass(frozen=True)
class Model:
    """One version of a model as this organisation keeps it; `name` is kind and peer, `version` counts from 1.

    `snapshot` is the consent center's snapshot of the training job, `people` how many it let in. Times are
    RFC 3339 in UTC. `standing_below`: flagged when fewer than this share of those people are still in.
    """

    name: str
    version: int
    job_id: str
    kind: str
    method: str
    role: str
    peer: str
    agreement: str
    purpose: str
    snapshot: str
    people: int
    created_at: str
    expires_at: str
    retired_at: str = ""
    note: str = ""
    standing_below: float = STANDING
    aliases: tuple[str, ...] = field(default=(), compare=False)

    def to_document(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "aliases"}

    def state(self, at: datetime) -> str:
        """active, expired or retired."""
        if self.retired_at:
            return "retired"
        return "expired" if documents.moment(self.expires_at) <= at else "active"


class Models:
    """The registry of one node's home. Reading it registers the jobs that have ended since."""

    def __init__(self, home: Home, center: Any = None) -> None:
        self._home, self._center = home, center
        self._folder = home.path / "models"

    # -- reading ---------------------------------------------------------------------------------------------

    def all(self) -> list[Model]:
        """Every model, by name, the newest version first."""
        with self._locked():
            return sorted(self._all(), key=lambda m: (m.name, -m.version))

    def find(self, reference: str) -> Model:
        """By job id, alias, `name@version`, or name (the newest version not retired); `model.unknown`."""
        known = self.all()
        for model in known:
            named = (model.job_id, f"{model.name}@{model.version}", *model.aliases)
            if reference in named or (reference == model.name and not model.retired_at):
                return model
        raise NodeError(
            "model.unknown",
            f"{self._home.party!r} has no model {reference[:80]!r}",
            "pec model list names those that there are",
            share=True,
        )

    def usable(self, job_id: str, peer: str, agreement: str, method: str, at: datetime) -> Model:
        """The model that this job made, if it may score now: `model.*` says why not.

        The same check on both sides, so that neither's operator can go around the other's.
        """
        model = self.find(job_id)
        if model.job_id != job_id:
            raise NodeError("model.unknown", "a job names its model by the training job's id", share=True)
        if (model.peer, model.agreement) != (peer, agreement):
            raise NodeError(
                "model.agreement",
                f"model {job_id} was made under another agreement or with another partner",
                "train one under this agreement",
                share=True,
            )
        if model.method != method:
            raise NodeError("job.spec", f"model {job_id} is one of {model.method}, not {method}", share=True)
        state = model.state(at)
        if state == "active":
            return model
        since = model.retired_at if state == "retired" else model.expires_at
        raise NodeError(
            f"model.{state}", f"model {job_id} is {state} since {since}", "train a new one", share=True
        )

    def folder(self, model: Model) -> Path:
        return self._home.job(model.job_id)

    def document(self, model: Model, part: str = "") -> dict[str, Any]:
        """`model.json` of the model, or of one of its parts (speed, value)."""
        path = self.folder(model) / part / "model.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NodeError("model.unreadable", f"{path}: {error}", "restore it from a backup") from error
        return found

    def standing(self, model: Model, center: Any = None) -> dict[str, Any]:
        """What has become of the training consent: people then, still in, their share, whether it is too few.

        The center answers by the training snapshot; a purpose switched off leaves nobody.
        """
        delta = (center or self._center).delta(model.snapshot)
        left = max(0, model.people - len(delta.withdrawn)) if delta.active else 0
        share = left / model.people if model.people else 0.0
        return {
            "people": model.people,
            "still_in": left,
            "share": share,
            "declared": model.standing_below,
            "flagged": share < model.standing_below,
        }

    # -- changing --------------------------------------------------------------------------------------------

    def alias(self, reference: str, alias: str) -> Model:
        """Let `alias` point to a model, and to no other; a retired one can't have any (`model.retired`)."""
        documents.check_name(alias, "alias")
        model = self.find(reference)
        known = self.all()
        if alias in {m.job_id for m in known} | {m.name for m in known}:
            raise NodeError("model.alias", f"{alias!r} is the name of a model", "choose another alias")
        if model.retired_at:
            raise NodeError("model.retired", f"model {model.job_id} is retired since {model.retired_at}")
        with self._locked():
            write_json(self._folder / "aliases.json", {**self._aliases(), alias: model.job_id})
        return self.find(alias)

    def expire(self, reference: str, at: str) -> Model:
        """Set when a model ends (RFC 3339, UTC); not later than the agreement that it was made under."""
        end = documents.moment(at, "the time")
        model = self.find(reference)
        limit = self._home.agreement(model.agreement).expires_at
        if end > documents.moment(limit):
            raise NodeError(
                "model.agreement",
                f"agreement {model.agreement} ends at {limit}, and its models with it",
                "give an earlier time",
            )
        return self._change(model, expires_at=documents.timestamp(end))

    def declare(self, reference: str, standing_below: float) -> Model:
        """Set the share of training people below which the model is flagged."""
        if not 0 <= standing_below <= 1:
            raise NodeError("model.share", f"{standing_below} is no share", "give a number from 0 to 1")
        return self._change(self.find(reference), standing_below=standing_below)

    def retire(self, reference: str, note: str = "") -> Model:
        """End a model for good, and take its aliases away; its job's files stay."""
        model = self.find(reference)
        if model.retired_at:
            raise NodeError("model.retired", f"model {model.job_id} is retired since {model.retired_at}")
        with self._locked():
            kept = {alias: job for alias, job in self._aliases().items() if job != model.job_id}
            write_json(self._folder / "aliases.json", kept)
        return self._change(model, retired_at=documents.timestamp(documents.now()), note=note)

    # -- files -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _all(self) -> list[Model]:
        aliases = self._aliases()
        found = {}
        for path in sorted(self._folder.glob("*.model.json")):
            found[path.name.removesuffix(".model.json")] = _read(path)
        versions: dict[str, int] = {}
        for entry in found.values():
            versions[entry["name"]] = max(versions.get(entry["name"], 0), int(entry["version"]))
        new = []
        for path in self._home.path.glob("jobs/*/job.json"):
            if path.parent.name not in found and _learned(path.parent):
                new.append(_entry(_read(path)))
        for entry in sorted(new, key=lambda e: (e["created_at"], e["job_id"])):
            versions[entry["name"]] = entry["version"] = versions.get(entry["name"], 0) + 1
            write_json(self._folder / f"{entry['job_id']}.model.json", entry)
            found[entry["job_id"]] = entry
        ended = {ending.agreement_id: ending.ended_at for ending in self._home.endings.all()}
        for id_, entry in found.items():  # a model ends with its agreement
            end = min(entry["expires_at"], ended.get(entry["agreement"], entry["expires_at"]))
            found[id_] = {**entry, "expires_at": end}
        return [
            Model(**entry, aliases=tuple(sorted(a for a, job in aliases.items() if job == id_)))
            for id_, entry in found.items()
        ]

    def _aliases(self) -> dict[str, str]:
        path = self._folder / "aliases.json"
        return _read(path) if path.exists() else {}

    def _change(self, model: Model, **changes: Any) -> Model:
        with self._locked():
            path = self._folder / f"{model.job_id}.model.json"
            stored = Model(**_read(path))
            write_json(path, replace(stored, **changes).to_document())
        return self.find(model.job_id)


def _learned(folder: Path) -> bool:
    return (folder / "model.json").exists() or (folder / CARD).exists()


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NodeError("model.unreadable", f"{path}: {error}", "restore it from a backup") from error
    return found


def _entry(record: Mapping[str, Any]) -> dict[str, Any]:
    spec, agreement, party = record["spec"]["document"], record["agreement"]["document"], record["party"]
    kind = str(spec["kind"])
    return Model(
        name=f"{kind}.{record['peer']}",
        version=0,
        job_id=str(record["job_id"]),
        kind=kind,
        method=str(spec["params"].get("method", "boost")) if kind == "lead-score" else kind,
        role=str(record["role"]),
        peer=str(record["peer"]),
        agreement=str(agreement["id"]),
        purpose=str(spec["purpose"]),
        snapshot=str(record["snapshots"][party]["document"]["id"]),
        people=int(record["counts"]["in"]) + int(record["counts"]["out"].get("withdrawn_midway", 0)),
        created_at=str(record["closing"][party]["document"]["closed_at"]),
        expires_at=str(agreement["expires_at"]),
    ).to_document()
