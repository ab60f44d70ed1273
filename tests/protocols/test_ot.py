"""Base OTs and OT extension: known answers, the ideal relation, playbook, fuzz, and cheating."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oprf_helpers import SESSION, converse, stream
from ot_helpers import DealtReceiver, DealtSender

from protocols import ot
from protocols.errors import LocalError, PeerError
from protocols.machine import pump
from protocols.ot.aes import Permutation, Streams, hash_rows, keystream, room, with_room
from protocols.ot.base import BaseReceiver, BaseSender, _hash_to_group
from protocols.ot.columns import ColumnReceiver, ColumnSender, bits, transpose
from protocols.ot.ideal import ots
from protocols.ot.messages import BLOCK, TO_RECEIVER, TO_SENDER, Columns, Opening, Setup
from protocols.ristretto import add, from_uniform, multiply_base, subtract

BAD_POINTS = {
    "not canonical": b"\xff" * 32,
    "negative": bytes([1]) + bytes(31),
    "identity": bytes(32),
}


def choices_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, n, dtype=np.uint8)


# AES


def test_the_permutation_is_fips_197() -> None:
    """FIPS 197, appendix C.1."""
    permutation = Permutation(bytes(range(16)))
    block = np.frombuffer(bytes.fromhex("00112233445566778899aabbccddeeff"), dtype="<u8").astype(np.uint64)
    image = permutation.image(block.reshape(1, 2))
    assert image.astype("<u8").tobytes().hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


def test_the_stream_is_sp_800_38a_in_counter_mode() -> None:
    """FIPS 197's cipher on counters 0, 1, …; a stream that is read in parts is the same."""
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    cipher = Cipher(AES(key), ECB()).encryptor()  # noqa: S305
    expected = b"".join(cipher.update(i.to_bytes(16, "big")) for i in range(8))
    assert keystream(key, 128).tobytes() == expected
    streams = Streams(np.frombuffer(key * 2, dtype=np.uint8).reshape(2, 16))
    parts = np.concatenate([streams.take(2), streams.take(14)], axis=1)
    assert parts.astype("<u8").tobytes() == expected * 2
    with pytest.raises(LocalError, match="protocol.argument"):
        Streams(np.zeros((2, 8), dtype=np.uint8))


def test_the_hash_is_its_definition() -> None:
    permutation = Permutation(b"k" * 16)
    rows = np.random.default_rng(1).integers(0, 2**64, (5, 2), dtype=np.uint64)
    hashed = hash_rows(permutation, rows, 7)
    for i, row in enumerate(rows):
        inner = permutation.image(row.reshape(1, 2))[0]
        again = permutation.image((inner ^ np.array([7 + i, 0], dtype=np.uint64)).reshape(1, 2))[0]
        assert np.array_equal(hashed[i], again ^ inner)
    assert len(np.unique(hash_rows(permutation, np.zeros((9, 2), dtype=np.uint64), 0), axis=0)) == 9


def test_room() -> None:
    array = room((3, 2))
    assert with_room(array).nbytes == array.nbytes + 16
    with pytest.raises(LocalError, match="without room"):
        with_room(np.zeros((3, 2), dtype=np.uint64))


# columns


@pytest.mark.parametrize("words", [1, 2, 5])
def test_transpose_moves_every_bit(words: int) -> None:
    columns = np.random.default_rng(words).integers(0, 2**64, (128, words), dtype=np.uint64)
    rows = transpose(columns)
    as_bits = np.unpackbits(columns.astype("<u8").view(np.uint8), axis=1, bitorder="little")
    of_rows = np.unpackbits(rows.astype("<u8").view(np.uint8), axis=1, bitorder="little")
    assert np.array_equal(of_rows, as_bits.T)


@pytest.mark.parametrize("checked", [False, True])
def test_columns_are_correlated(checked: bool) -> None:
    rng = np.random.default_rng(3)
    pairs = rng.integers(0, 256, (128, 2, 16), dtype=np.uint8)
    delta = rng.integers(0, 2**64, 2, dtype=np.uint64)
    receiver = ColumnReceiver(pairs, SESSION, os.urandom)
    sender = ColumnSender(delta, np.ascontiguousarray(pairs[np.arange(128), bits(delta)]), SESSION)
    for words in (2, 6):
        x = rng.integers(0, 2**64, words, dtype=np.uint64)
        t, sent, check = receiver.mask(x, checked)
        q = sender.unmask(words, sent, check, checked)
        expected = np.where(bits(delta)[:, None] == 1, t[:, :words] ^ x, t[:, :words])
        assert np.array_equal(q[:, :words], expected)
    with pytest.raises(PeerError, match="protocol.malformed"):
        sender.unmask(4, sent, check, checked)


