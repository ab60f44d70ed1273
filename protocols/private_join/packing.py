"""Slots: several columns' values in one Paillier plaintext, so wide that no sum can run into the next slot.

Slot j of a group holds at most rows · bound_j + 2 tau_j (noise is shifted by tau_j, so that it is not
negative); a group's slots together stay below 2^(bits - 1), which is below every modulus of that many bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.errors import LocalError, PeerError
from protocols.private_join.terms import Terms


@dataclass(frozen=True)
class Packing:
    """For each group (one ciphertext) its columns with their shifts in bits; each column's largest sum."""

    groups: tuple[tuple[tuple[int, int], ...], ...]
    largest: tuple[int, ...]

    def pack(self, values: Sequence[int]) -> list[int]:
        """One plaintext a group."""
        return [sum(values[column] << shift for column, shift in group) for group in self.groups]

    def unpack(self, plaintexts: Sequence[int]) -> list[int]:
        """Each column's content; PeerError if one is beyond what honest sums can reach."""
        out = [0] * len(self.largest)
        for group, plaintext in zip(self.groups, plaintexts, strict=True):
            rest = plaintext
            for column, shift in reversed(group):
                out[column], rest = rest >> shift, rest & ((1 << shift) - 1)
                if out[column] > self.largest[column]:
                    # What overflows a slot would show up in the next column, as somebody else's value.
                    raise PeerError("private_join.sum", f"column {column} of the sums is beyond its largest")
        return out


def packing(terms: Terms, rows: int, bits: int) -> Packing:
    """The slots for `rows` rows and a modulus of `bits` bits; LocalError if a slot can't fit."""
    largest = tuple(
        rows * bound + 2 * noise.bound for bound, noise in zip(terms.bounds, terms.sum_noise, strict=True)
    )
    groups: list[list[tuple[int, int]]] = []
    used = bits
    for column, top in enumerate(largest):
        width = top.bit_length()
        if width > bits - 1:
            raise LocalError("protocol.argument", f"column {column} needs {width} bits, {bits - 1} fit")
        if used + width > bits - 1:
            groups.append([])
            used = 0
        groups[-1].append((column, used))
        used += width
    return Packing(tuple(tuple(group) for group in groups), largest)
