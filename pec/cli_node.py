"""`pec node`: everything that an organisation does with its own party node. Works whether or not the node
runs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from pec.cli_agreement import agreement
from pec.cli_common import emit, json_option, note, printable, progress, table
from pec.cli_data import data
from pec.cli_home import changes_of, client_of, home_at, home_option, read_json, shortened, write_or_print
from pec.errors import PecError

ALIASES = {"serve": "run", "dataset": "data"}


class Aliased(click.Group):
    """A group in which `serve` means `run` and `dataset` means `data`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))


@click.group(cls=Aliased)
def node() -> None:
    """Run a party node: its identity, the partners it trusts, its data sets, its agreements.

    A node is a directory. `init` makes it, `run` starts it; two organisations then exchange cards
    (`card`, `trust`) and sign an agreement.
    """


@node.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--party", required=True, help="This organisation's name, as consent events name it as a recipient."
)
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, help="host:port; port 0 takes a free one."
)
@click.option("--consent", help="URL or directory of an existing consent center; a new one by default.")
@click.option("--consent-listen", help="Also serve the consent center over REST at this host:port.")
@json_option
def init(
    directory: Path, party: str, listen: str, consent: str | None, consent_listen: str | None, as_json: bool
) -> None:
    """Make a node: keys, certificate, settings, and a consent center of its own."""
    from parties.home import Home

    home = Home.create(directory, party, listen, _existing_center(consent))
    if consent_listen:
        with (home.path / "node.toml").open("a", encoding="utf-8") as file:
            file.write(f"consent_listen = {json.dumps(consent_listen)}\n")
        home = Home.open(directory)
    data = {"home": str(home.path), "party": party, "fingerprint": home.identity.fingerprint}
    lines = [f"node of {party} in {home.path}", f"fingerprint {home.identity.fingerprint}"]
    if consent and "://" in consent and "#" not in consent and "PEC_CONSENT_TOKEN_FILE" not in os.environ:
        # The node would not start, and nobody's data leave; better to hear of it now than from `node run`.
        data["note"] = (
            'no token for the consent center: write consent = "URL#TOKEN-FILE" into node.toml, or set '
            "PEC_CONSENT_TOKEN_FILE where the node runs; without it the node does not start"
        )
        lines.append(data["note"])
    emit(data, as_json, lambda _: "\n".join(lines))


def _existing_center(consent: str | None) -> str | None:
    """`--consent` as node.toml takes it: paths count from here, there from the node's directory."""
    if not consent:
        return None
    if "://" not in consent:
        if not Path(consent).is_dir():
            hint = "make one first: pec consent init; or leave --consent out"
            raise PecError("pec.file", f"no consent center in {consent}", hint)
        return str(Path(consent).absolute())
    address, mark, token = consent.partition("#")
    return f"{address}#{Path(token).absolute()}" if mark else address


@node.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@home_option
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written when the node answers.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    help="Where buckets of large sets are computed; node.toml's, or this process.",
)
def run(directory: Path | None, home: Path, ready_file: Path | None, engine: str | None) -> None:
    """Start the node and stay with it; stop it with Ctrl-C. (`serve` means the same.)"""
    where = home_at(directory or home).path
    command = [sys.executable, "-P", "-m", "parties.node", "--home", str(where)]
    if ready_file is not None:
        command += ["--ready-file", str(ready_file)]
    if engine:
        command += ["--engine", engine]
    note(f"starting the node in {where}")
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 (this very interpreter; the node takes over this process)


@node.command()
@home_option
@json_option
def status(home: Path, as_json: bool) -> None:
    """Is the node running, and what does it say of itself."""
    with client_of(home) as client:
        data = client.status()
    emit(data, as_json, _status)


def _status(d: dict[str, Any]) -> Any:
    from rich.console import Group

    fields = [(k, ", ".join(v) if k == "peers" else shortened(v)) for k, v in d.items() if k != "events"]
    last = [
        (e.get("time", "")[:19], e.get("level"), e.get("code"), e.get("text")) for e in d.get("events", [])
    ]
    told = table(
        ("time (UTC)", "level", "code", "what"), last[-10:], title="Last events; all are in log/node.log"
    )
    return Group(table(("field", "value"), fields), told)


@node.command()
@home_option
@click.option("--out", type=click.Path(path_type=Path), help="Write it to this new file.")
@click.option("--force", is_flag=True, help="With --out: also over a file that is there.")
@json_option
def card(home: Path, out: Path | None, force: bool, as_json: bool) -> None:
    """This node's signed card, to give to a partner."""
    opened = home_at(home)
    write_or_print(opened.card(), out, as_json, force)
    if opened.address().endswith(":0"):
        note(
            "the card names port 0, at which no partner reaches this node: start it (pec node run), or set a "
            "port in listen of node.toml, and write the card again"
        )


@node.command()
@click.argument("card_file", metavar="CARD", type=click.Path(path_type=Path))
@home_option
@json_option
def trust(card_file: Path, home: Path, as_json: bool) -> None:
    """Trust the partner whose CARD this is. Compare the fingerprint with them over another channel."""
    with changes_of(home) as changes:
        peer = changes.trust(read_json(card_file))
    emit(peer, as_json, lambda d: f"trusted: {d['party']} at {d['address']}\nfingerprint {d['fingerprint']}")


