"""A refusal or failure as a page of the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, g

from consent_center.console.base import page, protect
from consent_center.console.login import where_to_log_in
from consent_center.i18n import gettext


def error_page(body: Mapping[str, Any]) -> Response:
    """A problem as a page: what it is, its code, what to do."""
    if body["status"] == 401:
        return protect(where_to_log_in())
    # Not asked anew: what failed may be the database that knows who asks.
    known = g.get("pec_principal")
    response = page("error.html", int(body["status"]), problem=body, advice=_advice(body), known=known)
    return protect(response)


def _advice(body: Mapping[str, Any]) -> str:
    status = int(body["status"])
    if status == 403:
        return gettext("Ask an administrator for the role, or go back.")
    if status == 404:
        return gettext("Check the address, or begin again at the dashboard.")
    if status == 429:
        return gettext("Wait a minute and try again.")
    if status >= 500:
        return gettext("Try again in a minute. If it stays, show the code to whoever runs the center.")
    return gettext("Go back, correct the entry and send it again.")
