"""The exchange that align and enrich share, played message by message, with everything that can go wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oprf_helpers import SESSION, SUITES, Suite, converse, feed, items_of, sent_by, stream

from protocols import align, enrich
from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.machine import MAX_MESSAGE, Machine
from protocols.oprf import padding, receiver, sender
from protocols.oprf.messages import Announce, Blinded, Evaluated, Request, binding

MINE = [f"mine{i}" for i in range(25)] + [f"both{i}" for i in range(10)]
THEIRS = [f"both{i}" for i in range(10)] + [f"theirs{i}" for i in range(60)]
WHO = ["receiver", "sender"]


@pytest.fixture(params=list(SUITES))
def suite(request: pytest.FixtureRequest) -> Suite:
    return SUITES[request.param]


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 and a floor of 8, so that a run of 35 items has several of everything."""
    for module in (padding, receiver, sender, enrich.sender):
        monkeypatch.setattr(module, "CHUNK", 16)
    monkeypatch.setattr(padding, "PADDING_FLOOR", 8)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def recorded() -> dict[str, list[tuple[str, bytes]]]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return {name: converse(s.receiver(MINE), s.sender(THEIRS)) for name, s in SUITES.items()}


def machine(suite: Suite, who: str) -> Machine[Any]:
    return suite.receiver(MINE) if who == "receiver" else suite.sender(THEIRS)


def incoming(recorded: dict[str, list[tuple[str, bytes]]], suite: Suite, who: str) -> list[bytes]:
    other = "sender" if who == "receiver" else "receiver"
    return sent_by(other, recorded[suite.kind.name])


def assert_refused(victim: Machine[Any], messages: list[bytes], *codes: str) -> None:
    """Somewhere in these messages the victim blames the peer, and is dead from then on."""
    with pytest.raises(PeerError) as caught:
        list(feed(victim, messages))
    if codes:
        assert caught.value.code in codes
    assert not victim.finished
    with pytest.raises(LocalError, match=r"protocol\.poisoned"):
        victim.receive(messages[0])
    with pytest.raises(LocalError, match=r"protocol\.state"):
        _ = victim.result


def test_the_play(small: None, suite: Suite, recorded: dict[str, list[tuple[str, bytes]]]) -> None:
    """35 items are padded to 36: chunks of 16, 16, 4; 70 rows: 23, 23, 24, in messages of at most 16."""
    names: list[str] = []
    for who, message in recorded[suite.kind.name]:
        codec = suite.kind.to_sender if who == "receiver" else suite.kind.to_receiver
        decoded = codec.decode(message, Request, Announce, Blinded, Evaluated, suite.kind.rows)
        names.append(f"{type(decoded).__name__}@{decoded.first}" if hasattr(decoded, "first") else decoded)
    request, announce, *rest = names
    assert request == Request(binding(suite.kind.name, SESSION), 36)
    assert announce.rows == 70
    blinded = ["Blinded@0", "Blinded@16", "Blinded@32"]
    assert [n for n in rest if n.startswith("Blinded")] == blinded
    answer = [n for n in rest if not n.startswith("Blinded")]
    if suite.kind.name == "align":
        tags = [["Tags@0", "Tags@16"], ["Tags@23", "Tags@39"], ["Tags@46", "Tags@62"]]
        assert answer == ["Evaluated@0", *tags[0], "Evaluated@16", *tags[1], "Evaluated@32", *tags[2]]
    else:
        table = [f"Table@{at}" for at in range(0, 70, 16)]
        assert answer == ["Evaluated@0", "Evaluated@16", "Evaluated@32", *table]


def test_never_more_chunks_under_way_than_the_window(small: None, suite: Suite) -> None:
    one, other = suite.receiver(range(200)), suite.sender(range(100, 300))
    queue = [("receiver", m) for m in one.start()] + [("sender", m) for m in other.start()]
    under_way = most = 0
    while queue:
        who, message = queue.pop(0)
        under_way -= who == "sender" and message[0] == 2
        answer = other.receive(message) if who == "receiver" else one.receive(message)
        for m in answer:
            queue.append(("sender" if who == "receiver" else "receiver", m))
            under_way += who == "sender" and m[0] == 2
        most = max(most, under_way)
    assert one.finished
    assert most == receiver.WINDOW


