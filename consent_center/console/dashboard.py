"""The front page: how consent stands, in figures and charts."""

from __future__ import annotations

from flask import Response, current_app

from consent_center.analytics.disclosure import few, hide
from consent_center.analytics.service import LEAST
from consent_center.console import charts
from consent_center.console.base import bp, embedded, page
from consent_center.console.charts import Series
from consent_center.console.figures import Days, Figures
from consent_center.i18n import gettext as _
from consent_center.i18n import localised

FIGURES = "pec.figures"
_DAYS, _SHOWN = 91, 6  # thirteen weeks; purposes with a line of their own


def figures() -> Figures:
    found: Figures = current_app.extensions[FIGURES]
    return found


def titles() -> dict[str, str]:
    """The purposes' newest titles in the reader's language."""
    found = {}
    for purpose in sorted(embedded().purposes(), key=lambda p: p.version):
        found[purpose.id] = localised(purpose.title) or purpose.id
    return found


@bp.get("/")
def dashboard() -> Response:
    center, asked = embedded(), figures()
    days, names = asked.days(_DAYS), titles()
    weeks = [days.days[i] for i in range(0, _DAYS, 7)]
    labels = [f"{day:%m-%d}" for day in weeks]
    consents = _by_purpose(days, names)
    rates = _rates(days, consents)
    grants = sum(map(sum, days.grants.values()))
    withdrawals = sum(map(sum, days.withdrawals.values()))
    few_granted, few_withdrawn = few((grants, 0, withdrawals), LEAST)
    standing = center.rights.deadlines()["counts"]
    return page(
        "dashboard.html",
        required=center.assessments_required(),
        people=asked.people(),
        in_force=asked.in_force(),
        names=names,
        least=LEAST,
        grants=None if few_granted else grants,
        withdrawals=None if few_withdrawn else withdrawals,
        rate=withdrawals / grants if grants and not (few_granted or few_withdrawn) else None,
        consents=consents,
        consents_chart=charts.lines(consents, labels, _("Consents a week by purpose")),
        consents_legend=charts.legend(consents),
        rates=rates,
        rates_chart=charts.lines([rates], labels, _("Withdrawals for each consent"), "percent"),
        weeks=weeks,
        enforcement=asked.enforcement(center.outbox),
        size=int(center.checkpoint().split("\n")[1]),
        checked=asked.checked(),
        jobs=asked.jobs()[:5],
        due=standing["near"] + standing["overdue"],
        overdue=standing["overdue"],
    )


def _weekly(values: list[int]) -> list[int]:
    return [sum(values[i : i + 7]) for i in range(0, len(values), 7)]


def _by_purpose(days: Days, names: dict[str, str]) -> list[Series]:
    """One line a purpose, the largest first; small ones together. A gap where few consented, and where the
    total of a line or of all would tell how few.
    """
    order = sorted(days.grants, key=lambda purpose: (-sum(days.grants[purpose]), purpose))
    weekly = [(names.get(p, p), _weekly(days.grants[p])) for p in order[:_SHOWN]]
    if rest := [_weekly(days.grants[p]) for p in order[_SHOWN:]]:
        weekly.append((_("others"), [sum(column) for column in zip(*rest, strict=True)]))
    cells = {
        (str(line), f"{line} {week}"): (count, 0, 0)
        for line, (_name, values) in enumerate(weekly)
        for week, count in enumerate(values)
    }
    untold = hide(cells, LEAST).decided
    return [
        Series(name, [None if f"{line} {week}" in untold else count for week, count in enumerate(values)])
        for line, (name, values) in enumerate(weekly)
    ]


def _rates(days: Days, consents: list[Series]) -> Series:
    """Withdrawals ÷ consents of each week; a gap where nobody or few consented, and where `consents` has one:
    a rate of few withdrawals tells the number of consents, and so the hidden one.
    """
    zeros = [0] * _DAYS
    granted = _weekly([sum(c) for c in zip(*(days.grants.values() or [zeros]), strict=True)])
    gone = _weekly([sum(c) for c in zip(*(days.withdrawals.values() or [zeros]), strict=True)])
    hidden = [any(line.values[week] is None for line in consents) for week in range(len(granted))]
    told = [not untold and g >= LEAST for g, untold in zip(granted, hidden, strict=True)]
    rates = [w / g if one else None for g, w, one in zip(granted, gone, told, strict=True)]
    return Series(_("withdrawal rate"), rates)
