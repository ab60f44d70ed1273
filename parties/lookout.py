"""A running node's thread that acts on what has come to an end: agreements, trust in a partner, data sets.

The directory says what stands; commands write there whether or not the node runs. Every few seconds, and at
once after a command of the operator's, the lookout

- writes endings into the ledger that are not there yet,
- ends jobs that only wait under an ended agreement, with a partner who is not trusted any more, or for a
  data set that was removed (a running one stops at its own next check),
- drops what was prepared for an ended agreement,
- tells the partner of this side's endings until it has heard them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from consent_center.errors import ConsentError
from parties import documents
from parties.errors import NodeError, RemoteError
from parties.home import Home
from parties.store import FINAL, Job, Store
from parties.transport import node_pb2
from parties.transport.client import Connection

#: Seconds between two looks.
EVERY = 2.0
#: Longest pause between two tries to tell a partner that can't be reached, in seconds.
LONGEST = 60.0
#: The same where the partner's version is too old to hear it.
LONGEST_OLD = 86_400.0


class Lookout:
    """`end(job_id, error)` ends a job; `runs(job_id)`: it has a session, and looks for itself."""

    def __init__(
        self,
        home: Home,
        store: Store,
        center: object,
        log: Callable[..., None],
        end: Callable[[str, Exception], None],
        runs: Callable[[str], bool],
    ) -> None:
        self._home, self._store, self._center, self._log = home, store, center, log
        self._end, self._runs = end, runs
        self._lock = threading.Lock()
        self._wake, self._stopping = threading.Event(), False
        self._seen: frozenset[str] | None = None
        self._next: dict[str, tuple[float, float]] = {}
        self._thread = threading.Thread(target=self._watch, name="lookout", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def join(self, seconds: float) -> None:
        """After `stop`: wait for a look that is under way."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def wake(self) -> None:
        """Look soon."""
        self._wake.set()

    def _watch(self) -> None:
        while not self._stopping:
            try:
                self.look()
            except Exception as error:  # the next look comes; what is ended is refused without this thread
                if self._stopping:  # what it looks at is being closed
                    return
                code = getattr(error, "code", "node.internal")
                self._log(str(code), f"lookout: {error}", level="error", trace=error)
            self._wake.wait(EVERY)
            self._wake.clear()

    def look(self) -> None:
        """One look at everything."""
        with self._lock:
            endings = [ending.agreement_id for ending in self._home.endings.all()]
            names = (
                *(f"agreement {id_}" for id_ in endings),
                *(f"peer {peer.party}" for peer in self._home.peers()),
                *(f"data set {dataset.name}" for dataset in self._home.datasets()),
            )
            seen = frozenset(names)
            if seen != self._seen:
                self._end_waiting(set(endings))
                self._seen = seen
            for id_ in endings:
                self._look_at(id_)

    def _look_at(self, id_: str) -> None:
        state = self._home.endings.state(id_)
        if state["leaf"] is None:
            try:
                self._home.endings.record(id_, self._center)
            except ConsentError as error:
                self._log("consent.unavailable", f"the end of {id_} is not in the ledger yet: {error}")
        due, pause = self._next.get(id_, (0.0, EVERY / 2))
        agreement = self._home.agreement(id_)
        over = documents.moment(agreement.expires_at) <= documents.now()  # by itself meanwhile
        if state["told"] or over or time.monotonic() < due:
            return
        other = self._home.other_party(agreement)
        try:
            if tell(self._home, id_):
                self._log("agreement.ended", f"{other} was told that agreement {id_} has ended", level="info")
                return
        except RemoteError as error:
            self._log(error.code, f"{other} was told that agreement {id_} has ended: {error.detail}")
            return
        except NodeError as error:  # nobody of that name is trusted any more: it is told once it is again
            self._log(error.code, f"{other} can't be told that agreement {id_} has ended: {error.detail}")
            if error.code == "transport.version":  # until its node is updated; here the agreement has ended
                pause = LONGEST_OLD
        pause = min(2 * pause, max(pause, LONGEST))
        self._next[id_] = time.monotonic() + pause, pause

    def _end_waiting(self, ended: set[str]) -> None:
        for job in self._open():
            document = job.signed["document"]
            try:
                self._home.endings.check(str(document["agreement_id"]))
                self._home.peer(job.peer)
                self._home.dataset(str(document["datasets"][job.role]))
            except NodeError as error:
                self._end(job.job_id, error)
        if ended:
            from parties import preparing  # it loads numpy

            for id_ in ended:
                for name in preparing.drop(self._home, id_):
                    self._log("node.prepared", f"agreement {id_} has ended: {name} was dropped", level="info")

    def _open(self) -> Iterable[Job]:
        return [j for j in self._store.all() if j.state not in FINAL and not self._runs(j.job_id)]


def tell(home: Home, id: str, seconds: float = 3.0) -> bool:
    """Give this party's own ending to the other side now. False if it can't be reached; what it says against
    it is raised, and then it has heard it too. `transport.version`: its node is too old to hear it.
    """
    peer, keys = home.peer(home.other_party(home.agreement(id))), home.identity
    request = node_pb2.EndRequest(ending=documents.canonical(home.endings.signed(id)))
    with Connection(keys, peer.party, peer.address, peer.certificate, peer.server_name) as line:
        try:
            line.call(line.peer.End, request, timeout=seconds)
        except RemoteError:
            home.endings.mark(id, told=True)
            raise
        except NodeError as error:
            if error.code == "transport.version":
                raise
            return False
    home.endings.mark(id, told=True)
    return True
