"""The VOLE: equal to the ideal functionality's relation, playbook, code, trees, fuzz, and cheating."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oprf_helpers import SESSION, converse, stream
from ot_helpers import DealtReceiver, DealtSender

from protocols import vole
from protocols.errors import LocalError, PeerError
from protocols.machine import MAX_MESSAGE, pump
from protocols.ot.field import multiply64, multiply128, multiply_add, tables
from protocols.security import LPN_CONSERVATIVE, LPN_STANDARD
from protocols.vole.kernels import evaluate, power_sum
from protocols.vole.lpn import Code, Shape
from protocols.vole.messages import TO_RECEIVER, TO_SENDER, Answer, Challenge, Opening, Request
from protocols.vole.noisy import elements, joined
from protocols.vole.trees import Trees

FIELDS = ["gf2", "gf64", "gf128"]


def machines(n, seed="", session=SESSION, **options):
    return (
        vole.Receiver(n, session, stream(f"receiver {seed}"), **options),
        vole.Sender(n, session, stream(f"sender {seed}"), **options),
    )


def check_relation(receiver: vole.ReceiverVole, sender: vole.SenderVole, n: int, field: str) -> None:
    assert receiver.a.shape == sender.b.shape == (n, 2)
    assert receiver.c.shape == ((n, 2) if field == "gf128" else (n,))
    if field == "gf2":
        assert receiver.c.max() <= 1
    expected = sender.b.copy()
    multiply_add(expected, sender.delta, receiver.c)
    assert np.array_equal(receiver.a, expected)


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("n", [1, 2, 31, 33, 4095, 4096, 4097, 9000, 70_001])
def test_the_relation_holds(n: int, field: str, malicious: bool, dealt_base) -> None:
    receiver, sender = machines(n, f"{n}", field=field, malicious=malicious)
    pump(receiver, sender)
    check_relation(receiver.result, sender.result, n, field)


@pytest.fixture
def dealt_base(monkeypatch) -> None:
    """Base OTs from a dealer: they are tested on their own, and cost most of a small run."""
    monkeypatch.setattr("protocols.vole.sender.BaseReceiver", DealtReceiver)
    monkeypatch.setattr("protocols.vole.receiver.BaseSender", DealtSender)


def test_hundreds_of_runs_have_the_ideal_relation(dealt_base) -> None:
    """As the dealer's values: the relation, no element twice, both halves of the bits about even."""
    ones = total = 0
    for run in range(300):
        n = 1 + run % 80
        field = FIELDS[1 + run % 2]
        session = hashlib.sha256(b"%d" % run).digest()
        receiver = vole.Receiver(n, session, os.urandom, field=field, malicious=run % 3 == 0)
        sender = vole.Sender(n, session, os.urandom, field=field, malicious=run % 3 == 0)
        pump(receiver, sender)
        check_relation(receiver.result, sender.result, n, field)
        for words in (receiver.result.a, sender.result.b, receiver.result.c.reshape(n, -1)):
            assert len(np.unique(words, axis=0)) == n
            ones += int(np.unpackbits(words.view(np.uint8)).sum())
            total += words.nbytes * 8
    assert abs(ones / total - 0.5) < 6 / (2 * total**0.5)


@pytest.mark.parametrize("field", FIELDS)
def test_the_relation_holds_with_real_base_ots(field: str) -> None:
    for run in range(5):
        receiver, sender = machines(2000, f"real {run}", field=field, malicious=run % 2 == 0)
        pump(receiver, sender)
        check_relation(receiver.result, sender.result, 2000, field)


@pytest.mark.parametrize("malicious", [False, True])
def test_random_ots_over_bits(malicious: bool, dealt_base) -> None:
    """Choices that are random and even, the string that they name, and another one beside it."""
    n = 20_000
    receiver, sender = machines(n, "bits", field="gf2", malicious=malicious)
    pump(receiver, sender)
    choices, chosen = vole.receiver_ots(receiver.result, SESSION)
    both = vole.sender_ots(sender.result, SESSION)
    assert np.array_equal(chosen.strings, both.strings[np.arange(n), choices])
    assert len(np.unique(both.strings.reshape(-1, 2), axis=0)) == 2 * n
    assert abs(int(choices.sum()) - n / 2) < 6 * (n / 4) ** 0.5
    assert np.array_equal(choices.astype(np.uint64), receiver.result.c)


