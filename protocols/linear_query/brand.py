"""The brand: holds y and the only secret key. README section 3.

States: WaitAnswers, once a group of queries. `steps` gives the opening step and calls `then` with the
answers; a protocol that contains this one (lookalike) continues there, `Brand` ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np

from protocols.errors import LocalError, PeerError
from protocols.linear_query import kernels, messages, sampling
from protocols.linear_query.binding import digest
from protocols.linear_query.parameters import Plan, Query, plan
from protocols.linear_query.ring import I32, I64, U32, N
from protocols.machine import Done, Machine, Step

R = TypeVar("R")
Rng = Callable[[int], bytes]

#: Rows [start, stop) of y, int64; called in order, once.
Values = Callable[[int, int], I64]


class Secret:
    """The brand's key and what it does with it. Never prints and never leaves."""

    def __init__(self, agreed: Plan, session: bytes, rng: Rng) -> None:
        self._plan, self._level = agreed, agreed.level
        self._session = session
        self.seed = rng(32)
        stream = sampling.Stream(rng(32), "brand", "secret", session)
        self._noise = sampling.Stream(rng(32), "brand", "error", session)
        self._coins = sampling.Stream(rng(32), "brand", "rounding", session)
        t = agreed.plain_modulus
        self._below = np.uint64(t - 1)
        self._modulus_low = np.array([agreed.level.modulus & (1 << 64) - 1], np.uint64)
        self._inverse_t: U32 = np.array([[pow(t, -1, p)] for p in agreed.level.primes], np.uint32)
        s, level = sampling.ternary(stream, N), self._level
        self._s: U32 = kernels.transform(s.reshape(1, N), level.column, level.roots, level.roots_q)[0]
        back = s[::-1].astype(np.int32)
        #: Entry N - 1 - i + j is what coefficient j of a polynomial a counts for in coefficient i of a s.
        self._signs: I32 = np.concatenate([back, -back])

    def encrypt(self, usage: str, index: int, values: I64) -> U32:
        """b = -a*s + e + P y / t in coefficients for int64[N] values; `a` is drawn from (usage, index).

        P y / t is rounded up with the chance of its fraction, else down (README 2.4).
        """
        level = self._level
        below = (values.view(np.uint64) * self._modulus_low) & self._below
        up = (self._coins.words(N, "u8") & self._below) < below
        a = sampling.uniform(self.seed, usage, self._session, index, level.limbs)
        return kernels.encrypt(
            a,
            self._s,
            sampling.errors(self._noise, N) + up,
            below,
            self._inverse_t,
            level.column,
            level.inverse,
            level.inverse_q,
            level.degree,
        )

    def phases(self, a: U32, numbers: list[int]) -> list[int]:
        """b_i + <a, s> at coefficient iM, modulo 2^k: 2^k (answer / t + noise / P). README 3.5.

        a: uint32[words, N], numbers: one b_i for each query of the group.
        """
        found = []
        for i, number in enumerate(numbers):
            start = N - 1 - i * self._plan.chunk_rows
            sums = kernels.signed_sums(a, self._signs[start : start + N].copy())
            total = number + sum(int(part) << (32 * word) for word, part in enumerate(sums))
            found.append(total % (1 << self._plan.answer_bits))
        return found

    def decrypt(self, a: U32, numbers: list[int]) -> list[int]:
        """The group's answers modulo t, in [0, t)."""
        below, t = self._plan.answer_bits - self._plan.plain_bits, self._plan.plain_modulus
        return [((phase + (1 << below - 1)) >> below) % t for phase in self.phases(a, numbers)]


