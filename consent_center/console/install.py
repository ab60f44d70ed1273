"""Puts the console on the application: blueprint, error pages, sessions, figures."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from consent_center.accounts import oidc
from consent_center.center import Center
from consent_center.client import CenterClient
from consent_center.console import (  # noqa: F401 - each adds its pages to the blueprint
    accounts_pages,
    analytics_page,
    base,
    collection_pages,
    contact_page,
    dashboard,
    exports,
    jobs_pages,
    ledger_pages,
    login,
    nav,
    people,
    registers_page,
    registry_pages,
    requests_pages,
    rules_page,
    security,
    settings_pages,
    webhooks_page,
)
from consent_center.console.error_page import error_page
from consent_center.console.figures import Figures
from consent_center.rest import problems


def install(app: Flask, center: CenterClient, home: Path | None) -> None:
    """Only on a center in this process: pages look into its database. `home` may hold `oidc.json`."""
    if not isinstance(center, Center):
        return
    security.install(app, center)
    app.extensions[dashboard.FIGURES] = Figures(center.room)
    app.extensions[ledger_pages.CHECK] = ledger_pages.Check()
    app.extensions[problems.PAGES] = {base.PREFIX: error_page}
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    settings = oidc.read(home / oidc.FILE) if home is not None else None
    if settings is not None:
        app.extensions[login.PROVIDER] = oidc.Provider(app, settings)
    app.register_blueprint(base.bp)
