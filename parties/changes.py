"""What an operator changes in a node's directory and an auditor must find again: each leaves a leaf.

The node may run or not: it reads the directory whenever it decides, so nothing here needs a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parties.datasets import Dataset
from parties.errors import NodeError
from parties.home import Home


class Changes:
    """Of the node in `home`: trust, data sets, the end of agreements; `center` keeps the ledger."""

    def __init__(self, home: Home, center: Any) -> None:
        self._home, self._center = home, center

    def trust(self, card: Mapping[str, Any]) -> dict[str, Any]:
        """Pin a card; see `Home.trust`."""
        peer = self._home.trust(card)
        self._center.append("peer.trusted", {"party": peer.party, "fingerprint": peer.fingerprint})
        return peer.describe()

    def untrust(self, party: str, reason: str) -> dict[str, Any]:
        """Trust a peer no more; see `Home.untrust`. {party, fingerprint, reason, card}: where its card is."""
        peer = self._home.peer(party)
        kept = self._home.untrust(party)
        told = {"party": peer.party, "fingerprint": peer.fingerprint, "reason": reason}
        self._center.append("peer.untrusted", told)
        return {**told, "card": str(kept)}

    def add_dataset(self, dataset: Dataset) -> dict[str, Any]:
        """Register a data set; see `Home.add_dataset`."""
        return self._noted("dataset.added", self._home.add_dataset(dataset))

    def change_dataset(self, dataset: Dataset) -> dict[str, Any]:
        """Give a data set other settings; see `Home.change_dataset`."""
        return self._noted("dataset.changed", self._home.change_dataset(dataset))

    def remove_dataset(self, name: str) -> dict[str, Any]:
        """Forget a data set and what was prepared of it, not its file; see `Home.remove_dataset`."""
        from parties import preparing  # it loads numpy

        removed = self._noted("dataset.removed", self._home.remove_dataset(name))
        return {**removed, "prepared_dropped": preparing.drop_of(self._home, name)}

    def _noted(self, kind: str, dataset: Dataset) -> dict[str, Any]:
        made = dataset.to_json()
        self._center.append(kind, made)
        return made

    def end_agreement(self, id: str, reason: str) -> dict[str, Any]:
        """End an agreement as this party, and tell the other side if it can be reached now.

        Returns {agreement_id, party, reason, ended_at, told, leaf}; `agreement.ended` if it was ended before.
        """
        from parties import lookout  # it loads gRPC

        self._home.end_agreement(id, reason)
        self._home.endings.record(id, self._center)
        try:
            lookout.tell(self._home, id)
        except NodeError as error:
            # It knows no such agreement, or is not trusted any more: it has ended all the same.
            self._home.endings.mark(id, answer=f"{error.code}: {error.detail}")
        return self._home.endings.describe(self._home.agreement(id)) or {}