# base OTs


def test_base_ots_give_the_chosen_key_only() -> None:
    choices = choices_of(64)
    receiver, sender = BaseReceiver(choices, SESSION, os.urandom), BaseSender(SESSION, os.urandom)
    keys = sender.keys(receiver.points, 64)
    chosen = receiver.keys(sender.point)
    assert np.array_equal(chosen, keys[np.arange(64), choices])
    assert len(np.unique(keys.reshape(128, 16), axis=0)) == 128
    # Another session gives other keys for the same points.
    elsewhere = BaseSender(bytes(32), os.urandom)
    assert (
        not (elsewhere.keys(receiver.points, 64)[np.arange(64), choices] == receiver.keys(elsewhere.point))
        .any(axis=1)
        .all()
    )


def test_equal_points_in_a_batch_give_unrelated_keys() -> None:
    """Eprint 2021/682: without the OT's number in the oracles, a repeated pair would repeat its keys."""
    receiver, sender = BaseReceiver(choices_of(1), SESSION, os.urandom), BaseSender(SESSION, os.urandom)
    keys = sender.keys(receiver.points * 4, 4)
    assert len(np.unique(keys.reshape(8, 16), axis=0)) == 8


def test_base_ots_known_answer() -> None:
    """Regression."""
    receiver = BaseReceiver(choices_of(8, 5), SESSION, stream("base receiver"))
    sender = BaseSender(SESSION, stream("base sender"))
    keys = sender.keys(receiver.points, 8)
    assert np.array_equal(receiver.keys(sender.point), keys[np.arange(8), choices_of(8, 5)])
    assert (
        hashlib.sha256(receiver.points + sender.point + keys.tobytes()).hexdigest()
        == "b816ed549224eb5758ef5724a05e83e2e1470b9e2c9ff30d9103a050494be7e1"
    )


@pytest.mark.parametrize("name", list(BAD_POINTS))
def test_bad_base_points_are_refused(name: str) -> None:
    receiver, sender = BaseReceiver(choices_of(2), SESSION, os.urandom), BaseSender(SESSION, os.urandom)
    with pytest.raises(PeerError, match="ot.bad_point"):
        receiver.keys(BAD_POINTS[name])
    if name != "identity":  # as one of a pair it is an element like others
        with pytest.raises(PeerError, match="ot.bad_point"):
            sender.keys(receiver.points[:96] + BAD_POINTS[name], 2)
    with pytest.raises(PeerError, match="protocol.malformed"):
        sender.keys(receiver.points, 3)


def test_a_pair_that_makes_its_key_public_is_refused() -> None:
    other = from_uniform(np.frombuffer(os.urandom(64), dtype=np.uint8).reshape(1, 64))
    mask = _hash_to_group(SESSION, np.arange(1), np.zeros(1, dtype=np.uint8), other)
    identity = np.zeros((1, 32), dtype=np.uint8)
    opposite, good = subtract(identity, mask)
    assert good.all()
    with pytest.raises(PeerError, match="ot.bad_point"):
        BaseSender(SESSION, os.urandom).keys(opposite.tobytes() + other.tobytes(), 1)


def test_group_operations() -> None:
    scalars = np.zeros((3, 32), dtype=np.uint8)
    scalars[:, 0] = 1, 2, 3
    one, two, three = (p.reshape(1, 32) for p in multiply_base(scalars))
    # RFC 9496, appendix A.1, B[1] and B[2].
    assert one.tobytes().hex() == "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
    assert two.tobytes().hex() == "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919"
    assert add(one, two)[0].tobytes() == three.tobytes()
    assert subtract(three, two)[0].tobytes() == one.tobytes()
    assert not add(one, np.full((1, 32), 255, dtype=np.uint8))[1].any()
    with pytest.raises(LocalError, match="protocol.argument"):
        multiply_base(np.zeros((1, 32), dtype=np.uint8))
    with pytest.raises(LocalError, match="protocol.argument"):
        add(one, np.concatenate([one, two]))


