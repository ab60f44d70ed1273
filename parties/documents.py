"""What two parties sign: agreements, job specs, and whatever else travels as a signed JSON document.

Canonical form is RFC 8785, so a document has one hash. A signature (Ed25519) covers a label of the document's
type and the canonical bytes, so a signature for one type is worth nothing for another. On the wire and on
disk:

    {"type": "agreement", "document": {...}, "signatures": [{"party": …, "key": …, "signature": …}]}

`key` is the key id: the first 16 bytes of SHA-256 of the public key, in hex. Validation is strict: an unknown
field is refused (an older node must not run what it does not understand), so is a missing or mistyped one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, Self, TypeVar

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from parties.errors import NodeError
from protocols.labels import label

#: Clocks of two nodes may differ by this much; a document from further in the future is refused.
CLOCK_SKEW = timedelta(minutes=5)
#: Largest signed document that is read, in bytes.
MAX_DOCUMENT = 512 * 1024

_SUM = re.compile(r"(brand|provider)\.([^:\x00]{1,200}):(brand|provider):([1-9][0-9]{0,11})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
D = TypeVar("D", bound="Document")


# -- canonical JSON and signatures ---------------------------------------------------------------------------


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value; `document.malformed` for what JSON or I-JSON can't hold."""
    try:
        _refuse_huge(value)
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise NodeError("document.malformed", f"a value has no canonical form: {error}") from error


def _refuse_huge(value: Any) -> None:
    # RFC 8785 writes 2.0**53 as an integer, which a reader may then not take for the same number.
    if isinstance(value, float) and value.is_integer() and abs(value) >= 2.0**53:
        raise NodeError("document.malformed", f"{value} is too large for a number of a signed document")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for inner in value:
        _refuse_huge(inner)


def hash_of(value: Any) -> bytes:
    """SHA-256 of the canonical bytes."""
    return hashlib.sha256(canonical(value)).digest()


