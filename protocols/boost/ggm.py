"""GGM trees of many instances at once: a leaf a bin, all for the brand, all but one for the provider.

README, section 4. An instance is a row and a column. What is kept of one is its key: the brand's is q_1 (16
bytes), the provider's are t_1 and t_ℓ ⊕ C_ℓ (16 bytes a level); leaves are made from it whenever they are
wanted, in a `Bench` that is used again and again. Strings of 128 bits are two 64-bit words, the last axis of
uint64 arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.boost.hashing import Hash, Words, padded
from protocols.parallel import compiled

Bins = npt.NDArray[np.uint8]

#: Bytes of leaves that are made at a time: they and their parents stay in the processor's cache.
TILE = 1 << 19


class Bench:
    """Room for the trees of `instances` of 2^bits leaves each."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.instances = max(1, TILE // (16 << bits))
        size = 2 * padded(self.instances << (bits - 1))
        self.here, self.there = (np.zeros((size, 2), dtype=np.uint64) for _ in range(2))
        self.words = np.zeros(size, dtype=np.uint64)
        self.paths = np.zeros(self.instances, dtype=np.uint8)


@compiled
def _brand_roots(q: Any, delta: Any, nodes: Any) -> None:
    """X_{1,0} = q_1, X_{1,1} = q_1 ⊕ Δ."""
    for k in range(q.shape[0]):
        nodes[2 * k, 0], nodes[2 * k, 1] = q[k, 0], q[k, 1]
        nodes[2 * k + 1, 0], nodes[2 * k + 1, 1] = q[k, 0] ^ delta[0], q[k, 1] ^ delta[1]


@compiled
def _provider_roots(keys: Any, paths: Any, top: int, nodes: Any) -> None:
    """t_1 beside the path, nothing on it."""
    for k in range(keys.shape[0]):
        on = 2 * k + ((np.int64(paths[k]) >> top) & 1)
        off = on ^ 1
        nodes[off, 0], nodes[off, 1] = keys[k, 0, 0], keys[k, 0, 1]
        nodes[on, 0], nodes[on, 1] = 0, 0


@compiled
def _left_sums(children: Any, width: int, strings: Any, level: int, corrections: Any) -> None:
    """C_ℓ = q_ℓ ⊕ the sum of the left ones; children uint64[K · 2·width, 2], strings uint64[K, D, 2]."""
    for k in range(strings.shape[0]):
        a, b = strings[k, level, 0], strings[k, level, 1]
        first = 2 * width * k
        for j in range(first, first + 2 * width, 2):
            a ^= children[j, 0]
            b ^= children[j, 1]
        corrections[k, level - 1, 0], corrections[k, level - 1, 1] = a, b


@compiled
def _beside_the_path(children: Any, width: int, keys: Any, level: int, paths: Any, shift: int) -> None:
    """Of the children of the node on the path: the one off it from its level's key, nothing on it."""
    for k in range(keys.shape[0]):
        on = np.int64(paths[k]) >> shift
        side = 1 - (on & 1)
        first = 2 * width * k
        off = first + (on ^ 1)
        a, b = keys[k, level, 0], keys[k, level, 1]
        children[off, 0], children[off, 1] = 0, 0
        for j in range(first + side, first + 2 * width, 2):
            a ^= children[j, 0]
            b ^= children[j, 1]
        children[off, 0], children[off, 1] = a, b
        children[first + on, 0], children[first + on, 1] = 0, 0


def brand_leaves(q: Words, delta: Words, pi: Hash, bench: Bench) -> Words:
    """uint64[K · 2^D, 2] from q_1 uint64[K, 2], K ≤ bench.instances; good until the bench is used again."""
    nodes, spare, width = bench.here, bench.there, 2
    _brand_roots(q, delta, nodes)
    for _ in range(bench.bits - 1):
        pi.children(nodes, spare, len(q) * width)
        nodes, spare, width = spare, nodes, 2 * width
    return nodes


def corrections(strings: Words, delta: Words, pi: Hash, bench: Bench) -> Words:
    """C uint64[K, D − 1, 2] from all strings q uint64[K, D, 2], any K."""
    out = np.empty((len(strings), bench.bits - 1, 2), dtype=np.uint64)
    for at in range(0, len(strings), bench.instances):
        part, made = strings[at : at + bench.instances], out[at : at + bench.instances]
        nodes, spare, width = bench.here, bench.there, 2
        _brand_roots(part[:, 0], delta, nodes)
        for level in range(1, bench.bits):
            pi.children(nodes, spare, len(part) * width)
            _left_sums(spare, width, part, level, made)
            nodes, spare, width = spare, nodes, 2 * width
    return out


def provider_leaves(keys: Words, paths: Bins, pi: Hash, bench: Bench) -> Words:
    """uint64[K · 2^D, 2], zero at each instance's own bin paths uint8[K], from its keys uint64[K, D, 2]."""
    nodes, spare, width = bench.here, bench.there, 2
    _provider_roots(keys, paths, bench.bits - 1, nodes)
    for level in range(1, bench.bits):
        pi.children(nodes, spare, len(keys) * width)
        _beside_the_path(spare, width, keys, level, paths, bench.bits - 1 - level)
        nodes, spare, width = spare, nodes, 2 * width
    return nodes


def choices(paths: Bins, bits: int) -> npt.NDArray[np.uint8]:
    """uint8[K, D] of 0 and 1: what the provider chooses in the oblivious transfers, 1 − α_ℓ."""
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint8)
    return (((paths[:, None] >> shifts) & 1) ^ 1).astype(np.uint8)
