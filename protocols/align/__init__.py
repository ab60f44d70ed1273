"""Align, suite `ecdh`: the receiver learns the sender's rows of its items. README.md is the specification."""

from protocols.align.receiver import AlignResult, Receiver
from protocols.align.sender import Sender
from protocols.oprf.limits import Limits
from protocols.oprf.sender import SenderResult

__all__ = ["AlignResult", "Limits", "Receiver", "Sender", "SenderResult"]
