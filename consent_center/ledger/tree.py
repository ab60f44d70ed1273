"""The RFC 6962 Merkle tree: hashes of leaves and nodes, roots, and tiles of 256 hashes.

    leaf = SHA-256(0x00 ‖ data)      node = SHA-256(0x01 ‖ left ‖ right)      empty root = SHA-256("")

`tree_hash` of n leaves splits at the largest power of two below n (RFC 6962, 2.1). A complete subtree of
height h over leaves j·2^h … is named (h, j). Tiles follow C2SP tlog-tiles: tile (L, i) holds up to 256 hashes
of the subtrees (8L, 256·i …); only its first, complete ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from consent_center.hashing import as_rows, blobs, sha256_rows

Bytes2 = npt.NDArray[np.uint8]

#: hash of the complete subtree (height, index)
NodeReader = Callable[[int, int], bytes]

EMPTY_ROOT = hashlib.sha256(b"").digest()
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT

#: Leaves of the complete subtrees that `rows_root` hashes one after the other: 2 to the power of it.
_HEIGHT = 18


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right); the prefix keeps a node from being passed off as a leaf."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def leaf_hashes(rows: Bytes2) -> Bytes2:
    """`leaf_hash` of each row of uint8[n, k]."""
    return sha256_rows(_prefixed(0, rows))


def pair_hashes(level: Bytes2) -> Bytes2:
    """uint8[2m, 32] -> uint8[m, 32]: the parents of consecutive pairs."""
    return sha256_rows(_prefixed(1, level.reshape(-1, 64)))


def _prefixed(prefix: int, rows: Bytes2) -> Bytes2:
    out = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    out[:, 0] = prefix
    out[:, 1:] = rows
    return out


def levels_of(hashes: Bytes2) -> list[Bytes2]:
    """All complete subtrees of n leaf hashes by height: level h has n >> h rows."""
    levels = [hashes]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append(pair_hashes(below[: len(below) // 2 * 2]))
    return levels


def reader_of(levels: list[Bytes2]) -> NodeReader:
    """A NodeReader over `levels_of(...)`."""
    return lambda height, index: levels[height][index].tobytes()


def peaks(size: int) -> list[tuple[int, int]]:
    """The complete subtrees (height, index) that make up a tree of `size` leaves, left to right."""
    found, start = [], 0
    for height in reversed(range(size.bit_length())):
        if size >> height & 1:
            found.append((height, start >> height))
            start += 1 << height
    return found


def root_of(size: int, node: NodeReader) -> bytes:
    """Root of the first `size` leaves: its peaks folded from the right."""
    if size == 0:
        return EMPTY_ROOT
    hashes = [node(height, index) for height, index in peaks(size)]
    root = hashes.pop()
    while hashes:
        root = node_hash(hashes.pop(), root)
    return root


def rows_root(rows: Bytes2) -> bytes:
    """Root of the tree whose leaves are the rows of uint8[n, k]; works on 2^18 of them at a time."""
    whole = len(rows) >> _HEIGHT
    tops = [fold(leaf_hashes(rows[i << _HEIGHT : (i + 1) << _HEIGHT])) for i in range(whole)]
    above = levels_of(as_rows(tops))
    rest = levels_of(leaf_hashes(rows[whole << _HEIGHT :]))

    def node(height: int, index: int) -> bytes:
        if height >= _HEIGHT:
            row = above[height - _HEIGHT][index]
        else:
            row = rest[height][index - (whole << _HEIGHT - height)]
        return bytes(row)

    return root_of(len(rows), node)


def tree_hash(hashes: Bytes2) -> bytes:
    """Root of n leaf hashes uint8[n, 32]."""
    if len(hashes) == 0:
        return EMPTY_ROOT
    return root_of(len(hashes), reader_of(levels_of(hashes)))


def fold(hashes: Bytes2) -> bytes:
    """Root of 2^k consecutive hashes, as a complete subtree."""
    while len(hashes) > TILE_WIDTH:
        hashes = pair_hashes(hashes)
    nodes = blobs(hashes)
    while len(nodes) > 1:  # so few are quicker one by one than as columns
        nodes = [node_hash(left, right) for left, right in zip(nodes[::2], nodes[1::2], strict=True)]
    return nodes[0]