MUTATIONS: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "another type": lambda m, p: [*m[:p], bytes([m[p][0] % 3 + 1]) + m[p][1:], *m[p + 1 :]],
    "an unknown type": lambda m, p: [*m[:p], b"\xff" + m[p][1:], *m[p + 1 :]],
    "truncated": lambda m, p: [*m[:p], m[p][:-1], *m[p + 1 :]],
    "trailing byte": lambda m, p: [*m[:p], m[p] + b"\x00", *m[p + 1 :]],
    "empty": lambda m, p: [*m[:p], b"", *m[p + 1 :]],
    "oversize": lambda m, p: [*m[:p], m[p] + bytes(MAX_MESSAGE), *m[p + 1 :]],
    "twice": lambda m, p: [*m[: p + 1], *m[p:]],
    "too early": lambda m, p: (
        [*m[:p], *m[p + 1 : p + 2], m[p], *m[p + 2 :]] if p + 1 < len(m) else [m[p], *m]
    ),
    "left out": lambda m, p: [*m[:p], *m[p + 1 :], m[0]],
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("who", WHO)
def test_every_change_of_every_message_is_refused(
    small: None, suite: Suite, who: str, mutation: str, recorded: dict[str, list[tuple[str, bytes]]]
) -> None:
    honest = incoming(recorded, suite, who)
    for position in range(len(honest)):
        messages = MUTATIONS[mutation](honest, position)
        codes = {"protocol.malformed", "protocol.unexpected", "protocol.too_large"}
        assert_refused(machine(suite, who), messages, *codes)


@pytest.mark.parametrize("who", WHO)
def test_without_the_last_message_there_is_no_result(
    small: None, suite: Suite, who: str, recorded: dict[str, list[tuple[str, bytes]]]
) -> None:
    victim = machine(suite, who)
    list(feed(victim, incoming(recorded, suite, who)[:-1]))
    assert not victim.finished
    with pytest.raises(LocalError, match=r"protocol\.state"):
        _ = victim.result


@pytest.mark.parametrize("bad", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31)])
@pytest.mark.parametrize("who", WHO)
def test_a_bad_element_in_the_middle(
    small: None, suite: Suite, who: str, bad: bytes, recorded: dict[str, list[tuple[str, bytes]]]
) -> None:
    messages = incoming(recorded, suite, who)
    codec, kind = (
        (suite.kind.to_receiver, Evaluated) if who == "receiver" else (suite.kind.to_sender, Blinded)
    )
    position = next(i for i, m in enumerate(messages) if m[0] == 2 and m[1:9] == (16).to_bytes(8, "big"))
    elements = codec.decode(messages[position], kind).elements
    changed = codec.encode(kind(16, elements[:96] + bad + elements[128:]))
    victim = machine(suite, who)
    with pytest.raises(PeerError, match=r"oprf\.bad_point: 1 .* index 19;"):
        list(feed(victim, [*messages[:position], changed]))
    assert not victim.finished


def announce(suite: Suite, rows: int = 70, width: int | None = None, session: bytes = SESSION) -> bytes:
    width = (
        width
        if width is not None
        else {"align": align.tags.tag_bytes(36, rows), "enrich": 24}[suite.kind.name]
    )
    return suite.kind.to_receiver.encode(Announce(binding(suite.kind.name, session), rows, width))


def request(suite: Suite, size: int, session: bytes = SESSION) -> bytes:
    return suite.kind.to_sender.encode(Request(binding(suite.kind.name, session), size))


def limits(suite: Suite, **values: int) -> Any:
    return {"align": align.Limits, "enrich": enrich.Limits}[suite.kind.name](**values)


def test_another_session_or_another_protocol(small: None, suite: Suite) -> None:
    elsewhere = bytes(32)
    assert_refused(machine(suite, "sender"), [request(suite, 36, elsewhere)], "protocol.binding")
    assert_refused(machine(suite, "receiver"), [announce(suite, session=elsewhere)], "protocol.binding")
    other = SUITES["enrich" if suite.kind.name == "align" else "align"]
    assert_refused(machine(suite, "sender"), [request(other, 36)], "protocol.binding")
    assert_refused(machine(suite, "receiver"), [announce(other)], "protocol.binding")


@pytest.mark.parametrize("size", [0, 1, 7, 35, 37])
def test_a_request_off_the_grid(small: None, suite: Suite, size: int) -> None:
    assert_refused(machine(suite, "sender"), [request(suite, size)], f"{suite.kind.name}.size")


def test_limits_of_the_peers_size(small: None, suite: Suite) -> None:
    bound = limits(suite, max_receiver=36, max_sender=70)
    assert list(feed(suite.sender(THEIRS, limits=bound), [request(suite, 36)]))
    assert list(feed(suite.receiver(MINE, limits=bound), [announce(suite, 70)]))
    for size in (40, 2**63):
        assert_refused(suite.sender(THEIRS, limits=bound), [request(suite, size)], "protocol.too_large")
    for rows in (71, 2**64 - 1):
        assert_refused(suite.receiver(MINE, limits=bound), [announce(suite, rows, 12)], "protocol.too_large")


