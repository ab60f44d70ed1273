"""The order of a role's calls: each once (or, if the last, any number of times), nothing after a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from protocols.errors import LocalError


class Order:
    """Base of the roles. A call runs inside `self._step(name)`; a last name with a star may be repeated."""

    def __init__(self, *names: str) -> None:
        self._due = list(names)
        self._failed = False

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        if self._failed:
            raise LocalError("protocol.poisoned", "an earlier call failed; start a new session")
        due = self._due[0].rstrip("*") if self._due else ""
        if due != name:
            self._failed = True
            due = f"{due} is due" if due else "the role has ended"
            raise LocalError("protocol.state", f"{name} was called, {due}")
        try:
            yield
        except BaseException:
            self._failed = True
            raise
        if not self._due[0].endswith("*"):
            del self._due[0]
