"""Vector oblivious linear evaluation: a = b + Δ·c, a and c at the receiver, b and Δ at the sender.

`README.md` is the specification.
"""

from protocols.vole.results import ReceiverVole, SenderVole

__all__ = ["ReceiverVole", "SenderVole"]
