"""Messages of suite `vole`, and what both sides derive from the session and the sizes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from protocols.align.tags import NUMBER_BYTES, tag_bytes
from protocols.codec import B16, B32, U32, U64, Codec
from protocols.labels import label
from protocols.machine import MAX_MESSAGE
from protocols.okvs import Shape
from protocols.security import STATISTICAL_BITS, VOLE_SUBFIELD_BITS
from protocols.vole.messages import MOST

#: Bytes of a message beside its data: type, first, length.
_HEADER = 16

#: Bytes of a tag in the malicious variant: the whole output.
FULL_TAG = 16


def fits(size: int) -> bool:
    """Whether one run can serve a receiver of so many padded items: each entry of the store takes a VOLE."""
    return Shape.of(size).size <= MOST


@dataclass(frozen=True)
class Ask:
    """Receiver, first: its session's binding, its padded size, and the seed of the store's hash."""

    binding: B32
    size: U64
    seed: B16


@dataclass(frozen=True)
class Offer:
    """Sender, first: binding, its rows, a row's width in bytes, its commitment, and the VOLE's opening.

    `commitment` is all zeros in the semi-honest variant.
    """

    binding: B32
    rows: U64
    width: U32
    commitment: B32
    opening: bytes


@dataclass(frozen=True)
class Request:
    """Receiver: the VOLE's request."""

    request: bytes


@dataclass(frozen=True)
class Answer:
    """Sender: the VOLE's answer."""

    answer: bytes


@dataclass(frozen=True)
class Challenge:
    """Receiver, malicious variant only: the VOLE's challenge."""

    challenge: bytes


@dataclass(frozen=True)
class Proof:
    """Sender, malicious variant only: the VOLE's proof."""

    proof: bytes


@dataclass(frozen=True)
class Vector:
    """Receiver: masked entries `first`, … of the store."""

    first: U64
    data: bytes


@dataclass(frozen=True)
class Coin:
    """Malicious variant only. Receiver: w_r, after the last Vector. Sender: w_s, before the first Rows."""

    coin: B32


@dataclass(frozen=True)
class Tags:
    """Sender: rows `first`, `first` + 1, …, in the order of its rows; `width` bytes each."""

    first: U64
    data: bytes


TO_SENDER = Codec(Ask, Request, Challenge, Vector, Coin)
TO_RECEIVER = Codec(Offer, Answer, Proof, Coin, Tags)


def binding(session: bytes, malicious: bool, runs: int) -> B32:
    """32 bytes that differ between sessions, suites, variants and numbers of runs."""
    usage = f"vole binding, {'malicious' if malicious else 'semi-honest'}, {runs} runs"
    return B32(hashlib.sha256(label("align", "both", usage, session)).digest())


def commitment(session: bytes, coin: bytes) -> B32:
    """The sender's commitment to its coin; the coin has 256 random bits, which hide themselves."""
    return B32(hashlib.sha256(label("align", "sender", "vole coin", session) + coin).digest())


@dataclass(frozen=True)
class Terms:
    """What follows from the sizes: `size` is the receiver's padded size, `rows` the sender's."""

    session: bytes
    size: int
    rows: int
    seed: bytes
    malicious: bool
    numbered: bool
    runs: int

    @property
    def shape(self) -> Shape:
        return Shape.of(self.size)

    @property
    def field(self) -> str:
        """Where the store's values lie. README, section 4: 2^-64 a row is enough up to 2^24 rows."""
        few = self.rows * self.runs <= 1 << (VOLE_SUBFIELD_BITS - STATISTICAL_BITS)
        return "gf64" if few and not self.malicious else "gf128"

    @property
    def words(self) -> int:
        """Words of a value."""
        return 1 if self.field == "gf64" else 2

    @property
    def tag(self) -> int:
        return FULL_TAG if self.malicious else tag_bytes(self.size, self.rows, self.runs)

    @property
    def width(self) -> int:
        """Bytes of a row on the wire."""
        return self.tag + (NUMBER_BYTES if self.numbered else 0)

    @property
    def entries_per_message(self) -> int:
        return (MAX_MESSAGE - _HEADER) // (8 * self.words)

    @property
    def rows_per_message(self) -> int:
        return (MAX_MESSAGE - _HEADER) // self.width

    @property
    def vole_session(self) -> bytes:
        return hashlib.sha256(label("align", "both", "vole session", self.session)).digest()

    def key(self, usage: str) -> bytes:
        """A public AES key of this run."""
        return hashlib.sha256(label("align", "both", usage, self.session + self.seed)).digest()[:16]
