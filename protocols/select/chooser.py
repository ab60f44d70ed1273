"""The chooser (brand): learns the values at its rows. README, section 2. States: WaitTransfer, WaitMasked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from protocols.codec import array_of
from protocols.errors import LocalError, PeerError
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


class Chooser(Machine[Bytes]):
    """rows bool[m]; the result is uint8[m, width], zeros where nothing was chosen.

    LocalError `protocol.argument`; PeerError `select.order`, `protocol.malformed`, and those of
    `protocols/vole`. Progress counts rows.
    """

    def __init__(
        self, rows: npt.NDArray[np.bool_], width: int, session: bytes, rng: Callable[[int], bytes]
    ) -> None:
        if rows.ndim != 1 or rows.dtype != np.bool_ or not len(rows):
            raise LocalError("protocol.argument", "rows must be bool[rows] with a row at least")
        check_width(width)
        bits, at, choices = rows.astype(np.uint8), 0, []
        for size in sizes(len(rows)):
            choices.append(bits[at : at + size])
            at += size
        inner = chosen.Receiver(choices, session, rng)
        super().__init__(Step(_wrapped(inner), WaitTransfer(inner, rows, width, session), (0, len(rows))))


def _wrapped(inner: chosen.Receiver) -> Iterator[bytes]:
    for data in inner.start():
        yield TO_HOLDER.encode(Transfer(data))


class WaitTransfer:
    def __init__(
        self, inner: chosen.Receiver, rows: npt.NDArray[np.bool_], width: int, session: bytes
    ) -> None:
        self._inner, self._rows, self._width, self._session = inner, rows, width, session

    def receive(self, message: bytes) -> Step[Bytes]:
        answers = list(self._inner.receive(TO_CHOOSER.decode(message, Transfer).data))
        wrapped = [TO_HOLDER.encode(Transfer(data)) for data in answers]
        if not self._inner.finished:
            return Step(wrapped, self)
        return Step(wrapped, WaitMasked(self._inner.result, self._rows, self._width, self._session))


class WaitMasked:
    def __init__(
        self, strings: chosen.Strings, rows: npt.NDArray[np.bool_], width: int, session: bytes
    ) -> None:
        self._rows, self._session = rows, session
        self._values = np.zeros((len(rows), width), dtype=np.uint8)
        self._words, self._done, self._segment, self._first = strings.words, 0, 0, 0

    def receive(self, message: bytes) -> Step[Bytes]:
        sent = TO_CHOOSER.decode(message, Masked)
        words = self._words[self._segment]
        at = self._done - self._first
        count = min(PIECE // self._values.shape[1], len(words) - at)
        if sent.first != self._done:
            raise PeerError(
                "select.order", f"values from row {sent.first} on, where row {self._done} was due"
            )
        data = array_of(sent.data, "u1", count, self._values.shape[1])
        mine = np.flatnonzero(self._rows[self._done : self._done + count])
        # Only at the chosen rows is this the holder's mask; the others are never computed.
        keys = masks(words[at : at + count], self._done, self._values.shape[1], self._session)
        self._values[self._done + mine] = data[mine] ^ keys[mine]
        self._done += count
        if self._done - self._first == len(words):
            self._first, self._segment = self._done, self._segment + 1
        progress = self._done, len(self._rows)
        if self._done < len(self._rows):
            return Step((), self, progress)
        return Step((), Done(self._values), progress)
