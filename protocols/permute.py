"""A secret uniform permutation, in time linear in its length; and rows of items in another order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols.errors import LocalError
from protocols.parallel import compiled
from protocols.ristretto import Bytes, Rng, rows

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


#: Bytes of a row that `taken` moves.
ITEM = 32


@compiled
def _shuffle(
    order: npt.NDArray[np.int64], drawn: npt.NDArray[np.uint64]
) -> None:  # pragma: no cover (compiled)
    """Fisher and Yates, in Durstenfeld's form: place i goes to a uniform one of 0 … i."""
    for i in range(len(order) - 1, 0, -1):
        by = np.uint64(i + 1)
        # ⌊drawn · (i + 1) / 2^64⌋: each place has its share but for i / 2^64.
        j = np.int64(((drawn[i] >> _32) * by + (((drawn[i] & _LOW) * by) >> _32)) >> _32)
        order[i], order[j] = order[j], order[i]


def permutation(n: int, rng: Rng) -> npt.NDArray[np.int64]:
    """int64[n]: a permutation of 0 … n − 1, n < 2^32, from AES-128 in counter mode under a key of `rng`."""
    if not 0 <= n < 1 << 32:
        raise LocalError("protocol.argument", f"a permutation of {n}; at most 2^32 - 1 are possible")
    order = np.arange(n, dtype=np.int64)
    room = np.empty(n + 2, dtype=np.uint64)  # `update_into` wants a block of room at the end
    stream = Cipher(algorithms.AES(rng(16)), modes.CTR(bytes(16))).encryptor()
    stream.update_into(bytes(8 * n), room.data.cast("B"))
    _shuffle(order, room[:n])
    return order


@compiled
def _move(
    words: npt.NDArray[np.uint64], order: npt.NDArray[np.int64], out: npt.NDArray[np.uint64]
) -> None:  # pragma: no cover (compiled)
    for i in range(len(order)):
        j = order[i]
        for k in range(words.shape[1]):
            out[i, k] = words[j, k]


def taken(items: npt.ArrayLike, order: npt.NDArray[np.integer]) -> Bytes:
    """`items[order]` for `items: uint8[n, 32]`; numpy needs ten times as long for rows that lie far apart.

    LocalError for a row that is not there.
    """
    array = rows(items, ITEM)
    if len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(array):
        raise LocalError("protocol.argument", f"rows {order.min()} … {order.max()} of {len(array)}")
    out = np.empty((len(order), ITEM), dtype=np.uint8)
    chosen = np.ascontiguousarray(order, dtype=np.int64)
    _move(array.view(np.uint64), chosen, out.view(np.uint64))
    return out
