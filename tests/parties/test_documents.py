"""Signed documents: one form, one hash, one meaning, and a named error for everything else."""

from __future__ import annotations

from datetime import timedelta

import nodes
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from parties import documents
from parties.documents import Agreement, JobSpec, Secret
from parties.errors import NodeError

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()


def _spec(**changes):
    now = documents.now()
    return {
        "job_id": "j1",
        "kind": "probe",
        "purpose": "ads",
        "brand": "brand",
        "provider": "prov",
        "agreement_id": "brand-prov",
        "datasets": {"brand": "a", "provider": "b"},
        "categories": ["identity"],
        "columns": [],
        "params": {"x": 1.5},
        "outputs": {"count": "brand"},
        "created_at": documents.timestamp(now),
        "expires_at": documents.timestamp(now + timedelta(hours=1)),
        "private_commitment": "",
        **changes,
    }


def _code(call, *arguments):
    with pytest.raises(NodeError) as caught:
        call(*arguments)
    return caught.value.code


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-(2.0**52), 2.0**52)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abc", max_size=3), json_values, max_size=4))
def test_canonical_form_is_a_fixed_point(value):
    raw = documents.canonical(value)
    assert documents.canonical(documents.parse(raw)) == raw


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40))
def test_parsing_gives_an_object_or_a_node_error(data):
    try:
        assert isinstance(documents.parse(data), dict)
    except NodeError as error:
        assert error.code == "document.malformed"


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"a":NaN}', "[1]", "nonsense", '{"a":' * 3000])
def test_ambiguous_json_is_refused(text):
    assert _code(documents.parse, text) == "document.malformed"


def test_a_float_that_would_be_read_as_another_number_is_not_signed():
    assert _code(documents.canonical, {"a": [2.0**53]}) == "document.malformed"
    assert _code(documents.canonical, {"a": 2**53}) == "document.malformed"


def test_a_large_document_is_refused_before_it_is_parsed():
    assert _code(documents.parse, b" " * (documents.MAX_DOCUMENT + 1)) == "document.malformed"


def test_a_signature_is_for_one_type_one_document_and_one_party():
    signed = documents.sign("job", {"a": 1}, "brand", KEY)
    assert documents.verify(signed, "job", {"brand": PUBLIC}) == {"a": 1}
    assert _code(documents.verify, signed, "agreement", {"brand": PUBLIC}) == "document.type"
    as_other = {**signed, "type": "agreement"}
    assert _code(documents.verify, as_other, "agreement", {"brand": PUBLIC}) == "document.signature"
    changed = {**signed, "document": {"a": 2}}
    assert _code(documents.verify, changed, "job", {"brand": PUBLIC}) == "document.signature"
    assert _code(documents.verify, signed, "job", {"prov": PUBLIC}) == "document.signature"
    strange = OTHER.public_key().public_bytes_raw()
    assert _code(documents.verify, signed, "job", {"brand": strange}) == "document.signature"
    both = documents.countersign(signed, "prov", OTHER)
    assert documents.verify(both, "job", {"brand": PUBLIC, "prov": strange}) == {"a": 1}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"extra": 1}, "document.unknown_field"),
        ({"signatures": "x"}, "document.type"),
        ({"signatures": [{"party": "a"}]}, "document.missing_field"),
        ({"signatures": [{"party": "a", "key": "k", "signature": 3}]}, "document.type"),
        ({"signatures": [{"party": "a", "key": "k", "signature": "s"}] * 2}, "document.signature"),
        ({"document": []}, "document.type"),
    ],
)
def test_a_malformed_envelope_has_a_named_error(changes, code):
    signed = documents.sign("job", {"a": 1}, "brand", KEY)
    assert _code(documents.envelope, {**signed, **changes}) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"surprise": 1}, "document.unknown_field"),
        ({"job_id": "../../etc"}, "document.type"),
        ({"job_id": 7}, "document.type"),
        ({"datasets": {"brand": "a"}}, "document.type"),
        ({"datasets": {"brand": "a", "provider": "b/c"}}, "document.type"),
        ({"categories": []}, "document.type"),
        ({"categories": "identity"}, "document.type"),
        ({"outputs": {"count": "everybody"}}, "document.type"),
        ({"private_commitment": "00"}, "document.type"),
        ({"created_at": "yesterday"}, "document.type"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "document.type"),
    ],
)
def test_a_job_spec_is_strict(changes, code):
    assert _code(JobSpec.from_json, _spec(**changes)) == code


@pytest.mark.parametrize("name", list(_spec()))
def test_no_field_of_a_job_spec_may_be_missing(name):
    spec = _spec()
    del spec[name]
    assert _code(JobSpec.from_json, spec) == "document.missing_field"


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": {"epsilon": 0, "delta": 1e-6, "clip": 1.0}},
        {"privacy": {"epsilon": 1.0, "delta": 0.5, "clip": 1.0}},
        {"minimum_rows": 0},
        {"minimum_rows": True},
        {"preapproved": ["lookalike"]},
        {"brand": "prov"},
        {"kinds": []},
    ],
)
def test_an_agreement_is_strict(changes):
    assert _code(Agreement.from_json, {**nodes.terms("brand", "prov"), **changes}) == "document.type"


def test_documents_survive_json_and_have_one_hash():
    privacy = {"epsilon": 2, "delta": 1e-6, "clip": 1}
    agreement = Agreement.from_json(nodes.terms("brand", "prov", privacy=privacy))
    again = Agreement.from_json(documents.parse(documents.canonical(agreement.to_json())))
    assert again == agreement and again.hash == agreement.hash
    spec = JobSpec.from_json(_spec())
    assert JobSpec.from_json(spec.to_json()).hash == spec.hash != JobSpec.from_json(_spec(params={})).hash


@pytest.mark.parametrize(
    ("spec", "terms", "code"),
    [
        ({"kind": "enrich"}, {}, "agreement.kind"),
        ({"purpose": "resale"}, {}, "agreement.purpose"),
        ({"categories": ["identity", "health"]}, {}, "agreement.category"),
        ({"provider": "else"}, {}, "agreement.party"),
        ({"agreement_id": "else"}, {}, "agreement.party"),
        (
            {},
            {"expires_at": documents.timestamp(documents.now() - timedelta(seconds=1))},
            "agreement.expired",
        ),
        (
            {},
            {
                "created_at": documents.timestamp(documents.now() + timedelta(hours=1)),
                "expires_at": documents.timestamp(documents.now() + timedelta(hours=2)),
            },
            "document.clock",
        ),
    ],
)
def test_terms_bind_the_job(spec, terms, code):
    agreement = Agreement.from_json(nodes.terms("brand", "prov", **terms))
    assert _code(documents.check_terms, JobSpec.from_json(_spec(**spec)), agreement, documents.now()) == code


def test_a_commitment_hides_and_binds():
    one = Secret("00" * 32, {"where": "x"})
    assert one.commitment == Secret("00" * 32, {"where": "x"}).commitment
    assert one.commitment != Secret("11" * 32, {"where": "x"}).commitment
    assert one.commitment != Secret("00" * 32, {"where": "y"}).commitment
    assert "where" not in repr(one)
