"""The brand: holds y and the only secret key. README section 3.

States: WaitAnswers, once a query. `steps` gives the opening step and calls `then` with the answers; a
protocol that contains this one (lookalike) continues there, `Brand` ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np

from protocols.errors import LocalError, PeerError
from protocols.linear_query import kernels, messages, ring, sampling
from protocols.linear_query.binding import digest
from protocols.linear_query.parameters import Plan, Query, plan
from protocols.linear_query.ring import I64, U32, N
from protocols.machine import Done, Machine, Step

R = TypeVar("R")
Rng = Callable[[int], bytes]

#: Rows [start, stop) of y, int64; called in order, once.
Values = Callable[[int, int], I64]


class Secret:
    """The brand's key and what it does with it. Never prints and never leaves."""

    def __init__(self, agreed: Plan, session: bytes, rng: Rng) -> None:
        self._plan = agreed
        self._session = session
        self.seed = rng(32)
        stream = sampling.Stream(rng(32), "brand", "secret", session)
        self._noise = sampling.Stream(rng(32), "brand", "error", session)
        self._s: U32 = kernels.transform(
            sampling.ternary(stream, N).reshape(1, N), ring.PRIME_COLUMN, ring.ROOTS, ring.ROOTS_Q
        )[0]

    def encrypt(self, usage: str, index: int, values: I64) -> U32:
        """b = -a*s + e + Delta*y in coefficients for int64[N] values; `a` is drawn from (usage, index)."""
        a = sampling.uniform(self.seed, usage, self._session, index)
        return kernels.encrypt(
            a,
            self._s,
            sampling.errors(self._noise, N),
            values,
            ring.residues([self._plan.delta]).reshape(ring.LIMBS, 1),
            ring.PRIME_COLUMN,
            ring.INVERSE,
            ring.INVERSE_Q,
            ring.DEGREE_INVERSE,
        )

    def phase(self, a: U32, b: U32) -> int:
        """b + <a, s>, constant coefficient, in [0, P): Delta * answer + noise."""
        products = [
            kernels.constant_of_product(a[i], self._s[i], np.uint32(p), ring.DEGREE_INVERSE[i, 0])
            for i, p in enumerate(ring.PRIMES)
        ]
        total = [(int(b[i]) + int(products[i])) % p for i, p in enumerate(ring.PRIMES)]
        return ring.lift(np.array(total))

    def decrypt(self, a: U32, b: U32) -> int:
        """The answer modulo t, in [0, t)."""
        half = self._plan.delta // 2
        return ((self.phase(a, b) + half) // self._plan.delta) % self._plan.plain_modulus


def steps(query: Query, values: Values, session: bytes, rng: Rng, then: Callable[[I64], Step[R]]) -> Step[R]:
    """Send key and chunks, wait for the answers, go on with `then(answers: int64[queries] in [0, t))`."""
    agreed = plan(query)
    secret = Secret(agreed, session, rng)

    def send() -> Iterator[bytes]:
        p0 = secret.encrypt("public key", 0, np.zeros(N, np.int64))
        yield messages.TO_PROVIDER.encode(
            messages.Key(digest(agreed, session), secret.seed, messages.pack(p0))  # type: ignore[arg-type]
        )
        for k in range(query.chunks):
            start, stop = k * N, min((k + 1) * N, query.rows)
            block = np.zeros(N, np.int64)
            block[: stop - start] = _checked(values(start, stop), query)
            b = secret.encrypt("chunk", k, block)
            yield messages.TO_PROVIDER.encode(messages.Chunk(k, messages.pack(b)))  # type: ignore[arg-type]

    return Step(send(), WaitAnswers(agreed, secret, then), (0, query.queries))


def _checked(block: I64, query: Query) -> I64:
    if block.size and int(np.abs(block).max()) > query.max_value:
        raise LocalError("linear_query.overflow", f"a value of y is larger than the agreed {query.max_value}")
    return block


class WaitAnswers(Generic[R]):
    """Takes Answer 0 … queries-1, decrypting each at once."""

    def __init__(self, agreed: Plan, secret: Secret, then: Callable[[I64], Step[R]]) -> None:
        self._plan, self._secret, self._then = agreed, secret, then
        self._answers: list[int] = []

    def receive(self, message: bytes) -> Step[R]:
        answer = messages.TO_BRAND.decode(message, messages.Answer)
        if answer.index != len(self._answers):
            # Reordered answers would be attributed to the wrong query.
            raise PeerError(
                "linear_query.size", f"answer {answer.index} came where {len(self._answers)} was due"
            )
        a, b = messages.residues_of(answer.a, N), messages.residues_of(answer.b)
        self._answers.append(self._secret.decrypt(a, b))
        total = self._plan.query.queries
        if len(self._answers) < total:
            return Step((), self, (len(self._answers), total))
        return self._then(np.array(self._answers, dtype=np.int64))


def centred(values: I64, agreed: Plan) -> I64:
    """[0, t) to [-t/2, t/2)."""
    t = np.int64(agreed.plain_modulus)
    return np.where(values >= t // 2, values - t, values)


def masked_step(answers: I64, agreed: Plan, result: R) -> Step[R]:
    """Return the (noisy) masked answers, reduced modulo t, and end with `result`."""
    values = np.mod(answers, np.int64(agreed.plain_modulus)).astype("<u8").tobytes()
    reply = messages.Masked(agreed.plain_bits, values)  # type: ignore[arg-type]
    return Step((messages.TO_PROVIDER.encode(reply),), Done(result))


class Brand(Machine[I64 | None]):
    """Standalone run: y int64[rows]. Result: int64[queries] when the brand learns, None otherwise."""

    def __init__(self, y: I64, query: Query, session: bytes, rng: Rng) -> None:
        if y.shape != (query.rows,):
            raise LocalError("linear_query.size", f"y has shape {y.shape}, {query.rows} rows are announced")
        if int(np.count_nonzero(y)) > query.max_nonzero:
            raise LocalError(
                "linear_query.overflow", f"y has more than the agreed {query.max_nonzero} non-zero entries"
            )
        agreed = plan(query)

        def then(answers: I64) -> Step[I64 | None]:
            if query.to_provider:
                return masked_step(answers, agreed, None)
            return Step((), Done(centred(answers, agreed)))

        super().__init__(steps(query, lambda start, stop: y[start:stop], session, rng, then))
