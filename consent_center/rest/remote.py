"""A consent center somewhere else, over REST, with the methods of an embedded one.

It fails closed: when the center does not answer, `decide` calls everybody `unreachable`, and every other call
raises `center.unreachable`. Reading is tried three times. Writing is tried again only when the connection was
never made: a second attempt after that could record an event twice.

    open_remote("http://127.0.0.1:8900#/etc/pec/rest.token")   # token file behind '#': never sent
    open_remote("https://consent.example")                     # token from PEC_CONSENT_TOKEN[_FILE]
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util import Retry

from consent_center.batch import table_of
from consent_center.errors import CODES, ConsentError
from consent_center.model import (
    CODE,
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
    RowError,
    Snapshot,
)
from consent_center.rest import token, wire

CHUNK = 250_000  # values in one request of a bulk decision
TIMEOUT = (5.0, 120.0)  # seconds to connect, to wait for bytes
_BODY_LIMIT = 512 << 20


def open_remote(location: str) -> RemoteCenter:
    """Raises `center.keys` without a token, `center.unreachable`, `request.unauthorised`."""
    url, _, file = location.partition("#")
    file = file or os.environ.get("PEC_CONSENT_TOKEN_FILE", "")
    text = token.read_token(Path(file)) if file else os.environ.get("PEC_CONSENT_TOKEN", "")
    if not text:
        raise ConsentError(
            "center.keys",
            f"no token for {url}: write {url}#/path/of/rest.token, or set PEC_CONSENT_TOKEN_FILE",
        )
    center = RemoteCenter(url, text)
    try:
        center.connect()
    except BaseException:
        center.close()
        raise
    return center


class RemoteCenter:
    """See `client.CenterClient`. One connection pool; may be used by several threads."""

    def __init__(self, url: str, token_text: str, timeout: tuple[float, float] = TIMEOUT) -> None:
        self._url, self._timeout, self._controller = url.rstrip("/"), timeout, ""
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc between a node and its own consent center
        self._session.headers["Authorization"] = f"Bearer {token_text}"
        self._session.max_redirects = 0
        # connect=2: what never reached the server may be sent again, whatever it is.
        adapter = HTTPAdapter(max_retries=Retry(total=None, connect=2, read=0, status=0, backoff_factor=0.2))
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def __repr__(self) -> str:
        return f"RemoteCenter({self._url!r})"

    def connect(self) -> None:
        """Asks who is there. Called by `open_remote`."""
        answer = self._json("GET", "/v1/health")
        if "controller" not in answer:
            raise ConsentError("request.unauthorised", f"{self._url} does not accept the token")
        self._controller = str(answer["controller"])

    @property
    def controller(self) -> str:
        if not self._controller:
            self.connect()
        return self._controller

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- transport -------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, safe: bool = False, **kwargs: Any) -> requests.Response:
        """One request. `safe`: asking twice does no harm, so it is tried three times."""
        attempts = 3 if safe or method == "GET" else 1
        for attempt in range(1, attempts + 1):
            try:
                response = self._session.request(
                    method, self._url + path, timeout=self._timeout, allow_redirects=False, **kwargs
                )
            except requests.RequestException as error:
                if attempt < attempts and not _never_sent(error):
                    continue
                raise ConsentError(
                    "center.unreachable",
                    f"{self._url} does not answer ({type(error).__name__}); is it running?",
                ) from error
            if response.status_code in (502, 503, 504) and attempt < attempts:
                continue
            if response.status_code // 100 != 2:
                raise self._problem(response)
            return response
        raise ConsentError("center.unreachable", f"{self._url} does not answer")  # never reached

    def _problem(self, response: requests.Response) -> ConsentError:
        try:
            body = response.json()
            code, detail, row = body["code"], str(body["detail"]), body.get("row")
            if code in CODES:
                return ConsentError(code, detail, row if isinstance(row, int) else None)
        except (ValueError, KeyError, TypeError):
            pass  # not a problem document of ours: said so below
        return ConsentError(
            "center.unreachable",
            f"{self._url} answered with HTTP {response.status_code}: see the center's log",
        )

    def _json(self, method: str, path: str, body: Any = None, safe: bool = False) -> Any:
        kwargs = {} if body is None else {"json": body}
        response = self._call(method, path, safe, **kwargs)
        try:
            return response.json()
        except ValueError as error:
            raise ConsentError("center.unreachable", f"{self._url}{path} answered with no JSON") from error

    def call_json(self, method: str, path: str, body: Any = None, safe: bool = False) -> Any:
        """One call of the service, for the parts that have a client of their own."""
        return self._json(method, path, body, safe)

    def call_text(self, path: str) -> str:
        """What the service answers with as text."""
        return self._call("GET", path).content.decode()

    def _arrow(self, path: str, data: bytes, safe: bool) -> bytes:
        if len(data) > _BODY_LIMIT:
            raise ConsentError("request.too_large", f"{len(data):,} bytes for one request; send fewer values")
        headers = {"Content-Type": wire.ARROW}
        return bytes(self._call("POST", path, safe, data=data, headers=headers).content)

    # -- registry --------------------------------------------------------------------------------------

    def put_purpose(self, purpose: Purpose, actor: str = "") -> Purpose:
        return wire.build(Purpose, self._json("POST", "/v1/purposes", _given(purpose, actor)))

    def put_notice(self, notice: Notice, actor: str = "") -> Notice:
        return wire.build(Notice, self._json("POST", "/v1/notices", _given(notice, actor)))

    def put_assessment(self, assessment: Assessment, actor: str = "") -> Assessment:
        return wire.build(Assessment, self._json("POST", "/v1/assessments", _given(assessment, actor)))

    def switch_purpose(self, id: str, active: bool, actor: str) -> Purpose:
        path = f"/v1/purposes/{quote(id, safe='')}/switch"
        return wire.build(Purpose, self._json("POST", path, {"active": active, "actor": actor}))

    def switch_recipient(self, id: str, active: bool, actor: str) -> dict[str, bool]:
        path = f"/v1/recipients/{quote(id, safe='')}/switch"
        return dict(self._json("POST", path, {"active": active, "actor": actor}))

    def require_assessments(self, required: bool, actor: str) -> bool:
        body = {"required": required, "actor": actor}
        return bool(self._json("POST", "/v1/assessments/required", body)["required"])

    def assessments_required(self) -> bool | None:
        found = self._json("GET", "/v1/assessments/required")["required"]
        return None if found is None else bool(found)

    def recipients(self) -> dict[str, bool]:
        return dict(self._json("GET", "/v1/recipients"))

    def purposes(self) -> list[Purpose]:
        return [wire.build(Purpose, p) for p in self._json("GET", "/v1/purposes")]

    def notices(self) -> list[Notice]:
        return [wire.build(Notice, n) for n in self._json("GET", "/v1/notices")]

    def assessments(self) -> list[Assessment]:
        return [wire.build(Assessment, a) for a in self._json("GET", "/v1/assessments")]

    # -- events ----------------------------------------------------------------------------------------

    def record(self, event: ConsentEvent) -> Recorded:
        done = self._json("POST", "/v1/events", wire.event_to_json(event))
        return Recorded(done["sequence"], done["leaf_index"], done["subject"], tuple(done["ignored"]))

    def record_many(self, events: Sequence[ConsentEvent] | pa.Table, on_error: str = "raise") -> RecordedMany:
        table = events if isinstance(events, pa.Table) else table_of(events)
        data = wire.pack({n: table[n] for n in table.schema.names}, {"on_error": on_error})
        return _recorded(self._call_json("/v1/events/bulk", data))

    def assume(
        self,
        values: pa.Array,
        kind: str,
        purpose: str,
        recipient: str,
        categories: Sequence[str],
        reason: str,
        actor: str,
    ) -> RecordedMany:
        meta = {"kind": kind, "purpose": purpose, "recipient": recipient, "categories": list(categories)}
        data = wire.pack({"value": wire.one_array(values)}, {**meta, "reason": reason, "actor": actor})
        return _recorded(self._call_json("/v1/assumptions/bulk", data))

    def _call_json(self, path: str, data: bytes) -> Any:
        return json.loads(self._arrow(path, data, safe=False))

    def explain(self, kind: str, value: str) -> Explanation:
        body = {"kind": kind, "value": value}
        return wire.explanation_from_json(self._json("POST", "/v1/people/explain", body, safe=True))

    def erase(self, kind: str, value: str, actor: str) -> int:
        body = {"kind": kind, "value": value, "actor": actor}
        return int(self._json("POST", "/v1/people/erase", body)["sequence"])

    # -- decisions -------------------------------------------------------------------------------------

    def decide(self, request: DecisionRequest, values: pa.Array, kind: str) -> Decisions:
        """In chunks; `sequence` is the least of theirs. Any failure makes everybody `unreachable`.

        Faults of the caller (a malformed request, an unknown kind) are raised, as an embedded center does.
        """
        meta = {"kind": kind, "request": wire.request_to_json(request)}
        text = wire.one_array(values)
        codes, ordinals, sequence, details = [], [], [], []
        try:
            for at in range(0, max(len(text), 1), CHUNK):
                part = text.slice(at, CHUNK)
                data = self._arrow("/v1/decisions/bulk", wire.pack({"value": part}, meta), safe=True)
                found, _ = wire.unpack_decisions(data)
                if len(found.codes) != len(part):
                    raise ConsentError(
                        "center.unreachable", f"{self._url} answered for another number of rows"
                    )
                codes.append(found.codes)
                ordinals.append(found.ordinals)
                sequence.append(found.sequence)
                details.append(found.detail)
        except ConsentError as error:
            if error.code in ("decision.request", "identifier.kind", "identifier.type"):
                raise
            n = len(text)
            closed = np.full(n, CODE["unreachable"], np.uint8)
            return Decisions(closed, np.full(n, -1, np.int64), -1, str(error))
        detail = next((d for d in details if d), "")
        return Decisions(np.concatenate(codes), np.concatenate(ordinals), min(sequence), detail)

    def snapshot(
        self, request: DecisionRequest, values: pa.Array, kind: str | pa.Array, job_id: str
    ) -> Snapshot:
        """In one request: a snapshot is signed over all its rows. Raises `center.unreachable`."""
        meta = {"request": wire.request_to_json(request), "job_id": job_id}
        columns = {"value": wire.one_array(values)}
        if isinstance(kind, str):
            meta["kind"] = kind
        else:
            columns["kind"] = wire.one_array(kind)
        data = self._arrow("/v1/snapshots", wire.pack(columns, meta), safe=False)
        decisions, more = wire.unpack_decisions(data)
        if len(decisions.codes) != len(values):
            raise ConsentError("center.unreachable", f"{self._url} answered for another number of rows")
        return Snapshot(more["document"], bytes.fromhex(more["signature"]), decisions, more["disclosure"])

    def delta(self, snapshot_id: str) -> Delta:
        found = self._json("GET", f"/v1/snapshots/{quote(snapshot_id, safe='')}/delta")
        return Delta(
            int(found["sequence"]),
            bool(found["active"]),
            np.array(found["withdrawn"], dtype=np.int64),
            np.array(found["reasons"], dtype=np.uint8),
            float(found["lag_seconds"]),
        )

    def token_proof(self, snapshot_id: str, kind: str, value: str) -> dict[str, Any]:
        path = f"/v1/snapshots/{quote(snapshot_id, safe='')}/token-proof"
        return dict(self._json("POST", path, {"kind": kind, "value": value}, safe=True))

    # -- ledger ----------------------------------------------------------------------------------------

    def append(self, kind: str, payload: dict[str, Any]) -> int:
        body = {"kind": kind, "payload": wire.plain(payload)}
        return int(self._json("POST", "/v1/ledger/entries", body)["index"])

    def append_many(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> list[int]:
        body = [{"kind": k, "payload": wire.plain(p)} for k, p in entries]
        return list(self._json("POST", "/v1/ledger/entries/batch", body)["indexes"])

    def checkpoint(self) -> str:
        return self._call("GET", "/v1/ledger/checkpoint").content.decode()

    def prove(self, index: int, size: int) -> list[bytes]:
        found = self._json("GET", f"/v1/ledger/proofs/inclusion?index={index}&size={size}")
        return [bytes.fromhex(h) for h in found["hashes"]]

    def prove_consistency(self, old_size: int, new_size: int) -> list[bytes]:
        found = self._json("GET", f"/v1/ledger/proofs/consistency?old={old_size}&new={new_size}")
        return [bytes.fromhex(h) for h in found["hashes"]]

    def opening(self, index: int) -> dict[str, Any]:
        return dict(self._json("GET", f"/v1/ledger/entries/{index}"))

    def put_signal_mapping(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        body = {"mapping": document, "actor": actor}
        found: dict[str, Any] = self._json("POST", "/v1/signals/mapping", body, safe=True)
        return found

    def signal_mapping(self) -> dict[str, Any]:
        found: dict[str, Any] = self._json("GET", "/v1/signals/mapping")
        return found

    def receipt(self, sequence: int, identifiers: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        asked: dict[str, list[str]] = {}
        for kind, value in identifiers:
            asked.setdefault(kind, []).append(value)
        found: dict[str, Any] = self._json("POST", f"/v1/receipts/{sequence}", asked, safe=True)
        return found

    def verifier_key(self) -> str:
        return self._call("GET", "/v1/ledger/key").content.decode().strip()

    def fsck(self, checkpoint: str = "") -> Finding | None:
        body = {"checkpoint": checkpoint} if checkpoint else {}
        found = self._json("POST", "/v1/ledger/fsck", body, safe=True)["finding"]
        return None if found is None else Finding(found["what"], found["where"], found["detail"])


def _never_sent(error: requests.RequestException) -> bool:
    """Whether no connection came about; the transport has tried that again already."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)


def _given(entry: Purpose | Notice | Assessment, actor: str) -> Mapping[str, Any]:
    """As JSON, without what the server fills in, with who did it."""
    data = {k: v for k, v in wire.plain(entry).items() if v not in ("", None)}
    return {**data, "actor": actor} if actor else data


def _recorded(done: Mapping[str, Any]) -> RecordedMany:
    return RecordedMany(
        int(done["first_sequence"]),
        int(done["first_leaf"]),
        int(done["count"]),
        np.array(done["subjects"], dtype=np.int64),
        tuple(RowError(e["row"], e["code"], e["detail"]) for e in done["errors"]),
        int(done["ignored"]),
    )
