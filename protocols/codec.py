"""One codec for every message: a type byte, then the fields of a frozen dataclass in order.

Field annotations decide the layout (all integers big-endian):

    U8, U32, U64   1, 4, 8 bytes
    bytes          4-byte length, then the bytes
    B16, B32       exactly 16 or 32 bytes

A message class is registered with a `Codec`, one for each direction of each protocol. Decoding either
returns a message or raises PeerError: nothing else, whatever the bytes (the fuzz tests' invariant). Trailing
bytes are refused, so that a message has exactly one encoding. Numpy arrays travel as `bytes`; whoever
decodes them checks length and range (see `array_of`).
"""

from __future__ import annotations

from dataclasses import fields
from math import prod
from typing import Any, NewType, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError, PeerError

U8 = NewType("U8", int)
U32 = NewType("U32", int)
U64 = NewType("U64", int)
B16 = NewType("B16", bytes)
B32 = NewType("B32", bytes)

_INTEGERS: dict[Any, int] = {U8: 1, U32: 4, U64: 8}
_FIXED: dict[Any, int] = {B16: 16, B32: 32}

M = TypeVar("M")


class Codec:
    """Maps message classes to type bytes by their position, starting with 1."""

    def __init__(self, *messages: type) -> None:
        self._by_type = dict(enumerate(messages, start=1))
        self._layout: dict[type, tuple[int, list[tuple[str, Any]]]] = {}
        for number, cls in self._by_type.items():
            hints = get_type_hints(cls)
            layout = [(f.name, hints[f.name]) for f in fields(cls)]
            for name, kind in layout:
                if kind is not bytes and kind not in _INTEGERS and kind not in _FIXED:
                    raise LocalError("protocol.argument", f"{cls.__name__}.{name}: {kind} has no encoding")
            self._layout[cls] = number, layout

    def encode(self, message: object) -> bytes:
        number, layout = self._layout[type(message)]
        out = [bytes([number])]
        for name, kind in layout:
            value = getattr(message, name)
            if kind in _INTEGERS:
                size = _INTEGERS[kind]
                if not 0 <= value < 1 << (8 * size):
                    raise LocalError("protocol.argument", f"{name} is {value}, which {size} bytes can't hold")
                out.append(int(value).to_bytes(size, "big"))
            elif kind in _FIXED:
                if len(value) != _FIXED[kind]:
                    raise LocalError("protocol.argument", f"{name}: {len(value)} bytes, not {_FIXED[kind]}")
                out.append(value)
            else:
                out.append(len(value).to_bytes(4, "big"))
                out.append(value)
        return b"".join(out)

    def decode(self, data: bytes, *allowed: type[M]) -> M:
        """The message in `data`, which must be of one of the `allowed` classes."""
        if not data:
            raise PeerError("protocol.malformed", "an empty message")
        cls = self._by_type.get(data[0])
        if cls is None:
            raise PeerError("protocol.malformed", f"unknown message type {data[0]}")
        if cls not in allowed:
            names = " or ".join(a.__name__ for a in allowed)
            raise PeerError("protocol.unexpected", f"{cls.__name__} came where {names} was due")
        at, values = 1, []
        for name, kind in self._layout[cls][1]:
            if kind in _INTEGERS:
                size = _INTEGERS[kind]
            elif kind in _FIXED:
                size = _FIXED[kind]
            else:
                if at + 4 > len(data):
                    raise PeerError("protocol.malformed", f"{cls.__name__} ends before {name}")
                size = int.from_bytes(data[at : at + 4], "big")
                at += 4
            if at + size > len(data):
                raise PeerError("protocol.malformed", f"{cls.__name__} ends inside {name}")
            raw = data[at : at + size]
            values.append(int.from_bytes(raw, "big") if kind in _INTEGERS else raw)
            at += size
        if at != len(data):
            # One message, one encoding: trailing bytes would be a covert channel beside the message.
            raise PeerError("protocol.malformed", f"{len(data) - at} bytes after the end of {cls.__name__}")
        return cls(*values)


def array_of(data: bytes, dtype: str, *shape: int) -> npt.NDArray[Any]:
    """`data` as a read-only little-endian array of exactly this shape, or PeerError."""
    kind = np.dtype(dtype).newbyteorder("<")
    expected = prod(shape) * kind.itemsize  # of Python's integers: numpy's would wrap on a peer's sizes
    if len(data) != expected:
        raise PeerError("protocol.malformed", f"an array of {len(data)} bytes where {expected} were due")
    return np.frombuffer(data, dtype=kind).reshape(shape)
