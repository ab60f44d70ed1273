"""SHA-256 and HMAC-SHA-256 in numba (FIPS 180-4, RFC 2104): the loops behind `consent_center.hashing`.

Not constant-time in the lengths; nothing branches on data. Imported when a batch first needs them, since
numba takes a while to load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

# fmt: off
_K = np.array([
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
], dtype=np.uint32)
_H0 = np.array([
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
], dtype=np.uint32)
# fmt: on


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    return compiled


@_jit
def _rotate(x: Any, r: Any) -> Any:
    return np.uint32((x >> np.uint32(r)) | (x << np.uint32(32 - r)))


@_jit
def _compress(state: Any, block: Any, w: Any) -> None:
    """One block of 64 bytes into `state` (uint32[8]); `w` is scratch, uint32[64]."""
    for t in range(16):
        w[t] = (
            (np.uint32(block[4 * t]) << np.uint32(24))
            | (np.uint32(block[4 * t + 1]) << np.uint32(16))
            | (np.uint32(block[4 * t + 2]) << np.uint32(8))
            | np.uint32(block[4 * t + 3])
        )
    for t in range(16, 64):
        x, y = w[t - 15], w[t - 2]
        s0 = _rotate(x, 7) ^ _rotate(x, 18) ^ (x >> np.uint32(3))
        s1 = _rotate(y, 17) ^ _rotate(y, 19) ^ (y >> np.uint32(10))
        w[t] = np.uint32(w[t - 16] + s0 + w[t - 7] + s1)
    a, b, c, d = state[0], state[1], state[2], state[3]
    e, f, g, h = state[4], state[5], state[6], state[7]
    for t in range(64):
        s1 = _rotate(e, 6) ^ _rotate(e, 11) ^ _rotate(e, 25)
        t1 = np.uint32(h + s1 + ((e & f) ^ (~e & g)) + _K[t] + w[t])
        s0 = _rotate(a, 2) ^ _rotate(a, 13) ^ _rotate(a, 22)
        t2 = np.uint32(s0 + ((a & b) ^ (a & c) ^ (b & c)))
        h, g, f = g, f, e
        e = np.uint32(d + t1)
        d, c, b = c, b, a
        a = np.uint32(t1 + t2)
    state[0] = np.uint32(state[0] + a)
    state[1] = np.uint32(state[1] + b)
    state[2] = np.uint32(state[2] + c)
    state[3] = np.uint32(state[3] + d)
    state[4] = np.uint32(state[4] + e)
    state[5] = np.uint32(state[5] + f)
    state[6] = np.uint32(state[6] + g)
    state[7] = np.uint32(state[7] + h)


@_jit
def _absorb(state: Any, message: Any, before: int, block: Any, w: Any) -> None:
    """Absorb `message`, padding and length; `before` bytes were absorbed already (a multiple of 64)."""
    size = message.shape[0]
    full = size // 64
    for i in range(full):
        _compress(state, message[64 * i : 64 * i + 64], w)
    rest = size - 64 * full
    for i in range(rest):
        block[i] = message[64 * full + i]
    block[rest] = 0x80
    for i in range(rest + 1, 64):
        block[i] = 0
    if rest >= 56:
        _compress(state, block, w)
        for i in range(64):
            block[i] = 0
    bits = np.uint64(before + size) * np.uint64(8)
    for i in range(8):
        block[63 - i] = np.uint8((bits >> np.uint64(8 * i)) & np.uint64(255))
    _compress(state, block, w)


@_jit
def _copy(source: Any, target: Any) -> None:
    """To the head of `target`. Not as a slice: numba would compile the text of its error, some seconds."""
    for i in range(source.shape[0]):
        target[i] = source[i]


@_jit
def _store(state: Any, out: Any) -> None:
    for i in range(8):
        for j in range(4):
            out[4 * i + j] = np.uint8((state[i] >> np.uint32(24 - 8 * j)) & np.uint32(255))


@_jit
def sha256_rows(rows: Any, out: Any, lo: int, hi: int) -> None:
    w, block, state = np.empty(64, np.uint32), np.empty(64, np.uint8), np.empty(8, np.uint32)
    for i in range(lo, hi):
        _copy(_H0, state)
        _absorb(state, rows[i], 0, block, w)
        _store(state, out[i])


@_jit
def _hmac_finish(outer: Any, inner: Any, digest: Any, out: Any, block: Any, w: Any) -> None:
    """The outer hash: `outer` is the state after key ^ opad, `inner` the finished inner state."""
    _store(inner, digest)
    _copy(outer, inner)
    _absorb(inner, digest, 64, block, w)
    _store(inner, out)


@_jit
def hmac_strings(
    inner: Any, outer: Any, prefix: Any, offsets: Any, data: Any, longest: int, out: Any, lo: int, hi: int
) -> None:
    w, block, state = np.empty(64, np.uint32), np.empty(64, np.uint8), np.empty(8, np.uint32)
    digest, message = np.empty(32, np.uint8), np.empty(prefix.shape[0] + longest, np.uint8)
    head = prefix.shape[0]
    _copy(prefix, message)
    for i in range(lo, hi):
        size = offsets[i + 1] - offsets[i]
        for j in range(size):
            message[head + j] = data[offsets[i] + j]
        _copy(inner, state)
        _absorb(state, message[: head + size], 64, block, w)
        _hmac_finish(outer, state, digest, out[i], block, w)


@_jit
def hmac_keyed(keys: Any, messages: Any, out: Any, lo: int, hi: int) -> None:
    w, block, state = np.empty(64, np.uint32), np.empty(64, np.uint8), np.empty(8, np.uint32)
    outer, digest, pad = np.empty(8, np.uint32), np.empty(32, np.uint8), np.empty(64, np.uint8)
    size = keys.shape[1]
    for i in range(lo, hi):
        pad[:] = 0x5C
        for j in range(size):
            pad[j] = keys[i, j] ^ 0x5C
        _copy(_H0, outer)
        _compress(outer, pad, w)
        for j in range(64):
            pad[j] ^= 0x5C ^ 0x36
        _copy(_H0, state)
        _compress(state, pad, w)
        _absorb(state, messages[i], 64, block, w)
        _hmac_finish(outer, state, digest, out[i], block, w)


@_jit
def midstate(key: Any, pad_byte: int) -> Any:
    w, state, block = np.empty(64, np.uint32), _H0.copy(), np.empty(64, np.uint8)
    block[:] = pad_byte
    for i in range(key.shape[0]):
        block[i] = key[i] ^ pad_byte
    _compress(state, block, w)
    return state
