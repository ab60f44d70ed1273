"""The ledger: size, signed checkpoint, the check of the whole database, consistency with an earlier one."""

from __future__ import annotations

import json
import threading
from typing import Any

from flask import Response, current_app, redirect, request, url_for

from consent_center.center import Center
from consent_center.console.base import bp, embedded, field, page, say, who
from consent_center.console.dashboard import figures
from consent_center.errors import ConsentError
from consent_center.i18n import gettext as _
from consent_center.ledger import verify
from consent_center.rest import problems

CHECK = "pec.console.check"


class Check:
    """The check that runs in this process, if one does: a large database takes minutes, no browser waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.error = ""

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, center: Center, actor: str, checkpoint: str) -> bool:
        """False if one runs already."""
        with self._lock:
            if self.running:
                return False
            self.error = ""
            self._thread = threading.Thread(
                target=self._run, args=(center, actor, checkpoint), name="console-check", daemon=True
            )
            self._thread.start()
        return True

    def _run(self, center: Center, actor: str, checkpoint: str) -> None:
        try:
            found = center.fsck(checkpoint)
            told = {} if found is None else {"what": found.what, "where": found.where}
            size = int(center.checkpoint().split("\n")[1])
            center.accounts.note(actor, "ledger.check", "", ok=found is None, size=size, **told)
        except ConsentError as error:
            self.error = str(error)  # shown on the page; a check that could not be made is no "agrees"

    def wait(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)


def check() -> Check:
    found: Check = current_app.extensions[CHECK]
    return found


@bp.get("/ledger")
def ledger() -> Response:
    return _ledger()


def _ledger(status: int = 200, **values: Any) -> Response:
    center = embedded()
    checkpoint = center.checkpoint()
    _origin, size, root = checkpoint.split("\n")[:3]
    return page(
        "ledger.html",
        status,
        checkpoint=checkpoint,
        size=int(size),
        root=root,
        key=center.verifier_key(),
        checked=figures().checked(),
        running=check().running,
        failed=check().error,
        **values,
    )


@bp.get("/ledger/check")
def ledger_state() -> Response:
    """The state of the check, which the page asks for while one runs."""
    return page(
        "ledger_check.html", checked=figures().checked(), running=check().running, failed=check().error
    )


@bp.post("/ledger/check")
def ledger_check() -> Response:
    """Compare the whole database with the ledger, and with an earlier checkpoint if one is given."""
    text = field("checkpoint", 100_000).replace("\r\n", "\n")
    if text.strip():
        verify.checkpoint(text.lstrip(), embedded().verifier_key())  # a mistyped one is told at once
    if not check().start(embedded(), who().name, text.lstrip()):
        say(_("A check runs already."), "note")
    check().wait(0.5)  # a small center's answer is on the next page
    return redirect(url_for("console.ledger"), 303)  # type: ignore[return-value]


@bp.post("/ledger/consistency")
def ledger_consistency() -> Response:
    """Does the log still extend an earlier checkpoint? Proven from the stored hashes, as an auditor would."""
    center, text = embedded(), field("old", 100_000).replace("\r\n", "\n").lstrip()
    now = center.checkpoint()
    try:
        old, new = (
            verify.checkpoint(text, center.verifier_key()),
            verify.checkpoint(now, center.verifier_key()),
        )
        if old.size > new.size:
            raise ConsentError(
                "ledger.proof", f"that checkpoint has {old.size} leaves, the log only {new.size}"
            )
        hashes = center.prove_consistency(old.size, new.size)
        verify.consistency(old, new, hashes)
    except ConsentError as error:
        if not error.code.startswith("ledger."):
            raise
        return _ledger(problems.status_of(error.code), problem=error)
    return _ledger(proven={"old": old.size, "new": new.size, "hashes": [h.hex() for h in hashes]})


@bp.get("/ledger/leaf")
def ledger_leaf() -> Response:
    """One leaf: what it commits to, and the proof that it is in the log."""
    text = request.args.get("index", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ConsentError("ledger.index", "the number of a leaf is a whole number from 0")
    center, index = embedded(), int(text)
    size = int(center.checkpoint().split("\n")[1])
    opening = center.opening(index)
    path = [step.hex() for step in center.prove(index, size)]
    shown = json.dumps(opening, ensure_ascii=False, indent=1)
    return page("leaf.html", opening=opening, shown=shown, path=path, size=size)
