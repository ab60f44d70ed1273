"""Who may call what: every endpoint has a role, and each cell of role x endpoint is requested."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask, Request
from werkzeug.routing import Rule

from consent_center.center import Center
from consent_center.rest import roles
from consent_center.rest.app import create_app
from consent_center.rest.roles import ENDPOINTS, ROLES, Principal, allowed

TOKEN = "t" * 43
HUMANS = ("viewer", "officer", "admin")


def as_role(asked: Request) -> Principal | None:
    """Stands in for accounts: the role is what the header says."""
    role = asked.headers.get("Test-Role", "")
    return Principal(f"test-{role}", role, "api token") if role in ROLES else None


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    with Center.create(tmp_path_factory.mktemp("roles") / "center", "brand") as center:
        made = create_app(center, TOKEN)
        made.extensions[roles.AUTHENTICATORS].insert(0, as_role)
        yield made


def calls(app: Flask) -> Iterator[tuple[str, str, str]]:
    """(endpoint, method, path) of everything that is served."""
    rules: list[Rule] = sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
    for rule in rules:
        path = re.sub(r"<[^>]+>", "1", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule.endpoint, method, path


def test_every_endpoint_has_a_role_and_every_role_an_endpoint(app: Flask) -> None:
    served = {rule.endpoint for rule in app.url_map.iter_rules()}
    assert served - set(ENDPOINTS) == set(), "endpoints that nobody gave a role"
    assert set(ENDPOINTS) - served == set(), "roles for endpoints that no longer exist"
    app.view_functions["later"] = lambda: ""
    app.url_map.add(Rule("/v1/later", endpoint="later"))
    with pytest.raises(KeyError, match="later"):
        roles.check(app)


def test_the_whole_table(app: Flask) -> None:
    """Each cell is requested: refused before the body is looked at, or let through to the call itself."""
    client = app.test_client()
    cells = 0
    for endpoint, method, path in calls(app):
        if endpoint == "later":
            continue
        for role in ROLES:
            headers = {"Test-Role": role, "Content-Type": "application/json"}
            # The body is no JSON: a call that is let through complains about it, or has no use for it.
            response = client.open(path, method=method, headers=headers, data=b"{")
            if allowed(role, ENDPOINTS[endpoint]):
                assert response.status_code not in (401, 403), (endpoint, role, response.text)
            elif path.startswith("/console"):
                if role == "public":
                    assert response.status_code == 303 and "/console/login" in response.location, endpoint
                else:
                    assert response.status_code == 403 and "request.forbidden" in response.text, endpoint
            else:
                assert response.status_code == (401 if role == "public" else 403), (endpoint, role)
                code = "request.unauthorised" if role == "public" else "request.forbidden"
                assert response.get_json()["code"] == code
            cells += 1
    assert cells >= 5 * 40


def test_the_ladder() -> None:
    for low, high in zip(HUMANS, HUMANS[1:], strict=False):
        for rule in ENDPOINTS.values():
            assert not allowed(low, rule) or allowed(high, rule), "who stands higher may do all below"
    assert all(allowed("admin", rule) for rule in ENDPOINTS.values())
    assert not allowed("service", "viewer") and not allowed("service", "admin")
    assert not allowed("officer", "service"), "a person does not write a job's leaves"
    assert not allowed("nonsense", "viewer") and not allowed("public", "viewer|service")


def test_what_a_viewer_must_not_do() -> None:
    """The table's point, written out: a viewer changes nothing and looks nobody up."""
    for endpoint, rule in ENDPOINTS.items():
        name = endpoint.partition(".")[2]
        if re.match(r"(put|record|withdraw|erase|explain|append|assume|switch|set|declare|report)", name):
            assert not allowed("viewer", rule), endpoint


def test_the_service_token_is_an_admin_and_outsiders_learn_no_paths(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/v1/purposes", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/v1/nothing").status_code == 401
    assert client.get("/v1/nothing", headers={"Test-Role": "viewer"}).status_code == 404
    refused = client.post("/v1/people/erase", headers={"Test-Role": "viewer"}, json={})
    assert "officer" in refused.get_json()["detail"] and "viewer" in refused.get_json()["detail"]


def test_people_act_under_their_own_name(app: Flask) -> None:
    cases = {"officer": "test-officer", "admin": "test-admin", "service": "test-service:somebody"}
    for role, name in cases.items():
        with app.test_request_context(headers={"Test-Role": role}):
            assert roles.actor("somebody") == name
    with app.test_request_context(headers={"Authorization": f"Bearer {TOKEN}"}):
        assert (roles.actor("somebody"), roles.actor(), roles.actor("", "rest")) == ("somebody", "", "rest")
    client = app.test_client()
    purpose = {"id": "ads", "version": 1, "title": {"en": "Ads"}, "categories": ["x"], "actor": "the chief"}
    done = client.post("/v1/purposes", json=purpose, headers={"Test-Role": "officer"})
    assert done.status_code == 200
    opening = client.get("/v1/ledger/entries/1", headers={"Test-Role": "officer"}).get_json()
    assert opening["payload"]["actor"] == "test-officer"
