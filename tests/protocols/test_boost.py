"""Boost: equal to the ideal functionality, known answers, its playbook, fuzzed and tampered messages."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
from boost_helpers import Dealer, part_of, random_labels, random_table
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_helpers import SESSION, fixed_rng, transcript

from protocols import boost
from protocols.boost import ggm, ideal, messages, shares
from protocols.boost.messages import TO_BRAND, TO_PROVIDER
from protocols.boost.model import forest_of
from protocols.boost.score import Answerer, Scorer
from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.machine import pump
from protocols.vole import chosen as transfer


def pair(
    labels: boost.Labels,
    table: boost.Table,
    terms: boost.Terms,
    learning: boost.Learning,
    seed: str = "",
) -> tuple[boost.Brand, boost.Provider]:
    dealer, rows = Dealer(seed), len(table.bins)
    brand = boost.Brand(labels, rows, SESSION, terms, learning, fixed_rng("b" + seed), dealer.sender)
    return brand, boost.Provider(table, SESSION, terms, fixed_rng("p" + seed), dealer.receiver)


def small(seed: int, **changes: object) -> tuple[boost.Labels, boost.Table, boost.Terms]:
    rng = np.random.default_rng(seed)
    terms = boost.Terms(**{"trees": 2, "depth": 3, "bits": 3} | changes)  # type: ignore[arg-type]
    table = random_table(rng, int(rng.integers(140, 190)), int(rng.integers(1, 4)), terms.bins)
    return random_labels(rng, len(table.bins), int(rng.integers(0, 4)), table), table, terms


@pytest.mark.parametrize("part", range(4))
def test_equal_to_the_ideal_functionality(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred random forests: the same splits and the same scores as from sums taken in the open."""
    monkeypatch.setattr(shares, "PIECE", 2048)  # several blocks
    splits = 0
    for run in range(50):
        seed = 50 * part + run
        rng = np.random.default_rng(seed)
        bits = int(rng.integers(1, 7))
        labels, table, terms = small(seed, bits=bits, depth=int(rng.integers(1, 5)))
        learning = boost.Learning(
            objective=("logistic", "squared")[seed % 2],
            row_share=(1.0, 0.7)[seed % 3 == 0],
            column_share=(1.0, 0.5)[seed % 5 == 0],
            patience=seed % 4,
            learning_rate=0.3,
            l2=float(seed % 2),
        )
        brand, provider = pair(labels, table, terms, learning, str(seed))
        pump(brand, provider)
        expected = ideal.boost(labels, table, terms, learning, fixed_rng(f"b{seed}"))
        assert part_of(brand.result) == part_of(expected)
        assert (brand.result.scores == expected.scores).all()
        assert brand.result.losses == expected.losses
        theirs = [(t, n) for t, tree in enumerate(brand.result.trees) for n in tree.theirs]
        known = [(s.tree, s.node) for s in provider.result.splits]
        assert known[: len(theirs)] == theirs  # with early stopping the provider knows the later ones too
        splits += len(theirs)
        assert brand.progress[0] == brand.progress[1] == provider.progress[0]
    assert splits > 20


def test_scores_of_the_fit_are_those_of_a_scoring_run() -> None:
    labels, table, terms = small(7, trees=4)
    brand, provider = pair(labels, table, terms, boost.Learning(learning_rate=0.5))
    pump(brand, provider)
    document = brand.result.to_document()
    start, trees = forest_of(document)
    scorer = Scorer(labels.rows, labels.own, len(table.bins), start, trees, SESSION)
    answerer = Answerer(table, provider.result.splits, SESSION)
    pump(scorer, answerer)
    assert np.allclose(scorer.result, brand.result.scores, atol=1e-12)
    other = Scorer(labels.rows, labels.own, len(table.bins), start, trees[:1], SESSION)
    with pytest.raises(PeerError, match=r"protocol\.binding"):
        pump(other, Answerer(table, provider.result.splits, SESSION))


