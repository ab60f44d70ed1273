"""What a job kind is made of, and what its stages may do.

A job kind is a list of stages; a stage is a pair of functions, one a role. The engine opens the consented
views, exchanges boundary messages, re-checks consent, and calls the functions; they see a `StageContext` and
nothing else: no network, no database, no file outside `workdir`. `Channel.run` drives a protocol machine
against the peer.

    def align_brand(ctx):
        session = ctx.channel.session("align")
        ctx.carry["rows"] = ctx.channel.run(align.Receiver(items, session, limits, os.urandom))

Register a kind in `parties.kinds.KINDS`. Whatever a stage raises ends the job on both sides; the peer is told
the code, and the detail only if the error is a `NodeError` with `share=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from parties.budget import Spend
from parties.documents import Agreement, JobSpec
from parties.errors import NodeError
from protocols.machine import MAX_MESSAGE, Machine

if TYPE_CHECKING:
    from parties.datasets import Dataset
    from parties.home import Home, Settings

Role = Literal["brand", "provider"]
R = TypeVar("R")

#: Largest control message of `send_json`, in bytes of canonical JSON.
MAX_CONTROL = MAX_MESSAGE


class Channel(Protocol):
    """The line to the peer during one stage. Every failure ends the job."""

    @property
    def bytes_sent(self) -> int: ...
    @property
    def bytes_received(self) -> int: ...

    def session(self, label: str) -> bytes:
        """32 bytes, equal on both sides, that bind job id, spec hash, stage, label, both snapshots, both
        nonces.
        """
        ...

    def run(self, machine: Machine[R], label: str = "", part: tuple[int, int] | None = None) -> R:
        """Drive a machine to its end against the peer's and return what this side learned.

        `label` names the run in progress and log; `part` (i, n): it is the i-th of n such runs, from 0.
        Raises ProtocolError (what the machine found) or NodeError
        (`transport.*`, or what the peer reported).
        """
        ...

    def send_json(self, value: Mapping[str, Any]) -> None:
        """Send a small object; `transport.too_large` above `MAX_CONTROL`."""
        ...

    def receive_json(self) -> dict[str, Any]:
        """The peer's next `send_json`. The caller validates it: a peer may send any object."""
        ...

    def send_bytes(self, message: bytes) -> None:
        """One message that is not a machine's own; for `parties.lanes`, which drives several machines.

        One thread at a time in it, while another may be in `receive_bytes`.
        """
        ...

    def receive_bytes(self) -> bytes:
        """The peer's next `send_bytes`."""
        ...

    def progress(self, done: int, total: int, what: str = "") -> None:
        """For a progress bar, from work that has no machine. Not sent to the peer."""
        ...


@dataclass(frozen=True)
class Recheck:
    """What `view.recheck()` found. `dropped`: int64[k], rows of the view (positions) that must not be used
    any more since the snapshot, all of them, not only the latest; `lag_seconds` how old the center's answer
    is.
    """

    sequence: int
    active: bool
    dropped: npt.NDArray[np.int64] = field(repr=False)
    reasons: dict[str, int] = field(default_factory=dict)
    lag_seconds: float = 0.0


@dataclass(frozen=True)
class ViewRequest:
    """What a kind's `open_view` gets. `recipient` is the peer, `dataset` this side's, `private` this side's
    own parameters of the job (the brand's; empty at the provider's).
    """

    job_id: str
    role: Role
    spec: JobSpec
    agreement: Agreement
    dataset: Dataset
    private: Mapping[str, Any]
    recipient: str
    center: Any
    home: Home
    workdir: Path


def no_account() -> None:
    raise NodeError("node.internal", "a stage spends privacy where no account is kept")


def no_books(chosen: Any, people: Any, labels: Any, fresh: int) -> None:
    raise NodeError("node.internal", "a stage gives exact sums away where nobody keeps whose they are")


