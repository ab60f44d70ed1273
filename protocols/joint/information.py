"""Standard errors of both sides' weights, after the fit. README, section 9.

`Weights` is the brand, which knows the score of each of its people by then, and so every row's curvature;
`Columns` is the provider. Each ends with the covariance of its own weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError, PeerError
from protocols.joint import kernels, messages
from protocols.joint.exchange import Held, Rng, WaitScale, hold
from protocols.joint.kernels import F32, F64
from protocols.joint.messages import TO_BRAND, TO_PROVIDER
from protocols.joint.terms import Scales, Terms, padded, query_session, scales, terms_digest
from protocols.machine import Done, Machine, Step

#: Columns of the provider at the most: the sums are one for each pair of them.
MOST_COLUMNS = 48
#: Rows of the provider's from which the information is taken; more would not change a standard error by 1 %.
MOST_ROWS = 1 << 17
#: Eigenvalues of an explained share are held below this: rounding must not make a variance negative.
MOST_EXPLAINED = 1 - 1e-9


@dataclass(frozen=True)
class Errors:
    """covariance float64[d, d] of this side's weights (the brand's intercept last), errors float64[d]."""

    covariance: F64

    @property
    def errors(self) -> F64:
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))


def p_values(weights: F64, errors: F64) -> F64:
    """Two-sided, of weights being 0, by the normal approximation; float64[d]."""
    ratio = np.abs(weights) / np.maximum(errors, 1e-300)
    return np.array([math.erfc(value / math.sqrt(2)) for value in ratio])


class Weights(Machine[Errors]):
    """rows int64[n], distinct, of the provider's `total`; columns float32[n, d]; curvature float64[n] >= 0 of
    each row at the end of the fit; dispersion: a linear model's residual variance, else 1.

    Raises LocalError `joint.rows` where the sums would outnumber half of the rows.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.int64],
        columns: npt.NDArray[np.float32],
        curvature: npt.NDArray[np.float64],
        total: int,
        dispersion: float,
        session: bytes,
        terms: Terms,
        rng: Rng,
    ) -> None:
        n = len(rows)
        if columns.ndim != 2 or columns.dtype != np.float32 or len(columns) != n or curvature.shape != (n,):
            raise LocalError(
                "protocol.argument", f"{n} rows, columns {columns.dtype}{columns.shape}, {curvature.shape}"
            )
        if not (n and np.isfinite(curvature).all() and curvature.min() >= 0 and curvature.max() > 0):
            raise LocalError("protocol.argument", "curvatures must be finite, none below 0, not all 0")
        if not 0 < dispersion < math.inf:
            raise LocalError("joint.fit", f"a residual variance of {dispersion}: nothing is left to measure")
        order = np.argsort(rows, kind="stable")
        held = Held(np.asarray(rows, np.int64)[order], total).first(min(total, MOST_ROWS))
        used = order[: len(held.rows)]
        x = np.concatenate([columns[used].T, np.ones((1, len(used)), np.float32)])
        whole = float(curvature.sum() / max(float(curvature[used].sum()), 1e-300))
        run = _Brand(
            held, np.ascontiguousarray(x), curvature[used] * whole / dispersion, dispersion, session, terms
        )
        super().__init__(run.opening(padded(n), total, rng))


