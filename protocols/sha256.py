"""SHA-256 (FIPS 180-4) of many short texts at once, over contiguous bytes; no Python between two texts.

    digests(b"phone\\0", data, offsets)[i] = SHA-256(prefix ‖ data[offsets[i] : offsets[i + 1]])

and HMAC-SHA-256 (RFC 2104) of them under one key.

On a processor with SHA instructions a block takes some 50 ns, otherwise the rounds are computed one by one
(some 200 ns). Neither way has branches or indices that depend on the text.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError
from protocols.parallel import Inline, compiled, parallel, prange, read_only

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int32] | npt.NDArray[np.int64]

#: Bytes of a block.
_BLOCK = 64


def _fractions(roots: int, count: int) -> list[int]:
    """First 32 bits of the fractional parts of the square (2) or cube (3) roots of the first primes."""
    primes = [p for p in range(2, 312) if all(p % d for d in range(2, int(p**0.5) + 1))][:count]
    out = []
    for p in primes:
        low, high = 0, p << 32
        while low < high:  # the largest x with x^roots <= p 2^(32 roots)
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**roots <= p << (32 * roots) else (low, middle - 1)
        out.append(low & 0xFFFFFFFF)
    return out


#: Section 5.3.3 and 4.2.2.
_INITIAL = np.array(_fractions(2, 8), dtype=np.uint32)
_K = np.array(_fractions(3, 64), dtype=np.uint32)
_K_WORDS = [int(k) for k in _K]

#: Elements of a register pair in the order in which the instructions hold a…h: F E B A, H G D C.
_REGISTER = (5, 4, 1, 0, 7, 6, 3, 2)


@cache
def native() -> bool:
    """Whether this machine has the instructions (and those that they come with)."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return all(features.get(name, False) for name in ("sha", "sse4.1", "ssse3"))


@Inline
def _compress_native(typingctx: Any, state: Any, block: Any) -> Any:
    """One block into the state, both by address: eight words in the order of `_REGISTER`, 64 bytes."""
    from llvmlite import ir
    from numba import types

    signature = types.void(types.intp, types.intp)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word, vector = ir.IntType(32), ir.VectorType(ir.IntType(32), 4)
        pointer, module = vector.as_pointer(), builder.module

        def declared(name: str, arguments: int) -> Any:
            kind = ir.FunctionType(vector, [vector] * arguments)
            return module.globals.get(name) or ir.Function(module, kind, name)

        rounds = declared("llvm.x86.sha256rnds2", 3)
        first, second = declared("llvm.x86.sha256msg1", 2), declared("llvm.x86.sha256msg2", 2)
        swap = declared("llvm.bswap.v4i32", 1)

        def load(base: Any, offset: int) -> Any:
            at = builder.add(base, ir.Constant(base.type, offset))
            value = builder.load(builder.inttoptr(at, pointer))
            value.align = 1
            return value

        def shuffled(a: Any, b: Any, *lanes: int) -> Any:
            return builder.shuffle_vector(a, b, ir.Constant(vector, [ir.Constant(word, n) for n in lanes]))

        abef, cdgh = old = load(args[0], 0), load(args[0], 16)
        schedule = [builder.call(swap, [load(args[1], 16 * t)]) for t in range(4)]
        for t in range(16):
            if t >= 4:
                four, three, two, one = schedule[-4:]
                sums = builder.add(builder.call(first, [four, three]), shuffled(two, one, 1, 2, 3, 4))
                schedule.append(builder.call(second, [sums, one]))
            constants = ir.Constant(vector, [ir.Constant(word, k) for k in _K_WORDS[4 * t : 4 * t + 4]])
            mixed = builder.add(schedule[t], constants)
            cdgh, abef = abef, builder.call(rounds, [cdgh, abef, mixed])
            cdgh, abef = abef, builder.call(rounds, [cdgh, abef, shuffled(mixed, mixed, 2, 3, 0, 1)])
        for offset, new, before in ((0, abef, old[0]), (16, cdgh, old[1])):
            at = builder.add(args[0], ir.Constant(args[0].type, offset))
            builder.store(builder.add(new, before), builder.inttoptr(at, pointer)).align = 1
        return context.get_dummy_value()

    return signature, build


