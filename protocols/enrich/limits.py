"""Sizes that both sides agreed to beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from protocols import oprf
from protocols.enrich.records import MAX_WIDTH
from protocols.errors import LocalError


@dataclass(frozen=True)
class Limits(oprf.Limits):
    """Largest sets in items, and the largest record in bytes; see `oprf.Limits`."""

    max_width: int = 1 << 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.max_width <= MAX_WIDTH:
            raise LocalError(
                "protocol.argument", f"max_width is {self.max_width}; 1 to {MAX_WIDTH} is allowed"
            )