@node.command()
@click.argument("party")
@click.option("--reason", required=True, help="For the own ledger; the partner does not see it.")
@home_option
@json_option
def untrust(party: str, reason: str, home: Path, as_json: bool) -> None:
    """Trust PARTY no more: its certificate opens nothing, its jobs are refused, a running one stops.

    It takes effect at once, in a running node too. `trust` of its card undoes it.
    """
    with changes_of(home) as changes:
        done = changes.untrust(party, reason)
    emit(
        done,
        as_json,
        lambda d: f"not trusted any more: {d['party']}\nto trust it again: pec node trust {d['card']}",
    )


@node.command()
@home_option
@json_option
def peers(home: Path, as_json: bool) -> None:
    """The partners that this node trusts."""
    listed = [p.describe() for p in home_at(home).peers()]
    emit(
        listed,
        as_json,
        lambda d: table(
            ("party", "address", "fingerprint"), [(p["party"], p["address"], p["fingerprint"]) for p in d]
        ),
    )


@node.command()
@click.argument("agreement_id", metavar="AGREEMENT")
@home_option
@json_option
def catalogue(agreement_id: str, home: Path, as_json: bool) -> None:
    """Data sets and columns that AGREEMENT's provider offers under it; asked of the provider by its brand.

    At the provider it shows what the brand sees. Nothing is shown that was not declared: pec node data add
    --show.
    """
    from parties import catalogue as catalogues

    emit(catalogues.seen(home_at(home), agreement_id).to_json(), as_json, _catalogue)


def _catalogue(d: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    if not d["datasets"]:
        return f"{d['provider']} shows no data set under agreement {d['agreement_id']}"
    parts: list[Any] = []
    for offer in d["datasets"]:
        size = f", some {offer['people']:,} people" if offer["people"] else ""
        title = f"{offer['name']}: identified by {', '.join(offer['identifiers'])}{size}"
        if offer["left_out"]:
            title += f"; {offer['left_out']:,} further columns do not fit here"
        rows = [(c["name"], c["category"], ", ".join(c["uses"])) for c in offer["columns"]]
        parts += [Text(printable(title)), table(("column", "category", "may be used as"), rows)]
    return Group(*parts)


@node.command()
@click.argument("agreement_id", metavar="[AGREEMENT]", required=False)
@click.option("--data", help="Which data set; not needed if there is only one.")
@click.option("--purpose", help="Which of the agreement's purposes, if it has several.")
@click.option(
    "--category", "categories", multiple=True, help="Data categories of the jobs; the agreement's by default."
)
@click.option("--list", "listing", is_flag=True, help="Show what is prepared, and prepare nothing.")
@click.option(
    "--drop", is_flag=True, help="Remove what is prepared for AGREEMENT; without it, for lost ones."
)
@home_option
@json_option
def prepare(
    agreement_id: str | None,
    data: str | None,
    purpose: str | None,
    categories: tuple[str, ...],
    listing: bool,
    drop: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Prepare the own side of AGREEMENT's `ecdh` alignments before the first job; as its provider.

    Needs the running node, and `prepared_hours` in its node.toml. Ctrl-C ends it, and nothing is kept then.
    """
    if listing and drop:
        raise PecError("pec.usage", "--list together with --drop", "give one of them")
    with client_of(home) as client:
        if listing:
            emit([p for p in client.preparations() if agreement_id in (None, p["agreement"])], as_json, _kept)
            return
        if drop:
            gone = client.drop_preparations(agreement_id or "")
            emit({"dropped": gone}, as_json, lambda d: f"{len(d['dropped'])} preparations dropped")
            return
        if not agreement_id:
            raise PecError("pec.usage", "which agreement?", "pec node prepare AGREEMENT, or --list")
        asked = {"dataset": data, "purpose": purpose, "categories": list(categories)}
        made: dict[str, Any] = {}
        with progress("prepare") as bar:
            for event in client.prepare(agreement_id, **{k: v for k, v in asked.items() if v}):
                made = event.get("prepared", made)
                if not made:
                    bar.update(event["done"], event["total"], event["what"])
    emit(made, as_json, _prepared)


def _prepared(d: dict[str, Any]) -> Any:
    from rich.console import Group

    lists = {"dropped_when", "categories", "name"}
    rows = [(k.replace("_", " "), shortened(v)) for k, v in d.items() if k not in lists]
    return Group(
        table(("what", "value"), [*rows, ("categories", ", ".join(d["categories"]))]),
        table(("it is dropped when",), [(text,) for text in d["dropped_when"]]),
    )


def _kept(found: list[dict[str, Any]]) -> Any:
    columns = ("agreement", "dataset", "purpose", "items", "until", "asked_at_most_under_key", "bytes")
    return table(columns, [tuple(p[c] for c in columns) for p in found])


node.add_command(agreement)
node.add_command(data)
