"""Align: the receiver learns the sender's rows of its items. README.md is the specification."""

from protocols.align.receiver import Receiver
from protocols.align.result import AlignResult
from protocols.align.sender import Prepared, Sender
from protocols.align.suites import SUITES
from protocols.oprf.limits import Limits
from protocols.oprf.sender import SenderResult

__all__ = ["SUITES", "AlignResult", "Limits", "Prepared", "Receiver", "Sender", "SenderResult"]