@given(st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_all_leaves_but_one(bits: int, seed: int) -> None:
    """The provider's leaves are the brand's, but for its own bin, where it has nothing."""
    rng = np.random.default_rng(seed)
    count = 9
    paths = rng.integers(0, 1 << bits, count).astype(np.uint8)
    delta = rng.integers(0, 2**64, 2, dtype=np.uint64)
    q = rng.integers(0, 2**64, (count, bits, 2), dtype=np.uint64)
    t = q ^ (ggm.choices(paths, bits).astype(np.uint64)[:, :, None] * delta)
    pi = ggm.Permutation("ggm", SESSION)
    mine, corrections = ggm.brand_leaves(q, delta, pi)
    theirs = ggm.provider_leaves(t, corrections, paths, pi)
    own = np.arange(1 << bits) == paths[:, None]
    assert (theirs[~own] == mine[~own]).all() and not theirs[own].any()
    assert (np.bitwise_xor.reduce(mine, axis=1) == delta).all()


def test_the_hash_of_a_node_is_the_specified_one() -> None:
    """README, section 4, by AES one block at a time and Python integers."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    from protocols.labels import label

    key = hashlib.sha256(label("boost", "both", "ggm", SESSION)).digest()[:16]
    x = np.array([[3, 5]], dtype=np.uint64)
    s = ggm.sigma(x)
    assert s.tolist() == [[3 ^ 5, 3]]
    out = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(s.tobytes())  # noqa: S305
    assert ggm.Permutation("ggm", SESSION)(s).tobytes() == out


def test_shares_add_up_to_one_value_in_the_own_bin() -> None:
    rng = np.random.default_rng(3)
    rows, columns, bits = 20, 3, 4
    bins = rng.integers(0, 16, (rows, columns)).astype(np.uint8)
    leaves = rng.integers(0, 2**64, (rows, columns, 16, 2), dtype=np.uint64)
    punctured = leaves.copy()
    i, f = np.indices(bins.shape)
    punctured[i, f, bins] = 0
    values = rng.integers(0, 2**32, (rows, 2), dtype=np.uint32)
    used, pi = np.array([0, 2]), ggm.Permutation("tree 1", SESSION)
    mine, c = shares.brand_share(leaves, used, values, pi)
    theirs = shares.provider_share(punctured, used, bins, c, pi)
    expected = np.zeros((rows, 2, 16, 2), dtype=np.uint32)
    for r in range(rows):
        for u, column in enumerate(used):
            expected[r, u, bins[r, column]] = values[r]
    assert ((mine + theirs).reshape(expected.shape) == expected).all()
    assert bits == 4


def test_known_answer() -> None:
    """Fixed randomness fixes every byte. The hash is this code's own: it guards against unmeant changes."""
    labels, table, terms = small(11)
    log = transcript(*pair(labels, table, terms, boost.Learning(), "kat"))
    digest = hashlib.sha256(b"".join(side.encode() + message for side, message in log)).hexdigest()
    assert digest[:32] == "36affaef50853961d5dd3b1cda10d33a"


def test_playbook() -> None:
    labels, table, terms = small(12, trees=1, depth=2)
    log = transcript(*pair(labels, table, terms, boost.Learning(learning_rate=0.5)))
    kinds = [
        (side, type((TO_PROVIDER if side == "left" else TO_BRAND).decode(message, *ANY[side])).__name__)
        for side, message in log
    ]
    opening = [("left", "Opening"), ("right", "Shape"), ("right", "Transfer"), ("left", "Transfer")]
    assert kinds[:4] == opening
    assert kinds[4:8] == [("left", "Corrections"), ("left", "Begin"), ("left", "Shares"), ("right", "Sums")]
    assert kinds[8] == ("left", "Splits") and kinds[-1] == ("left", "Begin")


ANY = {
    "left": (
        messages.Opening,
        messages.Transfer,
        messages.Corrections,
        messages.Begin,
        messages.Shares,
        messages.Splits,
        messages.Sides,
    ),
    "right": (messages.Shape, messages.Transfer, messages.Sums, messages.Bits),
}


def test_the_providers_view_has_the_same_sizes_for_any_labels() -> None:
    """Up to the first splits, which depend on the labels, sizes depend on the terms and the rows only."""
    rng = np.random.default_rng(5)
    table = random_table(rng, 180, 3, 8)
    seen = []
    for seed in (1, 2):
        labels = random_labels(np.random.default_rng(seed), 180, 2, table)
        terms = boost.Terms(trees=1, depth=1, bits=3)
        log = transcript(*pair(labels, table, terms, boost.Learning(), str(seed)))
        until = [m for side, m in log if side == "left"]
        seen.append([len(m) for m in until[:5]])
    assert seen[0] == seen[1]


def test_shares_look_uniform_whatever_the_labels() -> None:
    """c of real gradients and c of none at all: both spread evenly over 32-bit words."""
    table = random_table(np.random.default_rng(0), 4000, 4, 16)
    rng = np.random.default_rng(1)
    leaves = np.frombuffer(os.urandom(4000 * 4 * 16 * 16), dtype=np.uint64).reshape(4000, 4, 16, 2)
    pi, used = ggm.Permutation("tree 0", SESSION), np.arange(table.bins.shape[1])
    for values in (np.zeros((4000, 2), np.uint32), rng.integers(0, 9, (4000, 2)).astype(np.uint32)):
        _, c = shares.brand_share(leaves, used, values, pi)
        counts = np.bincount((c >> 28).ravel(), minlength=16)
        chi = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
        assert chi < 60  # 15 degrees of freedom: above this once in 10^6


@pytest.mark.parametrize("what", ["short", "reordered", "block", "column", "mask", "sums"])
def test_what_is_not_allowed_ends_the_run_with_a_named_error(what: str) -> None:
    labels, table, terms = small(12, trees=1, depth=2)

    def change(side: str, index: int, message: bytes) -> bytes:
        codec = TO_PROVIDER if side == "left" else TO_BRAND
        decoded = codec.decode(message, *ANY[side])
        if what == "short" and isinstance(decoded, messages.Shares):
            return codec.encode(messages.Shares(decoded.block, decoded.data[:-8]))
        if what == "reordered" and isinstance(decoded, messages.Sums):
            return codec.encode(messages.Sums(decoded.first + 4, decoded.data))  # type: ignore[arg-type]
        if what == "block" and isinstance(decoded, messages.Corrections):
            return codec.encode(messages.Corrections(decoded.block + 1, decoded.data))  # type: ignore[arg-type]
        if what in ("column", "mask") and isinstance(decoded, messages.Splits):
            head = bytes([2]) + (b"\xff\xff" + bytes(7) + b"\x01" if what == "column" else bytes(10))
            return codec.encode(messages.Splits(decoded.level, head + decoded.data[11:]))
        if what == "sums" and isinstance(decoded, messages.Sums):
            return codec.encode(messages.Sums(decoded.first, b"\x7f" * len(decoded.data)))
        return message

    codes = r"boost\.size|boost\.order|protocol\.malformed"
    with pytest.raises(PeerError, match=codes):
        transcript(*pair(labels, table, terms, boost.Learning()), change)


@given(st.integers(0, 30), st.binary(max_size=60), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_fuzz(index: int, junk: bytes, how: int) -> None:
    """Whatever arrives: an end with a protocol's error, or a run that ends."""
    labels, table, terms = small(12, trees=1, depth=2)

    def change(side: str, at: int, message: bytes) -> bytes:
        if at != index:
            return message
        return [junk, message[:-1], message + junk[:1], bytes([message[0] ^ 1]) + message[1:]][how]

    try:
        transcript(*pair(labels, table, terms, boost.Learning()), change)
    except ProtocolError as error:
        assert isinstance(error, PeerError)


def test_other_terms_and_sessions_are_refused() -> None:
    labels, table, terms = small(12)
    brand, _ = pair(labels, table, terms, boost.Learning())
    dealer = Dealer()
    more = boost.Provider(table, SESSION, boost.Terms(trees=3, depth=3, bits=3), os.urandom, dealer.receiver)
    with pytest.raises(PeerError, match=r"protocol\.binding"):
        pump(brand, more)


def test_more_trees_than_agreed_are_not_answered() -> None:
    _, table, _ = small(12)
    from protocols.boost.provider import WaitBegin, _Run

    terms = boost.Terms(trees=1, bits=3)
    run = _Run(table, SESSION, terms, os.urandom, Dealer().receiver, trees=1)
    used = np.packbits(np.ones(table.bins.shape[1], dtype=np.uint8)).tobytes()
    message = TO_PROVIDER.encode(messages.Begin(1, 0, used))  # type: ignore[arg-type]
    with pytest.raises(PeerError, match=r"boost\.size"):
        WaitBegin(run).receive(message)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"few": True}, "boost.rows"),
        ({"one": True}, "boost.rows"),
        ({"nan": True}, "protocol.argument"),
        ({"twice": True}, "protocol.argument"),
    ],
)
def test_labels_that_cannot_be_learned_from(change: dict[str, bool], code: str) -> None:
    labels, table, terms = small(12)
    y, rows, train = labels.y.copy(), labels.rows.copy(), labels.train.copy()
    if "few" in change:
        train[50:] = False
    if "one" in change:
        y[:] = 1.0
    if "nan" in change:
        y[np.flatnonzero(train)[0]] = np.nan
    if "twice" in change:
        rows[0] = rows[1]
    made = boost.Labels(rows, y, train, np.zeros_like(train), labels.own)
    with pytest.raises(LocalError, match=code.replace(".", r"\.")):
        boost.Brand(made, len(table.bins), SESSION, terms, boost.Learning(), os.urandom, Dealer().sender)


