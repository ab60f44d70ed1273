"""The messages of boost; README, section 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.codec import B32, U8, U32, U64, Codec
from protocols.errors import PeerError

#: Bytes of data in one message.
PIECE = 1 << 19

#: Bits of a column's byte in `Shape`.
CATEGORICAL, MISSING = 1, 2

#: What becomes of a node.
LEAF, OWN, THEIRS = 0, 1, 2


@dataclass(frozen=True)
class Opening:
    """Brand: digest of terms and session, rows of the provider that it counts on."""

    digest: B32
    rows: U64


@dataclass(frozen=True)
class Shape:
    """Provider: the same digest; a byte a column (`CATEGORICAL`, `MISSING`)."""

    digest: B32
    columns: bytes


@dataclass(frozen=True)
class Transfer:
    """Either side: a message of the correlated OT."""

    data: bytes


@dataclass(frozen=True)
class Corrections:
    """Brand: corrections of a block of GGM trees, 16 bytes each, levels 2 … D one after another."""

    block: U32
    data: bytes


@dataclass(frozen=True)
class Begin:
    """Brand: boosting tree `tree` uses the columns whose bits are set; `last` is 1 at the end, with no
    columns."""

    tree: U32
    last: U8
    columns: bytes


@dataclass(frozen=True)
class Shares:
    """Brand: c of a block's rows and used columns, two 32-bit words each."""

    block: U32
    data: bytes


@dataclass(frozen=True)
class Sums:
    """Provider: bytes from `first` on of its shares of the sums of a level, 32-bit words."""

    first: U64
    data: bytes


@dataclass(frozen=True)
class Splits:
    """Brand: eleven bytes a node: `LEAF`, `OWN` or `THEIRS`, column (2), bins that go left (8)."""

    level: U8
    data: bytes


@dataclass(frozen=True)
class Sides:
    """Brand: bytes from `first` on of its splits' bits, node after node, each padded to a byte; 1 goes
    left."""

    first: U64
    data: bytes


@dataclass(frozen=True)
class Bits:
    """Provider: the same of its own splits."""

    first: U64
    data: bytes


TO_PROVIDER = Codec(Opening, Transfer, Corrections, Begin, Shares, Splits, Sides)
TO_BRAND = Codec(Shape, Transfer, Sums, Bits)


def pieces(kind: type[Sums] | type[Sides] | type[Bits], codec: Codec, data: bytes) -> Iterator[bytes]:
    """`data` as messages of `PIECE` bytes; nothing at all for no data."""
    for at in range(0, len(data), PIECE):
        yield codec.encode(kind(U64(at), data[at : at + PIECE]))


class Collector:
    """Puts pieces together again; `total` bytes are due. PeerError `boost.size` for anything else."""

    def __init__(self, total: int) -> None:
        self._data, self._at = bytearray(total), 0

    @property
    def complete(self) -> bool:
        return self._at == len(self._data)

    @property
    def data(self) -> bytes:
        return bytes(self._data)

    def add(self, first: int, data: bytes) -> None:
        # In order, without a gap and not beyond the end: a peer must not be able to write a place twice.
        due = min(PIECE, len(self._data) - self._at)
        if first != self._at or len(data) != due:
            raise PeerError(
                "boost.size", f"{len(data)} bytes from {first} on, where {due} from {self._at} on were due"
            )
        self._data[first : first + len(data)] = data
        self._at += len(data)
