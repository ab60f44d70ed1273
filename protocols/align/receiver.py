"""Align's receiver: learns the sender's row of each of its items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.align import suites
from protocols.align.messages import KIND
from protocols.align.result import AlignResult
from protocols.align.tags import NUMBER_BYTES, numbers_of, tag_bytes, tags_and_masks
from protocols.errors import PeerError
from protocols.machine import Machine
from protocols.oprf.limits import Limits
from protocols.oprf.messages import check_session
from protocols.oprf.padding import Index, distinct_items, portion
from protocols.oprf.receiver import Receiving
from protocols.ristretto import Bytes, Rng


class Receiver(Machine[AlignResult]):
    """Holds `items: uint8[n, 32]`; n may be 0. Learns which are the sender's, at which row, and its size.

    `suite` is "ecdh" or "vole", the same on both sides; `malicious` chooses that variant of "vole".
    LocalError protocol.argument: wrong shape, repeated items, over the limits. PeerError: the codes of
    README section 6. `progress` counts items and rows. `numbered`: the sender gives each row a number, which
    is what `rows` then holds (whoever calls checks their range). `runs` as at the sender.
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
        numbered: bool = False,
        runs: int = 1,
    ) -> None:
        check_session(session)
        suites.check(suite, malicious)
        array = distinct_items(items, limits.max_receiver, "limits.max_receiver")
        if suite == suites.VOLE:
            from protocols.align.vole.receiver import Run  # its kernels load only where they are used

            super().__init__(Run(array, session, limits, rng, malicious, numbered, runs).opening())
            return
        wish = _Match(len(array), session, numbered, runs)
        super().__init__(Receiving(KIND, session, array, limits.max_sender, rng, wish).opening())


class _Match:
    """Collects both sides' tags, then searches."""

    def __init__(self, n: int, session: bytes, numbered: bool = False, runs: int = 1) -> None:
        self._n = n
        self._session = session
        self._numbered, self._runs = numbered, runs
        self._own: list[Bytes] = []
        self._masks: list[Bytes] = []
        self._numbers = np.zeros((0, NUMBER_BYTES), dtype=np.uint8)
        self._theirs = np.zeros((0, 1), dtype=np.uint8)

    def agree(self, size: int, rows: int, width: int) -> int:
        tag = tag_bytes(size, rows, self._runs)
        expected = tag + (NUMBER_BYTES if self._numbered else 0)
        if width != expected:
            # Shorter tags would give false matches, longer ones only cost.
            raise PeerError("align.size", f"tags of {width} bytes announced, {expected} are due")
        self._theirs = np.zeros((rows, tag), dtype=np.uint8)
        self._numbers = np.zeros((rows if self._numbered else 0, NUMBER_BYTES), dtype=np.uint8)
        return width

    def due(self, done: int, parts: int) -> int:
        return portion(len(self._theirs), done, parts)

    def outputs(self, first: int, outputs: Bytes) -> None:
        tags, masks = tags_and_masks(outputs, self._session, self._theirs.shape[1])
        self._own.append(tags)
        if self._numbered:
            self._masks.append(masks)

    def rows(self, first: int, rows: Bytes) -> None:
        width = self._theirs.shape[1]
        self._theirs[first : first + len(rows)] = rows[:, :width]
        if self._numbered:
            self._numbers[first : first + len(rows)] = rows[:, width:]

    def result(self) -> AlignResult:
        own = np.concatenate(self._own)[: self._n]
        found = Index(self._theirs).find(own)
        if self._numbered:
            hit = np.flatnonzero(found >= 0)
            masks = np.concatenate(self._masks)[: self._n]
            found[hit] = numbers_of(self._numbers[found[hit]] ^ masks[hit])
        return AlignResult(found, len(self._theirs))
