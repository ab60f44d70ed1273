"""The oblivious pseudorandom function of RFC 9497, in batches, and the exchange that align and enrich share.

    receiver                                   sender, key k
    blinded_i = r_i · H(x_i)     ──────────►
                                 ◄──────────   evaluated_i = k · blinded_i
    F(x_i) = Hash(x_i, r_i⁻¹ · evaluated_i)    F(y_j) = Hash(y_j, k · H(y_j))

`README.md` is the specification.
"""

from protocols.oprf.limits import Limits
from protocols.oprf.padding import padded_size
from protocols.oprf.sender import SenderResult
from protocols.oprf.suite import blind, blind_evaluate, evaluate, finalize

__all__ = ["Limits", "SenderResult", "blind", "blind_evaluate", "evaluate", "finalize", "padded_size"]
