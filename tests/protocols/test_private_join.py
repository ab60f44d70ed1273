"""private_join: known answer, play, equality with the ideal functionality, refusals, sizes."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oprf_helpers import SESSION, converse, feed, items_of, sent_by, stream

from protocols import security
from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.machine import MAX_MESSAGE, Machine
from protocols.oprf import padding
from protocols.private_join import Holder, PrivateKey, Terms, Valuer, generate, holder, ideal, messages, sets
from protocols.private_join import valuer as valuer_module
from protocols.private_join.messages import (
    TO_HOLDER,
    TO_VALUER,
    Answer,
    Doubled,
    Hello,
    Joined,
    Masked,
    Opened,
    Rows,
)

SMALL = 512
NOISE = {"epsilon": 2.0, "delta": 1e-3}  # 0 to 8 dummies, 4 on average
SUMS = Terms(**NOISE, bounds=(100, 7), sum_to="holder")
TERMS = {
    "count": Terms(**NOISE),
    "holder": SUMS,
    "valuer": replace(SUMS, sum_to="valuer"),
    "holder, noise": replace(SUMS, sum_epsilon=1.0),
    "valuer, noise": replace(SUMS, sum_to="valuer", sum_epsilon=1.0),
    "many columns": Terms(**NOISE, bounds=(1 << 40,) * 13, sum_to="valuer", sum_epsilon=5.0),
}


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return generate(stream("key"), SMALL)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


def shrink(patch: pytest.MonkeyPatch) -> None:
    """A floor of 8, chunks of 16 elements or 5 rows, and keys of 512 bits."""
    for module in (padding, holder, valuer_module, messages):
        patch.setattr(module, "CHUNK", 16, raising=False)
    for module in (holder, valuer_module):
        patch.setattr(module, "rows_in_a_message", lambda _: 5)
    patch.setattr(padding, "PADDING_FLOOR", 8)
    patch.setattr(security, "PAILLIER_BITS", SMALL)


def values_of(rows: int, terms: Terms, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, [b + 1 for b in terms.bounds], (rows, len(terms.bounds)))


def pair(mine: Any, theirs: Any, terms: Terms, key: PrivateKey, seed: str = "", session: bytes = SESSION):
    table = values_of(len(theirs), terms) if terms.bounds else None
    one = Holder(items_of(mine), session, terms, stream("holder" + seed))
    return one, Valuer(items_of(theirs), table, session, terms, stream("valuer" + seed), key)


def run(mine: Any, theirs: Any, terms: Terms, key: PrivateKey, seed: str = ""):
    one, other = pair(mine, theirs, terms, key, seed)
    transcript = converse(one, other)
    return one, other, [("holder" if who == "receiver" else "valuer", message) for who, message in transcript]


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Every draw of noise by who made it: dummies in "sets" (holder's, then valuer's), sums in the role's."""
    seen: dict[str, list[int]] = {"sets": [], "holder": [], "valuer": []}
    original = sets.draw

    def recorder(name: str) -> Callable[..., int]:
        def draw(noise: Any, rng: Any) -> int:
            seen[name].append(original(noise, rng))
            return seen[name][-1]

        return draw

    for name, module in (("sets", sets), ("holder", holder), ("valuer", valuer_module)):
        monkeypatch.setattr(module, "draw", recorder(name))
    return seen


def assert_ideal(
    mine: Any, theirs: Any, terms: Terms, key: PrivateKey, draws: dict[str, list[int]], seed: str = ""
) -> None:
    for drawn in draws.values():
        drawn.clear()
    one, other, _ = run(mine, theirs, terms, key, seed)
    eta_holder, eta_valuer = draws["sets"]
    noise = draws["holder"] + draws["valuer"] or [0] * len(terms.bounds)
    table = values_of(len(theirs), terms)
    expected = ideal.join(items_of(mine), items_of(theirs), table, terms, eta_holder, eta_valuer, noise)
    assert (one.result.size, other.result.size) == expected[:2]
    learns, not_told = (one, other) if terms.sum_to == "holder" else (other, one)
    assert learns.result.sums == expected[2]
    assert not_told.result.sums is None
    assert one.result.withheld == other.result.withheld == (bool(terms.bounds) and expected[2] is None)
    assert one.result.peer_size == padding.padded_size(len(theirs))
    assert other.result.peer_size == padding.padded_size(len(mine))
    assert one.progress[0] == one.progress[1] == other.progress[0] == other.progress[1]


