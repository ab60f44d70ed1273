"""Suite `vole`: equal to the ideal functionality, the sender's view, and every check of its README."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oprf_helpers import SESSION, converse, feed, items_of, sent_by, stream

from protocols import align, okvs
from protocols.align import ideal, tags
from protocols.align.vole import messages, receiver, sender
from protocols.align.vole.matching import Table
from protocols.align.vole.messages import TO_RECEIVER, TO_SENDER, Terms
from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.machine import MAX_MESSAGE
from protocols.vole import ideal as ideal_vole

LIMITS = align.Limits()


def receive(items: np.ndarray, seed: str = "receiver", **more: Any) -> align.Receiver:
    limits = more.pop("limits", LIMITS)
    return align.Receiver(items, more.pop("session", SESSION), limits, stream(seed), suite="vole", **more)


def send(items: np.ndarray, seed: str = "sender", **more: Any) -> align.Sender:
    limits = more.pop("limits", LIMITS)
    return align.Sender(items, more.pop("session", SESSION), limits, stream(seed), suite="vole", **more)


def assert_ideal(mine: np.ndarray, theirs: np.ndarray, malicious: bool = False, seed: str = "") -> None:
    one = receive(mine, "r" + seed, malicious=malicious)
    other = send(theirs, "s" + seed, malicious=malicious)
    converse(one, other)
    rows, learned = ideal.align(mine, theirs)
    assert one.result.rows.dtype == np.int64 and (one.result.rows == rows).all()
    assert one.result.sender_rows == len(theirs) and other.result == learned
    assert one.progress[0] == one.progress[1] == other.progress[1] == other.progress[0]


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize(
    ("n", "m", "shared"),
    [(0, 0, 0), (0, 5, 0), (5, 0, 0), (1, 1, 1), (1, 1, 0), (2, 2, 1), (300, 300, 300), (300, 300, 0)]
    + [(3, 3000, 2), (3000, 3, 2), (257, 255, 128)],
)
def test_sizes(n: int, m: int, shared: int, malicious: bool) -> None:
    both = [f"both{i}" for i in range(shared)]
    mine = both + [f"mine{i}" for i in range(n - shared)]
    theirs = [f"theirs{i}" for i in range(m - shared)] + both
    assert_ideal(items_of(mine), items_of(theirs), malicious)


class Dealt:
    """The ideal VOLE in the place of a role: both sides draw the same correlation from the session."""

    def __init__(self, side: int, n: int, session: bytes, field: str, malicious: bool) -> None:
        self._half = ideal_vole.vole(n, stream(session.hex()), field)[side]
        self._malicious = malicious

    def opening(self) -> bytes:
        return b"opening"

    def request(self, _: bytes) -> bytes:
        return b"request"

    def answer(self, _: bytes) -> bytes:
        return b"answer"

    def accept(self, _: bytes) -> bytes | None:
        return b"challenge" if self._malicious else None

    def prove(self, _: bytes) -> bytes:
        return b"proof"

    def verify(self, _: bytes) -> None:
        return None

    def expand(self) -> Any:
        return self._half


@pytest.fixture
def dealer(monkeypatch: pytest.MonkeyPatch) -> None:
    for side, (module, name) in enumerate([(receiver, "VoleReceiver"), (sender, "VoleSender")]):

        def deal(n: int, session: bytes, _: Any, *, field: str, malicious: bool, side: int = side) -> Dealt:
            return Dealt(side, n, session, field, malicious)

        monkeypatch.setattr(module, name, deal)


def test_three_hundred_random_runs(dealer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the VOLE's ideal functionality, which costs nothing; the other tests have the real one."""
    monkeypatch.setattr(sender, "BLOCK", 7)  # every boundary of a block is met often
    monkeypatch.setattr(messages, "MAX_MESSAGE", 1000)  # and of messages
    choose = random.Random(20)
    for i in range(300):
        n, m = choose.choice([0, 1, 2, 3, 16, 40, 300]), choose.choice([0, 1, 2, 7, 15, 33, 200])
        mine = choose.sample(range(choose.choice([300, 900])), n)
        theirs = choose.sample(range(choose.choice([300, 900])), m)
        assert_ideal(items_of(mine), items_of(theirs), malicious=i % 10 == 0, seed=str(i))


@pytest.mark.parametrize("malicious", [False, True])
def test_several_bins_blocks_and_messages(malicious: bool) -> None:
    mine, theirs = items_of(range(20_000)), items_of(range(15_000, 45_000))
    one = receive(mine, malicious=malicious)
    converse(one, send(theirs, malicious=malicious))
    at = np.arange(20_000)
    assert (one.result.rows == np.where(at >= 15_000, at - 15_000, -1)).all()