# extension


@pytest.fixture
def dealt_base(monkeypatch) -> None:
    """Base OTs from a dealer: they are tested above, and cost most of a small run."""
    monkeypatch.setattr("protocols.ot.extension.BaseReceiver", DealtReceiver)
    monkeypatch.setattr("protocols.ot.extension.BaseSender", DealtSender)


def check_relation(receiver, sender, choices, correlated: bool) -> None:
    n = len(choices)
    assert sender.strings.shape == (n, 2, 2)
    assert np.array_equal(receiver.strings, sender.strings[np.arange(n), choices])
    difference = sender.strings[:, 0] ^ sender.strings[:, 1]
    assert (difference == sender.delta).all() if correlated else len(np.unique(difference, axis=0)) == n


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, BLOCK, BLOCK + 1, 2 * BLOCK + 77])
def test_the_relation_holds(n: int, correlated: bool, malicious: bool, dealt_base) -> None:
    choices = choices_of(n, n)
    options = {"correlated": correlated, "malicious": malicious}
    receiver = ot.Receiver(choices, SESSION, os.urandom, **options)
    sender = ot.Sender(n, SESSION, os.urandom, **options)
    pump(receiver, sender)
    check_relation(receiver.result, sender.result, choices, correlated)
    assert receiver.progress == (n, n)


def test_the_relation_holds_with_real_base_ots() -> None:
    for run in range(4):
        options = {"correlated": run % 2 == 1, "malicious": run > 1}
        receiver = ot.Receiver(choices_of(500, run), SESSION, os.urandom, **options)
        sender = ot.Sender(500, SESSION, os.urandom, **options)
        pump(receiver, sender)
        check_relation(receiver.result, sender.result, choices_of(500, run), options["correlated"])


def test_hundreds_of_runs_are_as_the_ideal_functionality(dealt_base) -> None:
    ones = total = 0
    for run in range(300):
        choices = choices_of(1 + run % 90, run)
        correlated = run % 2 == 0
        session = hashlib.sha256(b"%d" % run).digest()
        options = {"correlated": correlated, "malicious": run % 3 == 0}
        receiver = ot.Receiver(choices, session, os.urandom, **options)
        sender = ot.Sender(len(choices), session, os.urandom, **options)
        pump(receiver, sender)
        check_relation(receiver.result, sender.result, choices, correlated)
        check_relation(*ots(choices, os.urandom, correlated), choices, correlated)
        ones += int(np.unpackbits(sender.result.strings.view(np.uint8)).sum())
        total += sender.result.strings.nbytes * 8
    assert abs(ones / total - 0.5) < 6 / (2 * total**0.5)


def test_known_answer() -> None:
    """Regression."""
    choices = choices_of(300, 9)
    receiver = ot.Receiver(choices, SESSION, stream("receiver"), malicious=True)
    sender = ot.Sender(300, SESSION, stream("sender"), malicious=True)
    pump(receiver, sender)
    both = sender.result.strings.astype("<u8").tobytes() + receiver.result.strings.astype("<u8").tobytes()
    assert (
        hashlib.sha256(both).hexdigest() == "12be9061e0f0ea735dc7ff66b1a159ee3dd3b5a6bb31c4236c043ac04f78db21"
    )


def test_playbook(dealt_base) -> None:
    receiver = ot.Receiver(choices_of(BLOCK + 5), SESSION, os.urandom, malicious=True)
    sender = ot.Sender(BLOCK + 5, SESSION, os.urandom, malicious=True)
    transcript = converse(receiver, sender)
    assert [who for who, _ in transcript] == ["sender", "receiver", "receiver", "receiver"]
    check = 16 * 129
    assert [len(m) for _, m in transcript] == [
        1 + 32 + 4 + 64 * 128,
        1 + 64,
        1 + 12 + 8 + 16 * (BLOCK + 128) + check,
        1 + 12 + 8 + 16 * 256 + check,
    ]


