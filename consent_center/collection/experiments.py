"""A/B of two notices: who sees which is decided by a keyed hash, so it is random, stable and nobody's
choice.
"""

from __future__ import annotations

import hmac
from typing import Any

import sqlalchemy as sa

from consent_center.collection import settings
from consent_center.collection.links import derive
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.registry import Registry, is_name

KIND = "experiment"


def parse(document: Any, registry: Registry) -> dict[str, Any]:
    """An experiment in its canonical shape: `id, purpose, a, b` ({notice, version}), `share` of b, `active`.

    ConsentError `collection.experiment`. Both notices must be of the purpose's current version, and of
    different ids: a newer version of one notice would outdate consent under the older.
    """
    if not isinstance(document, dict) or not is_name(document.get("id")):
        raise ConsentError(
            "collection.experiment", "an experiment is an object with `id`, `purpose`, `a`, `b`"
        )
    strange = set(document) - {"id", "purpose", "a", "b", "share", "active"}
    if strange:
        raise ConsentError(
            "collection.experiment", f"unknown members: {', '.join(sorted(map(str, strange)))}"
        )
    purpose = registry.current.get(str(document.get("purpose")))
    if purpose is None:
        raise ConsentError("collection.experiment", f"no purpose {document.get('purpose')!r} is registered")
    arms = {}
    for arm in ("a", "b"):
        given = document.get(arm)
        if not isinstance(given, dict) or set(given) != {"notice", "version"}:
            raise ConsentError("collection.experiment", f"{arm} must be {{notice, version}}")
        notice = registry.notices.get((str(given["notice"]), given["version"]))
        if notice is None or (notice.purpose, notice.purpose_version) != (purpose.id, purpose.version):
            raise ConsentError(
                "collection.experiment",
                f"{arm}: no notice {given['notice']!r} {given['version']} of {purpose.id} {purpose.version}",
            )
        arms[arm] = {"notice": notice.id, "version": notice.version}
    if arms["a"]["notice"] == arms["b"]["notice"]:
        raise ConsentError("collection.experiment", "a and b must be two notices with ids of their own")
    share, active = document.get("share", 0.5), document.get("active", True)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ConsentError("collection.experiment", "share (of b) must be between 0 and 1")
    if not isinstance(active, bool):
        raise ConsentError("collection.experiment", "active must be true or false")
    return {"id": document["id"], "purpose": purpose.id, **arms, "share": float(share), "active": active}


def arm_of(keys: Keys, experiment: dict[str, Any], unit: bytes) -> str:
    """ "a" or "b" for a unit (a visitor or a person), the same whenever it is asked."""
    digest = hmac.digest(derive(keys, "experiment/v1"), experiment["id"].encode() + b"\x00" + unit, "sha256")
    return "b" if int.from_bytes(digest[:8], "big") < experiment["share"] * 2**64 else "a"


def picks(connection: sa.Connection, keys: Keys, unit: bytes) -> dict[str, tuple[str, int]]:
    """The notice to show this unit, by purpose, of the experiments that run."""
    found: dict[str, tuple[str, int]] = {}
    for experiment in settings.everything(connection, KIND):
        if experiment["active"]:
            arm = experiment[arm_of(keys, experiment, unit)]
            found[experiment["purpose"]] = (arm["notice"], arm["version"])
    return found
