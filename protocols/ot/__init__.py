"""Oblivious transfer: base OTs on ristretto255 and OT extension. `README.md` is the specification."""

from protocols.ot.extension import OtReceiver, OtSender
from protocols.ot.machines import Receiver, Sender
from protocols.ot.results import ReceiverOts, SenderOts

__all__ = ["OtReceiver", "OtSender", "Receiver", "ReceiverOts", "Sender", "SenderOts"]
