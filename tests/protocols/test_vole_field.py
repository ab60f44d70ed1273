"""GF(2^64), GF(2^128) and the ideal functionality of the VOLE."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oprf_helpers import stream

from protocols.errors import LocalError
from protocols.ot.field import CONSTANT, REDUCTION, multiply64, multiply128, multiply_add, tables
from protocols.vole.ideal import vole

WORD = st.integers(0, 2**64 - 1)
ELEMENT = st.tuples(WORD, WORD)
#: Prime factors of 2^64 - 1.
FACTORS = (3, 5, 17, 257, 641, 65537, 6700417)


def power64(a: int, exponent: int) -> int:
    result = 1
    while exponent:
        if exponent & 1:
            result = multiply64(result, a)
        a = multiply64(a, a)
        exponent >>= 1
    return result


def remainder(a: int, b: int) -> int:
    """a mod b as polynomials over GF(2)."""
    while a.bit_length() >= b.bit_length():
        a ^= b << (a.bit_length() - b.bit_length())
    return a


def plain_product(a: int, b: int) -> int:
    return sum_of(a << i for i in range(b.bit_length()) if b >> i & 1)


def sum_of(values) -> int:
    total = 0
    for value in values:
        total ^= value
    return total


def test_the_first_polynomial_is_irreducible_and_x_is_a_generator() -> None:
    modulus = 1 << 64 | REDUCTION
    half = power64(2, 1 << 32)
    assert power64(2, 1 << 64) == 2
    a, b = modulus, half ^ 2
    while b:
        a, b = b, remainder(a, b)
    assert a == 1  # Rabin: gcd(x^(2^32) - x, f) = 1
    assert all(power64(2, (2**64 - 1) // p) != 1 for p in FACTORS)


def test_the_second_polynomial_has_no_root() -> None:
    trace, power = 0, CONSTANT
    for _ in range(64):
        trace ^= power
        power = multiply64(power, power)
    assert trace == 1


@given(WORD, WORD)
def test_multiply64_is_the_product_of_polynomials(a: int, b: int) -> None:
    assert multiply64(a, b) == remainder(plain_product(a, b), 1 << 64 | REDUCTION)


@given(ELEMENT, ELEMENT, ELEMENT)
def test_multiply128_is_a_field_product(a, b, c) -> None:
    product = multiply128(a, b)
    u = multiply64(a[0], b[0]) ^ multiply64(multiply64(a[1], b[1]), CONSTANT)
    v = multiply64(a[0], b[1]) ^ multiply64(a[1], b[0]) ^ multiply64(a[1], b[1])
    assert product == (u, v) == multiply128(b, a)
    assert multiply128(product, c) == multiply128(a, multiply128(b, c))


def test_every_element_has_its_inverse() -> None:
    a = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
    inverse, square = (1, 0), a
    for _ in range(127):  # a^(2^128 - 2)
        square = multiply128(square, square)
        inverse = multiply128(inverse, square)
    assert multiply128(a, inverse) == (1, 0)


@settings(max_examples=30, deadline=None)
@given(ELEMENT, st.lists(ELEMENT, min_size=1, max_size=5))
def test_look_ups_are_the_product(factor, scalars) -> None:
    out = np.array([(i, i) for i in range(len(scalars))], dtype=np.uint64)
    wide = out.copy()
    delta = np.array(factor, dtype=np.uint64)
    multiply_add(out, delta, np.array([s[0] for s in scalars], dtype=np.uint64))
    multiply_add(wide, delta, np.array(scalars, dtype=np.uint64))
    for i, scalar in enumerate(scalars):
        u, v = multiply128(factor, (scalar[0], 0))
        assert (int(out[i, 0]), int(out[i, 1])) == (u ^ i, v ^ i)
        u, v = multiply128(factor, scalar)
        assert (int(wide[i, 0]), int(wide[i, 1])) == (u ^ i, v ^ i)


def test_known_answers() -> None:
    """Regression: x^127 in the tower's terms, and a digest of a table."""
    assert multiply64(1 << 63, 2) == REDUCTION
    assert multiply128((0, 1), (0, 1)) == (CONSTANT, 1)
    table = tables(np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], dtype=np.uint64))
    digest = hashlib.sha256(table.astype("<u8").tobytes()).hexdigest()
    assert digest == "e6ce7159c57febd444fa214f448c6d78118d1b3089ab233eb283a14f21072cdc"


def test_wrong_shapes_are_refused() -> None:
    out, delta = np.zeros((3, 2), dtype=np.uint64), np.zeros(2, dtype=np.uint64)
    for scalars in (
        np.zeros(2, dtype=np.uint64),
        np.zeros((3, 3), dtype=np.uint64),
        np.zeros(3, dtype=np.int64),
    ):
        with pytest.raises(LocalError, match="protocol.argument"):
            multiply_add(out, delta, scalars)
    with pytest.raises(LocalError, match="protocol.argument"):
        tables(np.zeros(3, dtype=np.uint64))


@pytest.mark.parametrize("field", ["gf2", "gf64", "gf128"])
def test_the_ideal_functionality_is_correlated(field: str) -> None:
    receiver, sender = vole(50, stream("ideal"), field)
    delta = (int(sender.delta[0]), int(sender.delta[1]))
    for a, b, c in zip(receiver.a, sender.b, receiver.c.reshape(50, -1), strict=True):
        scalar = (int(c[0]), int(c[1]) if field == "gf128" else 0)
        product = multiply128(delta, scalar)
        assert (int(a[0] ^ b[0]), int(a[1] ^ b[1])) == product
    with pytest.raises(LocalError, match="protocol.argument"):
        vole(1, stream("ideal"), "gf3")