def test_what_is_sent_does_not_depend_on_the_choices(dealt_base) -> None:
    """Columns are masked by keys that the sender lacks in part; every message is as long."""
    sizes = set()
    for choices in (np.zeros(700, dtype=np.uint8), np.ones(700, dtype=np.uint8), choices_of(700)):
        receiver = ot.Receiver(choices, SESSION, os.urandom)
        sender = ot.Sender(700, SESSION, os.urandom)
        sizes.add(tuple(len(m) for _, m in converse(receiver, sender)))
    assert len(sizes) == 1


def test_results_do_not_print_secrets(dealt_base) -> None:
    receiver, sender = ots(choices_of(2), os.urandom)
    assert (repr(receiver), repr(sender)) == ("ReceiverOts()", "SenderOts()")


# faults


def test_wrong_arguments_are_refused() -> None:
    for wrong in (np.full(3, 2, dtype=np.uint8), np.zeros(3), np.zeros((3, 1), dtype=np.uint8)):
        with pytest.raises(LocalError, match="protocol.argument"):
            ot.Receiver(wrong, SESSION, os.urandom)
    with pytest.raises(LocalError, match="protocol.argument"):
        ot.Sender(-1, SESSION, os.urandom)
    for role in (ot.OtSender, ot.OtReceiver):
        with pytest.raises(LocalError, match="protocol.argument"):
            role(b"short", os.urandom)


@pytest.mark.parametrize(
    "wrong", [np.zeros(0, dtype=np.uint8), np.zeros(BLOCK + 1, dtype=np.uint8), np.full(3, 7, dtype=np.uint8)]
)
def test_a_block_of_wrong_choices_is_refused(wrong, dealt_base) -> None:
    receiver, sender = ot.OtReceiver(SESSION, os.urandom), ot.OtSender(SESSION, os.urandom)
    receiver.setup(sender.opening())
    with pytest.raises(LocalError, match="protocol.argument"):
        receiver.extend(wrong)
    with pytest.raises(LocalError, match="protocol.poisoned"):
        receiver.extend(choices_of(3))


@pytest.mark.parametrize("other", [{"session": bytes(32)}, {"correlated": True}, {"malicious": True}])
def test_different_settings_are_noticed_by_both(other, dealt_base) -> None:
    options = {"session": SESSION, "correlated": False, "malicious": False}

    def role(cls, options):
        options = dict(options)
        return cls(options.pop("session"), os.urandom, **options)

    with pytest.raises(PeerError, match="protocol.binding"):
        role(ot.OtReceiver, options).setup(role(ot.OtSender, options | other).opening())
    sender = role(ot.OtSender, options)
    sender.opening()
    strange = role(ot.OtReceiver, options | other).setup(role(ot.OtSender, options | other).opening())
    with pytest.raises(PeerError, match="protocol.binding"):
        sender.begin(strange)


def begun(malicious: bool = False):
    receiver = ot.OtReceiver(SESSION, os.urandom, malicious=malicious)
    sender = ot.OtSender(SESSION, os.urandom, malicious=malicious)
    sender.begin(receiver.setup(sender.opening()))
    return receiver, sender


def test_repeated_reordered_and_other_blocks_are_refused(dealt_base) -> None:
    receiver, sender = begun()
    first, _ = receiver.extend(choices_of(200))
    second, _ = receiver.extend(choices_of(200))
    with pytest.raises(PeerError, match="protocol.unexpected"):
        sender.extend(second, 200)
    receiver, sender = begun()
    first, _ = receiver.extend(choices_of(200))
    sender.extend(first, 200)
    with pytest.raises(PeerError, match="protocol.unexpected"):
        sender.extend(first, 200)
    receiver, sender = begun()
    first, _ = receiver.extend(choices_of(200))
    with pytest.raises(PeerError, match="protocol.unexpected"):
        sender.extend(first, 201)
    with pytest.raises(LocalError, match="protocol.poisoned"):
        sender.extend(first, 200)
    receiver, sender = begun()
    message = TO_SENDER.decode(receiver.extend(choices_of(200))[0], Columns)
    with pytest.raises(PeerError, match="protocol.malformed"):
        sender.extend(TO_SENDER.encode(replace(message, columns=message.columns[16:])), 200)


