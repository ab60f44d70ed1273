"""The VOLE's sender: ends with b and Δ."""

from __future__ import annotations

import numpy as np

from protocols.codec import B32
from protocols.errors import PeerError
from protocols.ot.base import BaseReceiver
from protocols.ot.columns import ColumnSender, bits
from protocols.ot.field import Words, tables
from protocols.ot.order import Order
from protocols.ristretto import Rng, random_bytes
from protocols.vole.kernels import evaluate
from protocols.vole.lpn import Code, Shape
from protocols.vole.messages import (
    TO_RECEIVER,
    TO_SENDER,
    Answer,
    Challenge,
    Opening,
    Proof,
    Request,
    binding,
)
from protocols.vole.noisy import Layout, base_values, proof, tree_keys
from protocols.vole.results import SenderVole
from protocols.vole.trees import Trees


class VoleSender(Order):
    """n correlations with one Δ, which is drawn from `rng`. Calls: see `roles.py`.

    `session`: 32 bytes that both sides have and that are used once. LocalError protocol.argument for n
    outside 1…2^26, another field or session; PeerError as README section 7 says.
    """

    def __init__(
        self, n: int, session: bytes, rng: Rng, *, field: str = "gf64", malicious: bool = False
    ) -> None:
        super().__init__("opening", "answer", *(["prove"] if malicious else []), "expand")
        self._binding = binding(n, field, malicious, session)
        self._session = session
        self._rng = rng
        self._shape = Shape.of(n)
        self._layout = Layout(self._shape, field, malicious)
        self._leaves: Words = np.zeros((0, 2), dtype=np.uint64)
        self._check: Words = np.zeros((0, 2), dtype=np.uint64)

    def opening(self) -> bytes:
        """The first message."""
        with self._step("opening"):
            self._delta = random_bytes(1, 16, self._rng).view("<u8").astype(np.uint64)[0]
            if self._layout.binary:
                self._delta[0] |= np.uint64(1)
            self._base = BaseReceiver(bits(self._delta), self._session, self._rng)
            return TO_RECEIVER.encode(Opening(self._binding, self._base.points))

    def answer(self, request: bytes) -> bytes:
        """Takes the receiver's request, grows all trees, and gives their masked sums."""
        with self._step("answer"):
            message = TO_SENDER.decode(request, Request)
            if message.binding != self._binding:
                raise PeerError(
                    "protocol.binding", "the receiver's session, length, field or setting is another"
                )
            keys = self._base.keys(message.point)
            layout, shape = self._layout, self._shape
            columns = ColumnSender(self._delta, keys, self._session).unmask(
                layout.words, message.columns, message.check, layout.malicious
            )
            values, self._check = base_values(columns, layout)
            masks = np.stack(
                [
                    tree_keys(columns, layout, self._session),
                    tree_keys(columns, layout, self._session, self._delta),
                ],
                axis=1,
            )
            roots = random_bytes(shape.blocks, 16, self._rng).view("<u8").astype(np.uint64)
            sums = np.empty((shape.depth, 2, shape.blocks, 2), dtype=np.uint64)
            level = roots
            for d, (level, both) in enumerate(Trees(shape, self._session).grow(roots)):  # noqa: B007
                sums[d] = both
            self._leaves = level.reshape(shape.size, 2)
            leaves = sums[-1, 0] ^ sums[-1, 1]
            if self._layout.binary:
                # Bit 0 is left to the choices: 0 in all of b, 1 in Δ.
                self._leaves[:, 0] &= ~np.uint64(1)
                leaves[:, 0] &= ~np.uint64(1)
                leaves ^= self._delta
            else:
                leaves ^= values
            return TO_RECEIVER.encode(
                Answer((sums ^ masks).astype("<u8").tobytes(), leaves.astype("<u8").tobytes())
            )

    def prove(self, challenge: bytes) -> bytes:
        """Malicious only: the hash of the leaves' evaluation at the receiver's point."""
        with self._step("prove"):
            message = TO_SENDER.decode(challenge, Challenge)
            table = tables(np.frombuffer(message.point, dtype="<u8").astype(np.uint64))
            u, v = evaluate(self._leaves, table)
            value = int(u) ^ int(self._check[0, 0]), int(v) ^ int(self._check[0, 1])
            return TO_RECEIVER.encode(Proof(B32(proof(value, self._session))))

    def expand(self) -> SenderVole:
        """The local computation: the code over the leaves."""
        with self._step("expand"):
            leaves, self._leaves = self._leaves, np.zeros((0, 2), dtype=np.uint64)
            b, _ = Code(self._shape, self._session).compress(leaves, binary=self._layout.binary)
            return SenderVole(b, self._delta)
