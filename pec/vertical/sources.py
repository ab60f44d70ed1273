"""Where an estimator's provider is: a file, for evaluation, or a partner behind the running node."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pec import jobs, plan, tables
from pec.errors import PecError

BRAND, PROVIDER, CATEGORY, AGREEMENT = "brand", "provider", "evaluation", "estimator"


@dataclass(frozen=True)
class Ran:
    """A job that succeeded: its id, the brand's folder of results, the brand's result."""

    job_id: str
    folder: Path
    result: dict[str, Any]


@dataclass(frozen=True)
class ConnectedProvider:
    """A partner, reached through the running node in `home`, under a signed agreement.

    `data` is the partner's data set, `categories` the data categories of the job (own columns are registered
    under the first), `purpose` what people consented to (by default the kind). The partner's operator
    approves each job, unless the agreement approves its kind in advance; `timeout` in seconds: how long a
    call waits. After `pec.waiting` or `pec.timeout` the same call with the same data goes on with its job.
    """

    home: str | Path
    agreement: str
    data: str
    categories: Sequence[str]
    purpose: str = ""
    columns: Sequence[str] = ("*",)
    id_kind: str = "opaque"
    timeout: float = 3600.0


def as_table(data: Any, what: str = "X") -> pa.Table:
    """A pandas, polars or pyarrow table as a pyarrow one; `pec.input` for anything else, as a bare array."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, pd.DataFrame):
        return pa.Table.from_pandas(data.rename(columns=str), preserve_index=False)
    if type(data).__module__.partition(".")[0] == "polars" and hasattr(data, "to_arrow"):
        return pa.table(data.to_arrow())
    raise PecError(
        "pec.input",
        f"{what} is a {type(data).__name__}; a pandas, polars or pyarrow table with the id column is needed",
        "the id column says who the rows are: pandas.DataFrame(X, columns=[…]), one of them the identifiers",
    )


class LocalSource:
    """Two throw-away nodes on this machine, kept until the estimator goes; they run only during a job."""

    def __init__(self, provider: Any, provider_id: str, id_kind: str, reason: str) -> None:
        from pec.network import LocalNetwork

        scratch = tempfile.TemporaryDirectory(prefix="pec-estimator-")
        self._gone = weakref.finalize(self, scratch.cleanup)
        self._root = Path(scratch.name)
        # Both files are the user's own: nobody's patience or secrets are to be guarded.
        self._network = LocalNetwork(
            self._root / "nodes", [BRAND, PROVIDER], settings="score_jobs_per_day = 1000000000\n"
        )
        self._numbers = itertools.count(1)
        self._reason, self.id_kind = reason, id_kind
        if isinstance(provider, str | Path):
            path = Path(provider)
            header = tables.header(path)
        else:
            table = as_table(provider, "provider")
            path, header = self._root / "provider.parquet", list(table.column_names)
            pq.write_table(table, path)
        column = tables.find(header, provider_id, path)
        self._provider_ids = tables.read(path, (column,))[column]
        if self.id_kind == "auto":
            from consent_center import identifiers

            sample = self._provider_ids.dropna().head(2000).astype("string")
            self.id_kind = identifiers.detect(pa.array(sample, pa.string()))
        self._add(PROVIDER, "data", path, column, [str(c) for c in header if c != column])
        self._agreed = False

    def _add(self, party: str, name: str, path: Path, id_: str, others: list[str]) -> None:
        from parties.datasets import Dataset

        categories = dict.fromkeys(others, CATEGORY)
        home = self._network[party].home
        home.add_dataset(Dataset(name, str(path.absolute()), id_, self.id_kind, categories))

    def _assume(self, kind: str, party: str, other: str, ids: Any) -> None:
        from pec.simulate import assume

        values = pd.Series(ids).astype("string")
        assume(self._network[party], other, values, self.id_kind, kind, self._reason)

    def run(
        self, kind: str, purpose: str, table: pa.Table, id_: str, params: Mapping[str, Any], private: Any
    ) -> Ran:
        """Run a job of this kind with the brand's `table`, for whose people consent is assumed."""
        name = f"data-{next(self._numbers)}"
        path = self._root / f"{name}.parquet"
        pq.write_table(table, path)
        self._add(BRAND, name, path, id_, [c for c in table.column_names if c != id_])
        self._assume(purpose, BRAND, PROVIDER, table.column(id_).to_pandas())
        if not self._agreed:
            self._assume(purpose, PROVIDER, BRAND, self._provider_ids)
            self._network.agree(_terms(purpose))
            self._agreed = True
        request = plan.request(
            kind,
            provider=PROVIDER,
            agreement=AGREEMENT,
            datasets=(name, "data"),
            categories=[CATEGORY],
            purpose=purpose,
            columns=["*"],
            params=params,
            private=private,
        )
        with self._network as network:
            network.start()
            seen, _ = network.run(BRAND, request)
        job_id = str(seen["job_id"])
        return Ran(job_id, self._network[BRAND].home.job(job_id), dict(seen["result"]))