def test_another_order_of_calls_is_refused() -> None:
    with pytest.raises(LocalError, match="opening is due"):
        ot.OtSender(SESSION, os.urandom).begin(b"")
    with pytest.raises(LocalError, match="setup is due"):
        ot.OtReceiver(SESSION, os.urandom).extend(choices_of(3))


@pytest.mark.parametrize("name", list(BAD_POINTS))
def test_bad_points_end_the_extension(name: str) -> None:
    receiver, sender = ot.OtReceiver(SESSION, os.urandom), ot.OtSender(SESSION, os.urandom)
    setup = TO_SENDER.decode(receiver.setup(sender.opening()), Setup)
    with pytest.raises(PeerError, match="ot.bad_point"):
        sender.begin(TO_SENDER.encode(replace(setup, point=BAD_POINTS[name])))
    if name != "identity":
        opening = TO_RECEIVER.decode(ot.OtSender(SESSION, os.urandom).opening(), Opening)
        wrong = replace(opening, points=opening.points[:-32] + BAD_POINTS[name])
        with pytest.raises(PeerError, match="ot.bad_point"):
            ot.OtReceiver(SESSION, os.urandom).setup(TO_RECEIVER.encode(wrong))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_fuzzed_messages_are_refused_or_accepted_never_anything_else(dealt_base, data) -> None:
    receiver = ot.Receiver(choices_of(140), SESSION, os.urandom, malicious=True)
    sender = ot.Sender(140, SESSION, os.urandom, malicious=True)
    turn = data.draw(st.integers(0, 2))
    opening = list(sender.start())[0]
    list(receiver.start())

    def fuzzed(message: bytes, step: int) -> bytes:
        if step != turn:
            return message
        at = data.draw(st.integers(0, len(message) - 1))
        changed = message[:at] + bytes([message[at] ^ 1 << at % 8]) + message[at + 1 :]
        return data.draw(st.sampled_from([message[:at], changed, message + b"\x00", message[1:]]))

    try:
        setup, columns = receiver.receive(fuzzed(opening, 0))
        list(sender.receive(fuzzed(setup, 1)))
        list(sender.receive(fuzzed(columns, 2)))
    except PeerError:
        return
    # With a dealer's base OTs the points mean nothing; a changed block of columns never passes.
    assert turn < 2


# cheating


def test_columns_of_different_choices_are_caught(dealt_base) -> None:
    """One wrong bit in a column; and the same with a check that was made for the right columns."""
    for run in range(60):
        receiver, sender = begun(malicious=True)
        message = TO_SENDER.decode(receiver.extend(choices_of(300))[0], Columns)
        columns = bytearray(message.columns)
        columns[(run * 2 + 1) * len(columns) // 128 + run % 9] ^= 1 << run % 8
        with pytest.raises(PeerError, match="ot.check"):
            sender.extend(TO_SENDER.encode(replace(message, columns=bytes(columns))), 300)


def test_a_cheater_that_knows_the_challenge_is_caught_every_second_time(dealt_base, monkeypatch) -> None:
    """Other choices in s columns, with a check made for them, pass only if those s bits of Δ are 0."""
    passed = 0
    for run in range(60):
        session = hashlib.sha256(b"cheat %d" % run).digest()
        pairs = DealtSender(session, None).keys(b"", 128)
        delta = np.frombuffer(stream(f"delta {run}")(16), dtype="<u8").astype(np.uint64)
        sender = ColumnSender(delta, np.ascontiguousarray(pairs[np.arange(128), bits(delta)]), session)
        # A column j with other choices is, for the check, a stream of the other key that differs there.
        honest = ColumnReceiver(pairs, session, stream("x"))
        x = np.array([1, 2], dtype=np.uint64)
        lie = np.zeros((128, 4), dtype=np.uint64)
        lie[5, 0] = 1

        class Lying:
            def __init__(self, streams):
                self._streams = streams

            def take(self, words, lie=lie):
                return self._streams.take(words) ^ lie

        honest._one = Lying(honest._one)
        _, sent, check = honest.mask(x, True)
        try:
            sender.unmask(2, sent, check, True)
            passed += 1
            assert bits(delta)[5] == 0
        except PeerError as error:
            assert error.code == "ot.check"
            assert bits(delta)[5] == 1
    assert 10 < passed < 50
