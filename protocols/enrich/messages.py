"""Messages of enrich: those of the exchange, and the encrypted table."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.codec import U64, Codec
from protocols.oprf.messages import Announce, Blinded, Evaluated, Kind, Request


@dataclass(frozen=True)
class Table:
    """Sender: rows `first`, `first` + 1, … of the table, sorted by tag; a row is tag ‖ sealed record."""

    first: U64
    data: bytes


KIND = Kind("enrich", Codec(Request, Blinded), Codec(Announce, Evaluated, Table), Table)