@dataclass
class StageContext:
    """Everything that a stage's function sees.

    `carry` lives through the whole job and stays on this side; `dropped` are rows of the view that must not
    be in any output any more (the engine refreshes it before each stage); results are written below
    `workdir`, which is renamed into place when the job succeeds; `record` appends a fact to the
    organisation's ledger and returns the leaf's index. `state` is a private directory that outlives a killed
    node: a stage keeps there what it needs to go on, and the job's end removes it. `models` is the node's
    `parties.models.Models`, for kinds that use what an earlier job learned; `prepared` the directory of
    `parties.prepared`. What a stage puts in `result` (plain JSON) is shown by the operator's `job()`. `spend`
    counts what the kind says that the job spends, and raises `agreement.budget` where that is too much: to be
    called before anything with noise may reach the peer. `fitted(chosen, people, labels, fresh)` keeps, at
    the brand, over whom the partner is about to get exact sums, and raises `job.repeated`
    (`parties.repeats`): view rows int64 that were asked about and that are in the fit, labels float64 of the
    latter, and how many people were drawn anew and kept from it. `neighbour`: the peer's node computes on
    this very machine, for forecasts.
    """

    job_id: str
    role: Role
    spec: JobSpec
    agreement: Agreement
    private: Mapping[str, Any]
    view: Any
    channel: Channel
    workdir: Path
    record: Callable[[str, dict[str, Any]], int]
    carry: dict[str, Any] = field(default_factory=dict, repr=False)
    result: dict[str, Any] = field(default_factory=dict)
    dropped: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    settings: Settings | None = None
    state: Path | None = None
    prepared: Path | None = None
    models: Any = field(default=None, repr=False)
    spend: Callable[[], None] = no_account
    fitted: Callable[[Any, Any, Any, int], None] = no_books
    neighbour: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage: what each role does in it. `name` is shown to people and sent in every frame.

    `repeatable`: the stage may run again after an interruption, although a part of it has run: its messages
    then say nothing more than those of a single run. A stage that draws noise is not (two draws average out).
    """

    name: str
    brand: Callable[[StageContext], None]
    provider: Callable[[StageContext], None]
    repeatable: bool = False


#: Looks at a label column of the brand's and raises `rows.label` or `job.labels`; None: yes and no only.
LabelCheck = Callable[[Any], object] | None


@dataclass(frozen=True)
class Own:
    """Which private parameters of a kind say something of the brand's file, to try it at submission.

    `chooser` names a yes/no column that chooses people, as `where` does in every kind; `labels` are columns
    that are learned from, each with its check; `least`: that many people must fit (`seeds`: the agreement's
    `minimum_seeds`). `looked_at`: parameters that name columns, each with what those of the brand's must be.
    """

    chooser: str = ""
    labels: tuple[tuple[str, LabelCheck], ...] = ()
    least: Literal["nobody", "one", "seeds"] = "nobody"
    looked_at: tuple[tuple[str, LabelCheck], ...] = ()


@dataclass(frozen=True)
class If:
    """A line of a leakage table that is true of some jobs only: `then` where the job is one of them, else
    `otherwise` (empty: no line). Both sides decide it by what both have signed.
    """

    holds: Callable[[JobSpec, Agreement], bool]
    then: str
    otherwise: str = ""


#: {role: lines}, and the same in Chinese under "role.zh".
Leakage = Mapping[str, tuple[str | If, ...]]


@dataclass(frozen=True)
class JobKind:
    """A kind of job.

    `check(spec, agreement)` raises NodeError if the spec is not what the kind needs or the agreement forbids
    it; both sides call it before anything runs. `leakage` has what each role learns, shown before approval
    and kept in the audit bundle: {"brand": ("…",), "provider": ("…",)}. `methods`: other ways to the same
    result with stages, checks and leakage of their own, by the spec's parameter `method`. `aligned`: who is
    the receiver of its align stage, for the forecast; empty if it has none. `tabled`: what is aligned gets a
    table of records in the same exchange.
    `check_own(spec, dataset, private)`: raises NodeError if the brand's private parameters or columns are not
    what the job needs; at submission, before anybody is asked. `own(spec)`: what of the brand's file is tried
    then. `check_here(spec, home, peer)`: what either node must have for the job, a model for instance.
    `spends`: the privacy budget that a job uses up, None for a kind or job without noise; both sides derive
    it from what both signed. `exact`: whether the provider gets sums over the chosen people without noise.
    """

    name: str
    stages: tuple[Stage, ...]
    check: Callable[[JobSpec, Agreement], None]
    open_view: Callable[[ViewRequest], Any]
    leakage: Leakage
    methods: Mapping[str, JobKind] = field(default_factory=dict)
    aligned: Literal["", "brand", "provider"] = ""
    tabled: bool = False
    check_own: Callable[[JobSpec, Dataset, Mapping[str, Any]], object] = lambda spec, dataset, private: None
    own: Callable[[JobSpec], Own] = lambda spec: Own()
    check_here: Callable[[JobSpec, Home, str], object] = lambda spec, home, peer: None
    spends: Callable[[JobSpec, Agreement], Spend | None] = lambda spec, agreement: None
    exact: Callable[[JobSpec, Agreement], bool] = lambda spec, agreement: False

    def learned(self, spec: JobSpec, agreement: Agreement | None) -> dict[str, list[str]]:
        """What each side learns of this very job: the lines of `leakage` that are true of it.

        Without the agreement, which then the other side looks at, every line that may be true.
        """

        def line(entry: str | If) -> str:
            if isinstance(entry, str):
                return entry
            return entry.then if agreement is None or entry.holds(spec, agreement) else entry.otherwise

        return {role: [t for t in map(line, lines) if t] for role, lines in self.leakage.items()}

    def of(self, spec: JobSpec) -> JobKind:
        """The kind as this spec asks for it; an unknown method is left to `check`."""
        method = spec.params.get("method")
        return self.methods.get(method, self) if isinstance(method, str) else self
