"""Login at an identity provider (OpenID Connect, code flow with PKCE), by Authlib.

The settings are `oidc.json` in the center's directory, mode 0600 because of the client's secret:

    {"issuer": "https://id.example", "client_id": "pec", "client_secret": "…", "name": "Company login",
     "role_claim": "groups", "roles": {"privacy-team": "officer", "privacy-leads": "admin"}}

Optional: `scope`, `name_claim`, `redirect_uri` (where the proxy in front changes the address).
The second factor is the provider's business.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.flask_client import OAuth
from flask import Flask

from consent_center.errors import ConsentError

FILE = "oidc.json"
_ORDER = ("admin", "officer", "viewer")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """What `oidc.json` says."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    roles: dict[str, str]
    name: str = "OpenID Connect"
    role_claim: str = "groups"
    name_claim: str = "preferred_username"
    scope: str = "openid profile email"
    redirect_uri: str = ""


def read(path: Path) -> Settings | None:
    """None where there is no such file; `account.oidc` for one that can't be used."""
    if not path.exists():
        return None
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConsentError("account.oidc", f"{path} is open to other users: chmod 600 {path}")
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConsentError("account.oidc", f"{path} can't be read as JSON: {error}") from error
    return parse(given)


def parse(given: Any) -> Settings:
    """`account.oidc`, naming the field."""
    known = {f.name: f for f in fields(Settings)}
    if not isinstance(given, dict):
        raise ConsentError("account.oidc", "the settings are one JSON object")
    for name in given:
        if name not in known:
            raise ConsentError("account.oidc", f"{name!r} is no setting; there are {', '.join(known)}")
    for name in ("issuer", "client_id", "client_secret", "roles"):
        if not given.get(name):
            raise ConsentError("account.oidc", f"{name} is missing")
    for name, value in given.items():
        if name != "roles" and not isinstance(value, str):
            raise ConsentError("account.oidc", f"{name} is text")
    roles = given["roles"]
    if not isinstance(roles, dict) or not all(role in _ORDER for role in roles.values()):
        raise ConsentError("account.oidc", f"roles maps the provider's names to {', '.join(_ORDER)}")
    address = urlsplit(given["issuer"])
    # Over plain HTTP whoever sits in between could log in as anybody.
    if address.scheme != "https" and not (address.scheme == "http" and address.hostname in _LOOPBACK):
        raise ConsentError("account.oidc", "issuer is an https:// address")
    return Settings(**given)


def role_of(settings: Settings, claims: Mapping[str, Any]) -> str:
    """The highest role that the claims give; `account.refused` if none."""
    found: Any = claims
    for step in settings.role_claim.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    names = found if isinstance(found, list) else [found]
    given = {settings.roles[name] for name in names if isinstance(name, str) and name in settings.roles}
    for role in _ORDER:
        if role in given:
            return role
    raise ConsentError(
        "account.refused", f"the provider's claim {settings.role_claim!r} gives no role for this console"
    )


class Provider:
    """The identity provider of one application."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self.settings = settings
        self._client: Any = OAuth(app).register(
            name="pec",
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            server_metadata_url=settings.issuer.rstrip("/") + "/.well-known/openid-configuration",
            client_kwargs={"scope": settings.scope, "code_challenge_method": "S256", "timeout": 10},
        )

    def start(self, callback: str) -> Any:
        """The way to the provider; state, nonce and verifier are kept in the browser's signed cookie."""
        return self._safely(lambda: self._client.authorize_redirect(self.settings.redirect_uri or callback))

    def finish(self) -> tuple[str, str, str, str]:
        """(issuer, subject, name, role) of who came back. Authlib checks state, code, nonce, the ID token's
        signature, issuer, audience and time. `account.oidc`, `account.refused`."""
        token = self._safely(self._client.authorize_access_token)
        claims = token.get("userinfo")
        if not isinstance(claims, Mapping) or not claims.get("sub"):
            raise ConsentError("account.oidc", "the provider's answer has no ID token")
        name = claims.get(self.settings.name_claim) or claims.get("email") or claims["sub"]
        return str(claims["iss"]), str(claims["sub"]), str(name), role_of(self.settings, claims)

    def _safely(self, call: Any) -> Any:
        import requests
        from joserfc.errors import JoseError

        try:
            return call()
        except (OAuthError, JoseError) as error:
            raise ConsentError("account.oidc", f"the provider refused: {error}") from error
        except (requests.RequestException, ValueError, KeyError, RuntimeError) as error:
            raise ConsentError(
                "account.oidc", f"{self.settings.issuer} can't be used: {type(error).__name__}"
            ) from error