class _Brand:
    def __init__(
        self, held: Held, columns: F32, weight: F64, dispersion: float, session: bytes, terms: Terms
    ) -> None:
        self.held, self.columns, self.weight = held, columns, weight
        self.dispersion, self.session, self.terms = dispersion, session, terms
        d = len(columns)
        penalty = np.full(d, terms.l2 / dispersion)
        penalty[-1] = 0.0
        own = kernels.moments(columns, weight) + np.diag(penalty)
        size = np.sqrt(np.maximum(np.diag(own), 1e-300))
        unit = own / size[:, None] / size[None, :] + 1e-12 * np.eye(d)
        #: own = root root^T
        self.root = size[:, None] * np.linalg.cholesky(unit)

    def opening(self, padded_rows: int, total: int, rng: Rng) -> Step[Errors]:
        d = len(self.columns)
        self.nonzero = min(padded_rows, self.held.total)
        self.turn = _rotation(d, rng)
        whitened = np.linalg.solve(self.root, self.columns.astype(np.float64))
        #: float64[d, n]: the weighted columns, orthonormal and turned; the provider sees sums with these.
        self.vectors = self.weight * (self.turn.T @ whitened)
        inquiry = messages.Inquiry(
            terms_digest(self.terms, self.session),  # type: ignore[arg-type]
            total,  # type: ignore[arg-type]
            padded_rows,  # type: ignore[arg-type]
            d,  # type: ignore[arg-type]
            messages.pack(np.array([self.dispersion])),
        )
        return Step((TO_PROVIDER.encode(inquiry),), _WaitShape(self, rng))

    def begin(self, columns: int, rng: Rng) -> Step[Errors]:
        pairs, d = columns * (columns + 1) // 2, len(self.columns)
        if columns > MOST_COLUMNS:
            raise LocalError(
                "joint.columns",
                f"standard errors need {pairs} sums of products of the provider's {columns} columns; it may "
                f"have {MOST_COLUMNS}: ask for fewer columns",
            )
        if 2 * (pairs + columns * d) > len(self.held.rows):
            # As with gradients: so many sums could be solved for what belongs to single people.
            raise LocalError(
                "joint.rows",
                f"standard errors tell the provider {pairs + columns * d} sums over {len(self.held.rows)} "
                "rows; twice as many rows are needed: use more rows or fewer columns",
            )
        agreed = scales(1, self.held.total, pairs, self.nonzero)
        return self._hold(agreed, self.weight, "pairs", rng, lambda sent: self._next(0, columns, rng, sent))

    def _hold(
        self, agreed: Scales, vector: F64, use: str, rng: Rng, then: Callable[[bytes], Step[Errors]]
    ) -> Step[Errors]:
        session = query_session(self.session, use, 0)
        return hold(None, True, agreed, vector[None, :], self.held, session, rng, then)

    def _next(self, k: int, columns: int, rng: Rng, sent: bytes) -> Step[Errors]:
        """Column k of what the sides' columns share, after the message `sent`."""
        if k == len(self.columns):
            return Step((sent,), _WaitExplained(self))
        agreed = scales(1, self.held.total, columns, self.nonzero)
        following = self._hold(
            agreed,
            self.vectors[k],
            f"shared {k}",
            rng,
            lambda masked: self._next(k + 1, columns, rng, masked),
        )

        return Step(chain((sent,), following.send), following.then, following.progress)

    def end(self, explained: F64) -> Step[Errors]:
        """`explained` float64[d, d]: how much of the turned columns the provider's ones explain."""
        values, basis = np.linalg.eigh((explained + explained.T) / 2)
        left = 1 - np.clip(values, 0.0, MOST_EXPLAINED)
        # information = root turn (1 - explained) turn^T root^T, and this is its inverse's root
        half = np.linalg.solve(self.root.T, self.turn @ basis) / np.sqrt(left)
        return Step((), Done(Errors(half @ half.T)))


class _WaitShape:
    def __init__(self, run: _Brand, rng: Rng) -> None:
        self._run, self._rng = run, rng

    def receive(self, message: bytes) -> Step[Errors]:
        shape = TO_BRAND.decode(message, messages.Shape)
        if shape.digest != terms_digest(self._run.terms, self._run.session):
            # The provider could otherwise be answered under weaker terms than this side signed.
            raise PeerError("protocol.binding", "the provider holds other terms or another session")
        if shape.columns < 1:
            raise PeerError("protocol.malformed", "the provider announces no column")
        return self._run.begin(int(shape.columns), self._rng)


class _WaitExplained:
    def __init__(self, run: _Brand) -> None:
        self._run = run

    def receive(self, message: bytes) -> Step[Errors]:
        d = len(self._run.columns)
        values = messages.floats(TO_BRAND.decode(message, messages.Explained).values, d * d, 1e6)
        return self._run.end(values.reshape(d, d))


class Columns(Machine[Errors]):
    """columns: float32[m, d] as in the fit; most: columns that the brand may have, with its intercept."""

    def __init__(self, columns: npt.NDArray[np.float32], session: bytes, terms: Terms, rng: Rng) -> None:
        if columns.ndim != 2 or columns.dtype != np.float32 or 0 in columns.shape:
            raise LocalError("protocol.argument", f"columns are {columns.dtype}{columns.shape}")
        super().__init__(Step((), _WaitInquiry(np.asfortranarray(columns).T, session, terms, rng)))


