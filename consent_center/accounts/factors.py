"""What people prove who they are with: Argon2id passwords and time-based codes (RFC 6238).

Argon2id with the parameters of argon2-cffi's default profile (RFC 9106, second recommended option: 64 MiB,
3 passes, 4 lanes). Codes have six digits and 30 seconds; one step to each side is accepted for clocks that
differ.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent_center.errors import ConsentError

_HASHER = PasswordHasher()
#: Verified for names that do not exist, so that the time does not tell which names do.
#: Random bytes in the place of a hash: verifying takes as long, and the import computes no Argon2.
_NOBODY = "$argon2id$v=19$m={},t={},p={}${}${}".format(
    *(_HASHER.memory_cost, _HASHER.time_cost, _HASHER.parallelism),
    *(base64.b64encode(os.urandom(n)).decode().rstrip("=") for n in (_HASHER.salt_len, _HASHER.hash_len)),
)
SHORTEST, LONGEST = 12, 256  # characters of a password
STEP = 30  # seconds
_WINDOW = 1  # steps to each side
_LABEL = b"pec/consent/account totp"
#: Without the letters and digits that are taken for one another.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def hash_password(password: str, name: str) -> str:
    """PHC string. `account.password` for one that is too short, too long, or the name itself."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConsentError("account.password", f"a password has {SHORTEST} to {LONGEST} characters")
    if name.lower() in password.lower() or len(set(password)) < 5:
        raise ConsentError(
            "account.password", "a password must not contain the name, and needs five different characters"
        )
    return _HASHER.hash(password)


def password_fits(stored: str, password: str) -> bool:
    """Whether it is the password; takes the same time where there is none. Over `LONGEST` characters: no."""
    try:
        right = _HASHER.verify(stored or _NOBODY, password[: LONGEST + 1])
    except (VerificationError, InvalidHashError):
        return False
    return bool(right) and bool(stored)


def outdated(stored: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(stored)


def first_password() -> str:
    """A password for somebody's first login: four groups of five, about 99 bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))


@dataclass(frozen=True)
class Vault:
    """Seals second factors under a key of the center's, so that a copy of the database alone has none."""

    key: bytes = field(repr=False)

    def seal(self, secret: str, name: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + AESGCM(self.key).encrypt(nonce, secret.encode(), _LABEL + name.encode())

    def open(self, sealed: bytes, name: str) -> str:
        """`center.keys` if it was sealed under another key or for another account."""
        try:
            return AESGCM(self.key).decrypt(sealed[:12], sealed[12:], _LABEL + name.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise ConsentError(
                "center.keys", f"the second factor of {name} can't be opened: reset the account"
            ) from error


def new_secret() -> str:
    """160 random bits in base32 (RFC 4226 recommends that length)."""
    return pyotp.random_base32(32)


def provisioning(secret: str, name: str, controller: str) -> str:
    """The otpauth:// address that an authenticator app reads from the QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=f"PEC {controller}")


def used_step(secret: str, code: str, now: int, after: int) -> int | None:
    """The step that `code` belongs to, if it is right and later than `after` (a code counts once: whoever has
    looked over a shoulder must not log in with it); `now` in microseconds."""
    totp = pyotp.TOTP(secret)
    current = now // 1_000_000 // STEP
    given = "".join(code.split())
    for step in range(current - _WINDOW, current + _WINDOW + 1):
        expected = totp.at(datetime.fromtimestamp(step * STEP, UTC))
        if step > after and hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
            return step
    return None
