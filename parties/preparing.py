"""`pec node prepare`: the provider's side of an agreement's `ecdh` alignments, made before a job needs it.

The people are those whom the consent gate lets in for the agreement's purpose and the brand as recipient, as
in a job: the consent center's ledger has a snapshot, and then that these people were prepared.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from parties import documents, prepared
from parties.documents import Agreement
from parties.errors import NodeError
from parties.gate import Gate
from parties.home import Home
from protocols.align.suites import ECDH

#: When a job uses a preparation, and when it is removed; shown with every one of them.
REUSED = (
    "a job under the same agreement, data set, purpose and data categories takes it, by suite ecdh, if "
    "exactly the same people may take part (parties/README.md, Prepared once)"
)
DROPPED = (
    "anybody of the data set comes, goes, withdraws or changes an identifier: the next job makes it anew",
    "its time is over (prepared_hours of node.toml): at the next job, preparation or start of the node",
    f"{prepared.ASKED_MOST:,} items have been asked about under its key, in all jobs",
    "the operator drops it: pec node prepare --drop",
)

Progress = Callable[[str, int, int], None]


def prepare(home: Home, center: Any, request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Make the preparation that a job would make, unless it is there; what it is, and until when.

    `request`: agreement; dataset, purpose, categories where the agreement or the node leaves a choice.
    `progress(what, done, total)`. Raises `node.prepared` where no job would use it, and the gate's errors.
    """
    agreement = home.agreement(str(request.get("agreement")))
    terms = _terms(home, agreement, request)
    hours = home.settings.prepared_hours
    progress("reading", 0, 1)
    view = Gate(center, home).open(
        terms["dataset"],
        terms["purpose"],
        terms["recipient"],
        terms["categories"],
        (),
        f"prepare-{secrets.token_hex(8)}",
    )
    if view.rows < agreement.minimum_rows:
        raise NodeError(
            "agreement.minimum_rows",
            f"{view.rows} eligible people, the agreement asks for {agreement.minimum_rows}",
            counts=view.counts["out"],
        )
    began, count = time.monotonic(), len(view.items)
    shelf = prepared.Shelf(home.path / "prepared", hours, terms, view.items)
    kept = shelf.find(0, lambda done: progress("evaluating", done, count))
    found = next(p for p in shown(home) if p["name"] == shelf.folder.name)
    out = {
        **found,
        "people": view.rows,
        "reused": kept.reused,
        "seconds": round(time.monotonic() - began, 3),
    }
    what = {"agreement": agreement.id, **{k: v for k, v in out.items() if k in ("items", "until", "reused")}}
    told = {k: v for k, v in terms.items() if k != "agreement"}
    center.append("prepared.made", {**what, **told, "snapshot": str(view.snapshot.document["id"])})
    return out


def shown(home: Home) -> list[dict[str, Any]]:
    """The preparations that are kept, for people: id of the agreement, times, and what ends them."""
    known = {documents.hash_of(a.to_json()).hex(): a.id for a in home.agreements()}
    return [
        {
            "name": kept["name"],
            "agreement": known.get(str(kept["of"].get("agreement"))),
            **{k: v for k, v in kept["of"].items() if k != "agreement"},
            "items": kept["count"],
            "until": documents.timestamp(datetime.fromtimestamp(kept["until"], UTC)),
            "asked_at_most_under_key": kept["asked"],
            "questions_left": max(0, prepared.ASKED_MOST - kept["asked"]),
            "bytes": kept["bytes"],
            "reused_when": REUSED,
            "dropped_when": list(DROPPED),
        }
        for kept in prepared.listed(home.path / "prepared")
    ]


def drop(home: Home, agreement: str) -> list[str]:
    """Remove the preparations of an agreement's id, or of agreements that are not known any more if it is
    empty; their names.
    """
    chosen = [p["name"] for p in shown(home) if p["agreement"] == (agreement or None)]
    return [name for name in chosen if prepared.drop(home.path / "prepared", name)]


def drop_of(home: Home, dataset: str) -> list[str]:
    """Remove the preparations of a data set; their names."""
    chosen = [p["name"] for p in shown(home) if p["dataset"] == dataset]
    return [name for name in chosen if prepared.drop(home.path / "prepared", name)]


def watched(
    home: Home, center: Any, request: Mapping[str, Any], alive: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """`prepare`, with its progress: {what, done, total} and in the end {prepared: …}. It ends at the next
    block of items when nobody is `alive` to hear of it, and keeps nothing then.
    """
    events: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()

    def progress(what: str, done: int, total: int) -> None:
        if not alive():
            raise NodeError("job.cancelled", "whoever asked for the preparation is gone")
        events.put({"what": what, "done": done, "total": total})

    def run() -> None:
        try:
            events.put({"prepared": prepare(home, center, request, progress)})
        except BaseException as error:  # raised where somebody waits for it
            events.put(error)

    threading.Thread(target=run, name="prepare", daemon=True).start()
    while True:
        event = events.get()
        if isinstance(event, BaseException):
            raise event
        yield event
        if "prepared" in event:
            return


def _terms(home: Home, agreement: Agreement, request: Mapping[str, Any]) -> dict[str, Any]:
    if home.settings.prepared_hours <= 0:
        raise _useless("prepared_hours is 0 in node.toml, so no job would use it", "set it, start the node")
    if agreement.provider != home.party:
        raise _useless(
            f"{home.party} is the brand of agreement {agreement.id}", "the provider prepares its side"
        )
    if ECDH not in agreement.suites or agreement.malicious_security:
        raise _useless(
            f"jobs under agreement {agreement.id} never take suite {ECDH}", "vole has no such part"
        )
    home.endings.check(agreement.id)
    documents.check_time(agreement, documents.now(), f"agreement {agreement.id}", "agreement.expired")
    dataset = _one(request.get("dataset"), [d.name for d in home.datasets()], "data set", "--data")
    purpose = _one(request.get("purpose"), agreement.purposes, "purpose", "--purpose")
    categories = tuple(request.get("categories") or agreement.categories)
    beyond = [c for c in categories if c not in agreement.categories]
    if purpose not in agreement.purposes or beyond:
        code = "agreement.category" if beyond else "agreement.purpose"
        raise NodeError(code, f"{', '.join(beyond) or purpose} is not in agreement {agreement.id}")
    home.dataset(dataset)  # it must be there
    return prepared.purpose_of(agreement, dataset, purpose, agreement.brand, categories)


def _useless(why: str, hint: str) -> NodeError:
    return NodeError("node.prepared", why, hint)


def _one(asked: Any, known: Any, what: str, option: str) -> str:
    if asked:
        return str(asked)
    if len(known) != 1:
        raise NodeError(
            "node.request", f"which {what}? there are {', '.join(known) or 'none'}", f"give {option}"
        )
    return str(known[0])
