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
from protocols.boost import ggm, hashing, ideal, messages, shares
from protocols.boost.hashing import Hash
from protocols.boost.messages import TO_BRAND, TO_PROVIDER
from protocols.boost.model import forest_of
from protocols.boost.score import Answerer, Scorer
from protocols.boost.store import Memory
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
    brand = boost.Brand(labels, rows, SESSION, terms, learning, fixed_rng("b" + seed), transfer=dealer.sender)
    return brand, boost.Provider(table, SESSION, terms, fixed_rng("p" + seed), transfer=dealer.receiver)


def small(seed: int, **changes: object) -> tuple[boost.Labels, boost.Table, boost.Terms]:
    rng = np.random.default_rng(seed)
    terms = boost.Terms(**{"trees": 2, "depth": 3, "bits": 3} | changes)  # type: ignore[arg-type]
    table = random_table(rng, int(rng.integers(140, 190)), int(rng.integers(1, 4)), terms.bins)
    return random_labels(rng, len(table.bins), int(rng.integers(0, 4)), table), table, terms


@pytest.mark.parametrize("part", range(4))
def test_equal_to_the_ideal_functionality(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred random forests: the same splits and the same scores as from sums taken in the open."""
    monkeypatch.setattr(shares, "PIECE", 2048)  # several blocks
    monkeypatch.setattr(shares, "KEPT", 40_000)  # of which only some keep their shares
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
    other = Scorer(labels.rows, labels.own, len(table.bins), start, trees[1:], SESSION)
    with pytest.raises(PeerError, match=r"protocol\.binding"):
        pump(other, Answerer(table, provider.result.splits, SESSION))
    elsewhere = Scorer(labels.rows, labels.own, len(table.bins), start, trees, b"x" * len(SESSION))
    with pytest.raises(PeerError, match=r"protocol\.binding"):
        pump(elsewhere, Answerer(table, provider.result.splits, SESSION))


def test_a_forest_that_stopped_early_scores_as_it_fitted() -> None:
    """The provider has the splits of later trees too, and answers for those that the brand kept."""
    dropped = 0
    for seed in range(24):
        labels, table, terms = small(seed, trees=6)
        brand, provider = pair(labels, table, terms, boost.Learning(learning_rate=1.0, patience=2), str(seed))
        pump(brand, provider)
        start, trees = forest_of(brand.result.to_document())
        dropped += provider.result.trees > len(trees) and provider.result.splits[-1].tree >= len(trees)
        scorer = Scorer(labels.rows, labels.own, len(table.bins), start, trees, SESSION)
        pump(scorer, Answerer(table, provider.result.splits, SESSION))
        assert np.allclose(scorer.result, brand.result.scores, atol=1e-12)
    assert dropped > 5


@pytest.fixture(params=["openssl", "instructions"])
def hashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to compute H."""
    if request.param == "openssl":
        monkeypatch.setattr(hashing, "instructions", lambda: 0)
    elif not hashing.instructions():
        pytest.skip("this processor has no AES instructions")


@pytest.mark.parametrize("bits", range(1, 7))
def test_all_leaves_but_one(bits: int, hashes: None) -> None:
    """The provider's leaves are the brand's, but for its own bin, where it has nothing."""
    rng, bench, pi = np.random.default_rng(bits), ggm.Bench(bits), Hash("ggm", SESSION)
    for count in (1, 9, 64, min(bench.instances, 700)):
        paths = rng.integers(0, 1 << bits, count).astype(np.uint8)
        delta = rng.integers(0, 2**64, 2, dtype=np.uint64)
        q = rng.integers(0, 2**64, (count, bits, 2), dtype=np.uint64)
        t = q ^ (ggm.choices(paths, bits).astype(np.uint64)[:, :, None] * delta)
        keys = t.copy()
        keys[:, 1:] ^= ggm.corrections(q, delta, pi, bench)
        shape = (count, 1 << bits, 2)
        mine = ggm.brand_leaves(q[:, 0], delta, pi, bench)[: count << bits].reshape(shape).copy()
        theirs = ggm.provider_leaves(keys, paths, pi, bench)[: count << bits].reshape(shape)
        own = np.arange(1 << bits) == paths[:, None]
        assert (theirs[~own] == mine[~own]).all() and not theirs[own].any()
        assert (np.bitwise_xor.reduce(mine, axis=1) == delta).all()


def test_the_hash_of_a_node_is_the_specified_one(hashes: None) -> None:
    """README, section 4, by AES one block at a time and Python integers."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    from protocols.labels import label

    key = hashlib.sha256(label("boost", "both", "ggm", SESSION)).digest()[:16]
    pi = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    for count in (1, 15, 16, 17, 100):
        x = np.random.default_rng(count).integers(0, 2**64, (hashing.padded(count), 2), dtype=np.uint64)
        children, words = np.empty((2 * len(x), 2), dtype=np.uint64), np.empty(len(x), dtype=np.uint64)
        h = Hash("ggm", SESSION)
        h.children(x, children, count)
        h.words(x, words, count)
        for i in range(count):
            low, high = int(x[i, 0]), int(x[i, 1])
            sigma = (low ^ high).to_bytes(8, "little") + low.to_bytes(8, "little")
            expected = bytes(a ^ b for a, b in zip(pi.update(sigma), sigma, strict=True))
            assert children[2 * i].tobytes() == expected
            assert (children[2 * i] ^ children[2 * i + 1] == x[i]).all()
            assert words[i].tobytes() == expected[:8]


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_sums_of_shares_are_those_of_the_values(seed: int) -> None:
    """Blocks that divide nothing, some kept, some made again, columns that are not used: whatever rows are
    summed into whatever slots, both sides' sums add up to those of the values by bin."""
    rng = np.random.default_rng(seed)
    bits, rows, columns = int(rng.integers(1, 7)), int(rng.integers(1, 70)), int(rng.integers(1, 6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shares, "PIECE", int(rng.integers(100, 6000)))
        patch.setattr(shares, "SEGMENT", int(rng.integers(1, 400)))
        patch.setattr(ggm, "TILE", int(rng.integers(1, 1 << 13)))
        layout = shares.Layout(rows, columns, bits)
        bins = rng.integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
        kept = [int(rng.integers(0, 8 * rows * columns << bits)) for _ in range(2)]
        mine = shares.BrandShares(layout, SESSION, Memory, kept[0])
        theirs = shares.ProviderShares(layout, bins, SESSION, Memory, kept[1])
        blocks = list(layout.blocks())
        assert [b.start for b in blocks[1:]] == [b.stop for b in blocks[:-1]] and blocks[-1].stop == rows
        starts = {s: min(b.start for b in blocks if b.segment == s) for s in {b.segment for b in blocks}}
        assert [starts[s] for s in sorted(starts)] == [start for start, _ in layout.segments()]
        deltas = rng.integers(0, 2**64, (len(starts), 2), dtype=np.uint64)
        for delta in deltas:
            mine.segment(delta)
        for block in blocks:
            q = rng.integers(0, 2**64, (block.rows * columns, bits, 2), dtype=np.uint64)
            x = ggm.choices(bins[block.start : block.stop].reshape(-1), bits).astype(np.uint64)
            corrections = mine.learn(block, q)
            theirs.learn(block, q ^ (x[:, :, None] * deltas[block.segment]), corrections)
        for tree in range(2):
            used = np.sort(rng.permutation(columns)[: int(rng.integers(1, columns + 1))])
            values = rng.integers(0, 2**32, (rows, 2), dtype=np.uint32)
            mine.begin(tree, used)
            theirs.begin(tree, used)
            for block in blocks:
                theirs.open(block, mine.mask(block, values[block.start : block.stop]))
            nodes = rng.integers(0, 5, rows).astype(np.int16)
            slots = np.array([1, -1, 0, -1, 2], dtype=np.int16)
            for a, b, slot in (
                (mine.root(), theirs.root(), np.zeros(rows, dtype=np.int16)),
                (mine.sums(nodes, slots, 3), theirs.sums(nodes, slots, 3), slots[nodes]),
            ):
                expected = np.zeros((len(a), len(used), 1 << bits, 2), dtype=np.uint32)
                for i in np.flatnonzero(slot >= 0):
                    for u, column in enumerate(used):
                        expected[slot[i], u, bins[i, column]] += values[i]
                assert ((a + b).reshape(expected.shape) == expected).all()


def test_known_answer() -> None:
    """Fixed randomness fixes every byte. The hash is this code's own: it guards against unmeant changes."""
    labels, table, terms = small(11)
    log = transcript(*pair(labels, table, terms, boost.Learning(), "kat"))
    digest = hashlib.sha256(b"".join(side.encode() + message for side, message in log)).hexdigest()
    assert digest[:32] == "154a594af81dcec0c9788b2b9bafa259"


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
    layout, rng = shares.Layout(4000, 4, 4), np.random.default_rng(1)
    mine = shares.BrandShares(layout, SESSION, Memory)
    mine.segment(np.frombuffer(os.urandom(16), dtype=np.uint64))
    for block in layout.blocks():
        count = block.rows * 4 * 4
        mine.learn(block, np.frombuffer(os.urandom(16 * count), dtype=np.uint64).reshape(-1, 4, 2))
    for tree, values in enumerate(
        (np.zeros((4000, 2), np.uint32), rng.integers(0, 9, (4000, 2)).astype(np.uint32))
    ):
        mine.begin(tree, np.arange(4))
        c = np.concatenate([mine.mask(b, values[b.start : b.stop]) for b in layout.blocks()])
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
    more = boost.Provider(
        table, SESSION, boost.Terms(trees=3, depth=3, bits=3), os.urandom, transfer=dealer.receiver
    )
    with pytest.raises(PeerError, match=r"protocol\.binding"):
        pump(brand, more)


def test_more_trees_than_agreed_are_not_answered() -> None:
    _, table, _ = small(12)
    from protocols.boost.provider import WaitBegin, _Forest, _Run

    terms = boost.Terms(trees=1, bits=3)
    layout = shares.Layout(*table.bins.shape, 3)
    made = shares.ProviderShares(layout, table.bins, SESSION, Memory)
    run = _Forest(_Run(table, SESSION, terms, os.urandom, Memory, Dealer().receiver, trees=1), layout, made)
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
        boost.Brand(
            made, len(table.bins), SESSION, terms, boost.Learning(), os.urandom, transfer=Dealer().sender
        )


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
        assert len(shares.Layout(*table.bins.shape, terms.bits).segments()) > 1
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
