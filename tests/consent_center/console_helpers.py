"""A served center for tests of the console: accounts, logging in, forms with their CSRF token."""

from __future__ import annotations

import re
import time
from typing import Any

import pyotp
import pytest
from argon2 import PasswordHasher
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from consent_center.accounts import factors
from consent_center.center import Center
from consent_center.errors import ConsentError

TOKEN = "t" * 43
#: Argon2id as cheap as it goes: what tests need of it is that it is right.
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORD = "correct horse battery"


def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "_HASHER", CHEAP)
    monkeypatch.setattr(factors, "_NOBODY", CHEAP.hash("nobody has this"))


def csrf(client: FlaskClient, path: str) -> str:
    """The token of the first form on a page."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
    assert found, f"{path} has no form"
    return found[1]


def post(client: FlaskClient, path: str, form: dict[str, Any], page: str = "", **more: Any) -> TestResponse:
    """Sends a form with the token of `page` (default: of the path itself)."""
    return client.post(path, data={"csrf_token": csrf(client, page or path), **form}, **more)


def secret_of(page: str) -> str:
    """The key of the second factor that the page shows for typing it in."""
    found = re.search(r'<p class="secret"><code>([A-Z2-7 ]+)</code>', page)
    assert found
    return found[1].replace(" ", "")


def add(center: Center, name: str, role: str) -> str:
    """An account that has logged in before: own password, second factor. Its TOTP secret."""
    logins = center.logins
    _, first = center.accounts.add(name, role, "test")
    logins.change_password(name, first, PASSWORD)
    half = logins.login(name, PASSWORD)
    secret, _ = logins.begin_totp(half)
    # The step before this one, so that the present code is still good for the test's own login.
    for _ in range(3):
        earlier = pyotp.TOTP(secret).at(int(time.time()) - 30)
        try:
            logins.close_session(logins.confirm_totp(half, earlier))
            return secret
        except ConsentError as error:  # a new step began in between
            if error.code != "account.refused":
                raise
    raise AssertionError("no code was taken")


def login(client: FlaskClient, name: str, secret: str, password: str = PASSWORD) -> TestResponse:
    """Through the pages, as a person does; the page after it."""
    step = post(client, "/console/login", {"name": name, "password": password})
    assert (step.status_code, step.location) == (303, "/console/login/code"), step.text
    return post(client, "/console/login/code", {"code": pyotp.TOTP(secret).now()}, follow_redirects=True)
