"""Several party nodes on this machine: homes, cards, agreements, processes. For demo, simulate, bench, tests.

    with LocalNetwork(folder, ["brand", "provider_a"]) as network:
        network.agree(terms)
        network.start()
        job_id = network["brand"].client.submit(request)

Every node is a process of its own (`python -m parties.node`), in its own process group, with its own keys,
databases and consent center, and is stopped by its process id however the block ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from parties.client import NodeClient
from parties.home import Home
from pec import usage
from pec.errors import PecError

READY_SECONDS = 180.0
STOP_SECONDS = 30.0


@dataclass
class Party:
    """One node: its home, and while it runs its process and a client."""

    name: str
    home: Home
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    connected: NodeClient | None = field(default=None, repr=False)

    @property
    def client(self) -> NodeClient:
        """The operator's client of the running node."""
        if self.connected is None:
            self.connected = NodeClient(self.home.path)
        return self.connected

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.home.path / "process.log"

    @property
    def rest(self) -> str:
        """URL of the consent center's REST service that the node runs."""
        return str(self.home.run_file()["consent_url"])

    def usage(self) -> usage.Usage:
        return usage.of(self.process.pid) if self.process else usage.Usage(None, None)


class LocalNetwork:
    """Nodes named `parties` under `root`, which trust one another; may be started and stopped more than once.

    `consent_rest`: whether the nodes serve their consent centers over REST too.
    """

    def __init__(
        self, root: Path, parties: Iterable[str], *, consent_rest: bool = False, settings: str = ""
    ) -> None:
        self.root = root
        self.parties: dict[str, Party] = {}
        self._restore: Any = None
        names = list(parties)
        root.mkdir(parents=True, exist_ok=True)
        for name in names:
            home = Home.create(root / name, name, listen="127.0.0.1:0")
            more = settings + ('consent_listen = "127.0.0.1:0"\n' if consent_rest else "")
            if more:
                with (home.path / "node.toml").open("a", encoding="utf-8") as file:
                    file.write(more)
                home = Home.open(home.path)
            self.parties[name] = Party(name, home)
        cards = {name: party.home.card() for name, party in self.parties.items()}
        for name, party in self.parties.items():
            for other, card in cards.items():
                if other != name:
                    party.home.trust(card)

    def __getitem__(self, name: str) -> Party:
        return self.parties[name]

    def __enter__(self) -> Self:
        # A polite kill must stop the nodes as Ctrl-C does; signals reach the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._restore = signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._restore is not None:
            signal.signal(signal.SIGTERM, self._restore)

    def agree(self, terms: Mapping[str, Any]) -> None:
        """Sign `terms` by its brand and its provider, and give it to both (to running nodes over gRPC)."""
        sides = [self.parties[terms["brand"]], self.parties[terms["provider"]]]
        signed = sides[1].home.sign_agreement(sides[0].home.sign_agreement(terms))
        for party in sides:
            if party.process is None:
                party.home.add_agreement(signed)
            else:
                party.client.add_agreement(signed)

    def start(self, names: Iterable[str] | None = None, timeout: float = READY_SECONDS) -> None:
        """Start the nodes (all by default) and wait until each says that it is ready. Raises `pec.node`."""
        waiting = [self.parties[n] for n in (names or self.parties)]
        # A Ctrl-C between two starts must not leave the first process behind: __exit__ sees each one made.
        for party in waiting:
            _ready_file(party).unlink(missing_ok=True)
            with party.log.open("ab") as log:
                party.process = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", "parties.node"),
                        *("--home", str(party.home.path), "--ready-file", str(_ready_file(party))),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        deadline = time.monotonic() + timeout
        for party in waiting:
            self._wait_ready(party, deadline)
        self._introduce()

    def _introduce(self) -> None:
        """Tell every running node where the others listen now: the system chose the ports at this start."""
        running = [p for p in self.parties.values() if p.process is not None]
        cards = {p.name: p.client.card() for p in running}
        for party in running:
            for name, card in cards.items():
                if name != party.name:
                    party.client.trust(card)

    def _wait_ready(self, party: Party, deadline: float) -> None:
        while not _ready_file(party).exists():
            code = party.process.poll() if party.process else None
            if code is not None:
                raise PecError(
                    "pec.node", f"node {party.name} ended with exit code {code}: {tail(party.log)}"
                )
            if time.monotonic() > deadline:
                raise PecError("pec.timeout", f"node {party.name} was not ready in time: {tail(party.log)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End every process: ask, wait, and kill what is still there; one that has gone already is fine."""
        running = [p for p in self.parties.values() if p.process is not None]
        for party in running:
            if party.connected is not None:
                party.connected.close()
                party.connected = None
            _signal(party.process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for party in running:
            process = party.process
            if process is None:
                continue
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
            party.process = None

    def run(
        self,
        brand: str,
        request: Mapping[str, Any],
        *,
        watch: Callable[[dict[str, Any]], None] | None = None,
        timeout: float = 600.0,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Submit a job, approve it at the provider if it asks, wait for its end: both sides' views of it.

        Raises `pec.job_refused` and `pec.job_failed` with the node's own code and words in the message.
        """
        from pec import jobs

        provider = self.parties[str(request["peer"])]
        return jobs.run(self.parties[brand].client, provider.client, request, watch=watch, timeout=timeout)


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return " | ".join(text[-lines:]) or "it printed nothing"


def _ready_file(party: Party) -> Path:
    return party.home.path / "ready"


def _signal(process: subprocess.Popen[bytes] | None, number: int) -> None:
    if process is None or process.poll() is not None:
        return
    try:
        os.killpg(process.pid, number)  # its own session, so the group is the node and its children alone
    except ProcessLookupError:
        return


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
