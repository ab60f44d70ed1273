"""Messages of private_join, in the order of README section 3."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.codec import B32, U64, Codec
from protocols.errors import PeerError
from protocols.machine import MAX_MESSAGE
from protocols.oprf.padding import CHUNK
from protocols.ristretto import POINT

#: Room for the fields of a message beside its rows: type, first, two lengths.
HEADER = 32


@dataclass(frozen=True)
class Hello:
    """Holder, first: terms and session, and its padded size with dummies."""

    binding: B32
    size: U64


@dataclass(frozen=True)
class Masked:
    """Holder: elements a · H(x), `first`, `first` + 1, …, 32 bytes each."""

    first: U64
    elements: bytes


@dataclass(frozen=True)
class Joined:
    """Holder, last: matched rows with both sides' dummies, and the encrypted sums (none if withheld)."""

    count: U64
    sums: bytes


@dataclass(frozen=True)
class Answer:
    """Valuer, first: terms and session, its padded size, its Paillier modulus and the roots that prove it."""

    binding: B32
    size: U64
    modulus: bytes
    roots: bytes


@dataclass(frozen=True)
class Doubled:
    """Valuer: elements b · a · H(x) in another order."""

    first: U64
    elements: bytes


@dataclass(frozen=True)
class Rows:
    """Valuer: elements b · H(y), and the ciphertexts of their values, one row after the other."""

    first: U64
    elements: bytes
    ciphertexts: bytes


@dataclass(frozen=True)
class Opened:
    """Valuer, last, when the holder learns the sums: the plaintexts under the holder's masks, with noise."""

    plaintexts: bytes


TO_VALUER = Codec(Hello, Masked, Joined)
TO_HOLDER = Codec(Answer, Doubled, Rows, Opened)


def rows_in_a_message(ciphertext_bytes: int) -> int:
    """How many rows of the valuer's travel in one message; `ciphertext_bytes` of each row are ciphertexts."""
    return min(CHUNK, (MAX_MESSAGE - HEADER) // (POINT + ciphertext_bytes))


def expect_first(first: int, due: int) -> None:
    """PeerError unless `first` is what is due: a repeated chunk would count people twice."""
    if first != due:
        raise PeerError("protocol.unexpected", f"rows {first}… came, {due}… were due")