# Equality with the ideal functionality


def test_three_hundred_random_runs(small: None, key: PrivateKey, draws: dict[str, list[int]]) -> None:
    choose = random.Random(4)
    for i in range(300):
        terms = TERMS[choose.choice(list(TERMS))]
        if terms.bounds and choose.random() < 0.3:
            terms = replace(terms, minimum=choose.choice([1, 5, 8]))
        n, m = choose.choice([0, 1, 2, 9, 20]), choose.choice([0, 1, 2, 10, 21])
        span = choose.choice([24, 60])
        mine, theirs = choose.sample(range(span), n), choose.sample(range(span), m)
        assert_ideal(mine, theirs, terms, key, draws, str(i))


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_everyone_and_nobody_is_shared(
    small: None, key: PrivateKey, draws: dict[str, list[int]], terms: Terms
) -> None:
    assert_ideal(range(30), range(30), terms, key, draws)
    assert_ideal(range(30), range(30, 60), terms, key, draws)


def test_a_run_with_real_sizes(draws: dict[str, list[int]]) -> None:
    """3072 bits, a key made by the valuer's machine, the real floor."""
    terms = Terms(bounds=(1000, 1 << 40), sum_to="valuer", sum_epsilon=1.0)
    table = np.stack(
        [np.arange(40) * 30, np.arange(40) << 30], axis=1
    )  # the last rows of column 0 are clipped
    one = Holder(items_of(range(30)), SESSION, terms, os.urandom)
    other = Valuer(items_of(range(10, 50)), table, SESSION, terms, os.urandom)
    transcript = converse(one, other)
    noise = [drawn.copy() for drawn in draws.values()]
    assert (one.result.size, other.result.size) == (20 + noise[0][1], 20 + noise[0][0])
    exact = np.minimum(table[:20], terms.bounds).sum(axis=0)
    assert other.result.sums == tuple(int(s) + z for s, z in zip(exact, noise[1], strict=True))
    assert all(len(message) <= MAX_MESSAGE for _, message in transcript)


def test_values_over_their_bound_count_as_the_bound(small: None, key: PrivateKey) -> None:
    terms = SUMS
    for kind in (np.int64, np.uint64):
        table = np.array([[10**6, 7], [1, 8]], dtype=kind)
        one = Holder(items_of(range(2)), SESSION, terms, stream("h"))
        converse(one, Valuer(items_of(range(2)), table, SESSION, terms, stream("v"), key))
        assert one.result.sums == (101, 14)


# Known answer and play


def test_known_answer(small: None, key: PrivateKey) -> None:
    """Fixed randomness fixes every byte. The hash is this code's own: it guards against unmeant changes."""
    one, other, transcript = run(range(5), range(3, 9), TERMS["valuer, noise"], key)
    digest = hashlib.sha256(b"".join(message for _, message in transcript)).hexdigest()
    assert (one.result.size, other.result.size, other.result.sums) == (2, 4, (261, 3))
    assert digest == "c21a17e2bd1587648877a7f11add8b81240b44cd2211ecdcc776aa56dce7a73a"


@pytest.mark.parametrize("name", ["count", "holder", "valuer"])
def test_the_play(small: None, key: PrivateKey, name: str) -> None:
    """8 people + 4 · 4 dummies: 24 elements a side, chunks of 16 and 8, rows in messages of 5."""
    terms = TERMS[name]
    assert terms.size_noise.bound == 4
    _, _, transcript = run(range(8), range(4, 12), terms, key)
    play = [
        ("holder", Hello, None),
        ("valuer", Answer, None),
        ("holder", Masked, 0),
        ("holder", Masked, 16),
        ("valuer", Doubled, 0),
        ("valuer", Doubled, 16),
        *(("valuer", Rows, at) for at in (0, 5, 10, 15, 20)),
        ("holder", Joined, None),
        *([("valuer", Opened, None)] if name == "holder" else []),
    ]
    assert len(transcript) == len(play)
    for (who, message), (speaker, kind, first) in zip(transcript, play, strict=True):
        codec = TO_VALUER if who == "holder" else TO_HOLDER
        decoded: Any = codec.decode(message, kind)
        assert who == speaker
        assert first is None or decoded.first == first


