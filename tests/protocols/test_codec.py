"""The codec: one encoding a message, nothing but PeerError from bytes; and the labels."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codec import B16, B32, U8, U32, U64, Codec, array_of
from protocols.errors import LocalError, PeerError
from protocols.labels import label


@dataclass(frozen=True)
class Everything:
    small: U8
    medium: U32
    large: U64
    key: B16
    digest: B32
    data: bytes
    more: bytes


@dataclass(frozen=True)
class Empty:
    pass


CODEC = Codec(Everything, Empty)

messages = st.builds(
    Everything,
    st.integers(0, 2**8 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=40),
    st.binary(max_size=40),
)


def test_layout() -> None:
    message = Everything(1, 2, 3, b"k" * 16, b"d" * 32, b"ab", b"")
    expected = (
        "01" "01" "00000002" "0000000000000003" + "6b" * 16 + "64" * 32 + "00000002" "6162" "00000000"
    )  # fmt: skip
    assert CODEC.encode(message).hex() == expected
    assert CODEC.encode(Empty()) == b"\x02"


@given(messages)
def test_round_trip(message: Everything) -> None:
    assert CODEC.decode(CODEC.encode(message), Everything) == message


@given(messages, st.data())
def test_every_cut_and_every_addition_is_refused(message: Everything, data: st.DataObject) -> None:
    encoded = CODEC.encode(message)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    for bad in (encoded[:cut], encoded + b"\x00"):
        with pytest.raises(PeerError, match=r"protocol\.malformed"):
            CODEC.decode(bad, Everything)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_the_peers_fault(data: bytes) -> None:
    try:
        message = CODEC.decode(data, Everything, Empty)
    except PeerError:
        return
    assert CODEC.encode(message) == data


def test_a_type_that_is_not_due() -> None:
    with pytest.raises(PeerError, match="Empty came where Everything was due"):
        CODEC.decode(b"\x02", Everything)
    for unknown in (b"\x00", b"\x03", b"\xff"):
        with pytest.raises(PeerError, match="unknown message type"):
            CODEC.decode(unknown, Empty)


@pytest.mark.parametrize(
    "change", [{"small": 256}, {"medium": -1}, {"large": 1 << 64}, {"key": b"k" * 15}, {"digest": b""}]
)
def test_values_that_do_not_fit_are_the_callers_fault(change: dict[str, object]) -> None:
    good = {
        "small": 0,
        "medium": 0,
        "large": 0,
        "key": bytes(16),
        "digest": bytes(32),
        "data": b"",
        "more": b"",
    }
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        CODEC.encode(Everything(**(good | change)))  # type: ignore[arg-type]


def test_a_field_without_an_encoding_is_refused_when_registered() -> None:
    @dataclass(frozen=True)
    class Wrong:
        count: int

    with pytest.raises(LocalError, match="has no encoding"):
        Codec(Wrong)


def test_array_of() -> None:
    array = array_of(bytes(range(12)), "u2", 3, 2)
    assert array.shape == (3, 2)
    assert array[0, 1] == 2 + 3 * 256
    assert not array.flags.writeable
    assert array_of(b"", "u1", 0, 32).shape == (0, 32)
    assert array_of(b"\x01\x02\x03\x04", "<u4").shape == ()


@pytest.mark.parametrize("shape", [(3,), (5,), (2**62, 4), (2**63, 2), (2**64,)])
def test_array_of_another_size(shape: tuple[int, ...]) -> None:
    # 2^62 · 4 and 2^63 · 2 are 0 in 64-bit arithmetic.
    for data in (bytes(4), b""):
        with pytest.raises(PeerError, match=r"protocol\.malformed"):
            array_of(data, "u1", *shape)


def test_a_label() -> None:
    expected = b"PEC-v1" b"\x00\x05align" b"\x00\x06sender" b"\x00\x03tag" b"\x00\x02ab"  # fmt: skip
    assert label("align", "sender", "tag", b"ab") == expected
    with pytest.raises(LocalError):
        label("a", "b", "c", bytes(1 << 16))


parts = st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4), st.binary(max_size=6))


@given(parts, parts)
def test_two_labels_differ_and_none_is_a_prefix(one: tuple, other: tuple) -> None:
    if one != other:
        first, second = label(*one), label(*other)
        assert not first.startswith(second)
        assert not second.startswith(first)
