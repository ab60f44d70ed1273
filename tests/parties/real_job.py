"""A whole job between two real nodes' homes and consent centers, run by the engine's runner in one process.

Only the network is left out: each side's frames are handed to the other's `Link` directly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from consent_center.model import Purpose
from consent_center.records.assess import file_assessment
from parties import documents
from parties.datasets import Dataset
from parties.documents import JobSpec
from parties.errors import NodeError
from parties.home import Home
from parties.kinds import KINDS
from parties.runner import Runner
from parties.store import Job, Store
from parties.transport.frames import Link

CATEGORIES = ("identity", "profile")


def make_home(path: Path, party: str, other: str, table: pd.DataFrame, id_column: str) -> Home:
    """A node whose data set `people` is `table`, and whose consent center lets everybody in for purpose
    ads."""
    home = Home.create(path / party, party)
    file = path / f"{party}.csv"
    table.to_csv(file, index=False)
    columns = {name: "profile" for name in table.columns if name != id_column}
    home.add_dataset(Dataset("people", str(file), id_column, "phone", columns))
    with home.center() as center:
        purpose = Purpose("ads", 1, {"zh": "广告", "en": "Advertising"}, CATEGORIES, ("data_provider",))
        center.put_purpose(purpose, "test")
        values = pa.array(table[id_column].astype(str))
        center.assume(values, "phone", "ads", other, CATEGORIES, "made for a test", "test")
        file_assessment(center, "ads", other, "none: a test", "test")
    return home


def introduce(brand: Home, provider: Home, terms: dict[str, Any]) -> None:
    """Exchange cards and sign the agreement on both sides."""
    brand.trust(provider.card())
    provider.trust(brand.card())
    signed = provider.sign_agreement(brand.sign_agreement(terms))
    for home in (brand, provider):
        home.add_agreement(signed)


def run(
    homes: dict[str, Home],
    spec: JobSpec,
    private: dict[str, Any],
    before: Callable[[str, str, Any], None] = lambda role, stage, center: None,
) -> dict[str, Any]:
    """Run the job; {role: outcome or the exception that ended it}. `before(role, stage, center)` at each
    check."""
    signed = homes["brand"].identity.sign("job", spec.to_json())
    signed = homes["provider"].identity.countersign(signed)
    links = {role: Link(spec.job_id, spec.hash, role, spool_dir=homes[role].path / "work") for role in homes}
    links["brand"].attach(links["provider"].outgoing(), _broken)
    links["provider"].attach(links["brand"].outgoing(), _broken)
    outcome: dict[str, Any] = {}

    def side(role: str) -> None:
        home, link = homes[role], links[role]
        peer = home.peer(spec.recipient_of[role])
        store = Store(home.path / "node.db")
        secret = private if role == "brand" else {}
        job = Job(spec.job_id, role, spec.kind, peer.party, signed, state="running", private=secret)
        store.add(job)
        with home.center() as center:

            def record(kind: str, payload: dict[str, Any]) -> int:
                number: int = center.append(kind, payload)
                store.add_leaf(spec.job_id, kind, number)
                return number

            kind = KINDS[spec.kind]
            runner = Runner(
                home,
                store,
                _Watching(center, lambda: before(role, link.stage, center)),
                kind,
                job,
                peer,
                link,
                set_state=lambda state, **changes: job,
                record=record,
                resumed=lambda: True,
                progress=lambda *report: None,
                log=lambda *arguments, **fields: None,
            )
            try:
                outcome[role] = runner.run()
                link.close()
            except Exception as error:  # the test looks at it
                outcome[role] = error
                link.close({"code": getattr(error, "code", "node.internal"), "detail": "", "counts": {}})
                runner.clean()
            finally:
                store.close()

    threads = [threading.Thread(target=side, args=(role,)) for role in homes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(400)
    return outcome


class _Watching:
    """A center that calls `before` whenever the gate asks for the delta."""

    def __init__(self, center: Any, before: Callable[[], None]) -> None:
        self._center, self._before = center, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._center, name)

    def delta(self, snapshot_id: str) -> Any:
        self._before()
        return self._center.delta(snapshot_id)


def _broken(error: Exception) -> NodeError:
    return NodeError("transport.lost", str(error))


def people(count: int = 600, seed: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(brand's table, provider's table): two thirds shared; who is loyal depends on the provider's
    columns."""
    rng = np.random.default_rng(seed)
    phones = np.array([f"138{i:08d}" for i in range(count)])
    x = rng.normal(size=(count, 3))
    city = rng.choice(["上海", "北京", "广州"], count, p=[0.5, 0.3, 0.2])
    chance = 1 / (1 + np.exp(-(1.5 * x[:, 0] - x[:, 1] + (city == "上海"))))
    loyal = rng.random(count) < chance
    cut = count // 6
    brand = pd.DataFrame({"手机": "+86 " + pd.Series(phones[: -cut or None]), "loyal": loyal[:-cut]})
    provider = pd.DataFrame(
        {"phone": phones[cut:], "city": city[cut:], "spend": x[cut:, 0], "visits": x[cut:, 1]}
    )
    return brand, provider


def spec_of(kind: str, job_id: str, **changes: Any) -> JobSpec:
    start = documents.now()
    value = {
        "job_id": job_id,
        "kind": kind,
        "purpose": "ads",
        "brand": "acme",
        "provider": "dataco",
        "agreement_id": "a1",
        "datasets": {"brand": "people", "provider": "people"},
        "categories": list(CATEGORIES),
        "columns": [],
        "params": {},
        "outputs": {},
        "created_at": documents.timestamp(start),
        "expires_at": "2036-01-01T00:00:00Z",
        "private_commitment": "",
    }
    return JobSpec.from_json({**value, **changes})
