"""A curious provider and a curious brand on whole transcripts of a lookalike.

Each attack is shown to work where what stops it is taken away.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from lattice_helpers import SESSION, fixed_rng, fractions, transcript
from scipy.optimize import brentq
from scipy.stats import beta, chi2, kstest, norm

from protocols.linear_query import Plan, messages, ring, sampling
from protocols.linear_query import brand as query_brand
from protocols.linear_query import provider as query_provider
from protocols.linear_query.brand import Secret
from protocols.lookalike import Features, Labels, Terms, padded
from protocols.lookalike import labels as brand_side
from protocols.lookalike.terms import agree
from protocols.machine import pump

PLAIN = Terms(epsilon=None, minimum_seeds=1, minimum_level=1)
M = ring.N + 500


def rows(columns: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((M, columns))
    return np.asfortranarray(made, dtype=np.float32)


def exchanged(
    phi: np.ndarray, seeds: np.ndarray, terms: Terms, name: str
) -> tuple[list[tuple[str, bytes]], Features]:
    brand = Labels(seeds, len(phi), SESSION, terms, fixed_rng(name + "b"))
    provider = Features(phi, [f"x{j}" for j in range(phi.shape[1])], SESSION, terms, fixed_rng(name + "p"))
    return transcript(brand, provider), provider


# The provider: real labels or permuted ones?


def scaled_up(log: list[tuple[str, bytes]], agreed: Plan) -> np.ndarray:
    """What the provider reads from each ciphertext as if no key hid it: round(b / delta), float64[M].

    It knows every a, so b and b + a·s' for a guessed s' are all that it can look at; this is the guess 0.
    """
    out = []
    for side, message in log:
        if side == "left" and len(message) == 30_720 * agreed.limbs + 9:
            b = messages.residues_of(messages.TO_PROVIDER.decode(message, messages.Chunk).b, agreed.level)
            out += [agreed.level.lift(b[:, j]) / agreed.delta for j in range(agreed.chunk_rows)]
    return np.array(out[:M])


def guesses(log: list[tuple[str, bytes]], candidates: list[np.ndarray], agreed: Plan) -> list[float]:
    """How well each candidate set of seeds fits the ciphertexts, in standard deviations of chance."""
    read = scaled_up(log, agreed)
    ones, found = np.rint(read) == 1, []
    for seeds in candidates:
        y = np.zeros(M)
        y[seeds] = 1
        # Also the share of a step, where a ciphertext that hides nothing else would show it.
        found.append(max((float(np.corrcoef(of, y)[0, 1]) for of in (ones, read % 1) if of.any()), key=abs))
    return [value * math.sqrt(M) for value in found]


def test_the_provider_can_not_tell_real_labels_from_permuted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    phi = rows(2)
    real = np.flatnonzero(phi[:, 0] > 1)
    permuted = np.sort(np.random.default_rng(1).permutation(M)[: len(real)])
    agreed = agree(PLAIN, M, 2, padded(len(real))).plan
    logs = {name: exchanged(phi, s, PLAIN, name)[0] for name, s in (("one", real), ("two", permuted))}
    sizes = [[(side, message[0], len(message)) for side, message in log] for log in logs.values()]
    assert sizes[0] == sizes[1]
    for log in logs.values():
        # Neither set stands out in either run, and all words are as uniform as those of random polynomials.
        assert np.abs(guesses(log, [real, permuted], agreed)).max() < 5
        of = [m for side, m in log if side == "left" and len(m) == 30_720 * agreed.limbs + 9]
        chunks = [messages.TO_PROVIDER.decode(m, messages.Chunk) for m in of]
        words = np.concatenate([messages.residues_of(chunk.b, agreed.level).ravel() for chunk in chunks])
        share = np.bincount(words >> 24, minlength=64)[:64] / len(words)
        assert np.abs(share - 1 / 64).max() < 6 * math.sqrt(1 / 64 / len(words))
    # The attack is a real one: with a key that hides nothing it names the set.
    monkeypatch.setattr(sampling, "ternary", lambda stream, count: np.zeros(count, np.int64))
    bare, _ = exchanged(phi, real, PLAIN, "bare")
    fits = guesses(bare, [real, permuted], agreed)
    assert fits[0] > 50 > 5 > abs(fits[1])


def outcomes(phi: np.ndarray, seeds: np.ndarray, terms: Terms, runs: int) -> np.ndarray:
    """z of whole runs with fresh noise, as the provider has it, float64[runs, d + 1]."""
    found = []
    for _ in range(runs):
        brand = Labels(seeds, len(phi), SESSION, terms, fixed_rng("b"))
        names = [f"x{j}" for j in range(phi.shape[1])]
        provider = Features(phi, names, SESSION, terms, fixed_rng("p"))
        pump(brand, provider)
        found.append(provider.result.z)
    return np.array(found)


def breaks(epsilon: float, delta: float, without: np.ndarray, with_: np.ndarray) -> bool:
    """Whether a threshold surely tells two samples float[n] apart better than (epsilon, delta) allows."""
    n = len(without)
    for threshold in np.quantile(np.concatenate([without, with_]), np.linspace(0.05, 0.95, 19)):
        hits, false = int((with_ >= threshold).sum()), int((without >= threshold).sum())
        least = float(beta.ppf(1e-3, hits, n - hits + 1)) if hits else 0.0
        most = float(beta.ppf(1 - 1e-3, false + 1, n - false)) if false < n else 1.0
        if least > math.exp(epsilon) * most + delta:
            return True
    return False


def widest_shift(epsilon: float, delta: float) -> float:
    """By how many standard deviations normal noise may be shifted and still be (epsilon, delta)-DP: all of
    its membership tests at once (Balle and Wang 2018, theorem 8).
    """

    def beyond(shift: float) -> float:
        hit, miss = norm.cdf(shift / 2 - epsilon / shift), norm.cdf(-shift / 2 - epsilon / shift)
        return float(hit - math.exp(epsilon) * miss - delta)

    return float(brentq(beyond, 1e-3, 50.0))


def least_shift(noise: np.ndarray, length: float) -> float:
    """`length` in standard deviations of the noise float[n], surely (but for 1 in 1000) no more than so."""
    return length / math.sqrt(float((noise**2).sum()) / chi2.ppf(1e-3, noise.size))


def test_membership_in_whole_runs_is_what_epsilon_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider knows every seed but one, who has the longest row, and looks at z.

    A threshold on few runs would miss noise of half the width. So the noise of all entries is looked at: if
    it is normal, of one width and independent, the likelihood ratio along the row is the best test of all,
    and what it can do follows from the width.
    """
    epsilon, delta, clip = 1.0, 1e-6, 4.0
    terms = Terms(epsilon=epsilon, delta=delta, clip=clip, minimum_seeds=1, l2=10.0)
    phi = np.full((600, 3), 0.1, np.float32)
    phi[::2] = -0.1
    phi[599] = 40.0, 30.0, -20.0  # clipped to 4
    sets = (np.arange(40), np.append(np.arange(40), 599))
    with monkeypatch.context() as patched:
        patched.setattr(brand_side, "add_noise", lambda values, scale: values)
        exact = [outcomes(phi, seeds, terms, 1)[0] for seeds in sets]
    row = exact[1] - exact[0]
    length = float(np.linalg.norm(row))
    assert length == pytest.approx(math.hypot(clip, 1), rel=1e-3)
    found = [outcomes(phi, seeds, terms, 32) for seeds in sets]
    noise = np.concatenate([z - at for z, at in zip(found, exact, strict=True)])
    wide = noise.std(axis=0)
    assert wide.max() < 2.2 * wide.min()
    assert np.abs(np.corrcoef(noise.T)[np.triu_indices(4, 1)]).max() < 0.65
    assert kstest(noise.ravel() / noise.std(), norm.cdf).pvalue > 1e-6
    allowed = widest_shift(epsilon, delta)
    assert least_shift(noise, length) < allowed < least_shift(noise / 2, length)
    assert breaks(epsilon, delta, *(np.repeat(at @ row, 32) for at in exact))  # without noise it is certain
    assert not breaks(epsilon, delta, *(z @ row for z in found))


