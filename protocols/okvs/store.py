"""Keys to bins, encoding with random free entries, decoding. README.md is the specification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols.errors import LocalError
from protocols.okvs import kernels
from protocols.okvs.shape import Shape
from protocols.ristretto import Bytes, Rng

U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Located:
    """Keys in the order of their bins.

    `order` int32[n]: which of the caller's keys comes i-th; `words` uint64[n, 2]: its hash; `starts`
    int64[bins + 1]: where each bin begins.
    """

    shape: Shape
    order: npt.NDArray[np.int32]
    words: U64
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.order)


def hashed(items: Bytes, key: bytes) -> U64:
    """128 pseudorandom bits of each item, `uint64[n, 2]`, under a public `key` of 16 bytes.

    Items are uint8[n, 32]: two steps of AES in the mode of Matyas, Meyer and Oseas with a fixed key,
    h = M(M(first half) ⊕ second half), M(x) = AES(key, x) ⊕ x. LocalError for another key length.
    """
    halves = np.ascontiguousarray(items).view(np.uint64).reshape(len(items), 4)
    return mixed(mixed(np.ascontiguousarray(halves[:, :2]), key) ^ halves[:, 2:], key)


def mixed(blocks: U64, key: bytes) -> U64:
    """M(x) = AES-128(key, x) ⊕ x for each row of `uint64[n, 2]`."""
    if len(key) != 16:
        raise LocalError("protocol.argument", f"a key of {len(key)} bytes, 16 are due")
    if not len(blocks):
        return blocks.copy()
    room = np.empty(blocks.size + 2, dtype=np.uint64)  # `update_into` wants a block of room at the end
    aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 (a permutation, no mode)
    aes.update_into(np.ascontiguousarray(blocks).data.cast("B"), room.data.cast("B"))
    out = room[: blocks.size].reshape(blocks.shape)
    out ^= blocks
    return out


def stream(n: int, width: int, rng: Rng) -> U64:
    """n random entries: AES-128 in counter mode under a fresh key."""
    room = np.empty(n * width + 2, dtype=np.uint64)
    aes = Cipher(algorithms.AES(rng(16)), modes.CTR(bytes(16))).encryptor()
    aes.update_into(bytes(8 * n * width), room.data.cast("B"))
    return room[: n * width].reshape(n, width)


def locate(words: U64, shape: Shape) -> Located:
    """Sort hashed keys by bin; any number of them (a store that is to be encoded holds `shape.items`)."""
    if len(words) > np.iinfo(np.int32).max:
        raise LocalError("protocol.argument", f"{len(words)} keys; split them into buckets")
    starts = np.zeros(shape.bins + 1, dtype=np.int64)
    order = np.empty(len(words), dtype=np.int32)
    placed = np.empty((len(words), 2), dtype=np.uint64)
    kernels.into_bins(words, shape.bins, starts, order, placed)
    return Located(shape, order, placed, starts)


def encode(keys: Located, values: U64, rng: Rng) -> U64 | None:
    """A vector `uint64[shape.size, w]`, w = 1 or 2, with decode(vector, key i) = values[i].

    `values` are in the order of `keys`. Every entry that the keys do not decide is random, so that the vector
    is uniform among those that hold them. None where these hashes can't be solved, which has probability
    2^-40 for distinct keys: hash them again under another key. LocalError if there are more keys than the
    shape is for.
    """
    shape, n = keys.shape, len(keys)
    if n > shape.items:
        raise LocalError("protocol.argument", f"{n} keys for a store of {shape.items}")
    if values.shape[0] != n or values.shape[1] not in (1, 2):
        raise LocalError("protocol.argument", f"values {values.shape} for {n} keys")
    if int(np.diff(keys.starts).max()) > shape.capacity:
        return None
    rows = np.empty((n, 3), dtype=np.uint16)
    order = np.empty(n, dtype=np.int32)
    spots = np.empty(n, dtype=np.uint16)
    taken = np.zeros(shape.bins, dtype=np.int64)
    kernels.peel(keys.words, keys.starts, shape.sparse, rows, order, spots, taken)
    vector = stream(shape.size, values.shape[1], rng)
    for b in np.flatnonzero(taken < np.diff(keys.starts)):
        core = order[keys.starts[b] + taken[b] : keys.starts[b + 1]]
        if not _solve(shape, int(b) * shape.stride, rows[core], keys.words[core, 1], values[core], vector):
            return None
    kernels.fill(
        keys.words, keys.starts, shape.sparse, shape.dense, rows, order, spots, taken, values, vector
    )
    return vector


def decode(vector: U64, keys: Located) -> U64:
    """The sum of each key's entries, `uint64[n, w]` in the order of `keys`."""
    if vector.shape[0] != keys.shape.size:
        raise LocalError("protocol.argument", f"a vector of {len(vector)}, {keys.shape.size} are due")
    out = np.empty((len(keys), vector.shape[1]), dtype=np.uint64)
    kernels.add_up(keys.words, keys.starts, keys.shape.sparse, keys.shape.dense, vector, out)
    return out


#: A core of more keys than this does not come by chance, and elimination costs its cube.
_LARGEST_CORE = 4096


def _solve(shape: Shape, at: int, rows: npt.NDArray[np.uint16], bits: U64, values: U64, vector: U64) -> bool:
    """Gauss-Jordan elimination of one bin's core, dense columns first; False if its rows are dependent.

    Columns that get no pivot keep their random entries, which move to the right-hand side.
    """
    if len(rows) > _LARGEST_CORE:
        return False
    dense = (1 << shape.dense) - 1
    width = values.shape[1]
    # An equation is one integer: bit j < dense is a dense column, the sparse ones follow.
    system = []
    for row, word, value in zip(rows.tolist(), bits.tolist(), values.tolist(), strict=True):
        equation = word & dense
        for position in row:
            equation ^= 1 << (shape.dense + position)
        system.append([equation, sum(v << (64 * w) for w, v in enumerate(value))])
    pivots: list[int] = []
    for k, pivot_row in enumerate(system):
        if not pivot_row[0]:
            return False
        # Highest bit: a sparse column where there is one, so that few dense columns are decided.
        column = pivot_row[0].bit_length() - 1
        pivots.append(column)
        for other, equation_row in enumerate(system):
            if other != k and equation_row[0] >> column & 1:
                equation_row[0] ^= pivot_row[0]
                equation_row[1] ^= pivot_row[1]
    chosen = set(pivots)
    solved = []
    for (equation, value), column in zip(system, pivots, strict=True):
        rest = equation ^ (1 << column)
        while rest:
            low = (rest & -rest).bit_length() - 1
            rest &= rest - 1
            if low in chosen:
                raise LocalError("protocol.state", "elimination left two pivots in one equation")
            value ^= sum(int(v) << (64 * w) for w, v in enumerate(vector[_entry(shape, at, low)].tolist()))
        solved.append((_entry(shape, at, column), value))
    for spot, value in solved:
        vector[spot] = [(value >> (64 * w)) & 0xFFFFFFFFFFFFFFFF for w in range(width)]
    return True


def _entry(shape: Shape, at: int, column: int) -> int:
    """Where an equation's column stands in the vector: dense columns come first here and last there."""
    return at + shape.sparse + column if column < shape.dense else at + column - shape.dense
