"""Agreements that one party has ended before their time: signed endings on disk, and telling the other side.

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
from typing import TYPE_CHECKING, Any

from parties import documents
from parties.documents import Agreement, Ending
from parties.errors import NodeError, RemoteError
from parties.private_files import folder, read_json, write_json

if TYPE_CHECKING:
    from parties.home import Home

#: The ledger's leaf about an ending.
LEAF = "agreement.ended"


class Endings:
    """The ended agreements of one node's directory."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.path / "endings"

    def _path(self, id: str) -> Path:
        return self._folder / f"{documents.check_name(id, 'agreement id')}.json"

    def find(self, id: str) -> Ending | None:
        """How the agreement of this id was ended; None if it was not."""
        path = self._path(id)
        return Ending.from_json(read_json(path)["document"]) if path.exists() else None

    def all(self) -> list[Ending]:
        return [Ending.from_json(read_json(p)["document"]) for p in sorted(self._folder.glob("*.json"))]

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

    def end(self, id: str, reason: str) -> Ending:
        """End an agreement as this party; `agreement.unknown`, `agreement.ended`, `agreement.expired`."""
        agreement = self._home.agreement(id)
        self.check(id)
        now = documents.now()
        documents.check_time(agreement, now, f"agreement {id}", expired="agreement.expired")
        ending = Ending.from_json(
            {
                "agreement_id": id,
                "agreement": agreement.hash.hex(),
                "party": self._home.party,
                "reason": reason.strip(),
                "ended_at": documents.timestamp(now),
            }
        )
        self._keep(id, self._home.identity.sign("ending", ending.to_json()))
        return ending

    def take(self, signed: Mapping[str, Any]) -> Ending:
        """The partner's signed ending. If this party has ended the agreement before, its own one stays."""
        ending = Ending.from_json(documents.envelope(signed, "ending")[1])
        agreement = self._home.agreement(ending.agreement_id)
        other = self._home.other_party(agreement)
        if ending.party != other:
            raise NodeError("agreement.party", f"{ending.party!r} is not the other side of {agreement.id}")
        # Without the hash an ending of earlier terms under the same id could be shown again.
        if ending.agreement != agreement.hash.hex():
            raise NodeError(
                "agreement.conflict", f"agreement {agreement.id} has other terms here", share=True
            )
        documents.verify(signed, "ending", {other: self._home.peer(other).identity_key})
        known = self.find(agreement.id)
        if known is not None:
            return known
        self._keep(agreement.id, signed)
        self.mark(agreement.id, told=True)
        return ending

    def _keep(self, id: str, signed: Mapping[str, Any]) -> None:
        folder(self._folder)
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

    def tell(self, id: str, seconds: float = 3.0) -> bool:
        """Give this party's own ending to the other side now. False if it can't be reached; what it says
        against it is raised, and then it has heard it too.
        """
        from parties.transport import node_pb2  # it loads gRPC
        from parties.transport.client import Connection

        signed = read_json(self._path(id))
        peer = self._home.peer(self._home.other_party(self._home.agreement(id)))
        request = node_pb2.EndRequest(ending=documents.canonical(signed))
        keys = self._home.identity
        with Connection(keys, peer.party, peer.address, peer.certificate, peer.server_name) as line:
            try:
                line.call(line.peer.End, request, timeout=seconds)
            except RemoteError:
                self.mark(id, told=True)
                raise
            except NodeError:
                return False
        self.mark(id, told=True)
        return True

    def describe(self, agreement: Agreement) -> dict[str, Any] | None:
        """For the operator: by whom, when, why, whether the other side has been told; None if in force."""
        ending = self.find(agreement.id)
        if ending is None:
            return None
        found = ending.to_json()
        del found["agreement"]
        return {**found, **self.state(agreement.id)}
