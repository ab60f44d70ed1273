"""`pec node agreement`: draft, sign and keep the terms of jobs with a partner."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from pec import plan
from pec.cli_common import account_rows, console, emit, json_option, table, time_text
from pec.cli_home import KIND, changes_of, home_at, home_option, read_json, shortened, write_or_print
from pec.errors import PecError


@click.group()
def agreement() -> None:
    """Agreements: the terms of jobs with a partner, signed by both."""


@agreement.command("draft")
@click.option("--id", "id_", required=True, help="The agreement's name, the same on both sides.")
@click.option("--brand", required=True)
@click.option("--provider", required=True)
@click.option("--kind", "kinds", multiple=True, required=True, type=KIND, help="Repeat for several.")
@click.option("--purpose", "purposes", multiple=True, required=True, help="Repeat for several.")
@click.option(
    "--category", "categories", multiple=True, required=True, help="Data category; repeat for several."
)
@click.option(
    "--column", "columns", multiple=True, default=("*",), help="Provider's column for a lookalike; all."
)
@click.option("--tag", "tags", multiple=True, help="Column that enrich may hand out; repeat for several.")
@click.option("--epsilon", type=float, default=2.0, show_default=True, help="Privacy budget of a lookalike.")
@click.option("--delta", type=float, default=1e-6, show_default=True)
@click.option(
    "--total-epsilon", type=float, help="Budget of all jobs together.  [default: 5 times --epsilon]"
)
@click.option("--total-delta", type=float, help="Its delta.  [default: 10 times --delta]")
@click.option("--no-total", is_flag=True, help="Count what the jobs spend, and refuse nothing.")
@click.option("--no-noise", is_flag=True, help="No noise: the provider learns exact sums over the seeds.")
@click.option("--minimum-seeds", type=int, default=100, show_default=True)
@click.option("--minimum-rows", type=int, default=100, show_default=True)
@click.option(
    "--sum",
    "sums",
    multiple=True,
    metavar="SIDE.COLUMN:LEARNER:BOUND",
    help="Column that an overlap by private_join may sum, who learns it, and the most that a person counts.",
)
@click.option("--preapproved", multiple=True, type=KIND, help="Runs without asking; repeat for several.")
@click.option(
    "--suite",
    "suites",
    multiple=True,
    type=click.Choice(["ecdh", "vole", "private_join"]),
    default=("ecdh", "vole"),
    show_default=True,
    help="Protocol suite that jobs may use; repeat for several.",
)
@click.option(
    "--malicious-security",
    is_flag=True,
    help="Jobs must align by the variant of vole that holds against a side that deviates.",
)
@click.option(
    "--standard-errors",
    is_flag=True,
    help="joint-lr may give standard errors, which show shared people's columns (SECURITY.md).",
)
@click.option("--assessment", default="", help="Where the impact assessment (PIPL 55) is kept.")
@click.option("--days", type=int, default=365, show_default=True, help="How long it holds.")
@click.option("--out", type=click.Path(path_type=Path), help="Write it to this new file.")
@json_option
def draft(out: Path | None, as_json: bool, **options: Any) -> None:
    """Write down terms as JSON, unsigned. Nothing is stored."""
    for kind in options["preapproved"]:
        if kind not in options["kinds"]:
            raise PecError(
                "pec.usage", f"--preapproved {kind} without --kind {kind}", f"give --kind {kind} too"
            )
    exact = [kind for kind in options["kinds"] if kind in plan.NOISELESS]
    if exact and not options["no_noise"]:
        raise PecError(
            "pec.usage",
            f"--kind {exact[0]} has no noise, and the terms ask for it (--epsilon {options['epsilon']:g})",
            "give --no-noise, or draft an agreement of its own for it",
        )
    if "enrich" in options["kinds"] and not options["tags"]:
        raise PecError("pec.usage", "enrich without a tag to hand out", "give --tag COLUMN")
    if options["malicious_security"]:
        if "vole" not in options["suites"]:
            raise PecError("pec.usage", "--malicious-security without suite vole", "give --suite vole too")
        if "enrich" in options["kinds"]:
            what = "--malicious-security with --kind enrich, which has no such variant"
            raise PecError("pec.usage", what, "draft an agreement of its own for enrich")
    terms = plan.terms(
        id=options["id_"],
        brand=options["brand"],
        provider=options["provider"],
        kinds=options["kinds"],
        purposes=options["purposes"],
        categories=options["categories"],
        columns=options["columns"],
        tags=options["tags"],
        epsilon=None if options["no_noise"] else options["epsilon"],
        delta=options["delta"],
        total=_total(options),
        minimum_seeds=options["minimum_seeds"],
        minimum_rows=options["minimum_rows"],
        preapproved=options["preapproved"],
        suites=options["suites"],
        sums=options["sums"],
        malicious_security=options["malicious_security"],
        standard_errors=options["standard_errors"],
        assessment=options["assessment"],
        holds=timedelta(days=options["days"]),
    )
    write_or_print(terms, out, as_json)


def _total(options: dict[str, Any]) -> tuple[float, float] | None:
    given = [n for n in ("total_epsilon", "total_delta") if options[n] is not None]
    if given and (options["no_total"] or options["no_noise"]):
        off = "--no-total" if options["no_total"] else "--no-noise"
        raise PecError("pec.usage", f"--{given[0].replace('_', '-')} together with {off}", "give one of them")
    if options["no_total"] or options["no_noise"]:
        return None
    epsilon, delta = options["total_epsilon"], options["total_delta"]
    if "lookalike" in options["kinds"]:
        for name, total in (("epsilon", epsilon), ("delta", delta)):
            if total is not None and total < options[name]:
                raise PecError(
                    "pec.usage",
                    f"--total-{name} {total:g} has no room for one lookalike of --{name} {options[name]:g}",
                    f"give a larger --total-{name}, or a smaller --{name}",
                )
    return (
        5 * options["epsilon"] if epsilon is None else epsilon,
        float(f"{10 * options['delta']:.12g}") if delta is None else delta,  # 1e-05, and not 9.99…e-06
    )


@agreement.command("sign")
@click.argument("file", type=click.Path(path_type=Path))
@home_option
@click.option("--out", type=click.Path(path_type=Path), help="Write it to this new file.")
@json_option
def sign(file: Path, home: Path, out: Path | None, as_json: bool) -> None:
    """Sign terms, or countersign what the partner has signed. Shows what is being signed.

    Refused are terms that have ended, and terms that were changed after the partner signed them.
    """
    signed = home_at(home).sign_agreement(read_json(file))
    if not as_json:
        # Beside standard output where that is the document itself.
        console(stderr=out is None).print(_terms(signed["document"]))
    write_or_print(signed, out, as_json)


@agreement.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@home_option
@json_option
def agreement_add(file: Path, home: Path, as_json: bool) -> None:
    """Store an agreement that both have signed."""
    read = read_json(file)
    if "signatures" not in read:
        both = "pec node agreement sign, at both parties, first"
        raise PecError("pec.input", f"{file.name} is not signed", both)
    added = home_at(home).add_agreement(read).to_json()
    emit(added, as_json, lambda d: f"agreement {d['id']} between {d['brand']} and {d['provider']} is stored")


@agreement.command("end")
@click.argument("id_", metavar="ID")
@click.option("--reason", required=True, help="Both parties and their auditors read it.")
@home_option
@json_option
def agreement_end(id_: str, reason: str, home: Path, as_json: bool) -> None:
    """End an agreement before its time, for both sides and for good. Either party may.

    Jobs under it are refused from now on, those that wait end, a running one stops at its next check. The
    agreement stays readable for audit; a new one needs a new ID.
    """
    with changes_of(home) as changes:
        done = changes.end_agreement(id_, reason)
    emit(done, as_json, _ended)


def _ended(d: dict[str, Any]) -> str:
    told = (
        "the partner has been told"
        if d["told"]
        else "the partner could not be reached: this node tells it as long as it runs (pec node run)"
    )
    return f"agreement {d['agreement_id']} was ended by {d['party']} at {d['ended_at']}\n{told}"


@agreement.command("list")
@home_option
@json_option
def agreement_list(home: Path, as_json: bool) -> None:
    """The stored agreements."""
    opened = home_at(home)
    listed = [_with_state(opened, a) for a in opened.agreements()]
    columns = ("id", "brand", "provider", "kinds", "purposes", "epsilon", "until", "state")
    emit(
        listed,
        as_json,
        lambda d: table(
            columns,
            [
                (
                    *(a["id"], a["brand"], a["provider"], ", ".join(a["kinds"]), ", ".join(a["purposes"])),
                    *((a["privacy"] or {}).get("epsilon", "no noise"), a["expires_at"], a["state"]),
                )
                for a in d
            ],
        ),
    )


def _with_state(home: Any, found: Any) -> dict[str, Any]:
    """The terms, with `state` (in force, expired, ended) and `ended`: by whom, when, why, told; or None."""
    from parties import documents

    ended = home.endings.describe(found)
    over = documents.moment(found.expires_at) <= documents.now()
    state = "ended" if ended else "expired" if over else "in force"
    return {**found.to_json(), "state": state, "ended": ended}


@agreement.command("show")
@click.argument("id_", metavar="ID|FILE")
@home_option
@json_option
def agreement_show(id_: str, home: Path, as_json: bool) -> None:
    """One agreement: its terms, and the privacy account with every job that has spent of it.

    Reads the node's directory; the node may be running or not. A file (its name ends in .json), such as a
    draft or what the partner has signed, is shown without an account; its signatures are not verified.
    """
    from parties.store import read_account

    if id_.endswith(".json"):
        read = read_json(Path(id_))
        emit(read, as_json, _of_file)
        return
    opened = home_at(home)
    found = opened.agreement(id_)
    account = read_account(opened.path / "node.db", found).to_document()
    emit({**_with_state(opened, found), "account": account}, as_json, _agreement)


def _agreement(d: dict[str, Any]) -> Any:
    from rich.console import Group

    columns = ("job", "kind", "epsilon", "delta", "at")
    spends = [
        (s["job_id"], s["kind"], s["epsilon"], s["delta"], time_text(s["at"])) for s in d["account"]["spends"]
    ]
    return Group(
        _terms({k: v for k, v in d.items() if k not in ("account", "ended")}),
        *([_terms(d["ended"])] if d["ended"] else []),
        table(("what", "value"), account_rows(d["account"]), title="Privacy account"),
        table(columns, spends, title="Spent by"),
    )


def _terms(terms: dict[str, Any]) -> Any:
    no_noise = {"privacy": "no noise"} if "privacy" in terms and not terms["privacy"] else {}
    return table(("term", "value"), [(k, shortened(v)) for k, v in {**terms, **no_noise}.items()])


def _of_file(read: dict[str, Any]) -> Any:
    from rich.console import Group

    if "signatures" not in read:
        return Group(_terms(read), "signed by nobody yet")
    who = ", ".join(str(entry.get("party")) for entry in read["signatures"])
    return Group(
        _terms(read["document"]), f"signed by {who or 'nobody yet'} (not verified here; add verifies)"
    )
