"""The holder (provider): has a value a row. README, section 2. States: WaitTransfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from protocols.codec import U64
from protocols.errors import LocalError
from protocols.machine import Done, Machine, Step
from protocols.select.messages import (
    PIECE,
    TO_CHOOSER,
    TO_HOLDER,
    Bytes,
    Masked,
    Transfer,
    check_width,
    masks,
    sizes,
)
from protocols.vole import chosen


class Holder(Machine[int]):
    """values uint8[m, w]; the result is m. LocalError `protocol.argument`; PeerErrors of `protocols/vole`."""

    def __init__(self, values: Bytes, session: bytes, rng: Callable[[int], bytes]) -> None:
        if values.ndim != 2 or values.dtype != np.uint8 or not len(values):
            raise LocalError("protocol.argument", "values must be uint8[rows, width] with a row at least")
        check_width(values.shape[1])
        inner = chosen.Sender(sizes(len(values)), session, rng)
        super().__init__(Step(_wrapped(inner), WaitTransfer(inner, values, session), (0, len(values))))


def _wrapped(inner: chosen.Sender) -> Iterator[bytes]:
    for data in inner.start():
        yield TO_CHOOSER.encode(Transfer(data))


class WaitTransfer:
    def __init__(self, inner: chosen.Sender, values: Bytes, session: bytes) -> None:
        self._inner, self._values, self._session = inner, values, session

    def receive(self, message: bytes) -> Step[int]:
        answers = list(self._inner.receive(TO_HOLDER.decode(message, Transfer).data))
        wrapped = [TO_CHOOSER.encode(Transfer(data)) for data in answers]
        if not self._inner.finished:
            return Step(wrapped, self)
        rows = len(self._values)
        return Step(self._masked(), Done(rows), (rows, rows))

    def _masked(self) -> Iterator[bytes]:
        first, width = 0, self._values.shape[1]
        each = PIECE // width
        strings = self._inner.result
        for q, delta in zip(strings.words, strings.deltas, strict=True):
            for at in range(0, len(q), each):
                part = q[at : at + each] ^ delta
                values = self._values[first + at : first + at + len(part)]
                data = values ^ masks(part, first + at, width, self._session)
                yield TO_CHOOSER.encode(Masked(U64(first + at), data.tobytes()))
            first += len(q)
