"""Two error types: whose fault it was is in the type.

A `LocalError` is the caller's own doing (bad argument, move in the wrong state); a `PeerError` means that
the other side sent something that the protocol does not allow. Every failure is final: the machine that
raised is poisoned. Codes are registered here, so that the documentation's test can list them.
"""

from __future__ import annotations

CODES: dict[str, str] = {
    # any machine
    "protocol.state": "a call that the machine's state does not allow",
    "protocol.poisoned": "the machine failed earlier and takes no further call",
    "protocol.argument": "an argument is outside what the protocol's README allows",
    "protocol.malformed": "the peer's message can't be decoded",
    "protocol.unexpected": "the peer's message has a type that is not allowed now",
    "protocol.too_large": "the peer's message, or a size in it, is over the limit",
    "protocol.binding": "the peer's message belongs to another session, job or snapshot",
    # oprf, align, enrich
    "oprf.bad_point": "an encoding that is no ristretto255 element, or the identity",
    "align.size": "a set's size differs from what was announced or agreed",
    "align.bucket": "more items fall into a bucket than it is made for",
    "align.store": "the receiver's items can't be encoded under this run's seed (probability 2^-40)",
    "align.coin": "the sender's coin is not the one that it is committed to",
    "enrich.size": "a table's or a request's size differs from what was announced or agreed",
    "enrich.order": "the rows of the encrypted table are not in the order of their tags",
    "enrich.tampered": "a record of the encrypted table fails authentication",
    # ot, vole
    "ot.bad_point": "a base OT's point that is no ristretto255 element, or gives the identity",
    "ot.check": "the columns of an OT extension are not those of one vector of choices",
    "vole.check": "the sender's trees are not those of one VOLE",
    # private_join
    "private_join.size": "a set's size is not a padded size with dummies, or not what was announced",
    "private_join.key": "the peer's Paillier modulus fails a check",
    "private_join.ciphertext": "a number that is no Paillier ciphertext or plaintext under the modulus",
    "private_join.repeated": "an element that comes twice, so that one person could be counted many times",
    "private_join.sum": "a count or a sum beyond what the sizes and bounds allow",
    # linear query, lookalike
    "linear_query.overflow": "the answer could exceed the plaintext range",
    "linear_query.noise": "the ciphertext noise could exceed what decryption tolerates",
    "linear_query.residue": "a ciphertext coefficient is not below its prime",
    "linear_query.size": "rows or queries differ from what was announced",
    "lookalike.seeds": "fewer matched seeds than the agreement's minimum",
    "lookalike.columns": "too few seeds for that many columns, or a level too rare, without noise",
    "lookalike.fit": "the fit did not converge",
    # joint models
    "joint.rows": "fewer training rows than agreed, or too few for that many columns",
    "joint.columns": "a level of a column is too rare for exact sums",
    "joint.labels": "the labels are not what the family of models needs",
    "joint.fit": "the fit met numbers that are not finite or too large",
    # select
    "select.order": "masked values out of their order",
    # boost
    "boost.rows": "too few training rows, or one class only",
    "boost.monotone": "a column that should be monotone has levels and no order",
    "boost.size": "a size, a split or a sum outside what was announced or agreed",
    "boost.order": "a block, a tree or a level out of its order",
}


class ProtocolError(Exception):
    """Base of both; `code` is one of `CODES`, `detail` says what, where and what to do."""

    def __init__(self, code: str, detail: str) -> None:
        if code not in CODES:
            raise KeyError(f"unregistered error code {code!r}")
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class LocalError(ProtocolError):
    """This side called the protocol wrongly."""


class PeerError(ProtocolError):
    """The other side broke the protocol."""
