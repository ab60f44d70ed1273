"""Enrich, batch mode: the receiver learns the sender's records of its items. README.md specifies."""

from protocols.enrich.limits import Limits
from protocols.enrich.receiver import EnrichResult, Receiver
from protocols.enrich.sender import Sender
from protocols.oprf.sender import SenderResult

__all__ = ["EnrichResult", "Limits", "Receiver", "Sender", "SenderResult"]