def test_limits_of_the_own_size(suite: Suite) -> None:
    with pytest.raises(LocalError, match=r"limits\.max_receiver is 34"):
        suite.receiver(MINE, limits=limits(suite, max_receiver=34))
    with pytest.raises(LocalError, match=r"limits\.max_sender is 69"):
        suite.sender(THEIRS, limits=limits(suite, max_sender=69))
    for values in ({"max_receiver": -1}, {"max_sender": (1 << 32) + 1}):
        with pytest.raises(LocalError):
            limits(suite, **values)


def test_repeated_items_and_short_sessions(suite: Suite) -> None:
    for make in (suite.receiver, suite.sender):
        with pytest.raises(LocalError, match="1 items are repeated"):
            make(["a", "b", "a"])
        with pytest.raises(LocalError, match="32 bytes"):
            make(["a"], session=b"short")


def test_the_senders_view_is_the_same_for_two_receivers_of_one_padded_size(suite: Suite) -> None:
    """257 strangers or 288 of the sender's own people: count and size of messages tell nothing."""
    views = []
    for names, seed in ((range(1000, 1257), "one"), (range(288), "two")):
        one, other = suite.receiver(names, seed), suite.sender(range(300))
        transcript = converse(one, other)
        assert other.result.padded_receiver_size == 288
        views.append(sent_by("receiver", transcript))
        answers = [len(m) for m in sent_by("sender", transcript)]
        views.append(answers)
    assert [len(m) for m in views[0]] == [len(m) for m in views[2]]
    assert views[1] == views[3]
    # All elements of a request differ, padding included, and so do those of two requests for the same people.
    elements = suite.kind.to_sender.decode(views[2][1], Blinded).elements
    again = sent_by("receiver", converse(suite.receiver(range(288), "three"), suite.sender(range(300))))
    elements += suite.kind.to_sender.decode(again[1], Blinded).elements
    assert len(np.unique(np.frombuffer(elements, np.uint8).reshape(-1, 32), axis=0)) == 2 * 288


def test_the_receivers_randomness_is_asked_for_in_full(suite: Suite) -> None:
    asked: list[int] = []

    def rng(n: int) -> bytes:
        asked.append(n)
        return hashlib.shake_256(bytes([len(asked)])).digest(n)

    kind = {"align": align, "enrich": enrich}[suite.kind.name]
    one = kind.Receiver(items_of(range(10)), SESSION, kind.Limits(), rng)
    converse(one, suite.sender(range(3)))
    assert asked == [246 * 32, 256 * 64]  # padding items, then a blind for each item


def test_evaluated_elements_leave_before_the_senders_own_are_computed(
    small: None, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"align": align.sender, "enrich": enrich.sender}[suite.kind.name]
    done: list[int] = []
    original = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda k, x: done.append(len(x)) or original(k, x))
    one, other = suite.receiver(MINE), suite.sender(THEIRS)
    [ask] = one.start()
    list(other.start())
    [told] = other.receive(ask)
    first, *_ = one.receive(told)
    answer = other.receive(first)
    assert next(answer)[0] == 2
    assert done == []
    list(answer)
    assert done == [16, 7]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(WHO), st.sampled_from(list(SUITES)), st.data())
def test_changed_bytes_end_in_a_result_or_a_protocol_error(
    small: None, recorded: dict[str, list[tuple[str, bytes]]], who: str, name: str, data: st.DataObject
) -> None:
    messages = incoming(recorded, SUITES[name], who)
    position = data.draw(st.integers(0, len(messages) - 1))
    # Fields come first, so that half of the changes shall hit them.
    end = len(messages[position]) - 1
    changed = bytearray(messages[position])
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, min(end, 20)) | st.integers(0, end))] = data.draw(
            st.integers(0, 255)
        )
    messages[position] = bytes(changed)
    run_to_some_end(machine(SUITES[name], who), messages)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(WHO), st.sampled_from(list(SUITES)), st.integers(0, 9), st.binary(max_size=300))
def test_any_bytes_end_in_a_protocol_error(
    small: None, recorded: dict[str, list[tuple[str, bytes]]], who: str, name: str, after: int, noise: bytes
) -> None:
    messages = incoming(recorded, SUITES[name], who)
    victim = machine(SUITES[name], who)
    run_to_some_end(victim, [*messages[:after], noise])


def run_to_some_end(victim: Machine[Any], messages: list[bytes]) -> None:
    try:
        list(feed(victim, messages))
    except ProtocolError:
        assert not victim.finished
        with pytest.raises(LocalError, match=r"protocol\.poisoned"):
            victim.receive(messages[0])
        return
    assert not victim.finished or victim.result is not None


def test_secrets_do_not_print(suite: Suite) -> None:
    text = repr(suite.sender(THEIRS)._opening)
    assert "key=" not in text
    assert stream("sender")(64).hex()[:8] not in text
