"""What a part of the center with a package of its own works with: keys, transactions, clock, the
caught-up state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from consent_center.keys import Keys
from consent_center.registry import Registry
from consent_center.state import State


@dataclass(frozen=True)
class Room:
    """`state()` holds the center's lock and gives (connection, state) of one consistent view.

    `rules(connection)` are the rules in force (`decide.Rule`), as that transaction sees them.
    """

    keys: Keys = field(repr=False)
    controller: str
    read: Callable[[], AbstractContextManager[sa.Connection]]
    write: Callable[[], AbstractContextManager[sa.Connection]]
    now: Callable[[], int]
    registry: Callable[[sa.Connection], Registry]
    state: Callable[[], AbstractContextManager[tuple[sa.Connection, State]]]
    rules: Callable[[sa.Connection], Sequence[Any]]