def test_known_answer() -> None:
    """Regression: with fixed streams both results are these, on every machine."""
    receiver, sender = machines(1000, "known", malicious=True)
    pump(receiver, sender)
    digest = hashlib.sha256()
    for words in (receiver.result.a, receiver.result.c, sender.result.b, sender.result.delta):
        digest.update(words.astype("<u8").tobytes())
    assert digest.hexdigest() == "a98700f6d5dc9a389aef88d47460ffa86eaeec7f115208060e79c3fd63d7ae60"


def test_playbook() -> None:
    """Who sends what, and that no message grows with n beyond its depth."""
    receiver, sender = machines(100, malicious=True)
    transcript = converse(receiver, sender)
    assert [who for who, _ in transcript] == ["sender", "receiver", "sender", "receiver", "sender"]
    assert [len(m) for _, m in transcript] == [8229, 149_593, 26_633, 17, 33]
    large = Shape.of(1 << 26)
    assert 16 * 128 * (2 * large.depth * large.blocks // 128 + 2 * large.blocks + 4) + 4096 < MAX_MESSAGE
    receiver, sender = machines(100)
    assert len(converse(receiver, sender)) == 3


def test_results_do_not_print_secrets() -> None:
    receiver, sender = machines(3)
    pump(receiver, sender)
    assert repr(sender.result) == "SenderVole()"
    assert repr(receiver.result) == "ReceiverVole()"


# the code and the trees against plain oracles


def plain_encode(code: Code, shape: Shape, vector: list[int], factor: int) -> list[int]:
    """README section 5, word by word, one list operation after the other."""

    def accumulate(values: list[int]) -> list[int]:
        out, last = [], 0
        for value in values:
            last = multiply64(factor, last) ^ value
            out.append(last)
        return out

    def image(i: int, rounds: np.ndarray) -> int:
        left, right = divmod(i, code._columns)
        while True:
            for j in range(0, len(rounds), 2):
                left = (left + int(rounds[j, right])) % code._rows
                right = (right + int(rounds[j + 1, left])) % code._columns
            if left * code._columns + right < len(vector):
                return left * code._columns + right

    for rounds in code._rounds:
        places = [image(i, rounds) for i in range(len(vector))]
        assert sorted(places) == list(range(len(vector)))
        vector = accumulate(vector)
        vector = [vector[p] for p in places]
    half = len(vector) // 2
    out = []
    for i in range(shape.n):
        value = vector[i]
        for bit in range(32):
            if int(code._matrices[i]) >> bit & 1:
                value ^= vector[half + i // 32 * 32 + bit]
        out.append(value)
    return out


@pytest.mark.parametrize("lpn", [LPN_STANDARD, LPN_CONSERVATIVE])
@pytest.mark.parametrize("n", [1, 77, 4096, 6500])
def test_the_code_is_the_specification(n: int, lpn) -> None:
    shape = Shape.of(n, lpn)
    rng = np.random.default_rng(n)
    vector = rng.integers(0, 2**64, (shape.size, 2), dtype=np.uint64)
    code = Code(shape, SESSION)
    wide, nothing = code.compress(vector.copy())
    assert nothing.shape == (0,)
    for half in range(2):
        both = code.compress(vector.copy(), np.ascontiguousarray(vector[:, half]))
        assert np.array_equal(both[0], wide)
        assert np.array_equal(both[1], wide[:, half])
        assert both[1].tolist() == plain_encode(code, shape, vector[:, half].tolist(), 2)
    assert np.array_equal(code.compress(vector.copy(), vector.copy())[1], wide)
    binary, _ = code.compress(vector.copy(), binary=True)
    assert binary[:, 0].tolist() == plain_encode(code, shape, vector[:, 0].tolist(), 1)


@pytest.mark.parametrize("n", [1, 4097, 5000, 9999])
def test_punctured_trees_agree_with_whole_ones(n: int) -> None:
    shape = Shape.of(n)
    trees = Trees(shape, SESSION)
    rng = np.random.default_rng(n)
    roots = rng.integers(0, 2**64, (shape.blocks, 2), dtype=np.uint64)
    places = rng.integers(0, shape.leaves, shape.blocks)
    places[:3] = 0, shape.leaves - 1, shape.leaves // 2
    levels = list(trees.grow(roots))
    sides, nodes = trees.path(places)
    blocks = np.arange(shape.blocks)
    sums = np.stack([both[1 - side, blocks] for (_, both), side in zip(levels, sides, strict=True)])
    whole = levels[-1][0].copy()
    known, total = trees.puncture(places, sums)
    assert np.array_equal(nodes[-1], places)
    whole[places, blocks] = 0
    assert np.array_equal(known, whole)
    assert np.array_equal(total, np.bitwise_xor.reduce(whole, axis=0))
    for level, both in levels:
        assert np.array_equal(np.bitwise_xor.reduce(level, axis=0), both[0] ^ both[1])


def test_columns_as_elements() -> None:
    """Both products that the noisy VOLE needs, against the slow field."""
    rng = np.random.default_rng(1)
    scalars = rng.integers(0, 2**64, (3, 2), dtype=np.uint64)
    delta = rng.integers(0, 2**64, 2, dtype=np.uint64)
    bits = np.unpackbits(delta.view(np.uint8), bitorder="little").astype(np.uint64)
    products = elements(bits[:, None] * scalars.reshape(1, -1))
    pair = int(delta[0]), int(delta[1])
    assert [tuple(p) for p in products.tolist()] == [
        multiply128(pair, (int(s), 0)) for s in scalars.reshape(-1)
    ]
    assert [tuple(p) for p in joined(products.reshape(-1, 2, 2)).tolist()] == [
        multiply128(pair, (int(u), int(v))) for u, v in scalars
    ]


def test_both_evaluations_agree() -> None:
    rng = np.random.default_rng(2)
    point = rng.integers(0, 2**64, 2, dtype=np.uint64)
    vector = np.zeros((300, 2), dtype=np.uint64)
    places = np.array([0, 7, 8, 299])
    vector[places] = rng.integers(0, 2**64, (4, 2), dtype=np.uint64)
    assert evaluate(vector, tables(point)) == power_sum(point, 300 - places, vector[places])
    power, expected = (1, 0), (0, 0)
    for i in range(299, -1, -1):
        power = multiply128(power, (int(point[0]), int(point[1])))
        term = multiply128(power, (int(vector[i, 0]), int(vector[i, 1])))
        expected = expected[0] ^ term[0], expected[1] ^ term[1]
    assert expected == evaluate(vector, tables(point))


# faults


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((0, SESSION), {}),
        ((2**26 + 1, SESSION), {}),
        ((5, b"short"), {}),
        ((5, SESSION), {"field": "gf3"}),
    ],
)
def test_wrong_arguments_are_refused(arguments, options) -> None:
    for role in (vole.VoleSender, vole.VoleReceiver):
        with pytest.raises(LocalError, match="protocol.argument"):
            role(*arguments, os.urandom, **options)


