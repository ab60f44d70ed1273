"""Align's sender: evaluates the receiver's elements and streams the tags of its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from protocols.align import suites
from protocols.align.messages import KIND, Tags
from protocols.align.tags import NUMBER_BYTES, number_bytes, tag_bytes, tags_and_masks, tags_of
from protocols.codec import U64
from protocols.errors import LocalError
from protocols.machine import Machine
from protocols.oprf.limits import Limits
from protocols.oprf.messages import check_session
from protocols.oprf.padding import distinct_items, pieces, portion, rows_per_message
from protocols.oprf.sender import SenderResult, Sending
from protocols.oprf.suite import evaluate, generate_key
from protocols.ristretto import Bytes, Rng

#: Bytes of a key and of an output of the OPRF.
KEY, OUTPUT = 32, 64


@dataclass(frozen=True)
class Prepared:
    """A key and its outputs, `uint8[m, 64]`, row j being item j's; README, section 2.2, says who may use them
    twice.
    """

    key: Bytes = field(repr=False)
    outputs: Bytes = field(repr=False)


def prepare(items: Bytes, rng: Rng, block: int, progress: Callable[[int], None]) -> Prepared:
    """Draw a key and evaluate all `items: uint8[m, 32]`, `block` at a time; `progress` is told how many are
    done.
    """
    key, outputs = generate_key(rng), np.empty((len(items), OUTPUT), dtype=np.uint8)
    for at in range(0, len(items), block):
        outputs[at : at + block] = evaluate(key, items[at : at + block])
        progress(min(at + block, len(items)))
    return Prepared(key, outputs)


class Sender(Machine[SenderResult]):
    """Holds `items: uint8[m, 32]`, row j being item j; m may be 0. Learns the receiver's padded size only.

    The order of rows must say nothing about people (the caller permutes them per job), since the receiver
    learns row numbers. With `numbers: integers[m]` (below 2^40) it learns, in the place of row j, the j-th of
    them, and of the others nothing (README, section 2.1). `runs`: how many runs one job has, for the tags'
    length. `prepared` (suite ecdh): key and outputs in place of a fresh key. LocalError protocol.argument:
    wrong shape, repeated items, over the limits.
    """

    def __init__(
        self,
        items: npt.ArrayLike,
        session: bytes,
        limits: Limits,
        rng: Rng,
        *,
        suite: str = suites.ECDH,
        malicious: bool = False,
        numbers: npt.ArrayLike | None = None,
        runs: int = 1,
        prepared: Prepared | None = None,
    ) -> None:
        check_session(session)
        suites.check(suite, malicious)
        array = distinct_items(items, limits.max_sender, "limits.max_sender")
        sealed = None if numbers is None else number_bytes(numbers, len(array))
        if prepared is not None and (
            suite != suites.ECDH
            or prepared.key.shape != (KEY,)
            or prepared.outputs.shape != (len(array), OUTPUT)
        ):
            raise LocalError("protocol.argument", "prepared outputs are of suite ecdh, one an item")
        if suite == suites.VOLE:
            from protocols.align.vole.sender import Run  # its kernels load only where they are used

            super().__init__(Run(array, sealed, session, limits, rng, malicious, runs).opening())
            return
        # One key a session: outputs of two sessions can't be compared, and a receiver can't ask again.
        key = generate_key(rng) if prepared is None else prepared.key
        tags = _Tags(array, session, key, sealed, runs, None if prepared is None else prepared.outputs)
        super().__init__(Sending(KIND, session, key, limits.max_receiver, tags).opening())


class _Tags:
    """The tags, in row order, an equal part after each Evaluated chunk."""

    def __init__(
        self,
        items: Bytes,
        session: bytes,
        key: Bytes,
        numbers: Bytes | None = None,
        runs: int = 1,
        outputs: Bytes | None = None,
    ) -> None:
        self.rows = len(items)
        self.done = 0
        self._numbers, self._runs = numbers, runs
        self._items, self._outputs = items, outputs
        self._session = session
        self._key = key
        self._width = self._row_bytes = 1

    def agree(self, size: int) -> int:
        self._width = tag_bytes(size, self.rows, self._runs)
        self._row_bytes = self._width + (0 if self._numbers is None else NUMBER_BYTES)
        return self._row_bytes

    def serve(self, part: int, parts: int) -> Iterator[bytes]:
        low, high = portion(self.rows, part, parts), portion(self.rows, part + 1, parts)
        for at, end in pieces(low, high, rows_per_message(self._row_bytes)):
            if self._outputs is None:
                outputs = evaluate(self._key, self._items[at:end])
            else:
                outputs = np.ascontiguousarray(self._outputs[at:end])
            if self._numbers is None:
                tags = tags_of(outputs, self._session, self._width)
            else:
                tags, masks = tags_and_masks(outputs, self._session, self._width)
                tags = np.concatenate([tags, self._numbers[at:end] ^ masks], axis=1)
            self.done = end
            yield KIND.to_receiver.encode(Tags(U64(at), tags.tobytes()))
