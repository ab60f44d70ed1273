"""Real nodes for tests: homes with consent, two or more processes, and a job kind made for testing.

Run as a program (`python nodes.py --home DIR`) it is a node that knows the kind `probe`. Its stages follow
the job's parameters, so that a test can make either side wait, fail, or send more than the other reads.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from consent_center.model import Purpose
from consent_center.records.assess import file_assessment
from parties import documents
from parties.client import NodeClient
from parties.datasets import Dataset
from parties.documents import Agreement, JobSpec
from parties.engine import Engine
from parties.errors import NodeError
from parties.home import Home
from parties.node import Log
from parties.operator import Operator
from parties.private_files import write_json
from parties.stage import JobKind, Stage, StageContext, ViewRequest
from parties.store import Store
from parties.transport.server import Server
from protocols.machine import Done, Machine, Step

PURPOSE, CATEGORY = "ads", "identity"
START_SECONDS = 240.0


# -- the kind ------------------------------------------------------------------------------------------------


class _Swap:
    """Takes `count` messages; the result is their total length."""

    def __init__(self, count: int, total: int = 0) -> None:
        self.count, self.total = count, total

    def receive(self, message: bytes) -> Step[int]:
        total = self.total + len(message)
        if self.count == 1:
            return Step((), Done(total), (1, 1))
        return Step((), _Swap(self.count - 1, total), (1, self.count))


def swap(session: bytes, count: int, size: int) -> Machine[int]:
    """Sends all its messages before it reads any: both sides at once, the worst case for flow control."""
    return Machine(Step((session.ljust(size, b"x") for _ in range(count)), _Swap(count)))


def _misbehave(ctx: StageContext, stage: str) -> None:
    params = ctx.spec.params
    if params.get("mark"):
        (Path(params["mark"]) / f"{ctx.role}-{stage}").write_text("here")
    if params.get("wait_in") == f"{ctx.role}.{stage}":
        # Until the test says so, or the job has ended: no time that must be long enough for the test.
        go, link = Path(params["mark"]) / "go", ctx.channel._link  # type: ignore[attr-defined]
        until(lambda: go.exists() or link.error is not None, 60)
    if params.get("fail_in") == f"{ctx.role}.{stage}":
        (ctx.workdir / "half.txt").write_text("half")
        raise NodeError("rows.unreadable", "secret row 4711 of people.csv")


def _swap(ctx: StageContext) -> None:
    _misbehave(ctx, "swap")
    count, size = ctx.spec.params.get("messages", 3), ctx.spec.params.get("size", 100)
    ctx.carry["session"] = ctx.channel.session("swap")
    ctx.result["total"] = ctx.channel.run(swap(ctx.carry["session"], count, size), "swap")


def _tell(ctx: StageContext) -> None:
    _misbehave(ctx, "tell")
    ctx.channel.send_json({"role": ctx.role, "session": ctx.carry["session"].hex(), "rows": ctx.view.rows})
    theirs = ctx.channel.receive_json()
    ctx.result.update(same=theirs["session"] == ctx.carry["session"].hex(), dropped=len(ctx.dropped))
    ctx.record("probe.told", {"job": ctx.job_id, "rows": theirs["rows"]})
    (ctx.workdir / "result.txt").write_text("done")


def _check(spec: JobSpec, agreement: Agreement) -> None:
    if spec.params.get("bad"):
        raise NodeError("job.spec", "the parameter bad is set", share=True)


def _open(request: ViewRequest) -> Any:
    from parties.gate import Gate

    _register()
    return Gate(request.center, request.home).open(
        request.dataset.name,
        request.spec.purpose,
        request.recipient,
        request.spec.categories,
        (),
        request.job_id,
    )


PROBE = JobKind(
    name="probe",
    stages=(Stage("swap", _swap, _swap), Stage("tell", _tell, _tell)),
    check=_check,
    open_view=_open,
    leakage={"brand": ("the provider's count",), "provider": ("the brand's count",)},
)


def _register() -> None:
    """The audit bundle looks kinds up by name. Not at import: a node without jobs starts faster so."""
    from parties.kinds import KINDS

    KINDS["probe"] = PROBE


# -- homes ---------------------------------------------------------------------------------------------------


def phones(start: int, count: int) -> list[str]:
    return [f"1380013{n:04d}" for n in range(start, start + count)]


def make_home(
    folder: Path, party: str, peers: tuple[str, ...] = (), people: int = 20, settings: str = ""
) -> Home:
    """A home with the data set `people`; everybody in it has consented to PURPOSE for each of `peers`."""
    home = Home.create(folder / party, party)
    with (home.path / "node.toml").open("a") as file:
        file.write(settings)
    table = folder / f"{party}.csv"
    table.write_text("phone\n" + "\n".join(phones(0, people)) + "\n")
    home.add_dataset(Dataset("people", str(table), "phone", "phone", {}))
    with home.center() as center:
        center.put_purpose(Purpose(PURPOSE, 1, {"en": "advertising"}, (CATEGORY,)))
        for peer in peers:
            values = pa.array(phones(0, people))
            center.assume(values, "phone", PURPOSE, peer, (CATEGORY,), "test", "test")
            file_assessment(center, PURPOSE, peer, "none: a test", "test")
    return Home.open(home.path)


def terms(brand: str, provider: str, **changes: Any) -> dict[str, Any]:
    now = documents.now()
    return {
        "id": f"{brand}-{provider}",
        "brand": brand,
        "provider": provider,
        "kinds": ["probe"],
        "purposes": [PURPOSE],
        "categories": [CATEGORY],
        "columns": [],
        "tags": [],
        "minimum_seeds": 1,
        "minimum_rows": 1,
        "privacy": None,
        "preapproved": ["probe"],
        "suites": ["ecdh"],
        "impact_assessment": "",
        "created_at": documents.timestamp(now - timedelta(hours=1)),
        "expires_at": documents.timestamp(now + timedelta(days=1)),
        **changes,
    }


def agree(brand: Home, provider: Home, **changes: Any) -> dict[str, Any]:
    """Sign an agreement on both sides and store it on both; the cards must be trusted already."""
    signed = provider.sign_agreement(brand.sign_agreement(terms(brand.party, provider.party, **changes)))
    brand.add_agreement(signed)
    provider.add_agreement(signed)
    return signed


class LocalNode:
    """A node inside the test's own process: quick, and the test can look into it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.log = Log(home.path / "log" / "node.log", io.StringIO())
        self.store = Store(home.path / "node.db")
        self.center = home.center()
        self.engine = Engine(home, self.store, self.center, self.log, {"probe": PROBE})
        self.operator = Operator(home, self.store, self.engine, self.center, self.log)
        self.server = Server(home, self.engine, self.operator, self.log)
        self.operator.address = self.server.address
        self.engine.start()
        self.server.start()
        write_json(home.path / "node.run.json", {"address": self.server.address})

    def client(self) -> NodeClient:
        return NodeClient(self.home)

    def events(self) -> list[str]:
        return [entry["code"] for entry in self.log.recent()]

    def stop(self) -> None:
        self.engine.stop()
        self.server.stop(1.0)
        self.store.close()
        self.center.close()
        self.log.close()