@pytest.mark.parametrize(
    "other",
    [
        {"session": bytes(32)},
        {"n": 51},
        {"field": "gf128"},
        {"malicious": True},
    ],
)
def test_different_settings_are_noticed_by_both(other) -> None:
    settings_ = {"n": 50, "session": SESSION, "field": "gf64", "malicious": False}

    def roles(options):
        return (
            cls(
                options["n"],
                options["session"],
                os.urandom,
                field=options["field"],
                malicious=options["malicious"],
            )
            for cls in (vole.VoleSender, vole.VoleReceiver)
        )

    sender, receiver = roles(settings_)
    strange_sender, strange_receiver = roles(settings_ | other)
    with pytest.raises(PeerError, match="protocol.binding"):
        receiver.request(strange_sender.opening())
    sender.opening()
    with pytest.raises(PeerError, match="protocol.binding"):
        sender.answer(strange_receiver.request(strange_sender_opening(settings_ | other)))


def strange_sender_opening(options) -> bytes:
    sender = vole.VoleSender(
        options["n"], options["session"], os.urandom, field=options["field"], malicious=options["malicious"]
    )
    return sender.opening()


def test_another_order_of_calls_is_refused() -> None:
    sender = vole.VoleSender(5, SESSION, os.urandom)
    with pytest.raises(LocalError, match="protocol.state"):
        sender.expand()
    with pytest.raises(LocalError, match="protocol.poisoned"):
        sender.opening()
    receiver = vole.VoleReceiver(5, SESSION, os.urandom)
    with pytest.raises(LocalError, match="protocol.state"):
        receiver.accept(b"")
    sender, receiver = vole.VoleSender(5, SESSION, os.urandom), vole.VoleReceiver(5, SESSION, os.urandom)
    receiver.accept(sender.answer(receiver.request(sender.opening())))
    receiver.expand()
    with pytest.raises(LocalError, match="the role has ended"):
        receiver.expand()
    with pytest.raises(LocalError, match="expand is due"):
        sender.prove(b"")


