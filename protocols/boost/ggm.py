"""GGM trees of all instances at once: one leaf a bin, all of them for the brand, all but one for the
provider.

README, section 4. An instance is a row and a column. Strings of 128 bits are two 64-bit words, the last
axis of
uint64 arrays. AES runs over whole blocks through `cryptography`; the rest are loops over contiguous arrays.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols.labels import label
from protocols.parallel import compiled

Words = npt.NDArray[np.uint64]
Bins = npt.NDArray[np.uint8]


class Permutation:
    """AES-128 under a public key that follows from the session and a usage: the π of the README."""

    def __init__(self, usage: str, session: bytes) -> None:
        key = hashlib.sha256(label("boost", "both", usage, session)).digest()[:16]
        # ECB is the bare permutation, which is what is wanted here; nothing is encrypted with it.
        self._encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305

    def __call__(self, blocks: Words) -> Words:
        """π of every block of a contiguous uint64[…, 2]; same shape."""
        raw = blocks.reshape(-1).view(np.uint8)
        out = np.empty(raw.size + 15, dtype=np.uint8)
        self._encryptor.update_into(memoryview(raw.data), memoryview(out.data))
        return out[: raw.size].view(np.uint64).reshape(blocks.shape)


@compiled
def _sigma(x: Any, out: Any) -> None:
    """σ(x_L ‖ x_R) = (x_L ⊕ x_R) ‖ x_L, uint64[n, 2]."""
    for i in range(x.shape[0]):
        out[i, 0] = x[i, 0] ^ x[i, 1]
        out[i, 1] = x[i, 0]


@compiled
def _brand_level(parents: Any, s: Any, e: Any, q: Any, children: Any, corrections: Any) -> None:
    """Children uint64[K, 2w, 2] of parents[K, w, 2]; corrections[K, 2] = q ⊕ the sum of the left ones."""
    for k in range(parents.shape[0]):
        a, b = q[k, 0], q[k, 1]
        for j in range(parents.shape[1]):
            h0, h1 = e[k, j, 0] ^ s[k, j, 0], e[k, j, 1] ^ s[k, j, 1]
            children[k, 2 * j, 0], children[k, 2 * j, 1] = h0, h1
            children[k, 2 * j + 1, 0] = h0 ^ parents[k, j, 0]
            children[k, 2 * j + 1, 1] = h1 ^ parents[k, j, 1]
            a ^= h0
            b ^= h1
        corrections[k, 0], corrections[k, 1] = a, b


@compiled
def _provider_level(parents: Any, s: Any, e: Any, keys: Any, paths: Any, shift: int, children: Any) -> None:
    """The same without the node on the path paths[K] >> shift; keys[K, 2] = t ⊕ C, the sum off the path."""
    for k in range(parents.shape[0]):
        path = np.int64(paths[k]) >> shift
        lost, side = path >> 1, 1 - (path & 1)
        a, b = keys[k, 0], keys[k, 1]
        for j in range(parents.shape[1]):
            if j == lost:
                continue
            h0, h1 = e[k, j, 0] ^ s[k, j, 0], e[k, j, 1] ^ s[k, j, 1]
            children[k, 2 * j, 0], children[k, 2 * j, 1] = h0, h1
            g0, g1 = h0 ^ parents[k, j, 0], h1 ^ parents[k, j, 1]
            children[k, 2 * j + 1, 0], children[k, 2 * j + 1, 1] = g0, g1
            a ^= g0 if side else h0
            b ^= g1 if side else h1
        children[k, 2 * lost + side, 0], children[k, 2 * lost + side, 1] = a, b
        children[k, 2 * lost + 1 - side, 0] = 0
        children[k, 2 * lost + 1 - side, 1] = 0


def sigma(x: Words) -> Words:
    """σ of every block of a contiguous uint64[…, 2]."""
    out = np.empty_like(x)
    _sigma(x.reshape(-1, 2), out.reshape(-1, 2))
    return out


def brand_leaves(q: Words, delta: Words, pi: Permutation) -> tuple[Words, Words]:
    """(leaves uint64[K, 2^D, 2], corrections uint64[K, D−1, 2]) from the strings q uint64[K, D, 2]."""
    count, levels = q.shape[:2]
    nodes = np.stack([q[:, 0], q[:, 0] ^ delta], axis=1)
    corrections = np.empty((count, levels - 1, 2), dtype=np.uint64)
    for level in range(1, levels):
        s = sigma(nodes)
        children = np.empty((count, 2 * nodes.shape[1], 2), dtype=np.uint64)
        _brand_level(nodes, s, pi(s), q[:, level], children, corrections[:, level - 1])
        nodes = children
    return nodes, corrections


def provider_leaves(t: Words, corrections: Words, paths: Bins, pi: Permutation) -> Words:
    """uint64[K, 2^D, 2], zero at each instance's own bin paths uint8[K]; t uint64[K, D, 2] are its
    strings."""
    count, levels = t.shape[:2]
    first = (paths >> np.uint8(levels - 1)).astype(np.int64)
    nodes = np.zeros((count, 2, 2), dtype=np.uint64)
    nodes[np.arange(count), 1 - first] = t[:, 0]
    for level in range(1, levels):
        s = sigma(nodes)
        children = np.empty((count, 2 * nodes.shape[1], 2), dtype=np.uint64)
        keys = t[:, level] ^ corrections[:, level - 1]
        _provider_level(nodes, s, pi(s), keys, paths, levels - 1 - level, children)
        nodes = children
    return nodes


def choices(paths: Bins, bits: int) -> npt.NDArray[np.uint8]:
    """uint8[K, D] of 0 and 1: what the provider chooses in the oblivious transfers, 1 − α_ℓ."""
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint8)
    return (((paths[:, None] >> shifts) & 1) ^ 1).astype(np.uint8)
