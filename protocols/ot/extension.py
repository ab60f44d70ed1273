"""OT extension in blocks: the two roles, for machines that embed them.

    sender                                            receiver
    opening()   ──────────────────────────────────►   setup(opening)
    begin(setup)   ◄──────────────────────────────
    extend(columns, k)   ◄────────────────────────    extend(choices), any number of times

Of each OT the sender has two strings of 16 bytes and the receiver the one that its bit names. Strings are
`uint64[…, 2]`. With `correlated` they are (q, q + Δ) as they are, with one Δ for all; otherwise hashed, and
uniform.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.codec import B32, U32, U64
from protocols.errors import LocalError, PeerError
from protocols.labels import label
from protocols.ot.aes import Permutation, Words, hash_rows, public_key
from protocols.ot.base import BaseReceiver, BaseSender
from protocols.ot.columns import ColumnReceiver, ColumnSender, bits, transpose
from protocols.ot.messages import (
    BLOCK,
    TO_RECEIVER,
    TO_SENDER,
    Columns,
    Opening,
    Setup,
    binding,
    padded_words,
)
from protocols.ot.order import Order
from protocols.ristretto import Rng, random_bytes
from protocols.security import OT_COLUMNS


class OtSender(Order):
    """Ends with both strings of each OT. `session`: 32 bytes that both sides have and that are used once."""

    def __init__(
        self, session: bytes, rng: Rng, *, correlated: bool = False, malicious: bool = False
    ) -> None:
        super().__init__("opening", "begin", "extend*")
        self._binding = binding(correlated, malicious, session)
        self._session = session
        self._rng = rng
        self._correlated = correlated
        self._malicious = malicious
        self._done = 0
        #: The correlation of all OTs; secret.
        self.delta: Words = random_bytes(1, 16, rng).view("<u8").astype(np.uint64)[0]
        self._permutation = Permutation(public_key(label("ot", "both", "strings", session)))

    def opening(self) -> bytes:
        """The first message."""
        with self._step("opening"):
            self._base = BaseReceiver(bits(self.delta), self._session, self._rng)
            return TO_RECEIVER.encode(Opening(self._binding, self._base.points))

    def begin(self, setup: bytes) -> None:
        """Takes the receiver's setup; PeerError protocol.binding, ot.bad_point."""
        with self._step("begin"):
            message = TO_SENDER.decode(setup, Setup)
            if message.binding != self._binding:
                raise PeerError("protocol.binding", "the receiver's session or setting is another")
            self._columns = ColumnSender(self.delta, self._base.keys(message.point), self._session)

    def extend(self, columns: bytes, count: int) -> Words:
        """`uint64[count, 2, 2]`: strings 0 and 1 of the next `count` OTs, for the receiver's message of them.

        PeerError protocol.unexpected if the message is for others, protocol.malformed, ot.check.
        """
        with self._step("extend"):
            message = TO_SENDER.decode(columns, Columns)
            if (message.first, message.count) != (self._done, count):
                raise PeerError(
                    "protocol.unexpected",
                    f"OTs {message.first}… ({message.count}) came, {self._done}… ({count}) were due",
                )
            q = self._columns.unmask(padded_words(count), message.columns, message.check, self._malicious)
            rows = transpose(q)[:count]
            out = np.stack([rows, rows ^ self.delta], axis=1)
            if not self._correlated:
                for side in range(2):
                    out[:, side] = hash_rows(
                        self._permutation, np.ascontiguousarray(out[:, side]), self._done
                    )
            self._done += count
            return out


class OtReceiver(Order):
    """Ends with the chosen string of each OT. Arguments as `OtSender`'s."""

    def __init__(
        self, session: bytes, rng: Rng, *, correlated: bool = False, malicious: bool = False
    ) -> None:
        super().__init__("setup", "extend*")
        self._binding = binding(correlated, malicious, session)
        self._session = session
        self._rng = rng
        self._correlated = correlated
        self._malicious = malicious
        self._done = 0
        self._permutation = Permutation(public_key(label("ot", "both", "strings", session)))

    def setup(self, opening: bytes) -> bytes:
        """Takes the opening, gives the second message; PeerError protocol.binding, ot.bad_point."""
        with self._step("setup"):
            message = TO_RECEIVER.decode(opening, Opening)
            if message.binding != self._binding:
                raise PeerError("protocol.binding", "the sender's session or setting is another")
            base = BaseSender(self._session, self._rng)
            keys = base.keys(message.points, OT_COLUMNS)
            self._columns = ColumnReceiver(keys, self._session, self._rng)
            return TO_SENDER.encode(Setup(self._binding, B32(base.point)))

    def extend(self, choices: npt.NDArray[np.uint8]) -> tuple[bytes, Words]:
        """(the message, `uint64[k, 2]`) for `choices: uint8[k]` of zeros and ones, 1 ≤ k ≤ `BLOCK`."""
        with self._step("extend"):
            count = len(choices)
            if choices.shape != (count,) or choices.dtype != np.uint8 or not 1 <= count <= BLOCK:
                raise LocalError(
                    "protocol.argument",
                    f"choices are uint8[k], 1 ≤ k ≤ {BLOCK}; {choices.dtype}{list(choices.shape)} given",
                )
            if choices.max() > 1:
                raise LocalError("protocol.argument", "a choice is neither 0 nor 1")
            words = padded_words(count)
            padded = np.zeros(64 * words, dtype=np.uint8)
            padded[:count] = choices
            x = np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64)
            t, columns, check = self._columns.mask(x, self._malicious)
            rows = transpose(t)[:count]
            if not self._correlated:
                rows = hash_rows(self._permutation, rows, self._done)
            message = TO_SENDER.encode(Columns(U64(self._done), U32(count), columns, check))
            self._done += count
            return message, rows
