"""The tables of accounts, on the center's own metadata, so that one transaction spans an act and its leaf."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from consent_center.database import Int, metadata

accounts = Table(
    "accounts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("active", Int, nullable=False),
    Column("password", Text, nullable=False),  # Argon2id in PHC form; empty: no password (OIDC, machines)
    Column("must_change", Int, nullable=False),  # 1: the password was made by somebody else
    Column("totp", LargeBinary, nullable=False),  # sealed secret; empty: no second factor yet
    Column("totp_pending", LargeBinary, nullable=False),  # shown, and not yet proven to be in the app
    Column("totp_step", Int, nullable=False),  # last step that was used: a code counts once
    Column("failures", Int, nullable=False),  # wrong attempts in a row
    Column("locked_until", Int, nullable=False),  # microseconds; 0: not locked
    Column("oidc", Text, nullable=False),  # "issuer subject"; empty: a local account
    Column("created_at", Int, nullable=False),
    Column("seen_at", Int, nullable=False),  # last login; 0: never
    Index("accounts_oidc", "oidc"),
)
sessions = Table(
    "account_sessions",
    metadata,
    Column("hash", LargeBinary, primary_key=True),  # SHA-256 of what the cookie holds
    Column("account", Text, nullable=False),
    Column("full", Int, nullable=False),  # 0: the password was right, the second factor is still due
    Column("opened_at", Int, nullable=False),
    Column("seen_at", Int, nullable=False),
    Index("account_sessions_account", "account"),
)
tokens = Table(
    "account_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", LargeBinary, nullable=False),  # SHA-256 of the secret part: 256 random bits need no salt
    Column("account", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("created_at", Int, nullable=False),
    Column("expires_at", Int, nullable=False),
    Index("account_tokens_account", "account"),
)

ALL_TABLES = (accounts, sessions, tokens)
