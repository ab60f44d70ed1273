"""Where people are: a country (`CN`) or a part of one (`CN-31`), one code a person, as bitmaps.

A row carries a tag (16 bytes of HMAC under the data key over person and code): a region that somebody
changed in the database is not believed, and a decision that would need it fails.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa
from pyroaring import BitMap

from consent_center import database as db
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.model import Finding
from consent_center.rules.document import GROUPS
from consent_center.rules.tables import regions

CODE = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
_TAG = 16


def tag(keys: Keys, ordinal: int, region: str) -> bytes:
    """What ties a region to its person."""
    secret = hmac.digest(keys.data, b"pec/consent/region/v1", "sha256")
    return hmac.digest(secret, ordinal.to_bytes(8, "big") + region.encode(), "sha256")[:_TAG]


def put(connection: sa.Connection, keys: Keys, ordinals: list[int], codes: list[str]) -> None:
    """Set the regions of people (each once). ConsentError `rules.region`."""
    for code in codes:
        if not CODE.fullmatch(code):
            raise ConsentError("rules.region", f"{code!r} is no region code like CN or CN-31 (ISO 3166)")
    newest = int(connection.execute(sa.select(sa.func.max(regions.c.id))).scalar_one() or 0)
    # Rows may have been deleted by an erasure: ids are never used again.
    start = max(newest, int(db.get_meta(connection, "regions") or "0")) + 1
    for part in db.chunks(ordinals):
        connection.execute(regions.delete().where(regions.c.ordinal.in_(part)))
    rows = [
        (start + i, ordinal, code, tag(keys, ordinal, code))
        for i, (ordinal, code) in enumerate(zip(ordinals, codes, strict=True))
    ]
    db.insert_many(connection, regions, rows)
    db.set_meta(connection, "regions", str(start + len(rows) - 1))


@dataclass
class RegionIndex:
    """The regions in memory, kept up by following ids. Use under the center's lock."""

    last: int = 0
    people: dict[str, BitMap] = field(default_factory=dict)
    known: BitMap = field(default_factory=BitMap)

    def catch_up(self, connection: sa.Connection, keys: Keys) -> None:
        """ConsentError `ledger.corrupt` if a row was changed by hand."""
        newest = int(db.get_meta(connection, "regions") or "0")
        if newest == self.last:
            return
        if newest < self.last:  # the database was put back from a backup
            self.reset()
        query = sa.select(regions).where(regions.c.id > self.last).order_by(regions.c.id)
        for row in connection.execute(query):
            if not hmac.compare_digest(tag(keys, int(row.ordinal), row.region), row.tag):
                raise ConsentError("ledger.corrupt", f"region row {row.id} was changed; run fsck")
            if row.ordinal in self.known:
                for members in self.people.values():
                    members.discard(int(row.ordinal))
            self.people.setdefault(row.region, BitMap()).add(int(row.ordinal))
            self.known.add(int(row.ordinal))
        self.last = newest

    def reset(self) -> None:
        """Forget everything; the next `catch_up` reads it anew."""
        self.last, self.people, self.known = 0, {}, BitMap()

    def members(self, codes: tuple[str, ...]) -> BitMap:
        """Everybody in one of those regions; `CN` includes `CN-31`, `EU` its member states."""
        wanted = {one for code in codes for one in GROUPS.get(code, (code,))}
        hit = [who for code, who in self.people.items() if code in wanted or code.partition("-")[0] in wanted]
        return BitMap.union(*hit) if hit else BitMap()


def fsck(connection: sa.Connection, keys: Keys) -> Finding | None:
    """Whether every region fits its person."""
    for row in connection.execute(sa.select(regions).order_by(regions.c.id)):
        if not hmac.compare_digest(tag(keys, int(row.ordinal), row.region), row.tag):
            return Finding("changed", f"regions {row.id}", "it is not the region that was recorded")
    return None


def counts(connection: sa.Connection) -> dict[str, int]:
    """People by region."""
    query = sa.select(regions.c.region, sa.func.count()).group_by(regions.c.region).order_by(regions.c.region)
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def universe(count: int) -> BitMap:
    """All ordinals below `count`."""
    everybody = BitMap()
    if count:
        everybody.add_range(0, int(np.int64(count)))
    return everybody
