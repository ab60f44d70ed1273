"""What stands in the console's navigation: one line a page. A page of another part plugs in here.

A page is shown to whoever its endpoint's role (`rest/roles.py`) lets in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import current_app, request, url_for

from consent_center.i18n import lazy_gettext as _
from consent_center.rest.roles import ENDPOINTS, allowed, principal

#: (endpoint, title, icon of templates/console/icons.html, group)
NAV: list[tuple[str, Any, str, str]] = [
    ("console.dashboard", _("Dashboard"), "chart", "work"),
    ("console.analytics", _("Analytics"), "chart", "work"),
    ("console.people", _("People"), "person", "work"),
    ("console.requests", _("Rights requests"), "inbox", "work"),
    ("console.registry", _("Purposes and notices"), "text", "work"),
    ("console.collection", _("Collection"), "inbox", "work"),
    ("console.contact", _("Contact policies"), "bell", "work"),
    ("console.recipients", _("Recipients"), "link", "work"),
    ("console.rules", _("Rules"), "rule", "work"),
    ("console.clocks", _("Legal clocks"), "clock", "work"),
    ("console.registers", _("Registers"), "shield", "work"),
    ("console.jobs", _("Jobs"), "jobs", "proof"),
    ("console.webhooks", _("Webhooks"), "bell", "proof"),
    ("console.ledger", _("Ledger"), "ledger", "proof"),
    ("console.witnesses", _("Witnesses"), "key", "proof"),
    ("console.exports", _("Exports"), "export", "proof"),
    ("console.activity", _("Activity"), "clock", "admin"),
    ("console.accounts", _("Accounts"), "key", "admin"),
]

GROUPS: dict[str, Any] = {
    "work": _("Compliance"),
    "proof": _("Evidence"),
    "admin": _("Administration"),
}


@dataclass(frozen=True)
class Item:
    """One link."""

    title: str
    url: str
    icon: str
    here: bool


def items() -> list[tuple[str, list[Item]]]:
    """(title of the group, its links) for who asks; groups without a link are left out."""
    role, found = principal().role, dict[str, list[Item]]()
    for endpoint, title, icon, group in NAV:
        if endpoint in current_app.view_functions and allowed(role, ENDPOINTS[endpoint]):
            url = url_for(endpoint)
            here = request.path == url or (url != "/console/" and request.path.startswith(f"{url}/"))
            found.setdefault(group, []).append(Item(str(title), url, icon, here))
    return [(str(GROUPS[group]), found[group]) for group in GROUPS if group in found]