def test_repeated_and_reordered_messages_end_the_session() -> None:
    receiver, sender = machines(9)
    transcript = converse(receiver, sender)
    opening, request, answer = (m for _, m in transcript)
    for wrong, text in ((answer, "Opening was due"), (request, "malformed|Opening was due|ends")):
        machine = vole.Receiver(9, SESSION, os.urandom)
        list(machine.start())
        with pytest.raises(PeerError, match=text):
            list(machine.receive(wrong))
        with pytest.raises(LocalError, match="protocol.poisoned"):
            list(machine.receive(opening))
    machine = vole.Receiver(9, SESSION, os.urandom)
    list(machine.start())
    list(machine.receive(opening))
    with pytest.raises(PeerError, match="Opening came where Answer was due"):
        list(machine.receive(opening))


BAD_POINTS = {
    "not canonical": b"\xff" * 32,
    "negative": bytes([1]) + bytes(31),
    "identity": bytes(32),
}


@pytest.mark.parametrize("name", ["not canonical", "negative"])
def test_bad_points_of_the_sender_are_refused(name: str) -> None:
    sender, receiver = vole.VoleSender(5, SESSION, os.urandom), vole.VoleReceiver(5, SESSION, os.urandom)
    message = TO_RECEIVER.decode(sender.opening(), Opening)
    points = BAD_POINTS[name] + message.points[32:]
    with pytest.raises(PeerError, match="ot.bad_point"):
        receiver.request(TO_RECEIVER.encode(replace(message, points=points)))


@pytest.mark.parametrize("name", list(BAD_POINTS))
def test_bad_points_of_the_receiver_are_refused(name: str) -> None:
    sender, receiver = vole.VoleSender(5, SESSION, os.urandom), vole.VoleReceiver(5, SESSION, os.urandom)
    message = TO_SENDER.decode(receiver.request(sender.opening()), Request)
    with pytest.raises(PeerError, match="ot.bad_point"):
        sender.answer(TO_SENDER.encode(replace(message, point=BAD_POINTS[name])))


