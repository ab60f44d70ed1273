"""Messages of align: those of the exchange, and the tags."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.codec import U64, Codec
from protocols.oprf.messages import Announce, Blinded, Evaluated, Kind, Request


@dataclass(frozen=True)
class Tags:
    """Sender: tags of its rows `first`, `first` + 1, …, in the order of its rows; `tag_bytes` each."""

    first: U64
    data: bytes


KIND = Kind("align", Codec(Request, Blinded), Codec(Announce, Evaluated, Tags), Tags)