class _WaitInquiry:
    def __init__(self, columns: F32, session: bytes, terms: Terms, rng: Rng) -> None:
        self._columns, self._session, self._terms, self._rng = columns, session, terms, rng

    def receive(self, message: bytes) -> Step[Errors]:
        inquiry = TO_PROVIDER.decode(message, messages.Inquiry)
        digest, (d, m) = terms_digest(self._terms, self._session), self._columns.shape
        if inquiry.digest != digest:
            raise PeerError("protocol.binding", "the brand holds other terms or another session")
        if inquiry.rows != m:
            # Vectors over another number of rows would be multiplied with the wrong people.
            raise PeerError("protocol.binding", f"the brand counts on {inquiry.rows} rows, there are {m}")
        if not 1 <= inquiry.columns <= self._terms.max_columns + 1:
            raise PeerError("protocol.too_large", f"{inquiry.columns} columns of the brand")
        if inquiry.padded_rows > padded(m) or inquiry.padded_rows != padded(inquiry.padded_rows):
            raise PeerError("joint.rows", f"{inquiry.padded_rows} training rows of {m} are announced")
        sums = d * (d + 1) // 2 + d * inquiry.columns
        if d <= MOST_COLUMNS and sums > padded(inquiry.padded_rows):
            raise PeerError("joint.rows", f"{sums} sums over {inquiry.padded_rows} rows at the most")
        dispersion = float(messages.floats(inquiry.dispersion, 1)[0])
        if dispersion <= 0:
            raise PeerError("protocol.malformed", f"a residual variance of {dispersion}")
        run = _Provider(self._columns, inquiry, dispersion, self._session, self._terms, self._rng)
        shape = messages.Shape(digest, d)  # type: ignore[arg-type]
        return Step((TO_BRAND.encode(shape),), run.pairs())


class _Provider:
    def __init__(
        self,
        columns: F32,
        inquiry: messages.Inquiry,
        dispersion: float,
        session: bytes,
        terms: Terms,
        rng: Rng,
    ) -> None:
        d, m = columns.shape
        total = min(m, MOST_ROWS)
        self.held = Held(np.arange(total, dtype=np.int64), total)
        self.columns, self.session, self.rng = columns, session, rng
        self.largest = kernels.largest_of(columns)
        self.nonzero = min(int(inquiry.padded_rows), total)
        self.penalty = terms.l2 / dispersion
        self.theirs, self.shared = int(inquiry.columns), list[F64]()
        self.left, self.right = np.tril_indices(d)

    def pairs(self) -> WaitScale[Errors]:
        d = len(self.columns)
        if d > MOST_COLUMNS:
            raise LocalError(
                "joint.columns", f"{d} columns, standard errors are given for {MOST_COLUMNS}: use fewer"
            )
        agreed = scales(1, self.held.total, len(self.left), self.nonzero)

        def then(sums: F64) -> Step[Errors]:
            own = np.zeros((d, d))
            own[self.left, self.right] = own[self.right, self.left] = sums
            self.own = own + self.penalty * np.eye(d)
            return Step((), self.next())

        return WaitScale(
            True,
            agreed,
            None,
            self.columns,
            self.largest,
            self.held,
            query_session(self.session, "pairs", 0),
            self.rng,
            then,
            (self.left, self.right),
        )

    def next(self) -> WaitScale[Errors]:
        def then(sums: F64) -> Step[Errors]:
            self.shared.append(sums)
            return Step((), self.next()) if len(self.shared) < self.theirs else self.end()

        return WaitScale(
            True,
            scales(1, self.held.total, len(self.columns), self.nonzero),
            np.ones((1, self.held.total)),
            self.columns,
            self.largest,
            self.held,
            query_session(self.session, f"shared {len(self.shared)}", 0),
            self.rng,
            then,
        )

    def end(self) -> Step[Errors]:
        shared = np.array(self.shared).T  # float64[d, theirs]
        least = max(self.penalty, 1e-12 * float(np.trace(self.own)))
        explained = shared.T @ _inverse(self.own, least) @ shared
        said = messages.Explained(messages.pack(explained))
        left = _inverse(self.own - shared @ shared.T, least)
        return Step((TO_BRAND.encode(said),), Done(Errors(left)))


def _inverse(matrix: F64, least: float) -> F64:
    """Of a symmetric matrix whose eigenvalues, but for rounding, are at least `least`."""
    values, basis = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((basis / np.maximum(values, least)) @ basis.T)


def _rotation(d: int, rng: Rng) -> F64:
    """A random orthogonal matrix, float64[d, d], Haar distributed: QR of normal numbers (Box and Muller)."""
    words = np.frombuffer(rng(16 * d * d), dtype="<u8").reshape(2, d, d)
    first, second = ((words[i] >> np.uint64(11)).astype(np.float64) + 0.5 for i in (0, 1))
    normal = np.sqrt(-2 * np.log(first * 2.0**-53)) * np.cos(2 * np.pi * second * 2.0**-53)
    q, r = np.linalg.qr(normal)
    return np.asarray(q * np.sign(np.diag(r)))
