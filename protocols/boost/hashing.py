"""H(x) = π(σ(x)) ⊕ σ(x) of many strings: README, section 4. On the processor's AES instructions where it
has them, from a string to its two children or to its word of 64 bits at once; else by OpenSSL, step by step.

Strings of 128 bits are two little-endian 64-bit words. Calls work on whole groups of `GROUP` strings, so that
arrays have room for a multiple of that many; what is made of strings beyond the last one is never read.
"""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols.labels import label
from protocols.parallel import Inline, compiled

Words = npt.NDArray[np.uint64]

#: Strings that are worked on at a time: enough independent ones to keep the AES unit busy.
GROUP = 16


def padded(count: int) -> int:
    """Strings that an array for `count` of them must have room for."""
    return -(-count // GROUP) * GROUP


@cache
def instructions() -> int:
    """Blocks that one AES instruction of this processor takes: 2 with VAES, 1 with AES-NI, 0 without."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return 0
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if not features.get("aes", False):
        return 0
    return 2 if features.get("vaes", False) and features.get("avx2", False) else 1


def _hashes(builder: Any, source: Any, keys: Any) -> list[tuple[Any, Any]]:
    """Code for (x, H(x)) of the `GROUP` strings at address `source`, as vectors of one or two strings."""
    from llvmlite import ir

    blocks = max(1, instructions())
    word, half = ir.IntType(64), ir.IntType(32)
    one, vector = ir.VectorType(word, 2), ir.VectorType(word, 2 * blocks)
    module, suffix = builder.module, ".256" if blocks == 2 else ""

    def declared(name: str) -> Any:
        kind = ir.FunctionType(vector, [vector, vector])
        return module.globals.get(name) or ir.Function(module, kind, name)

    def lanes(*numbers: int) -> Any:
        return ir.Constant(ir.VectorType(half, len(numbers)), list(numbers))

    def load(base: Any, offset: int, kind: Any) -> Any:
        at = builder.inttoptr(builder.add(base, ir.Constant(base.type, offset)), kind.as_pointer())
        value = builder.load(at)
        value.align = 8
        return value

    swap = lanes(*(i ^ 1 for i in range(2 * blocks)))
    left = ir.Constant(vector, [(1 << 64) - 1 if i % 2 == 0 else 0 for i in range(2 * blocks)])
    middle, final = declared("llvm.x86.aesni.aesenc" + suffix), declared("llvm.x86.aesni.aesenclast" + suffix)
    out = []
    for first in range(0, GROUP // blocks, 8):  # eight at a time fit the registers
        x = [load(source, 16 * blocks * i, vector) for i in range(first, first + 8)]
        s = [builder.xor(builder.shuffle_vector(v, v, swap), builder.and_(v, left)) for v in x]
        state = s
        for r in range(11):
            key = load(keys, 16 * r, one)
            key = builder.shuffle_vector(key, key, lanes(*(i % 2 for i in range(2 * blocks))))
            if r == 0:
                state = [builder.xor(v, key) for v in state]
            else:
                state = [builder.call(middle if r < 10 else final, [v, key]) for v in state]
        out += [(a, builder.xor(v, b)) for a, v, b in zip(x, state, s, strict=True)]
    return out


def _store(builder: Any, value: Any, base: Any, offset: int) -> None:
    from llvmlite import ir

    at = builder.add(base, ir.Constant(base.type, offset))
    builder.store(value, builder.inttoptr(at, value.type.as_pointer())).align = 8


def _shuffled(builder: Any, a: Any, b: Any, *numbers: int) -> Any:
    from llvmlite import ir

    return builder.shuffle_vector(
        a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), list(numbers))
    )


@Inline
def _children_of_group(typingctx: Any, source: Any, target: Any, keys: Any) -> Any:
    """H(x) and H(x) ⊕ x of each x, one after the other. All by address."""
    from numba import types

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = 0
        for x, h in _hashes(builder, args[0], args[2]):
            right = builder.xor(h, x)
            pairs = [h, right]
            if x.type.count == 4:
                pairs = [_shuffled(builder, h, right, *n) for n in ((0, 1, 4, 5), (2, 3, 6, 7))]
            for vector in pairs:
                _store(builder, vector, args[1], at)
                at += 8 * vector.type.count
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), build


@Inline
def _words_of_group(typingctx: Any, source: Any, target: Any, keys: Any) -> Any:
    """The first word of H(x) of each x. All by address."""
    from numba import types

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        found = [h for _, h in _hashes(builder, args[0], args[2])]
        at = 0
        for a, b in zip(found[::2], found[1::2], strict=True):
            words = _shuffled(builder, a, b, *range(0, 2 * a.type.count, 2))
            _store(builder, words, args[1], at)
            at += 8 * words.type.count
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), build


@compiled
def _native(x: Any, keys: Any, out: Any, count: int, children: bool) -> None:
    """Group by group: of each of `count` strings its two children, or else its word."""
    source, target, key = x.ctypes.data, out.ctypes.data, keys.ctypes.data
    for i in range(0, count, GROUP):
        if children:
            _children_of_group(source + 16 * i, target + 32 * i, key)
        else:
            _words_of_group(source + 16 * i, target + 8 * i, key)


@compiled
def _sigma(x: Any, out: Any, count: int) -> None:
    """σ(x_L ‖ x_R) = (x_L ⊕ x_R) ‖ x_L."""
    for i in range(count):
        out[i, 0] = x[i, 0] ^ x[i, 1]
        out[i, 1] = x[i, 0]


@compiled
def _plain_children(x: Any, s: Any, e: Any, out: Any, count: int) -> None:
    for i in range(count):
        h0, h1 = e[i, 0] ^ s[i, 0], e[i, 1] ^ s[i, 1]
        out[2 * i, 0], out[2 * i, 1] = h0, h1
        out[2 * i + 1, 0], out[2 * i + 1, 1] = h0 ^ x[i, 0], h1 ^ x[i, 1]


@compiled
def _plain_words(s: Any, e: Any, out: Any, count: int) -> None:
    for i in range(count):
        out[i] = e[i, 0] ^ s[i, 0]


class Hash:
    """H with the AES key that follows from the session and a usage. The key is public: no string is kept
    confidential by it."""

    def __init__(self, usage: str, session: bytes) -> None:
        self._key = hashlib.sha256(label("boost", "both", usage, session)).digest()[:16]
        self._rounds = round_keys(self._key) if instructions() else None
        # ECB is the bare permutation, which is what is wanted here.
        self._encryptor = Cipher(algorithms.AES(self._key), modes.ECB()).encryptor()  # noqa: S305

    def children(self, parents: Words, out: Words, count: int) -> None:
        """out[2i] = H(parents[i]), out[2i + 1] = H(parents[i]) ⊕ parents[i] for i < count.

        `parents` uint64[n, 2] and `out` uint64[2n, 2], contiguous, with n ≥ padded(count).
        """
        if self._rounds is not None:
            _native(parents, self._rounds, out, count, True)
            return
        s, e = self._images(parents, count)
        _plain_children(parents, s, e, out, count)

    def words(self, x: Words, out: Words, count: int) -> None:
        """out[i] = the first 64 bits of H(x[i]) for i < count; `x` uint64[n, 2], `out` uint64[n] as above."""
        if self._rounds is not None:
            _native(x, self._rounds, out, count, False)
            return
        s, e = self._images(x, count)
        _plain_words(s, e, out, count)

    def _images(self, x: Words, count: int) -> tuple[Words, Words]:
        """(σ(x), π(σ(x)))."""
        s = np.empty((count, 2), dtype=np.uint64)
        _sigma(x, s, count)
        raw = np.empty(16 * count + 15, dtype=np.uint8)
        self._encryptor.update_into(memoryview(s.reshape(-1).view(np.uint8).data), memoryview(raw.data))
        return s, raw[: 16 * count].view(np.uint64).reshape(count, 2)


@cache
def _s_box() -> bytes:
    """FIPS 197, section 5.1.1: the inverse in GF(2^8), then an affine map over GF(2)."""

    def times(a: int, b: int) -> int:
        out = 0
        while b:
            out ^= a * (b & 1)
            a = (a << 1) ^ (0x11B if a & 0x80 else 0)
            b >>= 1
        return out

    box = []
    for x in range(256):
        power = x
        for _ in range(6):  # x^(2^k − 1) for k = 2 … 7
            power = times(times(power, power), x)
        inverse = times(power, power)  # x^254
        turned = [((inverse << k) | (inverse >> (8 - k))) & 0xFF for k in range(5)]
        box.append(turned[0] ^ turned[1] ^ turned[2] ^ turned[3] ^ turned[4] ^ 0x63)
    return bytes(box)


def round_keys(key: bytes) -> Words:
    """The eleven round keys of AES-128, uint64[22]: FIPS 197, section 5.2."""
    box, words, constant = _s_box(), [key[i : i + 4] for i in range(0, 16, 4)], 1
    for i in range(4, 44):
        last = words[-1]
        if i % 4 == 0:
            last = bytes(box[b] for b in last[1:] + last[:1])
            last = bytes([last[0] ^ constant]) + last[1:]
            constant = (constant << 1) ^ (0x11B if constant & 0x80 else 0)
        words.append(bytes(a ^ b for a, b in zip(words[i - 4], last, strict=True)))
    return np.frombuffer(b"".join(words), dtype=np.uint64)