def test_the_other_side_sees_nothing_twice(small: None, key: PrivateKey) -> None:
    """Two sessions over the same sets, and one session's messages among themselves, share no element."""
    seen: list[bytes] = []
    for seed in "ab":
        _, _, transcript = run(range(8), range(8), TERMS["count"], key, seed)
        for message in sent_by("holder", transcript)[1:-1] + sent_by("valuer", transcript)[1:]:
            codec = TO_VALUER if message in sent_by("holder", transcript) else TO_HOLDER
            elements = codec.decode(message, Masked, Doubled, Rows).elements
            seen += [elements[i : i + 32] for i in range(0, len(elements), 32)]
    assert len(seen) == len(set(seen)) == 2 * 3 * 24


# What sizes tell


def lengths(transcript: list[tuple[str, bytes]]) -> list[tuple[str, int]]:
    return [(who, len(message)) for who, message in transcript]


@pytest.mark.parametrize("name", ["count", "holder, noise"])
def test_messages_have_the_same_sizes_for_all_sets_of_a_padded_size(
    small: None, key: PrivateKey, draws: dict[str, list[int]], name: str
) -> None:
    shapes, etas = set(), set()
    for i in range(12):
        n = 17 + i % 2  # both are padded to 18
        _, _, transcript = run(range(n), range(i, i + 35 + i % 2), TERMS[name], key, str(i))
        shapes.add(tuple(lengths(transcript)))
        etas.add(tuple(draws["sets"][-2:]))
    assert len(etas) > 3
    assert len(shapes) == 1


def test_a_set_contains_its_dummies_and_all_of_the_others(small: None) -> None:
    """Matches with everything of one's own pool are one's eta; with the other's pool, all of it."""
    terms = TERMS["count"]
    for seed in range(20):
        own = sets.Own(items_of(range(9)), "holder", SESSION, terms, stream(str(seed)))
        points = {p.tobytes() for p in own.points}
        assert len(points) == own.size == 9 + 16
        mine = {p.tobytes() for p in sets.dummies("holder", SESSION, 8)}
        theirs = {p.tobytes() for p in sets.dummies("valuer", SESSION, 8)}
        assert not mine & theirs
        assert (len(points & mine), len(points & theirs)) == (own.eta, 8)
        assert sorted(own.order) == list(range(own.size))


def test_dummies_differ_between_sessions(small: None) -> None:
    one, other = sets.dummies("holder", SESSION, 6), sets.dummies("holder", bytes(32), 6)
    assert not {p.tobytes() for p in one} & {p.tobytes() for p in other}


def test_orders_are_uniform() -> None:
    rng = stream("order")
    counts = np.zeros((4, 4), dtype=int)
    for _ in range(4000):
        counts[np.arange(4), sets.permutation(4, rng)] += 1
    assert (abs(counts - 1000) < 140).all()  # five standard deviations


# Refusals


@pytest.fixture(scope="module")
def recorded(key: PrivateKey) -> dict[str, list[tuple[str, bytes]]]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return {name: run(range(8), range(4, 12), TERMS[name], key)[2] for name in PLAYED}


PLAYED = ["count", "holder", "valuer, noise"]
WHO = ["holder", "valuer"]


def machine(who: str, name: str, key: PrivateKey) -> Machine[Any]:
    return pair(range(8), range(4, 12), TERMS[name], key)[WHO.index(who)]


def assert_refused(victim: Machine[Any], sent: list[bytes], *codes: str) -> None:
    with pytest.raises(PeerError) as caught:
        list(feed(victim, sent))
    assert caught.value.code in codes
    assert not victim.finished
    with pytest.raises(LocalError, match=r"protocol\.poisoned"):
        victim.receive(sent[0])