@pytest.mark.parametrize("malicious", [False, True])
def test_numbers_of_matches_and_of_nobody_else(malicious: bool) -> None:
    mine, theirs = items_of(range(400)), items_of(range(300, 900))
    numbers = np.arange(600)[::-1] + (1 << 40) - 600
    one = receive(mine, numbered=True, runs=64, malicious=malicious)
    transcript = converse(one, send(theirs, numbers=numbers, runs=64, malicious=malicious))
    at = np.arange(400)
    assert (one.result.rows == np.where(at >= 300, numbers[np.maximum(at - 300, 0)], -1)).all()
    width = (16 if malicious else tags.tag_bytes(400, 600, 64)) + tags.NUMBER_BYTES
    sent = np.frombuffer(sent_by("sender", transcript)[-1][13:], np.uint8).reshape(600, width)
    assert abs(float(sent[:, -5:].mean()) - 127.5) < 6 and len(np.unique(sent[:, -5:], axis=0)) == 600


def test_known_answer() -> None:
    """Fixed randomness fixes every byte. The hash is this code's own: it guards against unmeant changes."""
    one, other = receive(items_of(range(5))), send(items_of(range(3, 9)))
    transcript = converse(one, other)
    names = [
        type((TO_SENDER if who == "receiver" else TO_RECEIVER).decode(m, *_ALL[who])).__name__
        for who, m in transcript
    ]
    assert names == ["Ask", "Offer", "Request", "Answer", "Vector", "Tags"]
    assert one.result.rows.tolist() == [-1, -1, -1, 0, 1]
    assert all(len(m) <= MAX_MESSAGE for _, m in transcript)
    digest = hashlib.sha256(b"".join(m for _, m in transcript)).hexdigest()
    assert digest == "3eeb6facc89d6a029cc7c2c1ad25eb64d1c3a5082ee1f465e6a2bda1559c52ea"


_ALL = {
    "receiver": (messages.Ask, messages.Request, messages.Challenge, messages.Vector, messages.Coin),
    "sender": (messages.Offer, messages.Answer, messages.Proof, messages.Coin, messages.Tags),
}


def test_the_fields_and_widths() -> None:
    terms = Terms(SESSION, 1 << 20, 1 << 20, bytes(16), False, False, 1)
    assert (terms.field, terms.words, terms.tag, terms.width) == ("gf64", 1, 10, 10)
    assert replace(terms, rows=1 << 24).field == "gf64"
    assert replace(terms, rows=(1 << 24) + 1).field == "gf128"
    assert replace(terms, runs=17).field == "gf128"
    cheats = replace(terms, malicious=True, numbered=True)
    assert (cheats.field, cheats.tag, cheats.width) == ("gf128", 16, 21)