@compiled
def _rotated(x: np.uint32, by: int) -> np.uint32:  # pragma: no cover (compiled)
    return np.uint32((x >> np.uint32(by)) | (x << np.uint32(32 - by)))


@compiled
def _compress_plain(h: Words, block: Bytes, at: int) -> None:  # pragma: no cover (compiled)
    """Section 6.2.2; `h` in the order a…h."""
    w = np.empty(64, dtype=np.uint32)
    for t in range(16):
        i = at + 4 * t
        w[t] = (
            (np.uint32(block[i]) << np.uint32(24))
            | (np.uint32(block[i + 1]) << np.uint32(16))
            | (np.uint32(block[i + 2]) << np.uint32(8))
            | np.uint32(block[i + 3])
        )
    for t in range(16, 64):
        s0 = _rotated(w[t - 15], 7) ^ _rotated(w[t - 15], 18) ^ (w[t - 15] >> np.uint32(3))
        s1 = _rotated(w[t - 2], 17) ^ _rotated(w[t - 2], 19) ^ (w[t - 2] >> np.uint32(10))
        w[t] = np.uint32(np.uint32(w[t - 16] + s0) + np.uint32(w[t - 7] + s1))
    a, b, c, d, e, f, g, k = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
    for t in range(64):
        s1 = _rotated(e, 6) ^ _rotated(e, 11) ^ _rotated(e, 25)
        t1 = np.uint32(np.uint32(k + s1) + np.uint32(np.uint32((e & f) ^ (~e & g)) + np.uint32(_K[t] + w[t])))
        s0 = _rotated(a, 2) ^ _rotated(a, 13) ^ _rotated(a, 22)
        t2 = np.uint32(s0 + np.uint32((a & b) ^ (a & c) ^ (b & c)))
        k, g, f, e, d, c, b, a = g, f, e, np.uint32(d + t1), c, b, a, np.uint32(t1 + t2)
    h[0] += a
    h[1] += b
    h[2] += c
    h[3] += d
    h[4] += e
    h[5] += f
    h[6] += g
    h[7] += k


@compiled
def _padded(
    prefix: Bytes, data: Bytes, low: Any, high: Any, before: Any, room: Bytes
) -> int:  # pragma: no cover (compiled)
    """Section 5.1.1 into `room`, of a text of which `before` bytes are hashed; gives the number of blocks."""
    size = len(prefix) + high - low
    blocks = (size + 9 + 63) // 64
    for i in range(len(prefix)):
        room[i] = prefix[i]
    for i in range(low, high):
        room[len(prefix) + i - low] = data[i]
    room[size] = 0x80
    for i in range(size + 1, 64 * blocks - 8):
        room[i] = 0
    bits = np.uint64(8 * (before + size))
    for i in range(8):
        room[64 * blocks - 1 - i] = np.uint8((bits >> np.uint64(8 * i)) & np.uint64(255))
    return int(blocks)


@compiled
def _written(h: Words, out: Bytes) -> None:  # pragma: no cover (compiled)
    for k in range(8):
        for i in range(4):
            out[4 * k + i] = np.uint8((h[k] >> np.uint32(24 - 8 * i)) & np.uint32(255))


#: Texts that one turn of a parallel loop hashes.
_TURN = 4096


