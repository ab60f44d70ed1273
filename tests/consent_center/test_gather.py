"""Group commit and the short way of the busy calls: the same answers as one by one, durable, fail closed."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from apiflask import Schema
from consent_helpers import REQUEST, START, Clock, event, make, phone, reason
from flask import request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from consent_center import group
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.gather import Asked
from consent_center.model import KINDS, REASONS, ConsentEvent
from consent_center.preferences.model import Cap, Policy, Question, Term
from consent_center.preferences.wire import question_from_json
from consent_center.rest import fast, schemas
from consent_center.rest.app import create_app
from consent_center.rest.preferences import DecideBody

pytestmark = pytest.mark.usefixtures("store")
TOKEN = "t" * 43


def code_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except ConsentError as error:
        return error.code
    return ""


def test_a_group_is_answered_as_each_alone(tmp_path: Path) -> None:
    odd = [
        event(3, categories=("else",)),
        event(4, identifiers=(("phone", "nothing"),)),
        event(5, identifiers=(("nokind", "1"),)),
        event(6, occurred_at=START.replace(tzinfo=None)),
        event(7, action="withdrawn"),
        event(8, identifiers=(("phone", phone(8)), ("email", "a@b.example"), ("device", "0"))),
        event(9, identifiers=(("phone", phone(1)), ("email", "a@b.example"))),
        event(1, action="denied"),
    ]
    items: list[ConsentEvent | Asked] = [
        event(1),
        *odd,
        *(Asked(REQUEST, "phone", phone(n)) for n in range(9)),
    ]
    items += [Asked(REQUEST, "phone", "x"), Asked(replace(REQUEST, purpose="other"), "phone", phone(1))]
    with make(tmp_path / "one", Clock()) as one, make(tmp_path / "all", Clock()) as all_:
        together = group.serve(all_, items)
        alone = [group.serve(one, [item])[0] for item in items]
        for a, b in zip(together, alone, strict=True):
            if isinstance(b, ConsentError):
                assert isinstance(a, ConsentError) and (a.code, a.detail) == (b.code, b.detail)
            else:
                assert a == b
        codes = [a.code if isinstance(a, ConsentError) else "" for a in together[:9]]
        assert codes == [
            *("", "event.categories", "event.identifier", "identifier.kind", "event.time"),
            *("", "", "event.identifier_conflict", ""),
        ]
        for center in (one, all_):
            assert [reason(center, n) for n in (1, 7, 8)] == ["denied", "withdrawn", "eligible"]
            assert center.fsck() is None


def test_many_threads_each_get_their_own_answer(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center, ThreadPoolExecutor(16) as pool:

        def live(number: int) -> tuple[int, str, str]:
            done = center.record_soon(event(number))
            first = REASONS[center.decide_soon(REQUEST, phone(number), "phone").code]
            center.record_soon(event(number, action="withdrawn", occurred_at=START))
            return done.sequence, first, REASONS[center.decide_soon(REQUEST, phone(number), "phone").code]

        found = list(pool.map(live, range(60)))
        assert {(before, after) for _, before, after in found} == {("eligible", "withdrawn")}
        assert len({sequence for sequence, _, _ in found}) == 60
        for number, (sequence, _, _) in enumerate(found):
            told = center.explain("phone", phone(number)).events
            assert [e["sequence"] for e in told][0] == sequence and len(told) == 2
        assert (
            code_of(lambda: center.decide_soon(replace(REQUEST, categories=()), "1", "phone"))
            == "decision.request"
        )
        assert code_of(lambda: center.decide_soon(REQUEST, "1", "shoe")) == "identifier.kind"
        assert center.fsck() is None
    assert code_of(lambda: center.record_soon(event(1))) == "center.closed"


def test_one_that_fails_oddly_does_not_cost_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(tmp_path / "c") as center:
        started, go = threading.Event(), threading.Event()
        serve = group.serve

        def slow(center: Center, items: Any) -> Any:
            started.set()
            go.wait(120)
            if any(isinstance(i, ConsentEvent) and i.evidence == "bad" for i in items):
                raise ZeroDivisionError
            return serve(center, items)

        monkeypatch.setattr(group, "serve", slow)
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(center.record_soon, event(0))]
            started.wait(120)
            jobs += [pool.submit(center.record_soon, event(n, evidence="bad" * (n == 2))) for n in (1, 2, 3)]
            go.set()
            assert [job.exception() is None for job in jobs] == [True, True, False, True]
        assert [reason(center, n) for n in range(4)] == [
            "eligible",
            "eligible",
            "unknown_subject",
            "eligible",
        ]


def test_a_database_at_fault_makes_questions_stale_and_events_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(tmp_path / "c") as center:
        center.record(event(1))

        def gone() -> Any:
            raise ConsentError("center.unreachable", "no disk")

        monkeypatch.setattr(center, "_write", gone)
        assert REASONS[center.decide_soon(REQUEST, phone(1), "phone").code] == "stale"
        assert code_of(lambda: center.record_soon(event(2))) == "center.unreachable"


# ---- the short way ---------------------------------------------------------------------------------------

_TIMES = [
    *("2026-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00+08:00", "2026-01-01"),
    *("2026-01-01T24:00:00Z", "2026-01-01T00:00:00.123456+00:00", "2026-01-01T00:00:00+25:00"),
]
_texts = st.one_of(
    st.sampled_from(["ads", "phone", "granted", "PIPL", "", "a\0b", "\ud800", "x" * 200, "x" * 201, "中文"]),
    st.sampled_from(_TIMES),
    st.text(max_size=5),
)
_values = st.one_of(
    _texts, st.integers(-1, 2**31), st.booleans(), st.none(), st.floats(), st.lists(_texts, max_size=3)
)


def _loads(schema: Schema, body: Any) -> Any:
    return None if schema.validate(body) else schema.load(body)


@pytest.mark.sqlite
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*fast._EVENT, "values", "shown", "birth_date", "odd"]), _values))
def test_what_the_short_way_takes_the_schema_takes_alike(changes: dict[str, Any]) -> None:
    base = {"phone": "1", "purpose": "ads", "purpose_version": 1, "action": "granted", "recipient": "p"}
    for body in (base | changes, changes):
        taken = fast.event_of(body)
        if taken is not None:  # the schema makes lists of identifiers; events are made of either
            listed = {k: [v] if k in KINDS else v for k, v in taken.items()}
            assert listed == _loads(schemas.Event(), body)
    asked = {"purpose": "ads", "recipient": "p", "categories": ["c"], "kind": "phone", "values": ["1"]}
    asked |= changes
    if fast.decision_of(asked) is not None:
        assert _loads(schemas.Decide(), asked) == asked


@pytest.mark.sqlite
@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*fast._CONTACT, "items", "odd"]), _values))
def test_what_the_short_way_takes_of_contacts_the_schema_takes_alike(changes: dict[str, Any]) -> None:
    base = {"kind": "phone", "value": "1", "channel": "sms", "topic": "news", "sender": "shop"}
    for body in (base | changes, changes):
        taken = fast.contact_of(body)
        if taken is not None:
            loaded = _loads(DecideBody(), body)
            assert loaded is not None and taken == question_from_json(loaded)


CONTACT = {"kind": "phone", "channel": "sms", "topic": "news", "sender": "shop"}


def contact_rules(center: Center) -> None:
    center.preferences.declare(Term("topic", "news", {"en": "News"}))
    center.preferences.put_policy(Policy("sms", caps=(Cap(2, "day"),)))


@pytest.mark.sqlite
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.builds(
            Question,
            st.just("phone"),
            st.sampled_from([phone(1), phone(2), "nobody"]),
            st.sampled_from(["sms", "email", "fax"]),
            st.sampled_from(["news", "soap"]),
            st.just("shop"),
            at=st.sampled_from([None, START, START - timedelta(days=1)]),
            contact_id=st.sampled_from(["", "a", "b"]),
            reserve=st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_contacts_of_a_group_are_answered_as_each_alone(two: Any, questions: list[Question]) -> None:
    one, all_ = two
    for center in two:  # what earlier examples reserved is over, and what they counted longer ago than a day
        center._clock.forward(days=2)
    now = one._clock()
    questions = [replace(q, at=None if q.at is None else now + (q.at - START)) for q in questions]

    def alone(question: Question) -> Any:
        try:
            return one.preferences.may_contact(question)
        except ConsentError as error:
            return error.code, error.detail

    before = [int(center.checkpoint().split("\n")[1]) for center in two]
    apart = [alone(question) for question in questions]
    together = [
        (told.code, told.detail) if isinstance(told, ConsentError) else told
        for told in group.serve(all_, questions)
    ]
    assert together == apart
    grown = [int(center.checkpoint().split("\n")[1]) - size for center, size in zip(two, before, strict=True)]
    assert grown[0] == grown[1] == sum(not isinstance(told, tuple) for told in apart)  # a leaf each


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Center, Center]]:
    folder = tmp_path_factory.mktemp("contacts")
    with make(folder / "one", Clock()) as one, make(folder / "all", Clock()) as all_:
        for center in (one, all_):
            center.record_many([event(1), event(2)])
            contact_rules(center)
        yield one, all_


def test_the_calls_answer_alike_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        **{"phone": phone(1), "purpose": "ads", "purpose_version": 1, "action": "granted"},
        **{"recipient": "provider", "categories": ["contact"], "notice": "ads-notice", "notice_version": 1},
        "occurred_at": "2026-02-01T00:00:00Z",
    }
    asked = {"purpose": "ads", "recipient": "provider", "categories": ["contact"], "kind": "phone"}
    head = {"Authorization": f"Bearer {TOKEN}"}
    with make(tmp_path / "c") as center:
        contact_rules(center)
        app, answered = create_app(center, TOKEN), list[str | None]()
        served = app.wsgi_app

        def watched(environ: Any, start_response: Any) -> Any:
            answered.append(None)
            return served(environ, start_response)

        def in_flask() -> None:
            answered[-1] = request.endpoint

        app.wsgi_app = watched  # type: ignore[method-assign]
        app.before_request_funcs[None].insert(0, in_flask)
        client = app.test_client()
        calls: list[tuple[str, dict[str, Any]]] = [
            ("/v1/events", told),
            ("/v1/events", {**told, "categories": ["else"]}),
            ("/v1/events", {**told, "odd": 1}),
            ("/v1/decisions", {**asked, "values": [phone(1)]}),
            ("/v1/decisions", {**asked, "values": ["nothing"]}),
            ("/v1/decisions", {**asked, "values": [phone(1)], "purpose": "a b"}),
            ("/v1/contact-decisions", {**CONTACT, "value": phone(1)}),
            ("/v1/contact-decisions", {**CONTACT, "items": [{"value": phone(1)}, {"value": phone(2)}]}),
            ("/v1/contact-decisions", {**CONTACT, "value": phone(1), "channel": "*"}),
        ]
        assert client.post(calls[0][0], json=calls[0][1]).status_code == 401
        before = len(answered)
        quick = [client.post(path, json=body, headers=head) for path, body in calls]
        # A call that the schema must judge goes through Flask, and so does the wording of an error.
        assert answered[before:] == [
            *(None, "events.record", "events.record", None, None, "decisions.decide"),
            *(None, "preferences.decide", "preferences.decide"),
        ]
        monkeypatch.setattr(fast, "WAYS", {})
        slow = [client.post(path, json=body, headers=head) for path, body in calls]
        assert (
            [r.status_code for r in quick]
            == [r.status_code for r in slow]
            == [201, 422, 400, 200, 200, 422, 200, 200, 422]
        )
        for a, b in zip(quick, slow, strict=True):
            same = [json.loads(r.data) for r in (a, b)]
            for body in same:
                body.pop("sequence", None), body.pop("leaf_index", None)
            assert same[0] == same[1] and a.content_type == b.content_type
            assert {**a.headers, "Content-Length": ""} == {**b.headers, "Content-Length": ""}
            assert a.headers["X-Content-Type-Options"] == "nosniff"
        assert center.fsck() is None


_ODD: list[tuple[dict[str, Any], int | None]] = [
    ({"HTTP_AUTHORIZATION": "Bearer " + "x" * 43}, 401),
    ({"HTTP_AUTHORIZATION": None}, 401),
    ({"REQUEST_METHOD": "PUT"}, 405),
    ({"QUERY_STRING": "lang=zh"}, 200),
    ({"CONTENT_TYPE": "text/plain"}, 400),
    ({"CONTENT_LENGTH": "20"}, 400),
    ({"CONTENT_LENGTH": "999"}, 400),
    ({"CONTENT_LENGTH": "-1"}, None),
    ({"wsgi.input": b"{" * 70_000, "CONTENT_LENGTH": "70000"}, 400),
    ({"HTTP_ACCEPT_LANGUAGE": "zh", "HTTP_COOKIE": "pec_session=x"}, 200),
]


def test_odd_calls_are_judged_as_without_the_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"purpose": "ads", "recipient": "provider", "categories": ["contact"], "kind": "phone"}
    body = json.dumps({**asked, "values": [phone(1)]}).encode()
    with make(tmp_path / "c") as center:
        app = create_app(center, TOKEN)

        def call(changes: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            plain = EnvironBuilder(path="/v1/decisions", method="POST").get_environ()
            plain |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
            plain |= {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}", "wsgi.input": body} | changes
            plain["wsgi.input"] = io.BytesIO(plain["wsgi.input"])
            response = Response.from_app(app, {k: v for k, v in plain.items() if v is not None})
            return response.status_code, json.loads(response.data)

        quick = [call(changes) for changes, _ in _ODD]
        monkeypatch.setattr(fast, "WAYS", {})
        assert quick == [call(changes) for changes, _ in _ODD]
        for (changes, status), answer in zip(_ODD, quick, strict=True):
            assert status in (None, answer[0]), changes


def test_an_error_in_the_front_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"purpose": "ads", "recipient": "provider", "categories": ["contact"], "kind": "phone"}
    head = {"Authorization": f"Bearer {TOKEN}"}
    with make(tmp_path / "c") as center:
        client, tried = create_app(center, TOKEN).test_client(), []
        for error, status in ((ConsentError("center.busy", "later"), 503), (ZeroDivisionError(), 500)):

            def broken(*_: Any, told: Exception = error) -> None:
                tried.append(told)
                raise told

            monkeypatch.setattr(center, "decide_soon", broken)
            answer = client.post("/v1/decisions", json={**asked, "values": ["1"]}, headers=head)
            assert answer.status_code == status and answer.content_type == "application/problem+json"
        assert len(tried) == 2
