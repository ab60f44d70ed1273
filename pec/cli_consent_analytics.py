"""`pec consent analytics rates|standing|funnel|experiment`."""

from __future__ import annotations

from typing import Any

import click

from consent_center.analytics.client import analytics_of
from consent_center.analytics.service import FEWEST, FUNNELS, GROUPS, LEAST
from pec.cli_common import console, emit, json_option, table
from pec.consent_options import moment, open_at, where

_least = click.option(
    "--least",
    type=click.IntRange(FEWEST),
    default=LEAST,
    show_default=True,
    help="Smaller groups are suppressed, and others that would tell them.",
)
_since = click.option("--since", metavar="TIME", help="From the day of this time on.")
_until = click.option("--until", metavar="TIME", help="Up to the day of the moment before this time.")
_purpose = click.option("--purpose", "purpose", default="", help="Of this purpose only.")


@click.group()
def analytics() -> None:
    """How consent is going: rates, withdrawals, funnels, A/B of notices."""


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: int | None) -> str:
    return "(few)" if value is None else f"{value:,}"


@analytics.command()
@where
@click.option("--by", type=click.Choice(GROUPS), default="purpose", show_default=True)
@_since
@_until
@_purpose
@_least
@json_option
def rates(
    location: str | None,
    by: str,
    since: str | None,
    until: str | None,
    purpose: str,
    least: int,
    as_json: bool,
) -> None:
    """Consent rate and withdrawal rate of the decisions in a span."""
    with open_at(location) as center:
        span = (moment(since, "--since"), moment(until, "--until"))
        told = analytics_of(center).rates(by, *span, purpose, least)

    def render(d: dict[str, Any]) -> Any:
        rows = [
            (
                g["key"] or "–",
                *(_number(g[n]) for n in ("granted", "denied", "withdrawn")),
                _percent(g["consent_rate"]),
                "–" if g["interval"] is None else " to ".join(_percent(v) for v in g["interval"]),
                _percent(g["withdrawal_rate"]),
            )
            for g in (*d["groups"], {**d["total"], "key": "all"})
        ]
        names = (by, "granted", "denied", "withdrawn", "consent rate", "95 % interval", "withdrawal rate")
        if d["withheld"]:
            console().print("Groups are left out: named beside the total they would tell small numbers.")
        return table(names, rows)

    emit(told, as_json, render)


@analytics.command()
@where
@_least
@json_option
def standing(location: str | None, least: int, as_json: bool) -> None:
    """How many people stand where now, by purpose and recipient."""
    with open_at(location) as center:
        told = analytics_of(center).standing(least)
    names = ("people", "granted", "outdated", "ended", "denied", "withdrawn")

    def render(d: dict[str, Any]) -> Any:
        rows = [(g["purpose"], g["recipient"], *(_number(g[n]) for n in names)) for g in d["groups"]]
        return table(("purpose", "recipient", *names), rows)

    emit(told, as_json, render)


@analytics.command()
@where
@_since
@_until
@_purpose
@click.option(
    "--by",
    type=click.Choice(FUNNELS),
    default="notice",
    show_default=True,
    help="Channel and notice, or channel.",
)
@_least
@json_option
def funnel(
    location: str | None,
    since: str | None,
    until: str | None,
    purpose: str,
    by: str,
    least: int,
    as_json: bool,
) -> None:
    """From shown to decided to granted, by channel and notice."""
    with open_at(location) as center:
        span = (moment(since, "--since"), moment(until, "--until"))
        told = analytics_of(center).funnel(*span, purpose, least, by)
    names = ("channel", "purpose", "recipient", "notice", "notice_version")[: 1 if by == "channel" else None]

    def render(d: dict[str, Any]) -> Any:
        steps = ("shown", "decided", "granted")
        rows = [(*(g[n] for n in names), *(_number(g[n]) for n in steps)) for g in d["groups"]]
        return table((*(n.replace("_", " ") for n in names), *steps), rows)

    emit(told, as_json, render)


@analytics.command()
@where
@click.argument("id_", metavar="EXPERIMENT")
@click.option(
    "--effect",
    type=click.FloatRange(0.001, 0.5),
    default=0.05,
    show_default=True,
    help="The difference of rates that is worth finding.",
)
@_least
@json_option
def experiment(location: str | None, id_: str, effect: float, least: int, as_json: bool) -> None:
    """The outcome of an A/B of two notices."""
    with open_at(location) as center:
        told = analytics_of(center).experiment(id_, effect, least)

    def render(d: dict[str, Any]) -> Any:
        rows = [
            (
                arm,
                f"{a['notice']} {a['version']}",
                _number(a["people"]),
                _percent(a["rate"]),
                "–" if a["interval"] is None else " to ".join(_percent(v) for v in a["interval"]),
            )
            for arm, a in d["arms"].items()
        ]
        console().print(table(("arm", "notice", "people", "consent rate", "95 % interval"), rows))
        found = d["comparison"]
        if found is None:
            return "too few people to say anything"
        low, high = (f"{v:+.1%}" for v in found["interval"])
        verdict = "significant at 5 %" if found["significant"] else "not significant at 5 %"
        needed = f"{d['needed_per_arm']:,} people an arm are needed to find {d['effect']:.1%}"
        return (
            f"b − a: {found['difference']:+.1%} ({low} to {high}), p = {found['p_value']:.4f} "
            f"({found['test']}): {verdict}; {needed}{'' if d['enough'] else ', so wait'}"
        )

    emit(told, as_json, render)
