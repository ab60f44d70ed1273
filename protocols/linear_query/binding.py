"""Binds a run to its session, to the public sizes and to the plan made of them."""

from __future__ import annotations

import hashlib
from dataclasses import astuple

from protocols.labels import label
from protocols.linear_query.parameters import Plan


def digest(agreed: Plan, session: bytes) -> bytes:
    """32 bytes that both sides compute; differing sizes, plans or sessions give differing digests."""
    derived = (
        agreed.limbs,
        agreed.packing,
        agreed.plain_bits,
        agreed.answer_bits,
        agreed.delta,
        agreed.flood,
    )
    sizes = (*astuple(agreed.query), *derived)
    text = ",".join(str(int(size)) for size in sizes).encode()
    return hashlib.sha256(label("linear_query", "both", "sizes", session) + text).digest()