@parallel
def _native(
    start: Words, before: int, prefix: Bytes, data: Bytes, offsets: Any, longest: int, out: Bytes
) -> None:  # pragma: no cover
    n = len(offsets) - 1
    for turn in prange((n + _TURN - 1) // _TURN):
        room = np.empty(len(prefix) + longest + 73, dtype=np.uint8)
        state, h = np.empty(8, dtype=np.uint32), np.empty(8, dtype=np.uint32)
        for i in range(turn * _TURN, min((turn + 1) * _TURN, n)):
            low, high = np.int64(offsets[i]), np.int64(offsets[i + 1])
            blocks = _padded(prefix, data, low, high, before, room)
            for k in range(8):
                state[k] = start[_REGISTER[k]]
            for b in range(blocks):
                _compress_native(state.ctypes.data, room.ctypes.data + 64 * b)
            for k in range(8):
                h[_REGISTER[k]] = state[k]
            _written(h, out[i])


@parallel
def _plain(
    start: Words, before: int, prefix: Bytes, data: Bytes, offsets: Any, longest: int, out: Bytes
) -> None:  # pragma: no cover
    n = len(offsets) - 1
    for turn in prange((n + _TURN - 1) // _TURN):
        room = np.empty(len(prefix) + longest + 73, dtype=np.uint8)
        h = np.empty(8, dtype=np.uint32)
        for i in range(turn * _TURN, min((turn + 1) * _TURN, n)):
            low, high = np.int64(offsets[i]), np.int64(offsets[i + 1])
            blocks = _padded(prefix, data, low, high, before, room)
            for k in range(8):
                h[k] = start[k]
            for b in range(blocks):
                _compress_plain(h, room, 64 * b)
            _written(h, out[i])


def digests(prefix: bytes, data: Bytes, offsets: Offsets) -> Bytes:
    """uint8[n, 32] of n texts: text i is data[offsets[i] : offsets[i + 1]], n + 1 rising offsets.

    LocalError if the offsets do not lie in the data: they are addresses for compiled code.
    """
    return _from(_INITIAL, 0, prefix, data, offsets)


def hmacs(key: bytes, prefix: bytes, data: Bytes, offsets: Offsets) -> Bytes:
    """uint8[n, 32]: HMAC-SHA-256(key, prefix ‖ text) (RFC 2104) of n texts, as `digests`."""
    inner, outer = (_keyed(key, pad) for pad in (0x36, 0x5C))
    found = _from(inner, _BLOCK, prefix, data, offsets)
    ends = np.arange(0, 32 * len(found) + 1, 32, dtype=np.int64)
    # In the same place: each is read before it is overwritten.
    return _from(outer, _BLOCK, b"", found.reshape(-1), ends, found)


def _keyed(key: bytes, pad: int) -> Words:
    """The state after the first block of an HMAC's inner or outer hash, a…h."""
    short = hashlib.sha256(key).digest() if len(key) > _BLOCK else key
    block = np.frombuffer(short.ljust(_BLOCK, b"\0"), dtype=np.uint8) ^ np.uint8(pad)
    state = _INITIAL.copy()
    _compress_plain(state, block, 0)
    return state


def _from(
    start: Words, before: int, prefix: bytes, data: Bytes, offsets: Offsets, out: Bytes | None = None
) -> Bytes:
    n = len(offsets) - 1
    if n < 0 or data.dtype != np.uint8 or offsets.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        raise LocalError("protocol.argument", f"{data.dtype} bytes and {offsets.dtype}[{n + 1}] offsets")
    if out is None:
        out = np.empty((n, 32), dtype=np.uint8)
    if n == 0:
        return out
    lengths = np.diff(offsets)
    if int(lengths.min()) < 0 or int(offsets[0]) < 0 or int(offsets[-1]) > len(data):
        raise LocalError("protocol.argument", "offsets do not rise, or point outside of the data")
    kernel = _native if native() else _plain
    # Compiled once for each kind of offsets, and not again for arrays that may be written to.
    lead, data, offsets = (read_only(a) for a in (np.frombuffer(prefix, dtype=np.uint8), data, offsets))
    kernel(read_only(start), before, lead, data, offsets, int(lengths.max()), out)
    return out
