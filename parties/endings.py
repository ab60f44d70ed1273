"""Agreements that one party has ended before their time: signed endings on disk.

    endings/<agreement>.json     the signed ending: ours, or the partner's
    endings/<agreement>.state    {told, leaf}: whether the partner has it, its leaf in our ledger

The agreement stays in `agreements/` for audit. From the moment at which the file is there no job under it
begins, and a running one stops at its next check: whoever asks reads the directory, so a running node needs
no restart. Nothing takes an ending back; the parties sign a new agreement under a new id.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parties import documents, private_files
from parties.documents import Agreement, Ending
from parties.errors import NodeError
from parties.private_files import read_all, read_json, write_json

#: The ledger's leaf about an ending.
LEAF = "agreement.ended"


class Endings:
    """The ended agreements of one node's directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, id: str) -> Path:
        return self._folder / f"{documents.check_name(id, 'agreement id')}.json"

    def find(self, id: str) -> Ending | None:
        """How the agreement of this id was ended; None if it was not."""
        path = self._path(id)
        return Ending.from_json(read_json(path)["document"]) if path.exists() else None

    def all(self) -> list[Ending]:
        return [Ending.from_json(found["document"]) for found in read_all(self._folder)]

    def check(self, id: str) -> None:
        """`agreement.ended` if either party has ended the agreement of this id."""
        ending = self.find(id)
        if ending is not None:
            raise NodeError(
                "agreement.ended",
                f"agreement {id} was ended by {ending.party} at {ending.ended_at}: {ending.reason}",
                "sign a new one under a new id",
                share=True,
            )

    def keep(self, id: str, signed: Mapping[str, Any]) -> None:
        """Keep a signed ending whose signature the caller has checked."""
        private_files.folder(self._folder)
        write_json(self._path(id), signed)

    # -- what has become of an ending ------------------------------------------------------------------------

    def state(self, id: str) -> dict[str, Any]:
        """{told, leaf}: whether the other side has it, and its number in our ledger (None: not there yet)."""
        path = self._path(id).with_suffix(".state")
        return {"told": False, "leaf": None, **(read_json(path) if path.exists() else {})}

    def mark(self, id: str, **changes: Any) -> None:
        with self._locked():
            self._write_state(id, changes)

    def record(self, id: str, center: Any) -> None:
        """Write the ending into the ledger, if it is not there yet."""
        ending = self.find(id)
        if ending is None:
            return
        with self._locked():
            if self.state(id)["leaf"] is None:
                self._write_state(id, {"leaf": int(center.append(LEAF, ending.to_json()))})

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # A command and the running node may both be at it.
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write_state(self, id: str, changes: Mapping[str, Any]) -> None:
        write_json(self._path(id).with_suffix(".state"), {**self.state(id), **changes})

    def signed(self, id: str) -> dict[str, Any]:
        """The signed ending of the agreement of this id, which must have been ended."""
        return read_json(self._path(id))

    def describe(self, agreement: Agreement) -> dict[str, Any] | None:
        """For the operator: by whom, when, why, whether the other side has been told; None if in force."""
        ending = self.find(agreement.id)
        if ending is None:
            return None
        found = ending.to_json()
        del found["agreement"]
        return {**found, **self.state(agreement.id)}
