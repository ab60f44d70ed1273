"""Login at an identity provider: a small one, made here, and what happens when it lies."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from console_helpers import TOKEN, post
from flask import Flask, jsonify, redirect, request
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

from consent_center.accounts import oidc, tables
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.rest import limits
from consent_center.rest.app import create_app


class Fake:
    """An OpenID provider: discovery, authorisation, token and keys; `claims` and `lies` are set by tests."""

    def __init__(self) -> None:
        self.key, self.other = (RSAKey.generate_key(2048, {"kid": "1"}) for _ in range(2))
        self.claims: dict[str, Any] = {}
        self.lies: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        app = Flask("provider")
        app.add_url_rule("/.well-known/openid-configuration", view_func=self._discovery)
        app.add_url_rule("/authorize", view_func=self._authorize)
        app.add_url_rule("/token", view_func=self._token, methods=["POST"])
        app.add_url_rule("/jwks", view_func=lambda: jsonify({"keys": [self.key.as_dict(private=False)]}))
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def _discovery(self) -> Any:
        return jsonify(
            issuer=self.issuer,
            authorization_endpoint=f"{self.issuer}/authorize",
            token_endpoint=f"{self.issuer}/token",
            jwks_uri=f"{self.issuer}/jwks",
            response_types_supported=["code"],
            subject_types_supported=["public"],
            id_token_signing_alg_values_supported=["RS256"],
        )

    def _authorize(self) -> Any:
        code = f"code-{len(self.codes)}"
        self.codes[code] = dict(request.args)
        return redirect(f"{request.args['redirect_uri']}?code={code}&state={request.args['state']}")

    def _token(self) -> Any:
        asked = self.codes.pop(request.form["code"])
        digest = hashlib.sha256(request.form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if challenge != asked["code_challenge"] or request.authorization is None:
            return jsonify(error="invalid_grant"), 400
        if request.authorization.password != "client secret":
            return jsonify(error="invalid_client"), 401
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": "pec",
            "sub": "17",
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            **self.claims,
            **{name: value for name, value in self.lies.items() if name != "key"},
        }
        signed = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.lies.get("key", self.key))
        return jsonify(access_token="a", token_type="Bearer", expires_in=60, id_token=signed)


@pytest.fixture(scope="module")
def provider() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, provider: Fake) -> Iterator[tuple[Flask, Center]]:
    home = tmp_path_factory.mktemp("oidc") / "center"
    with Center.create(home, "brand") as center:
        file = home / oidc.FILE
        settings = {
            "issuer": provider.issuer,
            "client_id": "pec",
            "client_secret": "client secret",
            "name": "Company login",
            "roles": {"privacy": "officer", "chiefs": "admin"},
        }
        file.write_text(json.dumps(settings))
        file.chmod(0o600)
        yield create_app(center, TOKEN, home), center


@pytest.fixture
def served(made: tuple[Flask, Center], provider: Fake) -> tuple[Flask, Center]:
    """Without accounts, with an honest provider, and no attempts counted."""
    limits.install(made[0])
    provider.claims = {"preferred_username": "Wang.Fang", "groups": ["staff", "privacy"]}
    provider.lies = {}
    with made[1]._write() as connection:
        for table in (tables.sessions, tables.accounts):
            connection.execute(table.delete())
    return made


def walk(app: Flask, provider: Fake, change: Any = None) -> Any:
    """Through the provider and back, as a browser goes; the last answer of the console, and the client."""
    import requests

    client = app.test_client()
    assert "Log in with Company login" in client.get("/console/login").text
    away = post(client, "/console/login/oidc?next=/console/jobs", {}, page="/console/login")
    assert away.status_code == 302 and away.location.startswith(f"{provider.issuer}/authorize?")
    asked = parse_qs(urlsplit(away.location).query)
    assert asked["code_challenge_method"] == ["S256"] and asked["nonce"] and asked["state"]
    back = requests.get(away.location, allow_redirects=False, timeout=120).headers["Location"]
    parts = urlsplit(back)
    assert parts.path == "/console/login/oidc"
    query = parts.query if change is None else change(parts.query)
    return client.get(f"{parts.path}?{query}"), client


def test_login_makes_an_account_with_the_providers_role(served: tuple[Flask, Center], provider: Fake) -> None:
    app, center = served
    done, client = walk(app, provider)
    assert (done.status_code, done.location) == (303, "/console/jobs"), done.text
    assert client.get("/console/people").status_code == 200
    account = center.accounts.get("wang.fang")
    assert (account.role, account.oidc, account.local) == ("officer", True, False)
    assert post(client, "/console/password", {}, page="/console/people").status_code == 422
    provider.claims["groups"] = ["chiefs", "privacy"]
    done, _client = walk(app, provider)
    assert done.status_code == 303 and center.accounts.get("wang.fang").role == "admin", "the highest"
    provider.claims["groups"] = ["staff"]
    refused, client = walk(app, provider)
    assert refused.status_code == 403 and "account.refused" in refused.text
    assert client.get("/console/").status_code == 303


@pytest.mark.parametrize(
    "lie",
    [{"iss": "https://other"}, {"aud": "someone else"}, {"nonce": "another"}, {"exp": 1}, {"key": "other"}],
    ids=["issuer", "audience", "nonce", "expired", "signature"],
)
def test_a_wrong_token_lets_nobody_in(
    served: tuple[Flask, Center], provider: Fake, lie: dict[str, Any]
) -> None:
    provider.lies = {"key": provider.other} if "key" in lie else lie
    answer, client = walk(served[0], provider)
    assert answer.status_code == 502 and "account.oidc" in answer.text, answer.text
    assert client.get("/console/").status_code == 303 and not served[1].accounts.all()


def test_another_state_and_errors_of_the_provider(served: tuple[Flask, Center], provider: Fake) -> None:
    for change in (
        lambda query: query.replace("state=", "state=x"),
        lambda query: "error=access_denied&" + query.partition("&")[2],
        lambda query: "",
    ):
        answer, client = walk(served[0], provider, change)
        assert answer.status_code == 502 and "account.oidc" in answer.text
        assert client.get("/console/").status_code == 303


def test_a_provider_that_does_not_answer(tmp_path: Path) -> None:
    with Center.create(tmp_path / "center", "brand") as center:
        app = create_app(center, TOKEN, tmp_path / "center")
        client = app.test_client()
        assert "Log in with" not in client.get("/console/login").text
        missing = post(client, "/console/login/oidc", {}, page="/console/login")
        assert missing.status_code == 404
        file = tmp_path / "center" / oidc.FILE
        dead = {
            "issuer": "http://127.0.0.1:9",
            "client_id": "x",
            "client_secret": "y",
            "roles": {"a": "viewer"},
        }
        file.write_text(json.dumps(dead))
        file.chmod(0o644)
        with pytest.raises(ConsentError, match="chmod 600"):
            create_app(center, TOKEN, tmp_path / "center")
        file.chmod(0o600)
        client = create_app(center, TOKEN, tmp_path / "center").test_client()
        answer = post(client, "/console/login/oidc", {}, page="/console/login")
        assert answer.status_code == 502 and "account.oidc" in answer.text


GOOD = {"issuer": "https://id", "client_id": "x", "client_secret": "y", "roles": {"a": "viewer"}}


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://id.example"},
        {"issuer": ""},
        {"client_secret": 7},
        {"roles": {"a": "root"}},
        {"roles": {"a": "service"}},
        {"roles": ["viewer"]},
        {"surprise": "x"},
    ],
)
def test_settings_that_can_not_be_used(change: dict[str, Any]) -> None:
    with pytest.raises(ConsentError) as caught:
        oidc.parse({**GOOD, **change})
    assert caught.value.code == "account.oidc" and next(iter(change)) in caught.value.detail
    assert "y" not in repr(oidc.parse(GOOD)).replace("type", "").split("client_id")[1].split("roles")[0]


def test_roles_from_nested_claims() -> None:
    settings = oidc.parse({**GOOD, "role_claim": "realm.roles", "roles": {"p": "officer", "q": "admin"}})
    assert oidc.role_of(settings, {"realm": {"roles": ["p", "z"]}}) == "officer"
    assert oidc.role_of(settings, {"realm": {"roles": "q"}}) == "admin"
    for claims in ({}, {"realm": None}, {"realm": {"roles": None}}, {"realm": {"roles": [["p"], 7]}}):
        with pytest.raises(ConsentError, match=r"account\.refused"):
            oidc.role_of(settings, claims)
