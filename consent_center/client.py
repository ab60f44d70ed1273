"""How everything else reaches a consent center: a directory is opened in place, a URL over REST.

    center = open_center("var/brand/consent")           # embedded
    center = open_center("https://consent.example/api")  # remote, same methods

The caller closes it (`with open_center(...) as center:`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa

from consent_center.errors import ConsentError
from consent_center.model import (
    Assessment,
    ConsentEvent,
    DecisionRequest,
    Decisions,
    Delta,
    Explanation,
    Finding,
    Notice,
    Purpose,
    Recorded,
    RecordedMany,
    Snapshot,
)


class CenterClient(Protocol):
    """What an embedded and a remote center both do. `consent_center.center.Center` documents each call."""

    @property
    def controller(self) -> str: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    # registry
    def put_purpose(self, purpose: Purpose, actor: str = "") -> Purpose: ...
    def put_notice(self, notice: Notice, actor: str = "") -> Notice: ...
    def put_assessment(self, assessment: Assessment, actor: str = "") -> Assessment: ...
    def switch_purpose(self, id: str, active: bool, actor: str) -> Purpose: ...
    def switch_recipient(self, id: str, active: bool, actor: str) -> dict[str, bool]: ...
    def recipients(self) -> dict[str, bool]: ...
    def require_assessments(self, required: bool, actor: str) -> bool: ...
    def purposes(self) -> list[Purpose]: ...
    def notices(self) -> list[Notice]: ...
    def assessments(self) -> list[Assessment]: ...

    # events
    def record(self, event: ConsentEvent) -> Recorded: ...
    def record_many(
        self, events: Sequence[ConsentEvent] | pa.Table, on_error: str = "raise"
    ) -> RecordedMany: ...
    def assume(
        self,
        values: pa.Array,
        kind: str,
        purpose: str,
        recipient: str,
        categories: Sequence[str],
        reason: str,
        actor: str,
    ) -> RecordedMany: ...
    def explain(self, kind: str, value: str) -> Explanation: ...
    def erase(self, kind: str, value: str, actor: str) -> int: ...

    # decisions
    def decide(self, request: DecisionRequest, values: pa.Array, kind: str) -> Decisions: ...
    def snapshot(
        self, request: DecisionRequest, values: pa.Array, kind: str | pa.Array, job_id: str
    ) -> Snapshot: ...
    def delta(self, snapshot_id: str) -> Delta: ...
    def token_proof(self, snapshot_id: str, kind: str, value: str) -> dict[str, Any]: ...

    # signals and receipts
    def put_signal_mapping(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]: ...
    def signal_mapping(self) -> dict[str, Any]: ...
    def receipt(self, sequence: int, identifiers: Sequence[tuple[str, str]] = ()) -> dict[str, Any]: ...

    # ledger
    def append(self, kind: str, payload: dict[str, Any]) -> int: ...
    def append_many(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> list[int]: ...
    def checkpoint(self) -> str: ...
    def prove(self, index: int, size: int) -> list[bytes]: ...
    def prove_consistency(self, old_size: int, new_size: int) -> list[bytes]: ...
    def opening(self, index: int) -> dict[str, Any]: ...
    def verifier_key(self) -> str: ...
    def fsck(self, checkpoint: str = "") -> Finding | None: ...


def open_center(location: str | Path) -> CenterClient:
    """The center at `location`: a directory made by `Center.create`, or the http(s) URL of its REST service.

    Raises ConsentError `center.missing`, `center.keys`, `center.version`, `center.location`,
    `center.unreachable`.
    """
    text = str(location)
    if text.startswith(("http://", "https://")):
        from consent_center.rest import remote  # only remote users need an HTTP client

        return remote.open_remote(text)
    if "://" in text:
        raise ConsentError("center.location", f"{text!r} is neither a directory nor an http(s) URL")
    from consent_center.center import Center

    return Center.open(Path(location))
