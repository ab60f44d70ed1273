"""The order of a role's calls: each once, and nothing after a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from protocols.errors import LocalError


class Order:
    """Base of the roles. A call runs inside `self._step(name)`."""

    def __init__(self, *names: str) -> None:
        self._due = list(names)
        self._failed = False

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        if self._failed:
            raise LocalError("protocol.poisoned", "an earlier call failed; start a new session")
        if not self._due or self._due[0] != name:
            self._failed = True
            due = f"{self._due[0]} is due" if self._due else "the role has ended"
            raise LocalError("protocol.state", f"{name} was called, {due}")
        try:
            yield
        except BaseException:
            self._failed = True
            raise
        del self._due[0]