# The brand: which of two populations does the provider hold?


def residues(log: list[tuple[str, bytes]], agreed: Plan, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(noise of each answer as a share of delta; a'' as a share of P), by the brand's own key."""
    secret = Secret(agreed, SESSION, fixed_rng(name + "b"))
    noise, words = [], []
    for side, message in log:
        if side == "right" and len(message) > 1000:
            answer = messages.TO_BRAND.decode(message, messages.Answer)
            a = messages.polynomial_of(answer.a, agreed.answer_bits)
            due = min(agreed.packing, agreed.query.queries - len(noise))
            modulus, t = agreed.level.modulus, agreed.plain_modulus
            numbers = messages.numbers_of(answer.b, due, agreed.answer_bits)
            for phase, x in zip(secret.phases(a, numbers), secret.decrypt(a, numbers), strict=True):
                of = (phase * modulus >> agreed.answer_bits) - modulus * x // t
                noise.append(((of + modulus // 2) % modulus - modulus // 2) / agreed.delta)
            words.append(fractions(a, agreed.answer_bits))
    return np.array(noise), np.concatenate(words)


def test_the_brand_can_not_tell_the_providers_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    d, seeds = 12, np.arange(0, M, 7)
    size = padded(len(seeds))
    small, large = rows(d), rows(d)
    large[1] *= 300.0  # one row of nobody whom the brand has; it makes the others' integers small
    large = np.asfortranarray(large)
    agreed = agree(PLAIN, M, d, size).plan
    seen = {
        name: residues(exchanged(phi, seeds, PLAIN, name)[0], agreed, name)
        for name, phi in (("s", small), ("l", large))
    }
    for noise, words in seen.values():
        # Uniform over the whole gap between two answers, whatever Q is, and uniform words.
        assert np.abs(noise).max() > 0.35 and abs(noise.mean()) < 0.3 and 0.15 < noise.std() < 0.42
        share = np.bincount((words * 64).astype(int), minlength=64) / len(words)
        assert np.abs(share - 1 / 64).max() < 6 * math.sqrt(1 / 64 / len(words))
    # Without the flooding (and the rounding, which hides a part) the noise is a function of Q, and tells the
    # two apart at once.
    fine = replace(agreed, answer_bits=30 * agreed.limbs)
    for side in (query_provider, query_brand):
        monkeypatch.setattr(side, "plan", lambda query: fine)
    monkeypatch.setattr(query_provider, "Evaluator", _Bare)
    bare = {
        name: residues(exchanged(phi, seeds, PLAIN, name)[0], fine, name)[0]
        for name, phi in (("s", small), ("l", large))
    }
    assert np.abs(bare["s"]).max() < 1e-6 and np.abs(bare["l"]).max() < 1e-6
    assert bare["s"][:-1].std() > 5 * bare["l"][:-1].std()


class _Bare(query_provider.Evaluator):
    """Adds no flooding and no mask."""

    def _number(self, query: int, residues: np.ndarray, stream: sampling.Stream) -> int:
        kept = self._plan
        self._plan = replace(kept, flood=0, query=replace(kept.query, to_provider=False))
        try:
            return super()._number(query, residues, stream)
        finally:
            self._plan = kept