def _terms(purpose: str) -> dict[str, Any]:
    return plan.terms(
        id=AGREEMENT,
        brand=BRAND,
        provider=PROVIDER,
        categories=[CATEGORY],
        kinds=(purpose, "score"),
        purposes=(purpose,),
        tags=["*"],
        epsilon=None,
        minimum_seeds=20,
        minimum_rows=1,
        preapproved=(purpose, "score"),
        standard_errors=purpose == "joint-lr",
        assessment="none: an evaluation",
    )


class NodeSource:
    """Jobs through the organisation's own running node; the own table becomes a data set of that node.

    A job whose wait ended before it did is remembered by what was asked: the same call with the same table
    goes on with it and asks the partner for no second one.
    """

    def __init__(self, provider: ConnectedProvider) -> None:
        self._provider = provider

    def run(
        self, kind: str, purpose: str, table: pa.Table, id_: str, params: Mapping[str, Any], private: Any
    ) -> Ran:
        from parties.client import NodeClient

        given = self._provider
        with NodeClient(given.home) as client:
            home = client.home
            folder = home.path / "estimators"
            folder.mkdir(mode=0o700, exist_ok=True)
            name = f"estimator-{secrets.token_hex(6)}"
            path = folder / f"{name}.parquet"
            pq.write_table(table, path)
            path.chmod(0o600)
            request = plan.request(
                kind,
                provider=home.agreement(given.agreement).provider,
                agreement=given.agreement,
                datasets=(name, given.data),
                categories=given.categories,
                purpose=given.purpose or purpose,
                columns=given.columns,
                params=params,
                private=private,
            )
            begun = folder / f"{_digest(request, path, id_, given.id_kind)}.job"
            job_id = _taken_up(client, begun)
            if job_id:
                path.unlink()
            else:
                category = next(iter(given.categories))
                client.add_dataset(
                    {
                        "name": name,
                        "path": str(path),
                        "id_column": id_,
                        "id_kind": given.id_kind,
                        "categories": {c: category for c in table.column_names if c != id_},
                    }
                )
                job_id = client.submit(request)
                begun.write_text(job_id, encoding="utf-8")
            seen = _waited(client, job_id, given.timeout)
            begun.unlink(missing_ok=True)
            if seen["state"] != jobs.DONE:
                raise jobs.failure(seen)
            return Ran(job_id, home.job(job_id), dict(seen["result"]))


def _digest(request: Mapping[str, Any], path: Path, id_: str, id_kind: str) -> str:
    """What was asked, without the name that the table got: the same for the same call."""
    asked = {**request, "datasets": request["datasets"]["provider"], "id": [id_, id_kind]}
    with path.open("rb") as file:
        asked["table"] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def _taken_up(client: Any, begun: Path) -> str:
    """The id of the job that the same call asked for before, unless it has ended without a result."""
    from parties.errors import NodeError

    if not begun.exists():
        return ""
    job_id = begun.read_text(encoding="utf-8")
    try:
        state = client.job(job_id)["state"]
    except NodeError as error:
        if error.code != "job.unknown":
            raise
        return ""
    return job_id if state == jobs.DONE or state not in jobs.FINAL else ""


def _waited(client: Any, job_id: str, timeout: float) -> dict[str, Any]:
    """The job once it has ended; `pec.waiting` or `pec.timeout` with how to go on if it has not in time."""
    from parties.errors import NodeError

    began = time.monotonic()
    try:
        return dict(client.wait(job_id, timeout))
    except NodeError as error:
        # The stream of news ends with the time that was allowed for it; the node has answered until then.
        if error.code != "transport.silent" or time.monotonic() - began < timeout * 0.9:
            raise
    seen = dict(client.job(job_id))
    if seen["final"]:
        return seen
    on = "call it again with the same data and parameters: it goes on with this job"
    if seen["state"] == jobs.WAITING:
        raise PecError(
            "pec.waiting",
            f"job {job_id} waits for {seen['peer']}'s approval, for {timeout:g} s so far",
            f"their operator runs `pec job approve {job_id}`; then {on}, and asks for no second one. "
            "ConnectedProvider(timeout=…) waits longer",
        )
    raise PecError("pec.timeout", f"job {job_id} is {seen['state']} after {timeout:g} s", on)