def until(holds: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for what another thread or node is about to do."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def known(client: NodeClient, job_id: str, *states: str) -> None:
    """Wait until a node has a job in one of these states."""

    def holds() -> bool:
        try:
            return client.job(job_id)["state"] in states
        except NodeError:
            return False

    until(holds)


@contextlib.contextmanager
def two(folder: Path) -> Iterator[tuple[LocalNode, LocalNode]]:
    """A brand and a provider, `prov`, who know each other; no agreement yet."""
    homes = make_home(folder, "brand", ("prov",)), make_home(folder, "prov", ("brand",))
    brand, prov = LocalNode(homes[0]), LocalNode(homes[1])
    introduce(brand, prov)
    try:
        yield brand, prov
    finally:
        brand.stop()
        prov.stop()


# -- processes -----------------------------------------------------------------------------------------------


class NodeProcess:
    """A node of its own process; `stop` ends it, `kill` does so without mercy."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> NodeProcess:
        ready = self.home.path / "ready.json"
        ready.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--home", str(self.home.path), "--ready-file", str(ready)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.home.party} did not start: {self.log()[-2000:]}")
            time.sleep(0.02)
        return self

    def log(self) -> str:
        path = self.home.path / "log" / "node.log"
        return path.read_text() if path.exists() else ""

    def client(self) -> NodeClient:
        return NodeClient(self.home)

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    def stop(self) -> int:
        if self.process is None:
            return 0
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(240)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(*homes: Home) -> Iterator[list[NodeProcess]]:
    """Nodes of these homes that trust each other's cards at their actual addresses."""
    nodes = [NodeProcess(home) for home in homes]
    try:
        for node in nodes:
            node.start()
        introduce(*nodes)
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def introduce(*nodes: NodeProcess | LocalNode) -> None:
    """Every node trusts every other one's card."""
    cards = {}
    for node in nodes:
        with node.client() as client:
            cards[node.home.party] = client.card()
    for node in nodes:
        with node.client() as client:
            for party, card in cards.items():
                if party != node.home.party:
                    client.trust(card)


def request(agreement: str, **changes: Any) -> dict[str, Any]:
    """What a brand submits for a probe job."""
    return {
        "kind": "probe",
        "purpose": PURPOSE,
        "agreement": agreement,
        "datasets": {"brand": "people", "provider": "people"},
        "categories": [CATEGORY],
        **changes,
    }


def main() -> int:
    from parties import node

    return node.main(kinds={"probe": PROBE})


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "INFO")
    sys.exit(main())
