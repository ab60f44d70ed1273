"""Suite `vole` in both variants, as somebody would attack it: the view of each side, and every way to deviate
that its README names. `test_oprf_exchange` has the same for suite `ecdh`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from oprf_helpers import converse, feed, items_of, sent_by
from test_align_vole import _ALL, changed, flip, receive, send

from protocols.align.vole import messages
from protocols.align.vole.messages import TO_RECEIVER, TO_SENDER
from protocols.errors import LocalError, PeerError

MINE, THEIRS = 300, 400
#: Bytes of a message, so that a store and the tags come in several.
SMALL = 1500

VARIANTS = pytest.mark.parametrize("malicious", [False, True])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE", SMALL)


@cache
def recorded(malicious: bool) -> tuple[tuple[str, bytes], ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "MAX_MESSAGE", SMALL)
        one = receive(items_of(range(MINE)), malicious=malicious)
        return tuple(converse(one, send(items_of(range(THEIRS)), malicious=malicious)))


def machine(who: str, malicious: bool) -> Any:
    if who == "sender":
        return send(items_of(range(THEIRS)), malicious=malicious)
    return receive(items_of(range(MINE)), malicious=malicious)


def to(who: str, malicious: bool) -> list[bytes]:
    return sent_by("receiver" if who == "sender" else "sender", list(recorded(malicious)))


def places(due: list[bytes], name: type) -> list[int]:
    """Where the messages of a type stand among those to one side."""
    found = []
    for at, message in enumerate(due):
        for who, codec in (("receiver", TO_SENDER), ("sender", TO_RECEIVER)):
            try:
                if isinstance(codec.decode(message, *_ALL[who]), name):
                    found.append(at)
            except PeerError:
                continue
    return found


# -- the sender's view ---------------------------------------------------------------------------------------


@VARIANTS
def test_nothing_but_the_masked_store_depends_on_the_receivers_items(malicious: bool, small: None) -> None:
    """With the same randomness two receivers of one padded size send the same bytes, but for V = P + c; and V
    differs as two stores differ, with c that the sender does not know. All of its own people, or strangers.
    """
    theirs, views = items_of(range(THEIRS)), []
    for mine in (range(257), range(5000, 5280)):
        transcript = converse(receive(items_of(mine), malicious=malicious), send(theirs, malicious=malicious))
        views.append(sent_by("receiver", transcript))
    assert [len(m) for m in views[0]] == [len(m) for m in views[1]]
    differ = [i for i, (a, b) in enumerate(zip(*views, strict=True)) if a != b]
    assert differ and set(differ) <= set(places(views[0], messages.Vector))
    ones = np.mean([np.unpackbits(np.frombuffer(views[0][i][13:], np.uint8)).mean() for i in differ])
    assert abs(float(ones) - 0.5) < 0.02


@VARIANTS
def test_the_receivers_view_of_strangers_is_random(malicious: bool) -> None:
    """Nobody is shared: what the receiver gets is its randomness, and tags that look uniform."""
    one, other = (
        receive(items_of(range(5)), malicious=malicious),
        send(items_of(range(1000, 3000)), malicious=malicious),
    )
    transcript = converse(one, other)
    assert (one.result.rows == -1).all()
    data = np.frombuffer(sent_by("sender", transcript)[-1][13:], np.uint8).reshape(2000, -1)
    assert len(np.unique(data, axis=0)) == 2000
    assert abs(float(np.unpackbits(data).mean()) - 0.5) < 0.01


# -- messages that are cut, moved or missing -----------------------------------------------------------------


@VARIANTS
@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_without_the_last_message_there_is_no_result(who: str, malicious: bool, small: None) -> None:
    victim = machine(who, malicious)
    list(feed(victim, to(who, malicious)[:-1]))
    assert not victim.finished
    with pytest.raises(LocalError, match=r"protocol\.state"):
        _ = victim.result


MOVES: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "cut": lambda m, p: [*m[:p], m[p][:-1], *m[p + 1 :]],
    "twice": lambda m, p: [*m[: p + 1], *m[p:]],
    "swapped with the next": lambda m, p: [*m[:p], *m[p + 1 : p + 2], m[p], *m[p + 2 :], m[0]],
    "left out": lambda m, p: [*m[:p], *m[p + 1 :], m[0]],
}


@VARIANTS
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_a_message_that_is_cut_moved_or_missing(who: str, move: str, malicious: bool, small: None) -> None:
    """Each kind of message once, and of the store and the tags the first, one in the middle and the last."""
    due = to(who, malicious)
    several = places(due, messages.Vector if who == "sender" else messages.Tags)
    assert len(several) > 2
    one_of_each = {*range(len(due))} - set(several[1:-1]) | {several[1]}
    # What both variants have before the store is looked at in the one that has more.
    for at in sorted(one_of_each if malicious else one_of_each & set(several)):
        victim = machine(who, malicious)
        with pytest.raises(PeerError) as caught:
            list(feed(victim, MOVES[move](due, at)))
        assert caught.value.code in {
            "protocol.malformed",
            "protocol.unexpected",
            "align.size",
            "align.coin",
        }, (at, caught.value)
        with pytest.raises(LocalError, match=r"protocol\.poisoned"):
            victim.receive(due[0])


# -- values that are wrong -----------------------------------------------------------------------------------


def place(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + value + data[at + len(value) :]


#: In the VOLE's messages: kind (1), binding (32), length (4), the base OTs' points; or kind, binding, point.
FIRST_POINT, POINT = 37, 33


@VARIANTS
@pytest.mark.parametrize(
    ("who", "name", "fields"),
    [
        ("receiver", messages.Offer, {"opening": place(FIRST_POINT, b"\xff" * 32)}),
        ("receiver", messages.Offer, {"opening": place(FIRST_POINT + 64, b"\x01" * 32)}),
        ("sender", messages.Request, {"request": place(POINT, bytes(32))}),
        ("sender", messages.Request, {"request": place(POINT, b"\xff" * 32)}),
    ],
)
def test_a_bad_point(who: str, name: type, fields: dict[str, Any], malicious: bool) -> None:
    assert changed(who, name, malicious, **fields)[0] == "ot.bad_point"


@pytest.mark.parametrize(
    ("who", "name", "fields", "code"),
    [
        ("sender", messages.Ask, {"size": lambda s: s + 1}, "align.size"),
        ("sender", messages.Ask, {"size": lambda s: 1 << 30}, "protocol.too_large"),
        ("sender", messages.Vector, {"data": lambda d: d[:-8]}, "align.size"),
        ("sender", messages.Vector, {"data": lambda d: d + bytes(16)}, "align.size"),
        ("sender", messages.Vector, {"first": lambda f: f + 1}, "protocol.unexpected"),
        ("receiver", messages.Offer, {"rows": lambda r: 1 << 30}, "protocol.too_large"),
        ("receiver", messages.Offer, {"width": lambda w: w - 1}, "align.size"),
        ("receiver", messages.Tags, {"first": lambda f: f + 1}, "protocol.unexpected"),
        ("receiver", messages.Tags, {"data": lambda d: d[:-1]}, "protocol.malformed"),
    ],
)
def test_a_wrong_value_in_the_malicious_variant(
    who: str, name: type, fields: dict[str, Any], code: str
) -> None:
    assert changed(who, name, True, **fields)[0] == code


@pytest.mark.parametrize("at", [1000, 80_000])
def test_columns_that_are_of_no_one_choice(at: int) -> None:
    """A receiver that deviates in the oblivious transfers learns bits of Δ, unless the variant looks."""
    code, _ = changed("sender", messages.Request, True, request=lambda r: place(at, flip(r[at : at + 1]))(r))
    assert code == "ot.check"


def test_trees_that_are_of_no_one_sum() -> None:
    """A sender that deviates learns where the noise is, unless the variant looks."""
    code, _ = changed(
        "receiver", messages.Answer, True, answer=lambda a: a[:-1] + bytes([a[-1] ^ 1])
    )  # the last sum of leaves
    assert code == "vole.check"


def test_a_store_of_more_than_was_announced_is_refused_by_its_size() -> None:
    """A receiver that encodes more people than N needs a longer store; the sender takes one of N's length."""
    big = receive(items_of(range(1000)))
    victim = send(items_of(range(THEIRS)))
    theirs = sent_by("receiver", converse(big, send(items_of(range(THEIRS)))))
    ask = TO_SENDER.decode(theirs[0], *_ALL["receiver"])
    lie = TO_SENDER.encode(replace(ask, size=type(ask.size)(320)))
    with pytest.raises(PeerError):
        list(feed(victim, [lie, *theirs[1:]]))
    assert not victim.finished
