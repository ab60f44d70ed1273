"""Homes, keys and cards: what is private stays private, what is pinned stays pinned."""

from __future__ import annotations

import os

import nodes
import pytest
from cryptography import x509

from parties import documents, identity, private_files
from parties import home as home_module
from parties.datasets import Dataset
from parties.errors import CODES, NodeError, RemoteError
from parties.home import Home


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("homes")
    return nodes.make_home(folder, "brand"), nodes.make_home(folder, "prov")


def _code(call, *arguments):
    with pytest.raises(NodeError) as caught:
        call(*arguments)
    return caught.value.code


def test_keys_are_private_and_a_node_with_public_keys_does_not_open(tmp_path):
    home = Home.create(tmp_path / "h", "brand")
    for name in ("identity.key", "tls.key", "tls.crt"):
        assert (home.path / "keys" / name).stat().st_mode & 0o777 == 0o600
    assert home.path.stat().st_mode & 0o777 == 0o700
    os.chmod(home.path / "keys" / "identity.key", 0o644)
    assert _code(Home.open, home.path) == "node.home"


def test_a_secret_does_not_print(homes):
    text = repr(homes[0].identity)
    assert "PRIVATE" not in text and "key=" not in text


def test_the_certificate_is_bound_to_the_identity_and_is_no_authority(homes):
    keys = homes[0].identity
    certificate = x509.load_pem_x509_certificate(keys.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert identity.server_name(keys.public_key) in names.get_values_for_type(x509.DNSName)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


@pytest.mark.parametrize(
    "content", ["party = 3", "party = 'a'\nunknown = 1", "party = 'a'\nlisten = 'x'", "= ="]
)
def test_a_wrong_setting_is_named(tmp_path, content):
    home = Home.create(tmp_path / "h", "brand")
    (home.path / "node.toml").write_text(content)
    assert _code(Home.open, home.path) == "node.config"


def test_a_home_is_not_made_over_another_nor_opened_where_none_is(tmp_path):
    home = Home.create(tmp_path / "h", "brand")
    assert _code(Home.create, home.path, "brand") == "node.exists"
    assert _code(Home.open, tmp_path) == "node.home"
    assert _code(Home.create, tmp_path / "x", "../etc") == "document.type"
    assert _code(Home.create, tmp_path / "y", "brand", "nowhere") == "node.config"


def test_one_process_at_a_time(homes):
    with homes[0].lock(), pytest.raises(NodeError, match="node.locked"), homes[0].lock():
        pass


def test_a_card_is_pinned_and_may_only_change_its_address(homes, tmp_path):
    brand, prov = homes
    assert brand.trust(prov.card("127.0.0.1:7001")).address == "127.0.0.1:7001"
    assert brand.trust(prov.card("127.0.0.1:7002")).address == "127.0.0.1:7002"
    assert brand.peer("prov").fingerprint == prov.identity.fingerprint
    impostor = identity.create(tmp_path / "keys", "prov")
    assert _code(brand.trust, impostor.card("127.0.0.1:7003", "v")) == "identity.conflict"
    renamed = identity.Identity("other", impostor.key, impostor.certificate, impostor.certificate_key)
    assert brand.trust(renamed.card("127.0.0.1:7004", "v")).party == "other"
    assert _code(brand.trust, brand.card()) == "identity.self"
    assert _code(brand.peer, "nobody") == "identity.unknown_peer"


def test_a_card_with_a_borrowed_certificate_or_a_changed_field_is_refused(homes, tmp_path):
    brand, prov = homes
    thief = identity.create(tmp_path / "keys", "thief")
    borrowed = identity.Identity("thief", thief.key, prov.identity.certificate, b"")
    assert _code(brand.trust, borrowed.card("127.0.0.1:1", "v")) == "identity.card"
    card = prov.card("127.0.0.1:1")
    for field, value, code in [
        ("address", "evil:1", "document.signature"),
        ("address", "no port", "document.signature"),
        ("party", "a/b", "document.type"),
        ("protocol", 99, "identity.card"),
        ("identity_key", "AAAA", "identity.card"),
        ("certificate", "none", "document.signature"),
    ]:
        changed = {**card, "document": {**card["document"], field: value}}
        assert _code(brand.trust, changed) == code, field
    assert _code(brand.trust, {**card, "document": {**card["document"], "extra": 1}}) == "identity.card"


def test_an_agreement_needs_both_signatures_and_keeps_its_terms(homes):
    brand, prov = homes
    brand.trust(prov.card("127.0.0.1:1"))
    prov.trust(brand.card("127.0.0.1:1"))
    half = brand.sign_agreement(nodes.terms("brand", "prov"))
    assert _code(brand.add_agreement, half) == "document.signature"
    full = prov.sign_agreement(half)
    assert brand.add_agreement(full) == brand.add_agreement(full) == brand.agreement("brand-prov")
    other = prov.sign_agreement(brand.sign_agreement(nodes.terms("brand", "prov", minimum_rows=2)))
    assert _code(brand.add_agreement, other) == "agreement.conflict"
    full["document"]["minimum_rows"] = 3
    assert _code(prov.add_agreement, full) == "document.signature"
    foreign = nodes.terms("x", "y")
    assert _code(brand.sign_agreement, foreign) == "agreement.party"
    assert _code(brand.agreement, "none") == "agreement.unknown"


def test_data_sets_are_registered_once_under_a_name(homes, tmp_path):
    home = homes[0]
    file = tmp_path / "a.csv"
    file.write_text("phone\n1\n")
    entry = Dataset("a", str(file), "phone", "phone", {"x": "profile"})
    assert home.add_dataset(entry) == home.dataset("a") == home.add_dataset(entry)
    assert _code(home.add_dataset, Dataset("a", str(file), "id", "phone")) == "dataset.conflict"
    assert _code(home.add_dataset, Dataset("b", str(tmp_path / "none"), "id", "phone")) == "dataset.file"
    assert _code(home.dataset, "none") == "dataset.unknown"
    assert _code(Dataset, "c", "p", "id", "fax") == "document.type"
    assert _code(Dataset.from_json, {"name": "a"}) == "document.missing_field"
    assert _code(Dataset.from_json, {"name": "a", "table": 1}) == "document.unknown_field"


def test_only_registered_codes_can_be_raised_here_and_any_well_formed_one_from_afar():
    with pytest.raises(KeyError):
        NodeError("made.up", "x")
    assert RemoteError("made.up", "x").code == "made.up"
    with pytest.raises(KeyError):
        RemoteError("<script>", "x")
    assert all(text and documents.canonical(code) for code, text in CODES.items())


def test_a_file_that_goes_while_a_folder_is_read_is_left_out_and_a_broken_one_is_not(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        private_files.write_json(tmp_path / f"{name}.json", {"name": name})
    read = private_files.read_json

    def going(path):
        (tmp_path / "b.json").unlink(
            missing_ok=True
        )  # another process removes it after the folder was listed
        return read(path)

    monkeypatch.setattr(private_files, "read_json", going)
    assert [found["name"] for found in private_files.read_all(tmp_path)] == ["a", "c"]
    (tmp_path / "c.json").write_text("{")
    assert _code(private_files.read_all, tmp_path) == "document.malformed"


def test_a_peer_that_is_untrusted_while_it_is_looked_up(tmp_path, monkeypatch):
    brand, prov = nodes.make_home(tmp_path, "brand"), nodes.make_home(tmp_path, "prov")
    brand.trust(prov.card())
    read = private_files.read_json

    def going(path):
        monkeypatch.setattr(home_module, "read_json", read)
        brand.untrust("prov")
        return read(path)

    monkeypatch.setattr(home_module, "read_json", going)
    assert _code(brand.peer, "prov") == "identity.untrusted"