MUTATIONS: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "another type": lambda m, p: [*m[:p], bytes([m[p][0] % 3 + 1]) + m[p][1:], *m[p + 1 :]],
    "truncated": lambda m, p: [*m[:p], m[p][:-1], *m[p + 1 :]],
    "trailing byte": lambda m, p: [*m[:p], m[p] + b"\x00", *m[p + 1 :]],
    "empty": lambda m, p: [*m[:p], b"", *m[p + 1 :]],
    "oversize": lambda m, p: [*m[:p], m[p] + bytes(MAX_MESSAGE), *m[p + 1 :]],
    "twice": lambda m, p: [*m[: p + 1], *m[p:]],
    "left out": lambda m, p: [*m[:p], *m[p + 1 :], m[0]],
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", PLAYED)
def test_every_change_of_every_message_is_refused(
    small: None,
    key: PrivateKey,
    recorded: dict[str, list[tuple[str, bytes]]],
    name: str,
    who: str,
    mutation: str,
) -> None:
    honest = sent_by(WHO[1 - WHO.index(who)], recorded[name])
    for position in range(len(honest)):
        sent = MUTATIONS[mutation](honest, position)
        codes = ("protocol.malformed", "protocol.unexpected", "protocol.too_large")
        assert_refused(machine(who, name, key), sent, *codes)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_bytes_are_parsed_or_refused(
    small: None, key: PrivateKey, recorded: dict[str, list[tuple[str, bytes]]], data: st.DataObject
) -> None:
    name, who = data.draw(st.sampled_from(PLAYED)), data.draw(st.sampled_from(WHO))
    honest = sent_by(WHO[1 - WHO.index(who)], recorded[name])
    at = data.draw(st.integers(0, len(honest) - 1))
    message = bytearray(honest[at])
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    changed = data.draw(st.sampled_from([bytes(message), data.draw(st.binary(max_size=80))]))
    victim = machine(who, name, key)
    try:
        list(feed(victim, [*honest[:at], changed, *honest[at + 1 :]]))
    except ProtocolError as error:
        assert isinstance(error, PeerError)


def altered(sent: list[bytes], at: int, to: Any, kind: type, **changes: Any) -> list[bytes]:
    return [*sent[:at], to.encode(replace(to.decode(sent[at], kind), **changes)), *sent[at + 1 :]]


def test_other_terms_or_sessions_are_refused(small: None, key: PrivateKey) -> None:
    others = [replace(SUMS, **c) for c in OTHER_TERMS]
    for terms, session in [*((terms, SESSION) for terms in others), (SUMS, bytes(32))]:
        one, _ = pair(range(8), range(8), terms, key, session=session)
        assert_refused(machine("valuer", "holder", key), list(one.start()), "protocol.binding")


OTHER_TERMS: list[dict[str, Any]] = [
    *({"epsilon": 2.5}, {"delta": 2e-3 / 3}, {"bounds": (100, 8)}, {"bounds": (100,)}, {"sum_to": "valuer"}),
    *({"sum_epsilon": 1.0}, {"minimum": 1}, {"max_holder": 9}, {"max_valuer": 9}),
]


@pytest.mark.parametrize(
    ("size", "code"),
    [(0, "size"), (16, "size"), (23, "size"), (16 + 19, "size"), (1 << 63, "too_large")],
)
def test_sizes_off_the_grid_are_refused(
    small: None, key: PrivateKey, recorded: dict[str, list[tuple[str, bytes]]], size: int, code: str
) -> None:
    named = f"private_join.{code}" if code == "size" else f"protocol.{code}"
    for who, to, kind in (("valuer", TO_VALUER, Hello), ("holder", TO_HOLDER, Answer)):
        honest = sent_by(WHO[1 - WHO.index(who)], recorded["holder"])
        assert_refused(machine(who, "holder", key), altered(honest, 0, to, kind, size=size), named)


def test_bad_points_are_refused(
    small: None, key: PrivateKey, recorded: dict[str, list[tuple[str, bytes]]]
) -> None:
    for who, to, kind, at in (("valuer", TO_VALUER, Masked, 1), ("holder", TO_HOLDER, Rows, 3)):
        honest = sent_by(WHO[1 - WHO.index(who)], recorded["holder"])
        elements = to.decode(honest[at], kind).elements
        for bad in (bytes(32), b"\xff" * 32):
            sent = altered(honest, at, to, kind, elements=elements[:-32] + bad)
            assert_refused(machine(who, "holder", key), sent, "oprf.bad_point")


def test_a_person_put_in_twice_is_refused(
    small: None, key: PrivateKey, recorded: dict[str, list[tuple[str, bytes]]]
) -> None:
    cases = [
        ("valuer", TO_VALUER, Masked, 1),
        ("holder", TO_HOLDER, Doubled, 1),
        ("holder", TO_HOLDER, Rows, 3),
    ]
    for who, to, kind, at in cases:
        honest = sent_by(WHO[1 - WHO.index(who)], recorded["holder"])
        elements = to.decode(honest[at], kind).elements
        sent = altered(honest, at, to, kind, elements=elements[32:] + elements[-32:])
        assert_refused(machine(who, "holder", key), sent, "private_join.repeated")


