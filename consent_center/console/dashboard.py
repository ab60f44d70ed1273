"""The front page: how consent stands, in figures and charts."""

from __future__ import annotations

from flask import Response

from consent_center.console.base import bp, page


@bp.get("/")
def dashboard() -> Response:
    return page("dashboard.html")
