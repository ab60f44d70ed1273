"""`pec consent witness` and `recover`: cosigned checkpoints, and a database that was put back."""

from __future__ import annotations

from typing import Any

import click

from consent_center.center import Center
from consent_center.witness.client import witness_of
from pec.cli_common import CliError, emit, json_option, table
from pec.consent_options import actor, directory, facts, open_at, short, where
from pec.errors import EXIT_FAILED


@click.group()
def witness() -> None:
    """Others cosign this center's log, and it cosigns theirs (C2SP tlog-witness)."""


@witness.command()
@where
@json_option
def key(location: str | None, as_json: bool) -> None:
    """Print this center's key as a witness, for those whose logs it cosigns."""
    with open_at(location) as center:
        data = {"key": witness_of(center).verifier_key()}
    emit(data, as_json, lambda d: d["key"])


@witness.command()
@where
@click.argument("log_key", metavar="VERIFIER-KEY")
@json_option
def trust(location: str | None, log_key: str, as_json: bool) -> None:
    """Cosign another center's log from now on; its key is what its `pec consent checkpoint` prints."""
    with open_at(location) as center:
        emit(witness_of(center).trust_log(log_key, actor()), as_json, facts)


@witness.command()
@where
@click.argument("witness_key", metavar="KEY")
@click.argument("url")
@click.option("--private", is_flag=True, help="Its address may be in a private network.")
@json_option
def add(location: str | None, witness_key: str, url: str, private: bool, as_json: bool) -> None:
    """Have this center's log cosigned by the witness with that KEY, at URL (before /add-checkpoint)."""
    with open_at(location) as center:
        emit(witness_of(center).add_witness(witness_key, url, private, actor()), as_json, facts)


@witness.command("list")
@where
@json_option
def list_(location: str | None, as_json: bool) -> None:
    """List witnesses of this log, and logs that this center witnesses."""
    with open_at(location) as center:
        found = witness_of(center)
        data = {"witnesses": found.witnesses(), "logs": found.logs()}
    rows = [["witness", w["name"], w["size"], w["url"]] for w in data["witnesses"]]
    rows += [["log", entry["origin"], entry["size"], ""] for entry in data["logs"]]
    emit(data, as_json, lambda _: table(("", "name", "size", "url"), rows))


@witness.command()
@where
@json_option
def collect(location: str | None, as_json: bool) -> int:
    """Send the newest checkpoint to every witness. Exit code 1 when one did not cosign."""
    with open_at(location) as center:
        data = witness_of(center).collect()
    columns = ("name", "size", "time", "error")
    emit(data, as_json, lambda d: table(columns, [[short(r.get(c)) for c in columns] for r in d]))
    return EXIT_FAILED if any("error" in entry for entry in data) else 0


@click.command()
@where
@click.option("--reason", required=True, help="Why the database was put back; it goes into the ledger.")
@click.option("--yes", is_flag=True, help="What was recorded since that backup is lost; go on all the same.")
@json_option
def recover(location: str | None, reason: str, yes: bool, as_json: bool) -> None:
    """Accept a database that was put back from a backup, after `center.restored`."""
    if not yes:
        raise CliError(
            "pec.usage",
            "what was recorded since that backup is lost, withdrawals and erasures too",
            "put a newer backup back if there is one; or else give --yes, and do them again",
        )
    with Center.open(directory(location)) as center:
        data: dict[str, Any] = center.recover(reason, actor())
    emit(data, as_json, facts)


COMMANDS = (witness, recover)