def steps(query: Query, values: Values, session: bytes, rng: Rng, then: Callable[[I64], Step[R]]) -> Step[R]:
    """Send key and chunks, wait for the answers, go on with `then(answers: int64[queries] in [0, t))`."""
    agreed = plan(query)
    secret = Secret(agreed, session, rng)

    def send() -> Iterator[bytes]:
        p0 = secret.encrypt("public key", 0, np.zeros(N, np.int64))
        yield messages.TO_PROVIDER.encode(
            messages.Key(digest(agreed, session), secret.seed, messages.pack(p0))  # type: ignore[arg-type]
        )
        left = query.max_nonzero
        for k in range(agreed.chunks):
            start, stop = k * agreed.chunk_rows, min((k + 1) * agreed.chunk_rows, query.rows)
            block = np.zeros(N, np.int64)
            block[: stop - start] = _checked(values(start, stop), query, left)
            left -= int(np.count_nonzero(block))
            b = secret.encrypt("chunk", k, block)
            yield messages.TO_PROVIDER.encode(messages.Chunk(k, messages.pack(b)))  # type: ignore[arg-type]

    return Step(send(), WaitAnswers(agreed, secret, then), (0, agreed.groups))


def _checked(block: I64, query: Query, left: int) -> I64:
    """The bounds that the plan's proof uses (README 4); `left` entries may still differ from 0."""
    if block.size and int(np.abs(block).max()) > query.max_value:
        raise LocalError("linear_query.overflow", f"a value of y is larger than the agreed {query.max_value}")
    if not query.sparse_queries and int(np.count_nonzero(block)) > left:
        raise LocalError(
            "linear_query.overflow", f"y has more than the agreed {query.max_nonzero} non-zero entries"
        )
    return block


class WaitAnswers(Generic[R]):
    """Takes Answer 0 … groups-1, decrypting each at once."""

    def __init__(self, agreed: Plan, secret: Secret, then: Callable[[I64], Step[R]]) -> None:
        self._plan, self._secret, self._then = agreed, secret, then
        self._answers: list[int] = []
        self._taken = 0

    def receive(self, message: bytes) -> Step[R]:
        answer = messages.TO_BRAND.decode(message, messages.Answer)
        if answer.index != self._taken:
            # Reordered answers would be attributed to the wrong queries.
            raise PeerError("linear_query.size", f"answer {answer.index} came where {self._taken} was due")
        agreed = self._plan
        due = min(agreed.packing, agreed.query.queries - len(self._answers))
        a = messages.polynomial_of(answer.a, agreed.answer_bits)
        numbers = messages.numbers_of(answer.b, due, agreed.answer_bits)
        self._answers += self._secret.decrypt(a, numbers)
        self._taken += 1
        if self._taken < agreed.groups:
            return Step((), self, (self._taken, agreed.groups))
        return self._then(np.array(self._answers, dtype=np.int64))


def centred(values: I64, agreed: Plan) -> I64:
    """[0, t) to [-t/2, t/2)."""
    t = np.int64(agreed.plain_modulus)
    return np.where(values >= t // 2, values - t, values)


def masked(answers: I64, agreed: Plan) -> bytes:
    """The message that returns the (noisy) masked answers, reduced modulo t."""
    values = np.mod(answers, np.int64(agreed.plain_modulus)).astype("<u8").tobytes()
    return messages.TO_PROVIDER.encode(messages.Masked(agreed.plain_bits, values))  # type: ignore[arg-type]


def masked_step(answers: I64, agreed: Plan, result: R) -> Step[R]:
    """Return the masked answers and end with `result`."""
    return Step((masked(answers, agreed),), Done(result))


class Brand(Machine[I64 | None]):
    """Standalone run: y int64[rows]. Result: int64[queries] when the brand learns, None otherwise."""

    def __init__(self, y: I64, query: Query, session: bytes, rng: Rng) -> None:
        if y.shape != (query.rows,):
            raise LocalError("linear_query.size", f"y has shape {y.shape}, {query.rows} rows are announced")
        _checked(y, query, query.max_nonzero)
        agreed = plan(query)

        def then(answers: I64) -> Step[I64 | None]:
            if query.to_provider:
                return masked_step(answers, agreed, None)
            return Step((), Done(centred(answers, agreed)))

        super().__init__(steps(query, lambda start, stop: y[start:stop], session, rng, then))
