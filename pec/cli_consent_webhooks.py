"""`pec consent webhook`, `dispatch`, `enforcement`, `recipient`: withdrawals that travel, and how fast."""

from __future__ import annotations

import signal
import threading
from typing import Any

import click

from consent_center.center import Center
from consent_center.outbox import queue
from consent_center.outbox.client import outbox_of
from consent_center.outbox.dispatch import Dispatcher, run_until_empty
from pec.cli_common import console, emit, json_option, note, table
from pec.consent_options import actor, directory, facts, open_at, short, where


@click.group()
def webhook() -> None:
    """Receivers that are told of withdrawals, erasures and switches."""


@webhook.command("put")
@where
@click.argument("id_", metavar="ID")
@click.argument("url")
@click.option(
    "--recipient", default="*", show_default=True, help="Whose events it gets; *: own systems, all."
)
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(queue.KINDS), help="Default: all but grants."
)
@click.option("--private", is_flag=True, help="Its address may be in a private network.")
@json_option
def put(location: str | None, id_: str, url: str, as_json: bool, **given: Any) -> None:
    """Register a receiver or change one; prints its secret and the public key."""
    with open_at(location) as center:
        data = outbox_of(center).put_webhook(
            id_, url, given["recipient"], given["kinds"] or queue.DEFAULT_KINDS, given["private"], actor()
        )
    emit(data, as_json, facts)


@webhook.command("list")
@where
@json_option
def list_(location: str | None, as_json: bool) -> None:
    """List receivers and what waits for them."""
    with open_at(location) as center:
        data = outbox_of(center).webhooks()
    columns = ("id", "url", "recipient", "active", "pending", "delivered", "dead")
    emit(data, as_json, lambda d: table(columns, [[short(r[c]) for c in columns] for r in d]))


def _switch(location: str | None, id_: str, active: bool, as_json: bool) -> None:
    with open_at(location) as center:
        data = outbox_of(center).switch_webhook(id_, active, actor())
    emit(data, as_json, facts)


@webhook.command("off")
@where
@click.argument("id_", metavar="ID")
@json_option
def off(location: str | None, id_: str, as_json: bool) -> None:
    """Switch a receiver off; its messages wait."""
    _switch(location, id_, False, as_json)


@webhook.command("on")
@where
@click.argument("id_", metavar="ID")
@json_option
def on(location: str | None, id_: str, as_json: bool) -> None:
    """Switch a receiver on again."""
    _switch(location, id_, True, as_json)


@webhook.command()
@where
@click.option("--state", type=click.Choice((queue.DEAD, queue.PENDING, queue.DELIVERED)), default=queue.DEAD)
@json_option
def messages(location: str | None, state: str, as_json: bool) -> None:
    """List messages: those that nobody accepted, or with --state others."""
    with open_at(location) as center:
        data = outbox_of(center).messages(state)
    columns = ("number", "webhook", "type", "created_at", "attempts", "last")
    emit(data, as_json, lambda d: table(columns, [[r[c] for c in columns] for r in d]))


@webhook.command()
@where
@click.argument("numbers", nargs=-1, type=click.IntRange(1))
@click.option("--webhook", "id_", default="", help="All of this receiver; without numbers: all.")
@json_option
def requeue(location: str | None, numbers: tuple[int, ...], id_: str, as_json: bool) -> None:
    """Give dead messages another round."""
    with open_at(location) as center:
        data = {"requeued": outbox_of(center).requeue(numbers, id_, actor())}
    emit(data, as_json, facts)


@webhook.command()
@where
@click.argument("id_", metavar="ID")
@click.argument("kind")
@click.argument("values", nargs=-1, required=True)
@json_option
def persons(location: str | None, id_: str, kind: str, values: tuple[str, ...], as_json: bool) -> None:
    """Show a receiver's own pseudonyms of people."""
    with open_at(location) as center:
        found = outbox_of(center).persons(id_, kind, values)
    data = [{"value": v, "person": p} for v, p in zip(values, found, strict=True)]
    emit(data, as_json, lambda d: table(("value", "person"), [[r["value"], r["person"] or None] for r in d]))


@click.command()
@where
@click.option("--once", is_flag=True, help="Send what is due, and end.")
@json_option
def dispatch(location: str | None, once: bool, as_json: bool) -> None:
    """Send webhooks until interrupted. `pec consent serve` does it too, in a thread."""
    with Center.open(directory(location)) as center:
        if once:
            emit(run_until_empty(center.outbox), as_json, facts)
            return
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        note("sending; stop with Ctrl-C")
        dispatcher = Dispatcher(center.outbox)
        try:
            while not stop.wait(0.5):
                pass
        finally:
            dispatcher.close()
        emit({"stopped": True}, as_json, facts)


@click.command()
@where
@json_option
def enforcement(location: str | None, as_json: bool) -> None:
    """Show how long it takes from a withdrawal to its enforcement, by jobs and by webhooks."""
    with open_at(location) as center:
        data = outbox_of(center).enforcement()

    def render(d: dict[str, Any]) -> Any:
        columns = ("", "count", "p50_ms", "p99_ms", "max_ms")
        rows = []
        for what, inner in (("jobs", "by_recipient"), ("webhooks", "by_webhook")):
            rows.append([what, *(d[what][c] for c in columns[1:])])
            rows += [[f"  {name}", *(t[c] for c in columns[1:])] for name, t in d[what][inner].items()]
        console().print(table(columns, rows))
        return table(("outbox", ""), d["outbox"].items())

    emit(data, as_json, render)


@click.group()
def recipient() -> None:
    """Who may get data at all."""


def _recipient(location: str | None, id_: str, active: bool, as_json: bool) -> None:
    with open_at(location) as center:
        data = center.switch_recipient(id_, active, actor())
    emit(data, as_json, facts)


@recipient.command("off")
@where
@click.argument("id_", metavar="RECIPIENT")
@json_option
def recipient_off(location: str | None, id_: str, as_json: bool) -> None:
    """Switch a recipient off: every decision for it is no, its running jobs stop at their next stage."""
    _recipient(location, id_, False, as_json)


@recipient.command("on")
@where
@click.argument("id_", metavar="RECIPIENT")
@json_option
def recipient_on(location: str | None, id_: str, as_json: bool) -> None:
    """Switch a recipient on again."""
    _recipient(location, id_, True, as_json)


@recipient.command("list")
@where
@json_option
def recipient_list(location: str | None, as_json: bool) -> None:
    """List recipients that were ever switched; all others are on."""
    with open_at(location) as center:
        emit(center.recipients(), as_json, facts)


COMMANDS = (webhook, dispatch, enforcement, recipient)