def parse(data: bytes | str, what: str = "document", limit: int = MAX_DOCUMENT) -> dict[str, Any]:
    """The JSON object in `data`. Refuses duplicate keys, NaN and anything over `limit` bytes."""
    if len(data) > limit:
        raise NodeError("document.malformed", f"the {what} has {len(data)} bytes, {limit} are allowed")
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NodeError("document.malformed", f"the {what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise NodeError("document.malformed", f"the {what} is no JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two values under one key could be read as one by the signer and as the other by the verifier.
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key occurs twice")
    return out


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def key_id(public_key: bytes) -> str:
    """32 hex digits that name a raw 32-byte Ed25519 public key."""
    return hashlib.sha256(public_key).hexdigest()[:32]


def signature(kind: str, document: Mapping[str, Any], party: str, key: Ed25519PrivateKey) -> dict[str, str]:
    """One entry of `signatures` over a document of type `kind`."""
    public = key.public_key().public_bytes_raw()
    made = key.sign(_signed_bytes(kind, document))
    return {"party": party, "key": key_id(public), "signature": base64.b64encode(made).decode()}


def sign(kind: str, document: Mapping[str, Any], party: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """A signed document with one signature; `countersign` adds another."""
    body = dict(document)
    return {"type": kind, "document": body, "signatures": [signature(kind, body, party, key)]}


def countersign(signed: Mapping[str, Any], party: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """The same document with this party's signature added (an earlier one of the same party is replaced)."""
    kind, body, signatures = envelope(signed)
    kept = [s for s in signatures if s["party"] != party]
    return {"type": kind, "document": body, "signatures": [*kept, signature(kind, body, party, key)]}


def envelope(
    signed: Mapping[str, Any], kind: str | None = None
) -> tuple[str, dict[str, Any], list[dict[str, str]]]:
    """(type, document, signatures) of a signed document, after checking its form but no signature."""
    _only(signed, {"type", "document", "signatures"}, "a signed document")
    body, entries, found = signed["document"], signed["signatures"], signed["type"]
    if not isinstance(found, str) or not isinstance(body, dict) or not isinstance(entries, list):
        raise NodeError(
            "document.type", "type, document or signatures of a signed document has the wrong type"
        )
    if kind is not None and found != kind:
        raise NodeError("document.type", f"a document of type {found!r} came where {kind!r} was due")
    for entry in entries:
        if not isinstance(entry, dict):
            raise NodeError("document.type", "an entry of signatures is no object")
        _only(entry, {"party", "key", "signature"}, "a signature")
        if not all(isinstance(v, str) for v in entry.values()):
            raise NodeError("document.type", "a signature's fields must be text")
    if len(entries) > 8 or len({e["party"] for e in entries}) != len(entries):
        raise NodeError("document.signature", "a party signed twice, or too many parties did")
    return found, body, entries


def verify(signed: Mapping[str, Any], kind: str, keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The document, if every party of `keys` (party -> raw public key) has signed it; else
    `document.signature`.
    """
    _, body, entries = envelope(signed, kind)
    message = _signed_bytes(kind, body)
    for party, public in keys.items():
        entry = next((e for e in entries if e["party"] == party), None)
        if entry is None:
            raise NodeError("document.signature", f"the {kind} lacks the signature of {party!r}")
        if entry["key"] != key_id(public):
            raise NodeError(
                "document.signature",
                f"the {kind} is signed with another key than the trusted one of {party!r}",
            )
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(
                base64.b64decode(entry["signature"], validate=True), message
            )
        except (InvalidSignature, ValueError, binascii.Error) as error:
            raise NodeError(
                "document.signature", f"the signature of {party!r} does not fit the {kind}"
            ) from error
    return body


def _signed_bytes(kind: str, document: Mapping[str, Any]) -> bytes:
    return label("document", kind, "signature") + canonical(dict(document))


# -- times ---------------------------------------------------------------------------------------------------


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds: 2026-11-22T10:00:00Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str, what: str = "time") -> datetime:
    """The time in `timestamp`'s form."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except (ValueError, TypeError) as error:
        raise NodeError(
            "document.type", f"{what} is no time like 2026-11-22T10:00:00Z: {str(text)[:40]!r}"
        ) from error


# -- typed documents -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Document:
    """Base of typed documents: strict `from_json`, `to_json`, `hash`.

    Fields named in `OPTIONAL` stand in a document only if they differ from their default: documents that were
    signed before there was such a field keep their hash.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_json(cls, value: Any) -> Self:
        what = cls.__name__
        if not isinstance(value, dict):
            raise NodeError("document.type", f"{what} is no JSON object")
        hints = typing.get_type_hints(cls)
        known = {f.name: f for f in fields(cls)}
        for name in value:
            if name not in known:
                raise NodeError(
                    "document.unknown_field", f"{what}.{str(name)[:60]}", "is the peer's version newer?"
                )
        out: dict[str, Any] = {}
        for name in known:
            if name not in value:
                if name in cls.OPTIONAL:
                    continue
                raise NodeError("document.missing_field", f"{what}.{name}")
            out[name] = _typed(value[name], hints[name], f"{what}.{name}")
        made = cls(**out)
        made.validate()
        return made

    def to_json(self) -> dict[str, Any]:
        return {
            f.name: _plain(getattr(self, f.name))
            for f in fields(self)
            if f.name not in self.OPTIONAL or getattr(self, f.name) != f.default
        }

    @property
    def hash(self) -> bytes:
        """SHA-256 of the canonical bytes, 32 bytes."""
        return hash_of(self.to_json())

    def validate(self) -> None:
        """Checks that go beyond types; raises `document.type`."""

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise NodeError("document.type", f"{type(self).__name__}: {what}")


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _typed(value, next(a for a in args if a is not type(None)), where)
    if hint is Any:
        return value
    if hint is float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    elif hint is int:
        good = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
    elif hint is bool or hint is str:
        good = isinstance(value, hint)
    elif origin is Literal:
        good = value in args
    elif origin is tuple:
        if not isinstance(value, list | tuple):
            raise NodeError("document.type", f"{where} is no list")
        return tuple(_typed(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
    elif origin is dict:
        if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
            raise NodeError("document.type", f"{where} is no object")
        return {k: _typed(v, args[1], f"{where}.{k}") for k, v in value.items()}
    elif isinstance(hint, type) and issubclass(hint, Document):
        return value if isinstance(value, hint) else hint.from_json(value)
    else:
        raise NodeError("node.internal", f"no rule for the type of {where}")
    if not good:
        name = getattr(hint, "__name__", str(hint))
        raise NodeError("document.type", f"{where} must be {name}, not {str(value)[:60]!r}")
    return float(value) if hint is float else value


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _only(value: Mapping[str, Any], allowed: set[str], what: str) -> None:
    for name in value:
        if name not in allowed:
            raise NodeError("document.unknown_field", f"{what} has {str(name)[:60]!r}")
    for name in allowed:
        if name not in value:
            raise NodeError("document.missing_field", f"{what} lacks {name!r}")


def check_name(text: str, what: str) -> str:
    """`text`, if it may name a party, agreement, data set or job: letters, digits, `_ . -`, 64 at the most.

    Names become file names; this is what keeps a peer from choosing a path.
    """
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise NodeError(
            "document.type", f"{what} {str(text)[:70]!r} is no name (letters, digits, _ . -, up to 64)"
        )
    return text


@dataclass(frozen=True, kw_only=True)
class Privacy(Document):
    """(epsilon, delta)-differential privacy of the labels; `clip` bounds the Euclidean norm of a row of Φ."""

    epsilon: float
    delta: float
    clip: float = 1.0

    def validate(self) -> None:
        self._require(0 < self.epsilon <= 100, "epsilon must be above 0 and at most 100")
        self._require(0 < self.delta < 0.1, "delta must be above 0 and below 0.1")
        self._require(0 < self.clip <= 1e6, "clip must be positive")


@dataclass(frozen=True, kw_only=True)
class PrivacyTotal(Document):
    """(epsilon, delta) of everything that all jobs under an agreement give away with noise, together."""

    epsilon: float
    delta: float

    def validate(self) -> None:
        self._require(0 < self.epsilon <= 10_000, "epsilon must be above 0 and at most 10000")
        self._require(0 < self.delta < 0.1, "delta must be above 0 and below 0.1")


@dataclass(frozen=True, kw_only=True)
class Agreement(Document):
    """Terms between a brand and a provider, signed by both.

    `categories`: data categories (of either side) that jobs may use. `columns`: the provider's columns that
    may enter a lookalike's features, which lets the brand compute them of its own matched people (README of
    protocols/lookalike, section 7); `tags`: those that may be handed out by enrich; each may be `("*",)` for
    all that have an allowed category. `minimum_seeds`, `minimum_rows`: matched seeds, eligible people on each
    side. `privacy` None means that no noise is asked for. `preapproved`: kinds that run without asking.
    `suites`: protocol suites by name. `impact_assessment`: where the assessment (PIPL 55) is kept. `sums`:
    columns whose sum over shared people an overlap may give out, as SIDE.COLUMN:LEARNER:BOUND
    (provider.spend:brand:10000): whose column it is, who learns the sum, and the most that one person counts.
    `privacy_total`: budget of all jobs under the agreement together (parties.budget); without it each job's
    `privacy` is counted and nothing is refused. `malicious_security`: who is in both is found out by the
    variant of suite `vole` that holds against a side that deviates, and by nothing else. `standard_errors`:
    joint regressions may give their standard errors, which tell much (README of protocols/joint, section 9).
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset(
        {"sums", "privacy_total", "malicious_security", "standard_errors"}
    )

    id: str
    brand: str
    provider: str
    kinds: tuple[str, ...]
    purposes: tuple[str, ...]
    categories: tuple[str, ...]
    columns: tuple[str, ...]
    tags: tuple[str, ...]
    minimum_seeds: int
    minimum_rows: int
    privacy: Privacy | None
    preapproved: tuple[str, ...]
    suites: tuple[str, ...]
    impact_assessment: str
    created_at: str
    expires_at: str
    sums: tuple[str, ...] = ()
    privacy_total: PrivacyTotal | None = None
    malicious_security: bool = False
    standard_errors: bool = False

    def validate(self) -> None:
        for name in ("id", "brand", "provider"):
            check_name(getattr(self, name), f"Agreement.{name}")
        self._require(all(_SUM.fullmatch(text) for text in self.sums), "a sum is SIDE.COLUMN:LEARNER:BOUND")
        self._require(self.brand != self.provider, "brand and provider are the same party")
        self._require(
            bool(self.kinds) and bool(self.purposes) and bool(self.suites),
            "kinds, purposes or suites is empty",
        )
        self._require(set(self.preapproved) <= set(self.kinds), "a preapproved kind is not among the kinds")
        self._require(
            self.privacy_total is None or self.privacy is not None,
            "privacy_total without privacy: jobs without noise have no finite epsilon to count",
        )
        self._require(
            not self.malicious_security or "vole" in self.suites,
            "malicious_security without suite vole, the only one that has such a variant",
        )
        self._require(
            self.minimum_rows >= 1 and self.minimum_seeds >= 1, "the minimum sizes must be at least 1"
        )
        self._require(
            moment(self.created_at, "created_at") < moment(self.expires_at, "expires_at"),
            "it expires before it begins",
        )


@dataclass(frozen=True, kw_only=True)
class Ending(Document):
    """One party's word that an agreement is over before its time; signed by that party alone.

    `agreement`: hex SHA-256 of the agreement, so that the word can't be turned against other terms of the
    same id. `reason` is read by both parties and their auditors.
    """

    agreement_id: str
    agreement: str
    party: str
    reason: str
    ended_at: str

    def validate(self) -> None:
        check_name(self.agreement_id, "Ending.agreement_id")
        check_name(self.party, "Ending.party")
        self._require(bool(re.fullmatch(r"[0-9a-f]{64}", self.agreement)), "agreement is no hash")
        self._require(0 < len(self.reason.strip()) <= 500, "the reason must have 1 to 500 characters")
        moment(self.ended_at, "ended_at")


@dataclass(frozen=True)
class Sum:
    """One entry of `Agreement.sums`."""

    side: str
    column: str
    learner: str
    bound: int


def sum_of(agreement: Agreement, asked: str) -> Sum:
    """The agreed sum of SIDE.COLUMN; `agreement.column` if there is none."""
    for text in agreement.sums:
        found = _SUM.fullmatch(text)
        if found and f"{found[1]}.{found[2]}" == asked:
            return Sum(found[1], found[2], found[3], int(found[4]))
    raise NodeError(
        "agreement.column",
        f"the sum of {asked[:80]!r} is not in agreement {agreement.id}",
        "ask for what is agreed, or sign a new agreement: --sum SIDE.COLUMN:LEARNER:BOUND",
        share=True,
    )


@dataclass(frozen=True, kw_only=True)
class JobSpec(Document):
    """A job as data. Signed by the brand, countersigned by the provider when it accepts.

    `datasets`: {"brand": name, "provider": name} of registered data sets. `columns`: the provider's columns
    or tags that are asked for. `params`: what the kind's `check` validates. `outputs`: what leaves, and to
    whom: {"audience": "brand", …}. `private_commitment`: hex SHA-256 that binds the brand's private
    parameters (`commitment`), so that an auditor can later hold it to them; empty only if there are none.
    """

    job_id: str
    kind: str
    purpose: str
    brand: str
    provider: str
    agreement_id: str
    datasets: dict[str, str]
    categories: tuple[str, ...]
    columns: tuple[str, ...]
    params: dict[str, Any]
    outputs: dict[str, str]
    created_at: str
    expires_at: str
    private_commitment: str

    def validate(self) -> None:
        for name in ("job_id", "brand", "provider", "agreement_id"):
            check_name(getattr(self, name), f"JobSpec.{name}")
        self._require(set(self.datasets) == {"brand", "provider"}, "datasets must name brand and provider")
        for role, name in self.datasets.items():
            check_name(name, f"JobSpec.datasets.{role}")
        self._require(
            set(self.outputs.values()) <= {"brand", "provider", "both"},
            "outputs go to brand, provider or both",
        )
        self._require(
            bool(re.fullmatch(r"([0-9a-f]{64})?", self.private_commitment)), "private_commitment is no hash"
        )
        self._require(bool(self.categories), "categories is empty")
        self._require(
            moment(self.created_at, "created_at") < moment(self.expires_at, "expires_at"),
            "it expires before it begins",
        )

    @property
    def recipient_of(self) -> dict[str, str]:
        """For each role, the party that gets something of its people: the other one."""
        return {"brand": self.provider, "provider": self.brand}


def check_time(
    document: Agreement | JobSpec, at: datetime, what: str, expired: str = "document.expired"
) -> None:
    """Raises `expired` after the document's end, and `document.clock` if it was made in the future."""
    if moment(document.created_at) > at + CLOCK_SKEW:
        raise NodeError(
            "document.clock",
            f"{what} was made at {document.created_at}, here it is {timestamp(at)}",
            "set both clocks by the same time server",
            share=True,
        )
    if moment(document.expires_at) <= at:
        raise NodeError(expired, f"{what} ended at {document.expires_at}", "sign a new one", share=True)


def check_terms(spec: JobSpec, agreement: Agreement, at: datetime) -> None:
    """Whether the agreement allows the job, as far as that is the same for every kind; raises
    `agreement.*`.
    """
    if (spec.brand, spec.provider) != (
        agreement.brand,
        agreement.provider,
    ) or spec.agreement_id != agreement.id:
        raise NodeError(
            "agreement.party",
            f"agreement {agreement.id} is not between {spec.brand} and {spec.provider}",
            share=True,
        )
    check_time(agreement, at, f"agreement {agreement.id}", expired="agreement.expired")
    _within((spec.kind,), agreement.kinds, "agreement.kind", agreement.id)
    _within((spec.purpose,), agreement.purposes, "agreement.purpose", agreement.id)
    _within(spec.categories, agreement.categories, "agreement.category", agreement.id)


def _within(asked: Iterable[str], allowed: tuple[str, ...], code: str, agreement: str) -> None:
    beyond = [a for a in asked if a not in allowed]
    if beyond:
        raise NodeError(
            code,
            f"{', '.join(map(repr, beyond))} is not in agreement {agreement}, which has {', '.join(allowed)}",
            "ask for what is agreed, or sign a new agreement",
            share=True,
        )


@dataclass(frozen=True)
class Secret:
    """The brand's private parameters and the salt of their commitment."""

    salt: str
    private: dict[str, Any] = field(repr=False)

    @property
    def commitment(self) -> str:
        """Hex SHA-256 of label ‖ canonical {salt, private}; hiding because of the 32-byte salt."""
        body = canonical({"salt": self.salt, "private": self.private})
        return hashlib.sha256(label("document", "private", "commitment") + body).hexdigest()
