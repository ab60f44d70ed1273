"""The operator's client: what `pec` and an organisation's own programs do with their running node.

    with NodeClient("var/brand") as node:
        job_id = node.submit({"kind": "overlap", "purpose": "ads", "agreement": "a-b", "datasets": {…}, …})
        job = node.wait(job_id)

It finds the node through `node.run.json` in the home and shows the node's own certificate, so it works for
whoever can read the home's keys, on the same machine. Errors are NodeError (`transport.*`, `node.*`) or
RemoteError with the node's own code. Values are plain JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parties.errors import NodeError
from parties.home import Home
from parties.identity import server_name
from parties.transport import node_pb2
from parties.transport.client import Connection


class NodeClient:
    """A connection to the running node of `home`. `timeout` is for one call, in seconds; `preflight` has
    none.
    """

    def __init__(self, home: Home | str | Path, timeout: float = 60.0) -> None:
        self.home = home if isinstance(home, Home) else Home.open(home)
        self._timeout = timeout
        keys = self.home.identity
        self.run = self.home.run_file()
        self._line = Connection(
            keys, keys.party, str(self.run["address"]), keys.certificate, server_name(keys.public_key)
        )

    def close(self) -> None:
        self._line.close()

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, timeout: float | None = None, **body: Any) -> Any:
        request = node_pb2.OperatorRequest(method=method, body=json.dumps(body).encode())
        reply = self._line.call(self._line.operator.Call, request, timeout=timeout or self._timeout)
        return json.loads(reply.body)

    # -- the node --------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """party, address, consent_url, pid, version, cpu_seconds, peak_rss_mb, jobs_running, peers, …"""
        return dict(self._call("status"))

    def card(self) -> dict[str, Any]:
        """This party's signed card with the address at which the node listens now."""
        return dict(self._call("card"))

    def peers(self) -> list[dict[str, Any]]:
        """party, address, fingerprint, key, verifier_key of each trusted peer."""
        return list(self._call("peers"))

    def trust(self, card: Mapping[str, Any]) -> dict[str, Any]:
        """Pin a peer's card; it may connect from now on. `identity.conflict` if it has other keys than
        known.
        """
        return dict(self._call("trust", card=dict(card)))

    def untrust(self, party: str, reason: str = "") -> dict[str, Any]:
        """Trust a peer no more, at once: party, fingerprint, reason, and where its `card` is kept."""
        return dict(self._call("untrust", party=party, reason=reason))

    def agreements(self) -> list[dict[str, Any]]:
        """Terms of each agreement, with `expired` and `ended` (None, or by whom, when, why)."""
        return list(self._call("agreements"))

    def add_agreement(self, signed: Mapping[str, Any]) -> dict[str, Any]:
        """Store an agreement signed by both (`Home.sign_agreement` signs and countersigns)."""
        return dict(self._call("add_agreement", agreement=dict(signed)))

    def end_agreement(self, id: str, reason: str) -> dict[str, Any]:
        """End an agreement before its time, for both sides and for good: party, reason, ended_at, and whether
        the other side is told; otherwise it is told once it can be reached.
        """
        return dict(self._call("end_agreement", timeout=60.0, id=id, reason=reason))

    def datasets(self) -> list[dict[str, Any]]:
        return list(self._call("datasets"))

    def add_dataset(self, dataset: Mapping[str, Any]) -> dict[str, Any]:
        """Register {name, path, id_column, id_kind, categories: {column: data category}}."""
        path = str(Path(str(dataset.get("path", ""))).absolute())
        return dict(self._call("add_dataset", dataset={**dataset, "path": path}))

    def change_dataset(self, dataset: Mapping[str, Any]) -> dict[str, Any]:
        """Give a registered data set other settings, all of them; jobs that read it with the earlier stop."""
        return dict(self._call("change_dataset", dataset=dict(dataset)))

    def remove_dataset(self, name: str) -> dict[str, Any]:
        """Forget a data set, not its file: jobs that read it end."""
        return dict(self._call("remove_dataset", name=name))

    def catalogue(self, agreement: str) -> dict[str, Any]:
        """What the provider shows to the brand under an agreement; see `parties.catalogue`."""
        return dict(self._call("catalogue", agreement=agreement))

    def preflight(self, name: str) -> dict[str, Any]:
        """The report on a data set's identifiers: read, normalised, duplicate, null, invalid, columns,
        notes.
        """
        return dict(self._call("preflight", timeout=3600.0, name=name))

    def prepare(self, agreement: str, **choice: Any) -> Iterator[dict[str, Any]]:
        """Prepare the own side of an agreement's `ecdh` alignments, as its provider: progress as {what, done,
        total}, at last {prepared: {items, until, reused, …}}. `choice`: dataset, purpose, categories where
        there is one. Ending the iteration early ends the work.
        """
        body = json.dumps({"prepare": {"agreement": agreement, **choice}}).encode()
        request = node_pb2.OperatorRequest(method="watch", body=body)
        for reply in self._line.stream(self._line.operator.Watch, request, None):
            yield json.loads(reply.body)

    def preparations(self) -> list[dict[str, Any]]:
        """What is prepared: agreement, dataset, purpose, items, until, asked_at_most_under_key, bytes, …"""
        return list(self._call("preparations"))

    def drop_preparations(self, agreement: str) -> list[str]:
        """Remove what was prepared for an agreement; "" for agreements that are not there any more."""
        return list(self._call("drop_preparations", agreement=agreement))

    # -- jobs ------------------------------------------------------------------------------------------------

    def submit(self, request: Mapping[str, Any]) -> str:
        """Ask for a job as the brand; returns its id as soon as it was tried on the own file and agreement.

        Required: kind, purpose, agreement, datasets {brand, provider}, categories. Optional: peer (else the
        agreement's provider), columns, params, outputs, private (this side's own parameters, committed to and
        never sent), hold_before (a stage before which the job waits for `resume`), job_id,
        expires_in_seconds.
        """
        return str(self._call("submit", timeout=3600.0, request=dict(request))["job_id"])

    def estimate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What `submit` of the same request would cost: cost {suite, buckets, seconds, bytes, …},
        why, own_people, own_identifiers, peer_people, peer_identifiers (by `peer_rows` of the request, else a
        guess), basis, alternatives; `cost` is None for a kind without alignment. Counts the own file's rows.
        """
        return dict(self._call("estimate", timeout=3600.0, request=dict(request)))

    def approve(self, job_id: str, note: str = "") -> dict[str, Any]:
        return dict(self._call("approve", job_id=job_id, note=note))

    def reject(self, job_id: str, reason: str) -> dict[str, Any]:
        """Decline a job; the brand sees `job.rejected` and the reason."""
        return dict(self._call("reject", job_id=job_id, reason=reason))

    def cancel(self, job_id: str, reason: str = "") -> dict[str, Any]:
        """End a job on both sides; a running one ends at its next message."""
        return dict(self._call("cancel", job_id=job_id, reason=reason))

    def resume(self, job_id: str) -> dict[str, Any]:
        """Let a held job go on."""
        return dict(self._call("resume", job_id=job_id))

    def jobs(self, limit: int = 200) -> list[dict[str, Any]]:
        """The newest jobs first, without details."""
        return list(self._call("jobs", limit=limit))

    def job(self, job_id: str) -> dict[str, Any]:
        """Everything about one job: state, final, error {code, detail, hint, origin, counts}, stages (name,
        seconds, bytes_sent, bytes_received), seconds, progress, counts {own}, consent (a re-check each
        boundary), leakage, result, path, files, audit."""
        return dict(self._call("job", job_id=job_id))

    def watch(self, job_id: str, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """The job, as `job` gives it, whenever it or its progress has changed; the last one is final."""
        request = node_pb2.OperatorRequest(method="watch", body=json.dumps({"job_id": job_id}).encode())
        for reply in self._line.stream(self._line.operator.Watch, request, timeout):
            yield json.loads(reply.body)

    def wait(self, job_id: str, timeout: float | None = None, until: tuple[str, ...] = ()) -> dict[str, Any]:
        """The job once it is final (or in one of the states `until`); `transport.silent` after `timeout`."""
        for job in self.watch(job_id, timeout):
            if job["final"] or job["state"] in until:
                return job
        raise NodeError(
            "transport.lost", f"the node ended the watch of {job_id}", "ask for the job's state again"
        )

    def rows(self, job_id: str) -> npt.NDArray[np.int64]:
        """int64[m]: for each row of this side's view, the line of its data set (0 is the first below the
        header).

        Of a succeeded job; `job.result` otherwise. Only this organisation has the map: results name rows by
        view.
        """
        path = self.home.job(job_id) / "rows.npy"
        try:
            rows: npt.NDArray[np.int64] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise NodeError(
                "job.result", f"job {job_id} has no row map", "only a succeeded job has one"
            ) from error
        return rows
