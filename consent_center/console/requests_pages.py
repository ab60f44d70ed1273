"""Rights requests: what is due, taking one in, and its way from the identity check to the letter."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, redirect, url_for

from consent_center.console.base import bp, embedded, field, page, say, who
from consent_center.errors import ConsentError
from consent_center.i18n import N_
from consent_center.i18n import gettext as _
from consent_center.model import KINDS as IDENTIFIERS
from consent_center.requests.correction import ACTIONS
from consent_center.requests.model import GROUNDS, KINDS, LETTERS, METHODS, OUTCOMES, PACKAGES, REGULATIONS
from consent_center.rest import problems

#: Kinds, steps, states and standings as people say them.
WORDS = {
    "access": N_("access"),
    "copy": N_("copy"),
    "portability": N_("portability"),
    "correction": N_("correction"),
    "deletion": N_("deletion"),
    "restriction": N_("restriction"),
    "explanation": N_("explanation"),
    "received": N_("received"),
    "identifying": N_("identity being checked"),
    "identifying_paused": N_("identity check paused"),
    "open": N_("open"),
    "open_paused": N_("paused"),
    "decided": N_("decided"),
    "fulfilled": N_("fulfilled"),
    "refused": N_("refused"),
    "withdrawn": N_("taken back"),
    "closed": N_("closed"),
    "purged": N_("purged"),
    "on_time": N_("on time"),
    "near": N_("due soon"),
    "overdue": N_("overdue"),
    "paused": N_("clock stopped"),
    "done": N_("done"),
    "identity.ask": N_("ask for proof of identity"),
    "identity.pass": N_("identity proven"),
    "identity.fail": N_("identity not proven"),
    "task.add": N_("add a task"),
    "task.done": N_("task done"),
    "assign": N_("assign"),
    "extend": N_("extend the time"),
    "pause": N_("stop the clock"),
    "resume": N_("resume the clock"),
    "note": N_("note"),
    "grant": N_("grant"),
    "refuse": N_("refuse"),
    "withdraw": N_("the person takes it back"),
    "close": N_("close"),
    "lift": N_("lift the restriction"),
    "letter": N_("write a letter"),
    "fulfil": N_("carry it out"),
    "purge": N_("destroy what names the person"),
    # outcomes
    "granted": N_("granted"),
    "partly": N_("granted in part"),
    # tasks
    "collect_other_systems": N_("collect from other systems"),
    "check_rights_of_others": N_("check the rights of others"),
    "check_accuracy": N_("check what is right"),
    "tell_recipients": N_("tell the recipients"),
    "check_retention_duties": N_("check duties to keep"),
    "delete_other_systems": N_("delete in other systems"),
    "restrict_other_systems": N_("restrict in other systems"),
    "collect_rules": N_("collect the rules of the decisions"),
    # how the person showed who they are
    "account_login": N_("login to the account"),
    "code_to_known_contact": N_("code sent to a known contact"),
    "document_check": N_("document checked"),
    "in_person": N_("in person"),
    "signed_request": N_("signed request"),
    "representative": N_("representative with authority"),
    # grounds
    "identity_not_proven": N_("identity not proven"),
    "nothing_held": N_("nothing is held"),
    "manifestly_unfounded": N_("manifestly unfounded"),
    "excessive": N_("excessive"),
    "legal_obligation": N_("legal duty to keep"),
    "legal_claims": N_("needed for legal claims"),
    "rights_of_others": N_("rights of others"),
    "secrecy_by_law": N_("secrecy by law"),
    "not_accurate": N_("the data is accurate as it is"),
    "not_feasible": N_("technically not feasible"),
    # letters
    "acknowledgement": N_("acknowledgement"),
    "identity": N_("question for proof of identity"),
    "extension": N_("extension of the time"),
    "decision": N_("decision"),
    # corrections
    "add": N_("add an identifier"),
    "remove": N_("remove an identifier that is not the person's"),
    "move": N_("move it to its real owner"),
    "merge": N_("merge with the person of another identifier"),
}
TONES = {"overdue": "bad", "near": "note", "on_time": "good", "refused": "bad", "fulfilled": "good"}
#: Steps that one form offers together, in this order; the others have forms of their own.
_PLAIN = ("identity.ask", "pause", "resume", "extend", "note", "withdraw", "lift", "close")
_CORRECTIONS = 3  # rows of the form
_FIELDS = {
    "identity.pass": ("method",),
    "task.add": ("task",),
    "task.done": ("task", "skipped"),
    "assign": ("to",),
    "grant": ("outcome", "grounds"),
    "refuse": ("grounds",),
}


def said(text: str) -> str:
    return _(WORDS[text]) if text in WORDS else text


@bp.get("/requests")
def requests() -> Response:
    """The most urgent first."""
    rights = embedded().rights
    return _list(counts=rights.deadlines()["counts"])


def _list(status: int = 200, **values: Any) -> Response:
    found = embedded().rights.list()
    return page(
        "requests.html", status, requests=found, said=said, tones=TONES, kinds=KINDS,
        identifiers=IDENTIFIERS, regulations=REGULATIONS, **values,
    )  # fmt: skip


@bp.post("/requests")
def request_open() -> Response:
    """Take a request in. An unknown person is no error: the answer does not tell."""
    rights = embedded().rights
    try:
        made = rights.open(
            field("kind", 30),
            [(field("id_kind", 20), field("value", 1_000))],
            regulation=field("regulation", 20),
            language=field("language", 5),
            channel=field("channel", 128) or "console",
            contact=field("contact", 1_000),
            text=field("text", 10_000),
            actor=who().name,
        )
    except ConsentError as error:
        if error.code.split(".")[0] not in ("rights", "event", "subject", "identifier"):
            raise
        return _list(problems.status_of(error.code), counts=rights.deadlines()["counts"], problem=error)
    return redirect(url_for("console.request_show", id=made["id"]), 303)  # type: ignore[return-value]


@bp.get("/requests/<id>")
def request_show(id: str) -> Response:
    return _show(id)


def _show(id: str, status: int = 200, **values: Any) -> Response:
    found = embedded().rights.show(id, private=True)
    open_tasks = [task["name"] for task in found["tasks"] if not task["done_at"]]
    steps = [step for step in _PLAIN if step in found["possible"]]
    return page(
        "request.html", status, request_=found, open_tasks=open_tasks, steps=steps, said=said, tones=TONES,
        methods=METHODS, grounds=GROUNDS, outcomes=OUTCOMES[:2], letters=LETTERS, identifiers=IDENTIFIERS,
        actions=ACTIONS, rows=range(1, _CORRECTIONS + 1), **values,
    )  # fmt: skip


@bp.post("/requests/<id>")
def request_step(id: str) -> Response:
    """One step; the form's other fields are taken as far as the step has them."""
    name = field("step", 40)
    given: dict[str, Any] = {"text": field("text", 10_000), "evidence": field("evidence", 10_000)}
    for wanted in _FIELDS.get(name, ()):
        if wanted == "skipped":
            given[wanted] = field("skipped", 5) == "yes"
        elif wanted == "grounds":
            given[wanted] = [ground] if (ground := field("ground", 50)) else []
        elif wanted == "task":
            given[wanted] = field("new_task", 128) if name == "task.add" else field("task", 128)
        else:
            given[wanted] = field(wanted, 200)
    return _tried(id, lambda: embedded().rights.step(id, name, who().name, **given))


