"""What a running node does for its own organisation's operator; `parties.client` is the other half.

Every method takes and gives plain JSON. The node's own certificate is asked for at the transport.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from parties import PROTOCOL_VERSION, __version__, catalogue, documents, memory
from parties.changes import Changes
from parties.checkpoint import Checkpoints
from parties.datasets import Dataset
from parties.engine import Engine
from parties.errors import NodeError
from parties.home import Home
from parties.store import FINAL, Job, Store


class Operator:
    """`call(method, body)` and `watch(body)`; see `parties.client.NodeClient` for what each method means."""

    def __init__(self, home: Home, store: Store, engine: Engine, center: Any, log: Any) -> None:
        self._home, self._store, self._engine, self._center = home, store, engine, center
        self._log = log
        self._changes = Changes(home, center)
        self._started = time.time()
        self.address = ""
        self.consent_url = ""
        self._methods: dict[str, Callable[[dict[str, Any]], Any]] = {
            "status": self._status,
            "card": lambda b: home.identity.card(self.address, center.verifier_key()),
            "peers": lambda b: [p.describe() for p in home.peers()],
            "trust": self._trust,
            "untrust": self._untrust,
            "agreements": self._agreements,
            "add_agreement": lambda b: home.add_agreement(_object(b, "agreement")).to_json(),
            "end_agreement": self._end_agreement,
            "datasets": lambda b: [d.to_json() for d in home.datasets()],
            "add_dataset": lambda b: self._changes.add_dataset(Dataset.from_json(_object(b, "dataset"))),
            "change_dataset": lambda b: self._changes.change_dataset(
                Dataset.from_json(_object(b, "dataset"))
            ),
            "remove_dataset": self._remove_dataset,
            "catalogue": lambda b: catalogue.seen(home, _text(b, "agreement")).to_json(),
            "preflight": self._preflight,
            "preparations": self._preparations,
            "drop_preparations": self._drop_preparations,
            "submit": lambda b: {"job_id": engine.submit(_object(b, "request"))},
            "estimate": lambda b: engine.estimate(_object(b, "request")),
            "approve": lambda b: self._view(engine.approve(_text(b, "job_id"), str(b.get("note", "")))),
            "reject": lambda b: self._view(engine.reject(_text(b, "job_id"), str(b.get("reason", "")))),
            "cancel": lambda b: self._view(engine.cancel(_text(b, "job_id"), str(b.get("reason", "")))),
            "resume": lambda b: self._view(engine.resume(_text(b, "job_id"))),
            "jobs": lambda b: [
                self._view(j, short=True) for j in self._store.all()[: int(b.get("limit", 200))]
            ],
            "job": lambda b: self._view(self._store.get(_text(b, "job_id"))),
        }

    def call(self, method: str, body: dict[str, Any]) -> Any:
        function = self._methods.get(method)
        if function is None:
            raise NodeError(
                "node.request", f"unknown method {method[:40]!r}; is the client newer than the node?"
            )
        return function(body)

    def watch(self, body: dict[str, Any], alive: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """The job whenever it, or its progress, has changed; ends with the final state. With `prepare` in the
        body: a preparation's progress.
        """
        if "prepare" in body:
            from parties import preparing  # it loads numpy

            yield from preparing.watched(self._home, self._center, _object(body, "prepare"), alive)
            return
        job_id = _text(body, "job_id")
        seen: tuple[int, str] | None = None
        while alive():
            job = self._store.get(job_id)
            progress = self._engine.progress(job_id)
            now = (job.version, json.dumps(progress))
            if now != seen:
                seen = now
                yield self._view(job)
            if job.state in FINAL:
                return
            with self._store.changed:
                self._store.changed.wait(0.25)

    # -- methods ---------------------------------------------------------------------------------------------

    def _status(self, body: Mapping[str, Any]) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "party": self._home.party,
            "address": self.address,
            "consent_url": self.consent_url,
            "pid": os.getpid(),
            "version": __version__,
            "protocol": PROTOCOL_VERSION,
            "uptime_seconds": time.time() - self._started,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_rss_mb": memory.peak_mb(),
            "jobs_running": self._engine.running,
            "peers": [p.party for p in self._home.peers()],
            "events": self._log.recent(),
        }

    def _trust(self, body: dict[str, Any]) -> dict[str, Any]:
        peer = self._changes.trust(_object(body, "card"))
        text = f"{peer['party']} with certificate {peer['fingerprint']}"
        self._log("identity.trusted", text, level="info")
        return peer

    def _untrust(self, body: dict[str, Any]) -> dict[str, Any]:
        done = self._changes.untrust(_text(body, "party"), str(body.get("reason", "")))
        text = f"{done['party']} is not trusted any more: {done['reason']}"
        self._log("identity.untrusted", text, level="info")
        self._engine.lookout.look()
        return done

    def _remove_dataset(self, body: dict[str, Any]) -> dict[str, Any]:
        done = self._changes.remove_dataset(_text(body, "name"))
        self._log("dataset.removed", f"data set {done['name']} was removed", level="info")
        self._engine.lookout.look()
        return done

    def _end_agreement(self, body: dict[str, Any]) -> dict[str, Any]:
        done = self._changes.end_agreement(_text(body, "id"), _text(body, "reason"))
        text = f"agreement {done['agreement_id']} was ended here: {done['reason']}"
        self._log("agreement.ended", text, level="info")
        self._engine.lookout.look()
        return done

    def _agreements(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        now = documents.now()
        return [
            {
                **a.to_json(),
                "expired": documents.moment(a.expires_at) <= now,
                "ended": self._home.endings.describe(a),
                "account": self._store.account(a).to_document(),
            }
            for a in self._home.agreements()
        ]

    def _preflight(self, body: dict[str, Any]) -> dict[str, Any]:
        from parties.gate import Gate  # the only module that reads rows

        return Gate(self._center, self._home).preflight(_text(body, "name")).to_document()

    def _preparations(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        from parties import preparing  # it loads numpy

        return preparing.shown(self._home)

    def _drop_preparations(self, body: Mapping[str, Any]) -> list[str]:
        from parties import preparing

        return preparing.drop(self._home, str(body.get("agreement", "")))

    # -- how a job looks -------------------------------------------------------------------------------------

    def _view(self, job: Job, short: bool = False) -> dict[str, Any]:
        stages = self._store.stages(job.job_id)
        spec = job.signed["document"]
        out: dict[str, Any] = {
            "job_id": job.job_id,
            "role": job.role,
            "kind": job.kind,
            "purpose": spec["purpose"],
            "peer": job.peer,
            "agreement": spec["agreement_id"],
            "state": job.state,
            "final": job.state in FINAL,
            "created_at": job.created,
            "updated_at": job.updated,
            "seconds": job.run_seconds,
            "bytes_sent": sum(s["bytes_sent"] for s in stages),
            "bytes_received": sum(s["bytes_received"] for s in stages),
            "error": job.error,
        }
        if short:
            return out
        path = self._home.job(job.job_id)
        done = job.state == "succeeded"
        now = time.time()
        out |= {
            "version": job.version,
            "spec": spec,
            "spec_hash": documents.hash_of(spec).hex(),
            "note": job.note,
            "hold_before": job.hold_before,
            "attempts": job.attempts,
            "interrupted": job.interrupted if job.state == "interrupted" else None,
            "stages": [
                {
                    "name": s["name"],
                    "state": "running" if s["seconds"] is None and not out["final"] else "ended",
                    "seconds": s["seconds"]
                    if s["seconds"] is not None or out["final"]
                    else now - s["started"],
                    "bytes_sent": s["bytes_sent"],
                    "bytes_received": s["bytes_received"],
                }
                for s in stages
            ],
            "progress": None if out["final"] else self._progress(job, stages),
            "counts": {"own": job.counts},
            "consent": job.consent,
            "leakage": job.leakage,
            "result": job.result,
            "privacy": self._privacy(job),
            "path": str(path) if done else None,
            "files": sorted(p.name for p in path.iterdir()) if done and path.is_dir() else [],
            "audit": str(path / "audit.zip") if done and (path / "audit.zip").exists() else None,
        }
        return out

    def _progress(self, job: Job, stages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Of a running job as the engine has it; of one that is broken off, the bucket that it goes on with,
        and the time that the others will take at the pace so far.
        """
        running = self._engine.progress(job.job_id)
        if running is not None or job.state != "interrupted":
            return running
        found = Checkpoints(self._home.state(job.job_id)).buckets()
        if found is None:
            return None
        done, count = found
        stage = str(stages[-1]["name"]) if stages else ""
        what = f"{stage} {done + 1} of {count} is next" if done < count else f"all {count} buckets are done"
        left = (job.run_seconds or 0.0) * (count - done) / done if done else 0.0
        return {
            "stage": stage,
            "what": what,
            "done": done,
            "total": count,
            "seconds_left": round(left, 1) if left else None,
        }

    def _privacy(self, job: Job) -> dict[str, Any] | None:
        """What the job has spent here, and how its agreement's account stands; None where nothing counts."""
        id_ = job.signed["document"]["agreement_id"]
        agreement = next((a for a in self._home.agreements() if a.id == id_), None)
        if agreement is None or agreement.privacy is None:
            return None
        account = self._store.account(agreement)
        known = account.to_document()
        mine = [s.to_document() for s in account.spends if s.job_id == job.job_id]
        return {**{k: v for k, v in known.items() if k != "spends"}, "spent_by_this_job": mine}


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise NodeError("node.request", f"{name} is missing or no text")
    return value


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if not isinstance(value, dict):
        raise NodeError("node.request", f"{name} is missing or no object")
    return value
