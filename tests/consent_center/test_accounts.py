"""Accounts: who gets in, who does not, and that each change stands in the ledger without a secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import consent_helpers
import pyotp
import pytest
import sqlalchemy as sa
from consent_helpers import Clock
from console_helpers import cheap_passwords

from consent_center import database as db
from consent_center.accounts import factors, tables
from consent_center.center import Center
from consent_center.errors import ConsentError

pytestmark = pytest.mark.usefixtures("store")
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "strong" not in request.node.name:
        cheap_passwords(monkeypatch)


@pytest.fixture(scope="module")
def clock() -> Clock:
    """One for the file, which only ever goes forward, as the centers that see it expect."""
    return Clock()


@pytest.fixture(scope="module")
def centers() -> Iterator[dict[str, Center]]:
    """One center a store: making one costs more than most tests."""
    made: dict[str, Center] = {}
    yield made
    for one in made.values():
        one.close()


@pytest.fixture
def center(
    centers: dict[str, Center], store: str, clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> Center:
    """Without accounts; what earlier tests did is in its ledger."""
    if store not in centers:
        centers[store] = consent_helpers.make(tmp_path_factory.mktemp(store) / "center", clock)
    with centers[store]._write() as connection:
        for table in (tables.tokens, tables.sessions, tables.accounts):
            connection.execute(table.delete())
    return centers[store]


def refused(code: str, call: Any, *args: Any) -> ConsentError:
    with pytest.raises(ConsentError) as caught:
        call(*args)
    assert caught.value.code == code, caught.value
    return caught.value


def code_now(secret: str, clock: Clock) -> str:
    return pyotp.TOTP(secret).at(clock.now)


def enrolled(center: Center, clock: Clock, name: str = "li.wei", role: str = "officer") -> str:
    """A new account with its own password and a second factor; the secret."""
    _, first = center.accounts.add(name, role, "root")
    center.logins.change_password(name, first, PASSWORD)
    half = center.logins.login(name, PASSWORD)
    secret, _ = center.logins.begin_totp(half)
    center.logins.confirm_totp(half, code_now(secret, clock))
    clock.forward(seconds=30)
    return secret


def actions(center: Center) -> list[dict[str, Any]]:
    with center._read() as connection:
        query = sa.select(db.entries).where(db.entries.c.kind == "admin.action").order_by(db.entries.c.leaf)
        return [json.loads(row.payload) for row in connection.execute(query)]


def test_from_first_password_to_session(center: Center, clock: Clock) -> None:
    account, first = center.accounts.add("li.wei", "officer", "root")
    assert account.must_change and not account.second_factor and len(first) >= 20
    half = center.logins.login("Li.Wei ", first)
    found = center.logins.session(half)
    assert found is not None and not found.full
    refused("account.session", center.logins.second_factor, half, "123456")
    secret, address = center.logins.begin_totp(half)
    assert center.logins.begin_totp(half)[0] == secret, "loading the page again does not change the key"
    assert address.startswith("otpauth://totp/") and secret in address
    refused("account.refused", center.logins.confirm_totp, half, "000000")
    full = center.logins.confirm_totp(half, code_now(secret, clock))
    assert full != half and center.logins.session(half) is None, "the session's text changes with its rights"
    now = center.logins.session(full)
    assert now is not None and now.full and now.account.must_change
    center.logins.change_password("li.wei", first, PASSWORD)
    assert center.logins.session(full) is None, "other sessions end with the old password"
    refused("account.refused", center.logins.login, "li.wei", first)
    half = center.logins.login("li.wei", PASSWORD)
    used = code_now(secret, clock)
    refused("account.refused", center.logins.second_factor, half, used)
    clock.forward(seconds=30)
    found = center.logins.session(center.logins.second_factor(half, f" {code_now(secret, clock)} "))
    assert found is not None and found.full and not found.account.must_change


def test_wrong_names_passwords_and_codes_lock(center: Center, clock: Clock) -> None:
    secret = enrolled(center, clock)
    texts = {
        refused("account.refused", center.logins.login, name, "wrong password!").detail
        for name in ("li.wei", "nobody", "", "x" * 200, "li.wei\x7f", "' or 1=1 --")
    }
    assert len(texts) == 1, "a wrong name and a wrong password look the same"
    for _ in range(4):
        refused("account.refused", center.logins.login, "li.wei", "wrong password!")
    refused("account.locked", center.logins.login, "li.wei", PASSWORD)  # even the right one
    clock.forward(seconds=31)
    half = center.logins.login("li.wei", PASSWORD)
    refused("account.refused", center.logins.second_factor, half, "12345")
    locked = refused("account.locked", center.logins.second_factor, half, "1")
    assert "60 seconds" in locked.detail, "it doubles"
    clock.forward(seconds=61)
    center.logins.second_factor(half, code_now(secret, clock))
    refused("account.refused", center.logins.login, "li.wei", "wrong password!")
    center.logins.login("li.wei", PASSWORD)  # a success has set the counter back


def test_sessions_end(center: Center, clock: Clock) -> None:
    secret = enrolled(center, clock)

    def fresh() -> str:
        clock.forward(seconds=30)
        half = center.logins.login("li.wei", PASSWORD)
        return center.logins.second_factor(half, code_now(secret, clock))

    half = center.logins.login("li.wei", PASSWORD)
    clock.forward(minutes=11)
    assert center.logins.session(half) is None, "a half session is for minutes"
    full = fresh()
    for _ in range(5):
        clock.forward(minutes=25)
        assert center.logins.session(full) is not None
    clock.forward(minutes=31)
    assert center.logins.session(full) is None, "idle"
    full = fresh()
    for _ in range(26):
        clock.forward(minutes=29)
        center.logins.session(full)
    assert center.logins.session(full) is None, "half a day at most"
    ends: list[Any] = [
        lambda _: center.accounts.set_role("li.wei", "viewer", "root"),
        lambda _: center.accounts.set_active("li.wei", False, "root"),
        center.logins.close_session,
    ]
    for end in ends:
        center.accounts.set_active("li.wei", True, "root")
        full = fresh()
        assert center.logins.session(full) is not None
        end(full)
        assert center.logins.session(full) is None
    assert center.logins.session("") is None and center.logins.session("\udfff") is None
    center.accounts.set_active("li.wei", False, "root")
    refused("account.refused", center.logins.login, "li.wei", PASSWORD)


def test_reset_after_a_lost_phone(center: Center, clock: Clock) -> None:
    enrolled(center, clock)
    first = center.accounts.reset("li.wei", "root")
    refused("account.refused", center.logins.login, "li.wei", PASSWORD)
    half = center.logins.login("li.wei", first)
    secret, _ = center.logins.begin_totp(half)
    center.logins.confirm_totp(half, code_now(secret, clock))


def test_passwords(center: Center) -> None:
    _, first = center.accounts.add("li.wei", "officer", "root")
    for weak in ("short", "a" * 20, "my name is Li.Wei ok", "x1" * 200, first):
        refused("account.password", center.logins.change_password, "li.wei", first, weak)
    refused("account.refused", center.logins.change_password, "li.wei", "wrong", PASSWORD)
    with center._read() as connection:
        stored = connection.exec_driver_sql("SELECT password FROM accounts").scalar_one()
    assert stored.startswith("$argon2id$") and first not in stored


@pytest.mark.sqlite
def test_strong_parameters_and_their_renewal(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9106's second recommended option in production; a weaker hash is made anew at the next login."""
    with monkeypatch.context() as patch:
        cheap_passwords(patch)
        _, first = center.accounts.add("li.wei", "officer", "root")
    center.logins.login("li.wei", first)
    with center._read() as connection:
        stored = connection.exec_driver_sql("SELECT password FROM accounts").scalar_one()
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_names_and_roles(center: Center) -> None:
    for name in ("", "a", "Li", "li wei", "-li", "li\u200bwei", "x" * 65, "李", "a/b", "a\n"):
        refused("account.name", center.accounts.add, name, "viewer", "root")
    refused("account.role", center.accounts.add, "li.wei", "root", "root")
    center.accounts.add("li.wei@brand.cn", "admin", "root")
    refused("account.exists", center.accounts.add, "li.wei@brand.cn", "viewer", "root")
    refused("account.unknown", center.accounts.set_role, "nobody", "viewer", "root")
    refused("account.last_admin", center.accounts.set_role, "li.wei@brand.cn", "viewer", "root")
    refused("account.last_admin", center.accounts.set_active, "li.wei@brand.cn", False, "root")
    center.accounts.add("second", "admin", "root")
    center.accounts.set_active("li.wei@brand.cn", False, "root")
    _, password = center.accounts.add("crm", "service", "root")
    assert password == ""
    refused("account.refused", center.logins.login, "crm", "")
    refused("account.password", center.accounts.reset, "crm", "root")
    refused("account.role", center.accounts.set_role, "crm", "officer", "root")