def test_wrong_sizes_are_refused() -> None:
    def fresh():
        sender, receiver = vole.VoleSender(5, SESSION, os.urandom), vole.VoleReceiver(5, SESSION, os.urandom)
        return sender, receiver, sender.opening()

    sender, receiver, opening = fresh()
    message = TO_RECEIVER.decode(opening, Opening)
    with pytest.raises(PeerError, match="protocol.malformed"):
        receiver.request(TO_RECEIVER.encode(replace(message, points=message.points[:-64])))
    for change in ("columns", "check"):
        sender, receiver, opening = fresh()
        request = TO_SENDER.decode(receiver.request(opening), Request)
        longer = replace(request, **{change: getattr(request, change) + bytes(16)})
        with pytest.raises(PeerError, match="protocol.malformed"):
            sender.answer(TO_SENDER.encode(longer))
    for change in ("sums", "leaves"):
        sender, receiver, opening = fresh()
        answer = TO_RECEIVER.decode(sender.answer(receiver.request(opening)), Answer)
        longer = replace(answer, **{change: getattr(answer, change) + bytes(16)})
        with pytest.raises(PeerError, match="protocol.malformed"):
            receiver.accept(TO_RECEIVER.encode(longer))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_fuzzed_messages_are_refused_or_accepted_never_anything_else(dealt_base, data) -> None:
    """Bytes cut, changed or random: the machine goes on, or raises PeerError."""
    receiver, sender = machines(3, "fuzz", malicious=True)
    turn = data.draw(st.integers(0, 4))
    queue = list(sender.start())
    list(receiver.start())
    for step in range(5):
        message = queue.pop()
        machine = receiver if step % 2 == 0 else sender
        if step == turn:
            at = data.draw(st.integers(0, len(message) - 1))
            message = data.draw(
                st.sampled_from(
                    [
                        message[:at],
                        message[:at] + bytes([message[at] ^ 1 << at % 8]) + message[at + 1 :],
                        message[:at] + b"\x00" + message[at:],
                        message[1:],
                    ]
                )
            )
        try:
            queue = list(machine.receive(message))
        except PeerError:
            assert step >= turn
            return
    # What can be changed unnoticed: the challenge's value (the receiver compares with its own).
    assert turn == 3 or receiver.finished


# cheating, malicious setting


def test_columns_of_different_vectors_are_caught(dealt_base) -> None:
    """A receiver that uses another x in some columns would learn bits of Δ from what follows."""
    caught = 0
    for run in range(40):
        sender = vole.VoleSender(5, SESSION, stream(f"s{run}"), malicious=True)
        receiver = vole.VoleReceiver(5, SESSION, stream(f"r{run}"), malicious=True)
        message = TO_SENDER.decode(receiver.request(sender.opening()), Request)
        columns = bytearray(message.columns)
        width = len(columns) // 128
        columns[run * width + 5] ^= 1
        try:
            sender.answer(TO_SENDER.encode(replace(message, columns=bytes(columns))))
        except PeerError as error:
            assert error.code == "ot.check"
            caught += 1
    # The challenge changes with the columns, so a check that was made for others never passes.
    assert caught == 40


@pytest.mark.parametrize("what", ["sums", "leaves"])
def test_inconsistent_trees_are_caught(what: str, dealt_base) -> None:
    """Every changed sum that the receiver uses; one that it doesn't use changes nothing."""
    verified = refused = 0
    for run in range(40):
        sender = vole.VoleSender(5, SESSION, stream(f"s{run}"), malicious=True)
        receiver = vole.VoleReceiver(5, SESSION, stream(f"r{run}"), malicious=True)
        answer = TO_RECEIVER.decode(sender.answer(receiver.request(sender.opening())), Answer)
        data = bytearray(getattr(answer, what))
        data[16 * run + 3] ^= 4
        challenge = receiver.accept(TO_RECEIVER.encode(replace(answer, **{what: bytes(data)})))
        assert challenge is not None
        proof = sender.prove(challenge)
        try:
            receiver.verify(proof)
        except PeerError as error:
            assert error.code == "vole.check"
            refused += 1
        else:
            check_relation(receiver.expand(), sender.expand(), 5, "gf64")
            verified += 1
    assert refused == 40 if what == "leaves" else refused > 8 < verified


def test_a_wrong_proof_is_refused() -> None:
    sender = vole.VoleSender(5, SESSION, os.urandom, malicious=True)
    receiver = vole.VoleReceiver(5, SESSION, os.urandom, malicious=True)
    challenge = receiver.accept(sender.answer(receiver.request(sender.opening())))
    assert challenge is not None
    wrong = TO_SENDER.decode(challenge, Challenge).point[:-1] + b"\x00"
    proof = sender.prove(TO_SENDER.encode(Challenge(wrong)))
    with pytest.raises(PeerError, match="vole.check"):
        receiver.verify(proof)
