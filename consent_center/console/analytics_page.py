"""How asking for consent goes: rates by week, purpose, notice and channel; the funnel; A/B of notices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Response, request

from consent_center.analytics.service import SPANS
from consent_center.console import charts
from consent_center.console.base import bp, embedded, page
from consent_center.console.charts import Series
from consent_center.console.dashboard import titles
from consent_center.i18n import gettext as _


@bp.get("/analytics")
def analytics() -> Response:
    center, names = embedded(), titles()
    asked, figures = request.args.get("days", ""), center.analytics
    days = int(asked) if asked in map(str, SPANS) else 90
    purpose = request.args.get("purpose", "")
    purpose = purpose if purpose in names else ""
    since = datetime.now(UTC) - timedelta(days=days)
    weeks = figures.rates("week", since, purpose=purpose)
    # By channel, as the table below: with notices too, its numbers could be added up to hidden ones.
    funnel = figures.funnel(since, purpose=purpose, by="channel")
    told = [group for group in funnel["groups"] if not group["suppressed"]]
    steps = {name: sum(group[name] for group in told) for name in ("shown", "decided", "granted")}
    words = {"shown": _("Shown"), "decided": _("Decided"), "granted": _("Granted")}
    rate = Series(_("consent rate"), [g["consent_rate"] for g in weeks["groups"]])
    found = {by: figures.rates(by, since, purpose=purpose) for by in ("purpose", "notice", "channel")}
    heads = {"purpose": _("By purpose"), "notice": _("By notice"), "channel": _("By channel")}
    tables = [(heads[by], by, found[by]["groups"]) for by in found]
    return page(
        "analytics.html",
        days=days,
        spans=SPANS,
        purpose=purpose,
        names=names,
        total=weeks["total"],
        weeks=weeks["groups"],
        chart=charts.lines(
            [rate], [g["key"][5:] for g in weeks["groups"]], _("Consent rate by week"), "percent"
        ),
        tables=tables,
        withheld=any(told["withheld"] for told in (weeks, *found.values())),
        steps=steps,
        funnel=funnel["groups"],
        funnel_chart=charts.bars([(words[n], float(steps[n])) for n in steps], _("From shown to granted")),
        experiments=[_outcome(e["id"]) for e in center.collection.experiments()],
        least=weeks["least"],
    )


def _outcome(id: str) -> dict[str, Any]:
    return embedded().analytics.experiment(id)