@bp.post("/requests/<id>/fulfil")
def request_fulfil(id: str) -> Response:
    """Carry out what was granted; a package of data is the answer, as a file."""
    rights = embedded().rights
    result: dict[str, Any] = {}

    def carry_out() -> None:
        given = _corrections()
        result.update(rights.fulfil(id, who().name, given, text=field("text", 10_000)))

    answer = _tried(id, carry_out)
    if answer.status_code != 303 or rights.show(id)["kind"] not in PACKAGES:
        return answer
    data = json.dumps(result["result"], ensure_ascii=False, indent=1, default=str)
    response = Response(data, content_type="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{id}.json"'
    return response


def _corrections() -> list[dict[str, str]]:
    """The filled rows of the form for corrections."""
    found = []
    for row in range(1, _CORRECTIONS + 1):
        one = {
            "action": field(f"action-{row}", 20),
            "kind": field(f"kind-{row}", 20),
            "value": field(f"value-{row}"),
        }
        if target := field(f"target_value-{row}").strip():
            one |= {"target_kind": field(f"target_kind-{row}", 20), "target_value": target}
        if one["action"]:
            found.append(one)
    return found


@bp.post("/requests/<id>/letter")
def request_letter(id: str) -> Response:
    """Write a letter; the page is the answer, as a file, and its hash is in the ledger."""
    made: dict[str, Any] = {}

    def write() -> None:
        made.update(
            embedded().rights.letter(id, field("letter", 30), field("text", 10_000), actor=who().name)
        )

    answer = _tried(id, write)
    if answer.status_code != 303:
        return answer
    response = Response(made["html"], content_type="text/html; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{id}-letter.html"'
    return response


def _tried(id: str, act: Any) -> Response:
    try:
        act()
    except ConsentError as error:
        if (
            error.code.split(".")[0] not in ("rights", "event", "subject", "identifier")
            or error.code == "rights.unknown"
        ):
            raise
        return _show(id, problems.status_of(error.code), problem=error)
    say(_("Done; it stands in the ledger."))
    return redirect(url_for("console.request_show", id=id), 303)  # type: ignore[return-value]