def test_gf128_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for more than 2^24 rows."""
    monkeypatch.setattr(messages, "VOLE_SUBFIELD_BITS", 40)
    assert_ideal(items_of(range(700)), items_of(range(300, 1300)))


# -- what the sender sees ------------------------------------------------------------------------------------


@pytest.mark.parametrize("malicious", [False, True])
def test_the_senders_view_has_one_shape_for_any_set_of_a_padded_size(malicious: bool) -> None:
    theirs = items_of(range(500))
    shapes = set()
    for mine in (items_of(range(257)), items_of(range(1000, 1288)), items_of(range(280))):
        transcript = converse(receive(mine, malicious=malicious), send(theirs, malicious=malicious))
        heads = [(who, len(m), m[:1]) for who, m in transcript]
        shapes.add(tuple(heads))
    assert len(shapes) == 1


def test_what_the_sender_gets_is_uniform() -> None:
    """Over runs with the same items each bit of the masked store is set about half of the time."""
    mine, theirs, runs = items_of(range(10)), items_of(range(5)), 40
    ones = None
    for i in range(runs):
        transcript = converse(receive(mine, f"r{i}"), send(theirs, f"s{i}"))
        bits = np.unpackbits(np.frombuffer(sent_by("receiver", transcript)[2][13:], np.uint8)).astype(int)
        ones = bits if ones is None else ones + bits
    assert ones is not None
    # 6 standard deviations of a binomial, for tens of thousands of bits.
    assert abs(ones - runs / 2).max() < 6 * (runs**0.5) / 2
    assert abs(float(ones.mean()) / runs - 0.5) < 0.005


def test_two_sessions_have_nothing_in_common() -> None:
    theirs = items_of(range(300))
    seen = []
    for seed in "ab":
        transcript = converse(receive(theirs, "same"), send(theirs, seed))
        data = sent_by("sender", transcript)[-1][13:]
        seen.append({data[i : i + 8] for i in range(0, len(data), 8)})
    assert not seen[0] & seen[1]


# -- what is refused -----------------------------------------------------------------------------------------


@cache
def steps(malicious: bool = False, n: int = 300, m: int = 400) -> list[tuple[str, bytes]]:
    return converse(
        receive(items_of(range(n)), malicious=malicious), send(items_of(range(m)), malicious=malicious)
    )


def changed(who: str, name: type, malicious: bool = False, **fields: Any) -> tuple[str, Any]:
    """Replay a run to `who` with the first message of that name changed; gives the error."""
    transcript = steps(malicious)
    codec = TO_SENDER if who == "sender" else TO_RECEIVER
    peer = "receiver" if who == "sender" else "sender"
    machine: Any = (send(items_of(range(400)), malicious=malicious) if who == "sender"
                    else receive(items_of(range(300)), malicious=malicious))  # fmt: skip
    script = []
    for message in sent_by(peer, transcript):
        decoded: Any = codec.decode(message, *_ALL[peer])
        if type(decoded) is name and fields:
            values = {k: f(getattr(decoded, k)) for k, f in fields.items()}
            message, fields = codec.encode(replace(decoded, **values)), {}
        script.append(message)
    with pytest.raises(ProtocolError) as caught:
        list(feed(machine, script))
    with pytest.raises(LocalError, match=r"protocol\.poisoned"):
        list(machine.receive(script[0]))
    return caught.value.code, caught.value


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    ("who", "name", "fields", "code"),
    [
        ("sender", messages.Ask, {"binding": flip}, "protocol.binding"),
        ("sender", messages.Ask, {"size": lambda s: s + 1}, "align.size"),
        ("sender", messages.Ask, {"size": lambda s: 1 << 30}, "protocol.too_large"),
        ("sender", messages.Request, {"request": lambda r: r[:-1]}, "protocol.malformed"),
        ("sender", messages.Vector, {"first": lambda f: f + 1}, "protocol.unexpected"),
        ("sender", messages.Vector, {"data": lambda d: d[:-8]}, "align.size"),
        ("sender", messages.Vector, {"data": lambda d: d + bytes(8)}, "align.size"),
        ("receiver", messages.Offer, {"binding": flip}, "protocol.binding"),
        ("receiver", messages.Offer, {"rows": lambda r: 1 << 30}, "protocol.too_large"),
        ("receiver", messages.Offer, {"width": lambda w: w - 1}, "align.size"),
        ("receiver", messages.Offer, {"rows": lambda r: r * 1000}, "align.size"),
        ("receiver", messages.Offer, {"opening": lambda o: o[:-1]}, "protocol.malformed"),
        ("receiver", messages.Answer, {"answer": lambda a: a[:-1]}, "protocol.malformed"),
        ("receiver", messages.Tags, {"first": lambda f: f + 1}, "protocol.unexpected"),
        ("receiver", messages.Tags, {"data": lambda d: d[:-1]}, "protocol.malformed"),
        ("receiver", messages.Tags, {"data": lambda d: d + d[:1]}, "protocol.malformed"),
    ],
)
def test_a_changed_message_ends_the_run(who: str, name: type, fields: dict[str, Any], code: str) -> None:
    assert changed(who, name, **fields)[0] == code


def test_malicious_checks() -> None:
    assert changed("receiver", messages.Proof, True, proof=flip)[0].split(".")[0] in ("vole", "protocol")
    assert changed("receiver", messages.Coin, True, coin=flip)[0] == "align.coin"
    assert changed("receiver", messages.Offer, True, commitment=flip)[0] == "align.coin"


def test_every_other_message_is_unexpected() -> None:
    """A machine that waits for one message takes no other one, in whatever state it is."""
    for malicious in (False, True):
        transcript = steps(malicious)
        for who in ("sender", "receiver"):
            peer = "receiver" if who == "sender" else "sender"
            due = sent_by(peer, transcript)
            for at in range(len(due)):
                for wrong in range(len(due)):
                    if due[wrong][:1] == due[at][:1]:
                        continue
                    machine: Any = (send(items_of(range(400)), malicious=malicious) if who == "sender"
                                    else receive(items_of(range(300)), malicious=malicious))  # fmt: skip
                    with pytest.raises(PeerError, match=r"protocol\.unexpected"):
                        list(feed(machine, [*due[:at], due[wrong]]))


def test_repeated_tags_messages_and_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE", 1000)
    transcript = steps()
    due = sent_by("sender", transcript)
    first = next(i for i, m in enumerate(due) if m[0] == 5)
    machine = receive(items_of(range(300)))
    with pytest.raises(PeerError, match="rows 0… came"):
        list(feed(machine, [*due[: first + 1], due[first]]))
    machine = receive(items_of(range(300)))
    with pytest.raises(PeerError, match=r"protocol\.unexpected"):
        list(feed(machine, [*due, due[-1]]))


@pytest.mark.parametrize("malicious", [False, True])
def test_both_sides_must_mean_the_same(malicious: bool) -> None:
    mine = items_of(range(3))
    for other in (
        send(mine, malicious=not malicious),
        send(mine, malicious=malicious, session=bytes(32)),
        send(mine, malicious=malicious, runs=2),
    ):
        with pytest.raises(PeerError, match=r"protocol\.binding"):
            converse(receive(mine, malicious=malicious), other)
    with pytest.raises(PeerError, match=r"align\.size"):
        converse(receive(mine, malicious=malicious, numbered=True), send(mine, malicious=malicious))
    with pytest.raises(PeerError):
        converse(receive(mine, malicious=malicious), align.Sender(mine, SESSION, LIMITS, stream("x")))


def test_a_set_that_is_too_large() -> None:
    small = align.Limits(max_receiver=256, max_sender=256)
    with pytest.raises(LocalError, match=r"protocol\.argument: 300 items"):
        receive(items_of(range(300)), limits=small)
    with pytest.raises(LocalError, match=r"protocol\.argument: 300 items"):
        send(items_of(range(300)), limits=small)
    with pytest.raises(PeerError, match=r"protocol\.too_large: the receiver asks"):
        converse(receive(items_of(range(300))), send(items_of(range(3)), limits=small))
    with pytest.raises(PeerError, match=r"protocol\.too_large: the sender has"):
        converse(receive(items_of(range(3)), limits=small), send(items_of(range(300))))


def test_repeated_items_unknown_suites_and_variants() -> None:
    twice = np.concatenate([items_of(range(5)), items_of([3])])
    for make in (receive, send):
        with pytest.raises(LocalError, match="1 items are repeated"):
            make(twice)
    for bad in ({"suite": "rsa"}, {"malicious": True}):
        for role in (align.Receiver, align.Sender):
            with pytest.raises(LocalError, match=r"protocol\.argument"):
                role(items_of("ab"), SESSION, LIMITS, stream("x"), **bad)  # type: ignore[arg-type]


def test_a_store_that_can_not_be_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver.okvs, "encode", lambda *_: None)
    with pytest.raises(LocalError, match=r"align\.store"):
        converse(receive(items_of(range(3))), send(items_of(range(3))))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5), st.binary(max_size=400), st.booleans())
def test_bytes_from_anywhere(at: int, junk: bytes, malicious: bool) -> None:
    """A machine goes on, or raises PeerError: nothing else."""
    for who in ("sender", "receiver"):
        due = sent_by("receiver" if who == "sender" else "sender", _TRANSCRIPTS[malicious])
        place = min(at, len(due) - 1)
        machine: Any = send(items_of(range(4)), malicious=malicious) if who == "sender" else receive(
            items_of(range(3)), malicious=malicious
        )  # fmt: skip
        for bad in (junk, due[place][:1] + junk, due[place][: len(junk)]):
            try:
                list(feed(machine, [*due[:place], bad]))
            except PeerError:
                break


_TRANSCRIPTS = {m: steps(m, 3, 4) for m in (False, True)}


# -- the table -----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(0, 80), st.integers(1, 16), st.integers(0, 1 << 30))
def test_the_table_finds_the_first_of_equal_tags(n: int, m: int, width: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    own = np.unique(draw.integers(0, 4, (n, width), dtype=np.uint8), axis=0)
    draw.shuffle(own)
    theirs = draw.integers(0, 4, (m, width), dtype=np.uint8)
    table = Table(own, None)
    for low in range(0, m, 11):
        table.take(low, theirs[low : low + 11])
    first: dict[bytes, int] = {}
    for j, tag in enumerate(theirs):
        first.setdefault(tag.tobytes(), j)
    assert table.rows.tolist() == [first.get(tag.tobytes(), -1) for tag in own]


def test_the_receivers_memory_does_not_grow_with_the_senders_rows() -> None:
    table = Table(items_of(range(100))[:, :10].copy(), None)
    before = [a.nbytes for a in vars(table).values() if isinstance(a, np.ndarray)]
    for low in range(0, 10_000, 1000):
        table.take(low, items_of(range(low, low + 1000))[:, :10].copy())
    assert before == [a.nbytes for a in vars(table).values() if isinstance(a, np.ndarray)]
    assert okvs.Shape.of(256).size < 2 * 256


def test_a_run_holds_what_its_vole_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    from protocols.align.vole import messages

    assert messages.fits(1 << 25) and not messages.fits(1 << 26)
    receiver = align.Receiver(items_of(range(300)), SESSION, align.Limits(), stream("r"), suite="vole")
    sender = align.Sender(items_of("ab"), SESSION, align.Limits(), stream("s"), suite="vole")
    monkeypatch.setattr(messages, "MOST", 300)
    with pytest.raises(PeerError, match=r"protocol\.too_large.*one run"):
        converse(receiver, sender)
    with pytest.raises(LocalError, match=r"protocol\.argument.*buckets"):
        align.Receiver(items_of(range(300)), SESSION, align.Limits(), stream("r"), suite="vole")