def test_tokens(center: Center, clock: Clock) -> None:
    center.accounts.add("crm", "service", "root")
    made, text = center.accounts.new_token("crm", "mail system", 30, "root")
    found = center.accounts.by_token(text)
    assert found is not None and (found.name, found.role) == ("crm", "service")
    for wrong in (text[:-1], text + "x", f"pec_{made.id}_", "pec_", "", "x", "pec_a_b", "\udfff"):
        assert center.accounts.by_token(wrong) is None, wrong
    center.accounts.set_active("crm", False, "root")
    assert center.accounts.by_token(text) is None
    center.accounts.set_active("crm", True, "root")
    assert center.accounts.by_token(text) is not None
    clock.forward(days=31)
    assert center.accounts.by_token(text) is None, "over"
    second, text = center.accounts.new_token("crm", "again", 3, "root")
    assert [t.id for t in center.accounts.tokens("crm")] == [second.id, made.id]
    center.accounts.revoke(second.id, "root")
    assert center.accounts.by_token(text) is None
    refused("account.token", center.accounts.revoke, second.id, "root")
    for label, days in (("", 1), ("x" * 201, 1), ("x", 0), ("x", 4_000), ("a\nb", 1)):
        refused("account.token", center.accounts.new_token, "crm", label, days, "root")


