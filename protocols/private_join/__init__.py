"""Private join and sum: both sides learn a noisy size of the intersection, one may learn sums over it.

    holder, key a, items X                     valuer, key b, items Y with values t, Paillier key
    shuffled a · H(x)            ──────────►
                                 ◄──────────   shuffled b · a · H(x), and rows (b · H(y), Enc(t))
    matches a · b · H(y), adds
    count, Enc(sum + …)          ──────────►   decrypts

`README.md` is the specification.
"""

from protocols.private_join.holder import Holder
from protocols.private_join.paillier import PrivateKey, generate
from protocols.private_join.terms import JoinResult, Terms
from protocols.private_join.valuer import Valuer

__all__ = ["Holder", "JoinResult", "PrivateKey", "Terms", "Valuer", "generate"]