def test_impossible_counts_and_sums_are_refused(
    small: None, key: PrivateKey, recorded: dict[str, list[tuple[str, bytes]]]
) -> None:
    at = 3
    for name in PLAYED:
        honest = sent_by("holder", recorded[name])
        for count in (25, 1 << 63):
            sent = altered(honest, at, TO_VALUER, Joined, count=count)
            assert_refused(machine("valuer", name, key), sent, "private_join.sum")
    # Without sums due: none may come. With sums for the valuer: a plaintext beyond the slots.
    sent = altered(sent_by("holder", recorded["count"]), at, TO_VALUER, Joined, sums=bytes(128))
    assert_refused(machine("valuer", "count", key), sent, "private_join.sum")
    large = key.public.encrypt(1 << 100, os.urandom).to_bytes(128, "big")
    sent = altered(sent_by("holder", recorded["valuer, noise"]), at, TO_VALUER, Joined, sums=large)
    assert_refused(machine("valuer", "valuer, noise", key), sent, "private_join.sum")


def test_numbers_that_are_no_ciphertexts_are_refused(
    small: None, key: PrivateKey, recorded: dict[str, list[tuple[str, bytes]]]
) -> None:
    n, square = key.public.n, int(key.public.square)
    rows = sent_by("valuer", recorded["holder"])
    opened = [m for m in rows if m[0] == 4]
    for bad in (0, n, 5 * n, square, square + 1):
        data = TO_HOLDER.decode(rows[3], Rows).ciphertexts
        sent = altered(rows, 3, TO_HOLDER, Rows, ciphertexts=bad.to_bytes(128, "big") + data[128:])
        assert_refused(machine("holder", "holder", key), sent, "private_join.ciphertext")
        joined = altered(
            sent_by("holder", recorded["holder"]), 3, TO_VALUER, Joined, sums=bad.to_bytes(128, "big")
        )
        assert_refused(machine("valuer", "holder", key), joined, "private_join.ciphertext")
    assert len(opened) == 1
    sent = altered(rows, len(rows) - 1, TO_HOLDER, Opened, plaintexts=n.to_bytes(64, "big"))
    assert_refused(machine("holder", "holder", key), sent, "private_join.ciphertext")
    # A plaintext other than what was asked for leaves the mask on: beyond every slot.
    sent = altered(rows, len(rows) - 1, TO_HOLDER, Opened, plaintexts=bytes(64))
    assert_refused(machine("holder", "holder", key), sent, "private_join.sum")


BAD_ARGUMENTS: dict[str, Callable[[PrivateKey], object]] = {
    "session": lambda key: Holder(items_of(range(3)), b"short", SUMS, os.urandom),
    "repeated": lambda key: Holder(items_of([1, 1]), SESSION, SUMS, os.urandom),
    "too many": lambda key: Holder(items_of(range(3)), SESSION, replace(SUMS, max_holder=2), os.urandom),
    "no values": lambda key: Valuer(items_of(range(3)), None, SESSION, SUMS, os.urandom, key),
    "rows": lambda key: Valuer(items_of(range(3)), values_of(2, SUMS), SESSION, SUMS, os.urandom, key),
    "floats": lambda key: Valuer(items_of([1]), np.ones((1, 2)), SESSION, SUMS, os.urandom, key),
    "negative": lambda key: Valuer(items_of([1]), np.array([[1, -1]]), SESSION, SUMS, os.urandom, key),
    "values without bounds": lambda key: Valuer(
        items_of([1]), np.ones((1, 1), np.int64), SESSION, TERMS["count"], os.urandom
    ),
    "key of another size": lambda key: Valuer(
        items_of([1]), values_of(1, SUMS), SESSION, SUMS, os.urandom, generate(stream("k"), 256)
    ),
    "rng": lambda key: Holder(items_of([1]), SESSION, SUMS, lambda n: bytes(n - 1)),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments(small: None, key: PrivateKey, case: str) -> None:
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        BAD_ARGUMENTS[case](key)


def _bad_terms() -> Iterator[dict[str, Any]]:
    for name, values in {
        "epsilon": [0, 11, float("nan"), -1],
        "delta": [0, 0.5],
        "bounds": [(0,), (-1,), (1 << 41,), (1,) * 65],
        "sum_to": ["both", ""],
        "sum_epsilon": [0, 101],
        "minimum": [-1],
        "max_holder": [-1, 1 << 33],
    }.items():
        yield from ({name: value} for value in values)


@pytest.mark.parametrize("change", list(_bad_terms()), ids=str)
def test_bad_terms(change: dict[str, Any]) -> None:
    with pytest.raises(LocalError, match=r"protocol\.argument"):
        Terms(**change)
