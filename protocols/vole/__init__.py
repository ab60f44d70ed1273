"""Vector oblivious linear evaluation: a = b + Δ·c, a and c at the receiver, b and Δ at the sender.

`README.md` is the specification, `roles.py` the interface for machines that embed a VOLE.
"""

from protocols.ot.field import multiply_add
from protocols.vole.machines import Receiver, Sender
from protocols.vole.receiver import VoleReceiver
from protocols.vole.results import ReceiverVole, SenderVole
from protocols.vole.sender import VoleSender
from protocols.vole.strings import receiver_ots, sender_ots

__all__ = [
    "Receiver",
    "ReceiverVole",
    "Sender",
    "SenderVole",
    "VoleReceiver",
    "VoleSender",
    "multiply_add",
    "receiver_ots",
    "sender_ots",
]