def test_identity_provider(center: Center) -> None:
    full = center.logins.oidc_login("https://id", "17", "Wang@brand.cn", "viewer")
    found = center.logins.session(full)
    assert found is not None and found.full and found.account.name == "wang@brand.cn"
    again = center.logins.session(center.logins.oidc_login("https://id", "17", "other", "officer"))
    assert again is not None and (again.account.name, again.account.role) == ("wang@brand.cn", "officer")
    center.accounts.add("li.wei", "admin", "root")
    refused("account.exists", center.logins.oidc_login, "https://id", "18", "li.wei", "admin")
    refused("account.name", center.logins.oidc_login, "https://id", "19", "李", "viewer")
    refused("account.refused", center.logins.login, "wang@brand.cn", "")
    refused("account.password", center.accounts.reset, "wang@brand.cn", "root")
    center.accounts.set_active("wang@brand.cn", False, "root")
    refused("account.refused", center.logins.oidc_login, "https://id", "17", "wang@brand.cn", "viewer")


def test_each_act_is_in_the_ledger_without_secrets(center: Center, clock: Clock) -> None:
    before = len(actions(center))
    secret = enrolled(center, clock)
    _, token = center.accounts.new_token("li.wei", "x", 1, "root")
    center.accounts.set_role("li.wei", "viewer", "root")
    center.accounts.note("li.wei", "person.search", "", found=True)
    done = actions(center)[before:]
    assert [a["action"] for a in done] == [
        "account.add",
        "account.password",
        "account.second_factor",
        "account.login",
        "token.add",
        "account.role",
        "person.search",
    ]
    assert done[5] | {"at": 0} == {
        "actor": "root",
        "action": "account.role",
        "subject": "li.wei",
        "role": "viewer",
        "before": "officer",
        "at": 0,
    }
    text = json.dumps(done)
    for hidden in (secret, PASSWORD, token.rpartition("_")[2], "argon2"):
        assert hidden not in text
    assert center.fsck() is None
    with pytest.raises(ConsentError, match=r"ledger\.payload"):
        center.append("admin.action", {"actor": "somebody else"})


def test_second_factors_are_sealed() -> None:
    vault = factors.Vault(b"k" * 32)
    sealed = vault.seal("SECRET", "li.wei")
    assert b"SECRET" not in sealed and vault.open(sealed, "li.wei") == "SECRET"
    for wrong, name in ((sealed, "other"), (sealed[:-1], "li.wei"), (b"", "li.wei")):
        refused("center.keys", vault.open, wrong, name)
    assert "kkk" not in repr(vault)


def test_codes_of_the_rfc() -> None:
    """RFC 6238 appendix B, SHA-1, cut to six digits."""
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    for at, code in ((59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")):
        assert factors.used_step(secret, code, at * 1_000_000, 0) == at // 30
        assert factors.used_step(secret, code, (at + 30) * 1_000_000, 0) == at // 30
        assert factors.used_step(secret, code, (at + 90) * 1_000_000, 0) is None
        assert factors.used_step(secret, code, at * 1_000_000, at // 30) is None, "once only"
