"""GF(2^64) and over it GF(2^128): slow exact operations, and products with one fixed factor.

    GF(2^64)  = GF(2)[x] / (x^64 + x^4 + x^3 + x + 1)       one uint64, bit i is the coefficient of x^i
    GF(2^128) = GF(2^64)[Y] / (Y^2 + Y + x^61)              two uint64 (u, v), the element u + v·Y

Addition is XOR. An element of GF(2^64) is (u, 0), so a subfield's scalar multiplies both words alike, which
is what a tower is for. vole's README, section 2, has the reasons.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError
from protocols.parallel import compiled

Words = npt.NDArray[np.uint64]

#: x^64 = x^4 + x^3 + x + 1.
REDUCTION = 0x1B

#: Y^2 = Y + x^61; of trace 1 over GF(2), so Y^2 + Y + x^61 has no root in GF(2^64).
CONSTANT = 1 << 61

_MASK = (1 << 64) - 1

#: Words that are drawn for a scalar, by the name of its field. A bit is always 1 where it is not 0: none.
WIDTH = {"gf2": 0, "gf64": 1, "gf128": 2}


def multiply64(a: int, b: int) -> int:
    """a · b in GF(2^64), bit by bit: the oracle, and for small tables."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        b >>= 1
        a = ((a << 1) & _MASK) ^ (REDUCTION if a >> 63 else 0)
    return product


def multiply128(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """a · b in GF(2^128), elements as (u, v) = u + v·Y. Slow, exact."""
    low, high = multiply64(a[0], b[0]), multiply64(a[1], b[1])
    cross = multiply64(a[0] ^ a[1], b[0] ^ b[1])  # = a0 b0 + a0 b1 + a1 b0 + a1 b1
    return low ^ multiply64(high, CONSTANT), cross ^ low


def element(words: Words) -> tuple[int, int]:
    """`uint64[2]` as a pair of integers."""
    return int(words[0]), int(words[1])


def tables(factor: Words) -> Words:
    """`uint64[16, 256, 2]`: entry [k, v] is factor · (the element whose byte k is v, and the others 0).

    Byte k < 8 is the k-th of the word u, least significant first; byte k ≥ 8 is that of v.
    """
    if factor.shape != (2,) or factor.dtype != np.uint64:
        raise LocalError(
            "protocol.argument", f"uint64[2] is needed, {factor.dtype}{list(factor.shape)} given"
        )
    basis = np.empty((16, 8, 2), dtype=np.uint64)
    for half in range(2):
        power = element(factor) if half == 0 else multiply128(element(factor), (0, 1))
        for i in range(64):
            basis[8 * half + i // 8, i % 8] = power
            power = multiply64(power[0], 2), multiply64(power[1], 2)
    table = np.zeros((16, 256, 2), dtype=np.uint64)
    for bit in range(8):
        table[:, 1 << bit : 2 << bit] = table[:, : 1 << bit] ^ basis[:, bit : bit + 1]
    return table


@compiled
def _multiply_add(
    out: Words, table: Words, scalars: npt.NDArray[np.uint8]
) -> None:  # pragma: no cover (compiled)
    for i in range(out.shape[0]):
        u, v = out[i, 0], out[i, 1]
        for k in range(scalars.shape[1]):
            byte = scalars[i, k]
            u ^= table[k, byte, 0]
            v ^= table[k, byte, 1]
        out[i, 0], out[i, 1] = u, v


def multiply_add(out: Words, factor: Words, scalars: Words) -> None:
    """out += factor · scalars, in place.

    `out: uint64[n, 2]`; `factor: uint64[2]`; `scalars: uint64[n]` in GF(2^64) or `uint64[n, 2]` in GF(2^128).
    Look-ups depend on the scalars and not on the factor: it is the factor (Δ) that must not show in the time.
    """
    n = len(out)
    width = 1 if scalars.ndim == 1 else 2
    if out.shape != (n, 2) or scalars.shape not in ((n,), (n, 2)) or scalars.dtype != np.uint64:
        raise LocalError(
            "protocol.argument",
            f"{scalars.dtype}{list(scalars.shape)} scalars for {list(out.shape)} elements",
        )
    bytes_ = np.require(scalars, "<u8", ["C", "W"]).reshape(n, width).view(np.uint8)
    _multiply_add(out, tables(factor), bytes_)
