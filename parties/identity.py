"""A party's identity: an Ed25519 key that signs documents, a TLS certificate, and the card that shows both.

Two organisations exchange *cards* (signed JSON) over any channel, compare the fingerprint by telephone if the
channel is not to be trusted, and pin them: afterwards a node accepts exactly the certificate in the card, so
no certificate authority can speak for a peer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from parties import CARD_VERSION, documents
from parties.errors import NodeError

#: A certificate's life. Pinned certificates are replaced by a new card, not renewed by an authority.
CERTIFICATE_DAYS = 825
_CARD_FIELDS = {"party", "identity_key", "certificate", "address", "verifier_key", "protocol", "created_at"}


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read; an existing one is an error."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def read_private(path: Path) -> bytes:
    """A key file's content; `node.home` if it is missing or others can read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise NodeError(
                "node.home",
                f"{path.name} can be read by other users",
                f"chmod 600 {path.name}, or make new keys",
            )
        return path.read_bytes()
    except OSError as error:
        raise NodeError("node.home", f"{path}: {error.strerror}", "is this a node's directory?") from error


@dataclass(frozen=True)
class Identity:
    """One party's keys. `certificate` is PEM, `fingerprint` the hex SHA-256 of its DER form."""

    party: str
    key: Ed25519PrivateKey = field(repr=False)
    certificate: bytes = field(repr=False)
    certificate_key: bytes = field(repr=False)

    @property
    def public_key(self) -> bytes:
        """Raw Ed25519 public key, 32 bytes."""
        return self.key.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.certificate)

    def sign(self, kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
        return documents.sign(kind, document, self.party, self.key)

    def countersign(self, signed: Mapping[str, Any]) -> dict[str, Any]:
        return documents.countersign(signed, self.party, self.key)

    def card(self, address: str, verifier_key: str) -> dict[str, Any]:
        """The signed card; `address` is host:port where the node listens for peers."""
        return self.sign(
            "card",
            {
                "party": self.party,
                "identity_key": base64.b64encode(self.public_key).decode(),
                "certificate": self.certificate.decode(),
                "address": address,
                "verifier_key": verifier_key,
                "protocol": CARD_VERSION,
                "created_at": documents.timestamp(documents.now()),
            },
        )


def create(folder: Path, party: str, host: str = "127.0.0.1") -> Identity:
    """New keys in `folder` (identity.key, tls.key, tls.crt), readable by the owner alone."""
    documents.check_name(party, "the party's name")
    key = Ed25519PrivateKey.generate()
    tls_key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(party, host, key.public_key().public_bytes_raw(), tls_key)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / "identity.key", _pem(key))
    write_private(folder / "tls.key", _pem(tls_key))
    write_private(folder / "tls.crt", certificate)
    return load(folder, party)


def load(folder: Path, party: str) -> Identity:
    """The keys that `create` wrote; `node.home` if they are missing, malformed or readable by others."""
    raw, tls_key, certificate = (read_private(folder / n) for n in ("identity.key", "tls.key", "tls.crt"))
    try:
        key = serialization.load_pem_private_key(raw, password=None)
        x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise NodeError("node.home", f"the keys in {folder} are malformed: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise NodeError("node.home", "identity.key is no Ed25519 key")
    return Identity(party, key, certificate, tls_key)


def _pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def server_name(public_key: bytes) -> str:
    """The DNS name in a party's certificate that binds it to the identity key."""
    return f"{documents.key_id(public_key)}.node.pec"


def _certificate(party: str, host: str, public_key: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{party} PEC node"[:64])])
    names: list[x509.GeneralName] = [x509.DNSName(server_name(public_key)), x509.DNSName("localhost")]
    addresses = {"127.0.0.1"}
    try:
        addresses.add(str(ipaddress.ip_address(host)))
    except ValueError:
        if host != "localhost":
            names.append(x509.DNSName(host))
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in sorted(addresses)]
    start = documents.now()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - documents.CLOCK_SKEW)
        .not_valid_after(start + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # Not an authority: whoever holds this key can't issue a certificate for anybody else.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def fingerprint_of(certificate: bytes) -> str:
    """Hex SHA-256 of the DER form of one PEM certificate."""
    der = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    return hashlib.sha256(der).hexdigest()


@dataclass(frozen=True)
class Peer:
    """A trusted card. `card` is the signed document that it came from."""

    party: str
    identity_key: bytes
    certificate: bytes = field(repr=False)
    fingerprint: str
    address: str
    verifier_key: str
    card: dict[str, Any] = field(repr=False)

    @property
    def server_name(self) -> str:
        return server_name(self.identity_key)

    def describe(self) -> dict[str, Any]:
        """For the operator: everything but the long fields."""
        return {
            "party": self.party,
            "address": self.address,
            "fingerprint": self.fingerprint,
            "key": documents.key_id(self.identity_key),
            "verifier_key": self.verifier_key,
        }


def read_card(signed: Mapping[str, Any]) -> Peer:
    """The peer in a signed card. The signature must be by the key in the card; `identity.card` otherwise.

    That proves that whoever made the card has the key, not who it is: that is what comparing the fingerprint
    over another channel is for.
    """
    try:
        _, body, _ = documents.envelope(signed, "card")
        if set(body) != _CARD_FIELDS:
            raise NodeError("identity.card", f"its fields are {sorted(body)}, not {sorted(_CARD_FIELDS)}")
        if body["protocol"] != CARD_VERSION or isinstance(body["protocol"], bool):
            raise NodeError(
                "identity.card",
                f"it is for protocol {body['protocol']}, here is {CARD_VERSION}",
                "update the node",
            )
        if not all(isinstance(body[name], str) for name in _CARD_FIELDS - {"protocol"}):
            raise NodeError("identity.card", "its fields must be text")
        party = documents.check_name(body["party"], "the card's party")
        public = base64.b64decode(body["identity_key"], validate=True)
        if len(public) != 32:
            raise NodeError("identity.card", "its identity key has not 32 bytes")
        documents.verify(signed, "card", {party: public})
        certificate = x509.load_pem_x509_certificate(body["certificate"].encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if server_name(public) not in names.get_values_for_type(x509.DNSName):
            # Otherwise one party could pin another's certificate under its own name.
            raise NodeError("identity.card", "its certificate does not belong to its identity key")
        parse_address(body["address"])
    except (ValueError, binascii.Error, x509.ExtensionNotFound) as error:
        raise NodeError(
            "identity.card", f"it can't be read: {error}", "ask the peer for a new card"
        ) from error
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Peer(party, public, pem, fingerprint_of(pem), body["address"], body["verifier_key"], dict(signed))


def neighbours(*addresses: str) -> bool:
    """Whether nodes with these addresses (`host:port`) can be reached from one machine only."""
    hosts = [parse_address(text)[0] for text in addresses]
    return all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts)


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of `host:port` or `[v6]:port`; ValueError if it is neither."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is no host:port")
    return host.strip("[]"), int(port)