def test_the_oblivious_transfer_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """q = t ⊕ x·Δ over several segments of odd sizes; and a whole forest with it, of several segments."""
    rng = np.random.default_rng(6)
    choices = [rng.integers(0, 2, count).astype(np.uint8) for count in (1, 300, 77)]
    brand = transfer.Sender([len(c) for c in choices], SESSION, fixed_rng("a"))
    provider = transfer.Receiver(choices, SESSION, fixed_rng("b"))
    pump(brand, provider)
    assert len({d.tobytes() for d in brand.result.deltas}) == 3
    for q, delta, t, x in zip(
        brand.result.words, brand.result.deltas, provider.result.words, choices, strict=True
    ):
        assert (q == t ^ (x.astype(np.uint64)[:, None] * delta)).all() and delta.any()
    monkeypatch.setattr(shares, "PIECE", 1024)
    monkeypatch.setattr(shares, "SEGMENT", 200)
    for seed in (21, 22):
        labels, table, terms = small(seed, bits=(3, 1)[seed % 2])
        assert len(list(shares.segments(*table.bins.shape, terms.bits))) > 1
        learning = boost.Learning(learning_rate=0.5)
        one = boost.Brand(labels, len(table.bins), SESSION, terms, learning, fixed_rng("c"))
        pump(one, boost.Provider(table, SESSION, terms, os.urandom))
        expected = ideal.boost(labels, table, terms, learning, os.urandom)
        mine = [(n.kind, n.column) for tree in one.result.trees[:1] for n in tree.nodes]
        assert mine == [(n.kind, n.column) for tree in expected.trees[:1] for n in tree.nodes]
        assert np.allclose(one.result.scores, expected.scores)


def test_a_transfer_of_another_session_or_of_other_choices_is_noticed() -> None:
    brand = transfer.Sender([100], SESSION, os.urandom)
    provider = transfer.Receiver([np.zeros(100, dtype=np.uint8)], bytes(32), os.urandom)
    with pytest.raises(PeerError, match=r"protocol\.binding"):
        pump(brand, provider)

    def change(side: str, index: int, message: bytes) -> bytes:
        return message[:-1] if index == 5 else message  # the flips

    brand = transfer.Sender([100], SESSION, os.urandom)
    provider = transfer.Receiver([np.zeros(100, dtype=np.uint8)], SESSION, os.urandom)
    with pytest.raises(PeerError, match=r"protocol\.malformed"):
        transcript(brand, provider, change)


def test_more_cells_than_agreed_are_refused_before_anything_is_sent() -> None:
    _, table, _ = small(12)
    terms = boost.Terms(bits=3, max_cells=table.bins.size * 8 - 1)
    with pytest.raises(LocalError, match=r"fewer columns or bins"):
        boost.Provider(table, SESSION, terms, os.urandom)
