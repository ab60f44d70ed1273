"""The VOLE's receiver: ends with a and c."""

from __future__ import annotations

import numpy as np

from protocols.codec import B16, B32, array_of
from protocols.errors import PeerError
from protocols.ot.base import BaseSender
from protocols.ot.columns import ColumnReceiver
from protocols.ot.field import Words, tables
from protocols.ot.order import Order
from protocols.ristretto import Rng, random_bytes
from protocols.security import OT_COLUMNS
from protocols.vole.kernels import evaluate, power_sum
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
from protocols.vole.results import ReceiverVole
from protocols.vole.trees import Trees


class VoleReceiver(Order):
    """n correlations. Arguments and errors as `VoleSender`'s; both sides give the same."""

    def __init__(
        self, n: int, session: bytes, rng: Rng, *, field: str = "gf64", malicious: bool = False
    ) -> None:
        super().__init__("request", "accept", *(["verify"] if malicious else []), "expand")
        self._binding = binding(n, field, malicious, session)
        self._session = session
        self._rng = rng
        self._shape = Shape.of(n)
        self._layout = Layout(self._shape, field, malicious)
        self._trees = Trees(self._shape, session)
        self._leaves: Words = np.zeros((0, 2), dtype=np.uint64)

    def request(self, opening: bytes) -> bytes:
        """Takes the opening; draws noise positions and values, and gives them masked."""
        with self._step("request"):
            message = TO_RECEIVER.decode(opening, Opening)
            if message.binding != self._binding:
                raise PeerError(
                    "protocol.binding", "the sender's session, length, field or setting is another"
                )
            base = BaseSender(self._session, self._rng)
            keys = base.keys(message.points, OT_COLUMNS)
            shape, layout = self._shape, self._layout
            wide = random_bytes(shape.blocks, 16, self._rng)
            # 128 bits modulo the number of leaves: within 2^-100 of uniform.
            self._places = np.array(
                [int.from_bytes(row, "little") % shape.leaves for row in wide], dtype=np.int64
            )
            self._values = (
                random_bytes(shape.blocks, 8 * layout.width, self._rng).view("<u8").astype(np.uint64)
            )
            x = np.zeros(layout.words, dtype=np.uint64)
            sides, _ = self._trees.path(self._places)
            wanted = np.zeros(64 * layout.choices, dtype=np.uint8)
            wanted[: sides.size] = (1 - sides).reshape(
                -1
            )  # a path's node is unknown, so the other side is asked for
            x[: layout.choices] = np.packbits(wanted, bitorder="little").view("<u8")
            end = layout.choices + layout.values
            x[layout.choices : end] = self._values.reshape(-1)
            if layout.malicious:
                self._point = random_bytes(1, 16, self._rng).view("<u8").astype(np.uint64)[0]
                scalars = np.zeros((shape.blocks, 2), dtype=np.uint64)
                scalars[:, : layout.width] = self._values
                scalars[:, 0] |= np.uint64(layout.binary)
                x[end:] = power_sum(self._point, shape.size - self._positions(), scalars)
            t, columns, check = ColumnReceiver(keys, self._session, self._rng).mask(x, layout.malicious)
            self._base, self._check = base_values(t, layout)
            self._masks = tree_keys(t, layout, self._session)
            return TO_SENDER.encode(Request(self._binding, B32(base.point), columns, check))

    def accept(self, answer: bytes) -> bytes | None:
        """Takes the masked sums and grows all trees but the paths; gives the challenge if malicious."""
        with self._step("accept"):
            message = TO_RECEIVER.decode(answer, Answer)
            shape = self._shape
            blocks = np.arange(shape.blocks)
            masked = array_of(message.sums, "u8", shape.depth, 2, shape.blocks, 2)
            sums = array_of(message.leaves, "u8", shape.blocks, 2)
            sides, _ = self._trees.path(self._places)
            chosen = masked[np.arange(shape.depth)[:, None], 1 - sides, blocks[None, :]]
            level, known = self._trees.puncture(self._places, chosen.astype(np.uint64) ^ self._masks)
            if self._layout.binary:
                level[:, :, 0] &= ~np.uint64(1)
                known[:, 0] &= ~np.uint64(1)
                level[self._places, blocks] = sums ^ known
            else:
                level[self._places, blocks] = sums ^ known ^ self._base
            self._leaves = level.reshape(shape.size, 2)
            if not self._layout.malicious:
                return None
            return TO_SENDER.encode(Challenge(B16(self._point.astype("<u8").tobytes())))

    def verify(self, proof_message: bytes) -> None:
        """Malicious only: PeerError vole.check unless both evaluations are equal."""
        with self._step("verify"):
            message = TO_RECEIVER.decode(proof_message, Proof)
            u, v = evaluate(self._leaves, tables(self._point))
            value = int(u) ^ int(self._check[0, 0]), int(v) ^ int(self._check[0, 1])
            if message.digest != proof(value, self._session):
                # Wrong sums would be noticed or not, depending on the secret positions: so any is the end.
                raise PeerError("vole.check", "the sender's trees are inconsistent; it is faulty or hostile")

    def expand(self) -> ReceiverVole:
        """The local computation: the code over both vectors."""
        with self._step("expand"):
            code = Code(self._shape, self._session)
            leaves, self._leaves = self._leaves, np.zeros((0, 2), dtype=np.uint64)
            if self._layout.binary:
                # b has bit 0 clear and Δ has it set, so a's bit 0 is c: nothing more to compute.
                a, _ = code.compress(leaves, binary=True)
                return ReceiverVole(a, a[:, 0] & np.uint64(1))
            noise = np.zeros((self._shape.size, self._layout.width), dtype=np.uint64)
            noise[self._positions()] = self._values
            return ReceiverVole(*code.compress(leaves, noise if self._layout.width == 2 else noise[:, 0]))

    def _positions(self) -> np.ndarray:
        """Where in the noise vector the unknown leaves are."""
        return self._places * self._shape.blocks + np.arange(self._shape.blocks)
