"""What sender and receiver share between the columns of OT extension and the trees: README section 3."""

from __future__ import annotations

import hashlib

import numpy as np

from protocols.labels import label
from protocols.ot.aes import Permutation, Words, hash_rows, public_key
from protocols.ot.columns import transpose
from protocols.ot.field import CONSTANT, WIDTH
from protocols.vole.lpn import Shape


class Layout:
    """Where in x what stands, in words: the trees' choice bits, noise values, their sum if malicious."""

    def __init__(self, shape: Shape, field: str, malicious: bool) -> None:
        self.shape = shape
        self.width = WIDTH[field]
        self.binary = field == "gf2"
        self.malicious = malicious
        self.choices = 2 * -(-shape.depth * shape.blocks // 128)
        self.values = shape.blocks * self.width
        self.words = self.choices + self.values + (2 if malicious else 0)


def elements(columns: Words) -> Words:
    """Σ_j basis_j · column_j, word by word: `uint64[128, k]` to `uint64[k, 2]`; basis x^j, then x^j·Y."""
    out = np.zeros((columns.shape[1], 2), dtype=np.uint64)
    for half in range(2):
        word = np.zeros(columns.shape[1], dtype=np.uint64)
        for column in columns[64 * half : 64 * half + 64][::-1]:
            word = times_x(word) ^ column
        out[:, half] = word
    return out


def times_x(words: Words) -> Words:
    """x · word in GF(2^64), for arrays."""
    return (words << np.uint64(1)) ^ ((words >> np.uint64(63)) * np.uint64(0x1B))


def joined(pairs: Words) -> Words:
    """first + Y · second of `uint64[k, 2, 2]`: Δ · (u + v·Y) from Δ · u and Δ · v."""
    first, second = pairs[:, 0], pairs[:, 1]
    shifted = second[:, 1]
    for _ in range(CONSTANT.bit_length() - 1):
        shifted = times_x(shifted)
    return np.column_stack([first[:, 0] ^ shifted, first[:, 1] ^ second[:, 0] ^ second[:, 1]])


def base_values(columns: Words, layout: Layout) -> tuple[Words, Words]:
    """(the blocks' noisy VOLE: `uint64[blocks, 2]`, the check's: `uint64[1, 2]`, or `uint64[0, 2]`)."""
    start, end = layout.choices, layout.choices + layout.values
    values = elements(columns[:, start:end])
    if layout.width == 2:
        values = joined(values.reshape(-1, 2, 2))
    return values, joined(elements(columns[:, end : layout.words]).reshape(-1, 2, 2))


def tree_keys(columns: Words, layout: Layout, session: bytes, delta: Words | None = None) -> Words:
    """Keys that mask the trees' sums, `uint64[depth, blocks, 2]`; with `delta`, those of the other choice."""
    shape = layout.shape
    rows = transpose(columns[:, : layout.choices])[: shape.depth * shape.blocks]
    if delta is not None:
        rows = rows ^ delta
    permutation = Permutation(public_key(label("vole", "both", "tree keys", session)))
    return hash_rows(permutation, rows, 0).reshape(shape.depth, shape.blocks, 2)


def proof(value: tuple[int, int], session: bytes) -> bytes:
    """The hash that the sender shows of its evaluation: of an element that a cheating receiver can't know."""
    data = int(value[0]).to_bytes(8, "little") + int(value[1]).to_bytes(8, "little")
    return hashlib.sha256(label("vole", "sender", "proof", session) + data).digest()
