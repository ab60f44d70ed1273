"""Φ: the provider's local transformation of its columns into numbers, and nothing leaves this module.

    numeric      median impute, then (x − mean) / deviation; a 0/1 column `name=missing` when some are missing
    dates        text that is a date or an amount of money in every row is numeric too
                 or bins, hinges, products of pairs, as the job asks (`parties.transforms`)
    categorical  one 0/1 column a level; rare levels together as `name=other`, missing ones as `name=missing`
    dropped      constant, nearly constant, all missing, looks like an identifier: noted

A level is rare when it has fewer people than max(10, 0.1 %), with noise 0.5 %: a sum over the seeds of such a
column would speak of a handful of people, and with noise of nothing else than noise. Other and missing people
that are together still too few get no column at all. Collinear columns are left in, the fit's ridge penalty
copes, unless columns are scarce: `narrow` first takes out those that others express exactly, then whole
columns of the data set, those first that the others express best.

A `Plan` is learned once, at the fit, and applied unchanged at scoring, however many withdrew in between; its
document is the provider's own and goes with the model into the checkpoint.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from parties import column_kernels as kernels
from parties import column_texts, transforms
from parties.errors import PartyError
from parties.gate import Column
from parties.scratch import Columns
from protocols.parallel import read_only

#: A column of Φ speaks of at least this many people, and at least this share; with noise more people are
#: needed before a level's sum stands out.
MIN_PEOPLE = 10
MIN_SHARE = 0.001
MIN_SHARE_NOISY = 0.005

#: Levels beyond the most frequent ones are grouped as `other`.
MAX_LEVELS = 256
MAX_LEVELS_NOISY = 50

#: Weights at the most of a brand's own part (`parties.own_part`), where levels are no columns.
MAX_OWN = 1 << 16

#: Steps from zero to a column's largest value in the lookalike's finest quantisation, 20 bits with the sign.
FINEST = (1 << 19) - 1

#: A column of which less than this share of the variance is its own is expressed by the others.
EXPRESSED = 1e-6

#: A deviation below this part of the mean is what rounding leaves of equal values.
NEAREST = 1e-12

#: A larger Φ of a fit lies in a file.
IN_MEMORY = 2 << 30

#: Rows from which `narrow` judges columns.
SAMPLE_ROWS = 1 << 15

#: Columns of Φ at the most; beyond it the provider must choose columns.
MAX_COLUMNS = 4096


T = TypeVar("T")
R = TypeVar("R")


class Readable(Protocol):
    """The part of a `ConsentedView` that features need."""

    def read(self, names: Sequence[str], rows: np.ndarray | None = None) -> Iterator[Column]: ...


class PlacedReadable(Readable, Protocol):
    """One that also knows where its rows stand in the file, and can leave float32 columns as they are."""

    def read(
        self, names: Sequence[str], rows: np.ndarray | None = None, *, single: bool = False
    ) -> Iterator[Column]: ...

    def own_rows(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Numeric:
    """φ = (x − mean) · scale after imputing `median`, unless `scale` is 0; then one indicator column if
    `missing`.
    """

    name: str
    median: float
    mean: float
    scale: float
    missing: bool
    kind: str = "numeric"

    @property
    def outputs(self) -> list[str]:
        return ([self.name] if self.scale else []) + ([f"{self.name}=missing"] if self.missing else [])

    def fill(self, column: Column, out: list[np.ndarray]) -> None:
        if self.scale:
            kernels.standardise(read_only(column.values), self.median, self.mean, self.scale, out[0])
        if self.missing:
            out[-1][:] = np.isnan(column.values)

    def place(self, column: Column, where: np.ndarray, out: list[np.ndarray]) -> None:
        """`fill` of column.take(where), in one pass."""
        values = read_only(column.values)
        if self.scale:
            kernels.place(values, where, self.median, self.mean, self.scale, out[0])
        if self.missing:
            kernels.place_missing(values, where, out[-1])


@dataclass(frozen=True)
class Categorical:
    """One column a level in `levels`, then `other` for any other value, then `missing`."""

    name: str
    levels: tuple[str, ...]
    other: bool
    missing: bool
    kind: str = "categorical"

    @property
    def outputs(self) -> list[str]:
        words = (["other"] if self.other else []) + (["missing"] if self.missing else [])
        extra = (_apart(word, self.levels) for word in words)
        return [f"{self.name}={level}" for level in (*self.levels, *extra)]

    def positions(self, column: Column) -> np.ndarray:
        """int32[rows] of each row's position among `outputs`, -1 where none is 1."""
        codes = column.values
        known = {level: position for position, level in enumerate(self.levels)}
        # position of every level of the data in `out`; -1 has none; the last entry is for missing values
        target = np.full(len(column.levels) + 1, -1, dtype=np.int32)
        for code, level in enumerate(column.levels):
            target[code] = known.get(level, len(self.levels) if self.other else -1)
        if self.missing:
            target[-1] = len(self.levels) + self.other
        elif self.other:
            target[-1] = len(self.levels)
        return np.asarray(target[codes])

    def fill(self, column: Column, out: list[np.ndarray]) -> None:
        positions = self.positions(column)
        for position, column_out in enumerate(out):
            np.equal(positions, position, out=column_out, casting="unsafe")


def _apart(word: str, levels: Sequence[str]) -> str:
    """The word, with what tells it from a level of that name: weights are kept by name."""
    while word in levels:
        word += "*"
    return word


Step = Numeric | Categorical | transforms.Bins | transforms.Splines
_STEPS: dict[str, Any] = {"numeric": Numeric, "categorical": Categorical, **transforms.KINDS}


@dataclass(frozen=True)
class Plan:
    """What Φ does, in order. `notes` says in plain words what was dropped or grouped.

    `kept` are positions among the steps' outputs, None for all of them; `used` the data set's columns that
    the model speaks of; `products` come last, of positions among those kept.
    """

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = field(default=())
    kept: tuple[int, ...] | None = None
    products: tuple[transforms.Product, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each column of Φ."""
        every = [name for step in self.steps for name in step.outputs]
        single = every if self.kept is None else [every[position] for position in self.kept]
        return (*single, *(f"{single[p.left]} × {single[p.right]}" for p in self.products))

    @property
    def used(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    def to_document(self) -> dict[str, Any]:
        kept = None if self.kept is None else list(self.kept)
        out = {"steps": [asdict(step) for step in self.steps], "notes": list(self.notes), "kept": kept}
        return {**out, "products": [asdict(product) for product in self.products]}

    @staticmethod
    def from_document(document: dict[str, Any]) -> Plan:
        steps: list[Step] = []
        for entry in document["steps"]:
            plain = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
            steps.append(_STEPS[entry["kind"]](**plain))
        kept = document.get("kept")
        products = tuple(transforms.Product(**entry) for entry in document.get("products", ()))
        return Plan(tuple(steps), tuple(document["notes"]), None if kept is None else tuple(kept), products)


def learn(
    view: Readable, columns: Sequence[str], rows: np.ndarray | None = None, *, noisy: bool = False
) -> Plan:
    """The plan for these columns, from the view's rows (all, or those given by view row number).

    Raises `features.none` when no column is left, `features.many` above `MAX_COLUMNS`.
    """
    return _plan([_look(column_texts.measured(read), noisy) for read in view.read(columns, rows)])


def build(
    view: PlacedReadable,
    columns: Sequence[str],
    rows: np.ndarray,
    *,
    noisy: bool = False,
    form: str = "linear",
    scratch: Path | None = None,
) -> tuple[Plan, np.ndarray]:
    """`learn` and `matrix` of the same rows in one pass over the file: (plan, Φ float32[len(rows), d]).

    `form`: one of `transforms.FORMS`; products are made later, by `cross`. `scratch`: a private directory
    for a Φ of more than `IN_MEMORY` bytes.

    The file is read in its own order, which is quickest. Extra memory is a few columns.
    """
    order, back = _file_order(view.own_rows()[rows])

    def work(read: Column) -> tuple[tuple[str, Step | None, str], Column]:
        column = column_texts.measured(read)
        return _look(column, noisy, form), column

    found: list[tuple[str, Step | None, str]] = []
    # Pages that nothing is written to take no memory, and no disk.
    room, at = _room(len(rows), 2 * len(columns) + 64, len(columns), scratch), 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        writing: list[Future[None]] = []
        # Bins and hinges have quantiles of their own, which are those of doubles.
        file = view.read(columns, rows[order], single=form == "linear")
        for looked, column in _side_by_side(pool, work, file):
            found.append(looked)
            count = 0 if looked[1] is None else len(looked[1].outputs)
            if looked[1] is None or at + count > MAX_COLUMNS:
                at += count  # too many columns are refused below, and not filled before
                continue
            if at + count > room.array.shape[1]:
                _all(writing)
                larger = _room(len(rows), 2 * (at + count), at + count, scratch)
                larger.reserve(at)
                larger.array[:, :at] = room.array[:, :at]
                room = larger
            room.reserve(at + count)
            out = [room.array[:, j] for j in range(at, at + count)]
            writing.append(pool.submit(_place, looked[1], column, back, out))
            at += count
            writing = [one for one in writing if not (one.done() and one.result() is None)]
        _all(writing)
    return _plan(found), room.array[:, :at]


def _room(rows: int, columns: int, expected: int, scratch: Path | None) -> Columns:
    """Room for Φ, in a file below `scratch` where `expected` columns are more than `IN_MEMORY` bytes."""
    return Columns(rows, columns, None if 4 * rows * expected <= IN_MEMORY else scratch)


def _file_order(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order, back) of distinct line numbers: own[order] rises, and order[back] counts from 0."""
    place = np.full(int(own.max(initial=-1)) + 1, -1, dtype=np.int64)
    place[own] = np.arange(len(own))
    order = place[place >= 0]
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return order, back


def _place(step: Step, column: Column, where: np.ndarray, out: list[np.ndarray]) -> None:
    """The columns of Φ of one step, `where` in the file's order for each row of Φ."""
    if isinstance(step, Numeric):
        step.place(column, where, out)
    else:
        step.fill(column.take(where), out)  # once, and not once a level


def _all(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()
    futures.clear()


def _look(column: Column, noisy: bool, form: str = "linear") -> tuple[str, Step | None, str]:
    """(name, what Φ does with it or None, a note or nothing)."""
    least = _threshold(len(column.values), noisy)
    if column.kind == "numeric":
        step, note = _learn_numeric(column, least)
        shaped: Step | None = None
        if step is not None and step.scale and form != "linear":
            shape = transforms.binned if form == "bins" else transforms.hinged
            shaped = shape(column, step.median, step.missing, least, noisy)
        return column.name, shaped or step, note
    return column.name, *_learn_categorical(column, least, MAX_LEVELS_NOISY if noisy else MAX_LEVELS)


def every(column: Column) -> tuple[str, Step | None, str]:
    """`_look` with every level and whatever varies at all: for what is fitted without a sum over people of
    somebody else. Texts that look like an identifier are dropped as ever, and ten people who lack a number
    are still the least that get a column of their own.
    """
    if column.kind == "numeric":
        return column.name, *_learn_numeric(column, 1, MIN_PEOPLE)
    return column.name, *_learn_categorical(column, 1, MAX_OWN)


def weights_of(plan: Plan, weights: Mapping[str, float]) -> np.ndarray:
    """Weights by name as float64[d], in the order of Φ. Raises `features.changed` where one is not there."""
    lost = [name for name in plan.names if name not in weights]
    if lost:
        raise PartyError("features.changed", f"the model has no weight of {lost[0]!r}; fit it anew")
    return np.array([weights[name] for name in plan.names], dtype=np.float64)


def matching(step: Step, read: Column) -> Column:
    """What a view read, as the step expects it. Raises `features.changed` where it is something else now."""
    kind = _reads(step)
    column = column_texts.measured(read) if kind == "numeric" else read
    if column.kind not in (kind, "empty"):
        raise PartyError("features.changed", f"column {step.name!r} was {kind} and is now {column.kind}")
    return _as(column, kind)


def _reads(step: Step) -> str:
    """The kind of column that a step reads."""
    return "categorical" if step.kind == "categorical" else "numeric"


def _plan(found: Sequence[tuple[str, Step | None, str]]) -> Plan:
    steps = tuple(step for _, step, _ in found if step is not None)
    plan = Plan(steps, tuple(f"{name}: {note}" for name, _, note in found if note))
    if not steps:
        raise PartyError("features.none", "no usable column is left: " + "; ".join(plan.notes))
    if len(plan.names) > MAX_COLUMNS:
        raise PartyError(
            "features.many", f"{len(plan.names)} columns of Φ, {MAX_COLUMNS} allowed; choose fewer"
        )
    return plan


def _side_by_side(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """work(item) of each, in order, on every core; a few items are held at a time. Numpy lets others run."""
    ahead: deque[Future[R]] = deque()
    for item in items:
        ahead.append(pool.submit(work, item))
        if len(ahead) > 2 * (os.cpu_count() or 1):
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def matrix(plan: Plan, view: Readable, rows: np.ndarray | None = None) -> np.ndarray:
    """Φ as float32[len(rows), d] in Fortran order; extra memory is Φ and one batch of columns."""
    phi: np.ndarray | None = None
    width = len(plan.names)
    for j, values in stream(plan, view, rows):
        if phi is None:
            phi = np.empty((len(values), width), dtype=np.float32, order="F")
        phi[:, j] = values
    if phi is None:
        raise PartyError("features.none", "a plan without columns")
    return phi


def stream(plan: Plan, view: Readable, rows: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(j, column j of Φ float32[len(rows)]) of every column of Φ in order; what is yielded is overwritten.

    Memory is one batch of columns of the file, the widest step's columns, and those that products need.
    """
    every = sum(len(step.outputs) for step in plan.steps)
    place = {kept: j for j, kept in enumerate(range(every) if plan.kept is None else plan.kept)}
    wanted = {j for product in plan.products for j in (product.left, product.right)}
    held: dict[int, np.ndarray] = {}
    out: list[np.ndarray] = []
    at, rows_read = 0, 0
    for step, read in zip(plan.steps, view.read([s.name for s in plan.steps], rows), strict=True):
        column = matching(step, read)
        rows_read = len(column.values)
        count = len(step.outputs)
        out += [np.empty(rows_read, dtype=np.float32) for _ in range(count - len(out))]
        step.fill(column, out[:count])
        for i in range(count):
            j = place.get(at + i)
            if j is None:
                continue
            if j in wanted:
                held[j] = out[i].copy()
            yield j, out[i]
        at += count
    for k, product in enumerate(plan.products):
        product.fill(held[product.left], held[product.right], out[0])
        yield len(place) + k, out[0]


def cross(
    plan: Plan,
    phi: np.ndarray,
    room: int | None,
    *,
    noisy: bool = False,
    scratch: Path | None = None,
) -> tuple[Plan, np.ndarray]:
    """(plan, Φ) with products of pairs of its columns, as many as `room` (None: any number) allows; chosen
    without labels. Apply it after `narrow`.
    """
    most = transforms.PRODUCTS_NOISY if noisy else transforms.PRODUCTS
    most = min(most, MAX_COLUMNS - phi.shape[1], most if room is None else room)
    made = transforms.products(phi, most, _threshold(len(phi), noisy), SAMPLE_ROWS, FINEST)
    if not made:
        return plan, phi
    d = phi.shape[1]
    made_room = _room(len(phi), d + len(made), d + len(made), scratch)
    made_room.reserve(d + len(made))
    wider = made_room.array
    wider[:, :d] = phi
    for j, product in enumerate(made):
        product.fill(phi[:, product.left], phi[:, product.right], wider[:, d + j])
    return replace(plan, products=tuple(made)), wider


def _as(column: Column, kind: str) -> Column:
    """A column that has lost all its values since the plan was made, in the shape that the plan expects."""
    if column.kind == kind:
        return column
    if kind == "numeric":
        return column
    return Column(column.name, "categorical", np.full(len(column.values), -1, dtype=np.int32))


def narrow(plan: Plan, phi: np.ndarray, at_most: int) -> tuple[Plan, np.ndarray]:
    """(plan, Φ) with `at_most` columns of Φ; both as they are if they have no more.

    Labels play no part, so the choice says nothing about them. First go the columns that others express
    exactly: a level where all the others are there, flags that go together. When that is not enough, whole
    columns of the data set go, with a note, and those stay that express the others best.
    """
    at_most = max(1, at_most)
    if phi.shape[1] <= at_most or plan.kept is not None:
        return plan, phi
    owner = np.repeat(np.arange(len(plan.steps)), [len(step.outputs) for step in plan.steps])
    gram = _correlations(phi)
    weight = 1.0 / np.bincount(owner)[owner]  # a column of the data set counts once, however many its levels
    order, rest = _express(gram, np.arange(len(gram)), weight, at_most)
    kept = sorted(order)
    notes = list(plan.notes)
    if float(rest.diagonal().max()) > EXPRESSED:
        kept, residual = [], gram
        for source in dict.fromkeys([*owner[order].tolist(), *owner.tolist()]):
            room = at_most - len(kept)
            mine, after = _express(residual, np.flatnonzero(owner == source), weight, room + 1)
            if len(mine) <= room:
                kept, residual = sorted([*kept, *mine]), after
        # One category wider than all that is allowed: its levels that say most.
        kept = kept or sorted(order)
        lost = [s.name for i, s in enumerate(plan.steps) if i not in set(owner[kept].tolist())]
        reason = f"dropped, so few seeds (people with a label) allow {at_most} columns without noise"
        notes += [f"{name}: {reason}" for name in lost]
    remaining = sorted(set(owner[kept].tolist()))
    steps = tuple(plan.steps[i] for i in remaining)
    still = np.flatnonzero(np.isin(owner, remaining))
    positions = tuple(int(p) for p in np.searchsorted(still, kept))
    return Plan(steps, tuple(notes), positions), np.asfortranarray(phi[:, kept])


def _correlations(phi: np.ndarray) -> np.ndarray:
    """float64[d, d] of a sample of the rows, which are in random order."""
    sample = phi[:: max(1, len(phi) // SAMPLE_ROWS)].astype(np.float64)
    sample -= sample.mean(axis=0)
    length = np.sqrt((sample * sample).sum(axis=0))
    sample /= np.where(length > 0, length, 1.0)
    gram: np.ndarray = sample.T @ sample
    return gram


def _express(
    gram: np.ndarray, among: np.ndarray, weight: np.ndarray, at_most: int
) -> tuple[list[int], np.ndarray]:
    """Columns of `among` that, one after the other, leave least of all columns (by `weight`) unexpressed, and
    what is left: pivoted Cholesky. It ends at `at_most`, or when these express all of `among`.
    """
    rest, chosen = gram.copy(), list[int]()
    while len(chosen) < at_most:
        own = rest.diagonal()[among]
        if float(own.max(initial=0.0)) <= EXPRESSED:
            break
        gain = (weight[:, None] * rest[:, among] ** 2).sum(axis=0) / np.maximum(own, EXPRESSED)
        best = int(among[np.argmax(np.where(own > EXPRESSED, gain, -1.0))])
        chosen.append(best)
        rest -= np.outer(rest[:, best], rest[best] / rest[best, best])
    return chosen, rest


def _threshold(count: int, noisy: bool) -> int:
    return max(MIN_PEOPLE, math.ceil((MIN_SHARE_NOISY if noisy else MIN_SHARE) * count))


def _learn_numeric(
    column: Column, least: int, least_missing: int | None = None
) -> tuple[Numeric | None, str]:
    values, count = read_only(column.values), len(column.values)
    missing, total, low, high = kernels.summary(values)
    median = 0.0
    if missing:
        if count - missing < least:
            return None, f"dropped, only {count - missing} values"
        median = float(np.median(values[~np.isnan(values)].astype(np.float64)))
        total, low, high = total + missing * median, min(low, median), max(high, median)

    def some(rows: slice) -> np.ndarray:
        part = values[rows].astype(np.float64)
        return np.where(np.isnan(part), median, part)

    # The most frequent value of a systematic sample: if any value fills the column, it is this one.
    sample, times = np.unique(some(slice(None, None, max(1, count // 1001))), return_counts=True)
    mean = total / count
    squares, different = kernels.spread(values, median, mean, float(sample[int(np.argmax(times))]))
    few = least if least_missing is None else least_missing
    indicator = few <= missing <= count - few
    if different < least:
        note = f"dropped, constant but for {different} of {count} people"
        return (Numeric(column.name, median, 0.0, 0.0, True), "") if indicator else (None, note)
    whole = some(slice(None, None, max(1, count // 1000)))[:1000]
    if (
        count >= 1000
        and np.all(whole == np.floor(whole))
        and np.min(whole) > 1e9
        and not column.unit
        and not _clock(whole)
        and len(np.unique(whole)) > 900
    ):
        return None, "dropped, whole numbers above 10^9 look like an identifier"
    deviation = math.sqrt(squares / count)
    if not (math.isfinite(mean) and math.isfinite(deviation)):
        return None, "dropped, values too large to standardise"
    if not deviation > max(NEAREST * abs(mean), transforms.SMALLEST):
        note = (
            "dropped, the values are too near to each other to standardise; take an offset off, or scale it"
        )
        return (Numeric(column.name, median, 0.0, 0.0, True), note) if indicator else (None, note)
    scale = 1.0 / deviation
    # What is left of the differences in the numbers of Φ: one far outlier makes all the others alike.
    factor = FINEST / max(high - mean, mean - low, 1e-300)
    # If fewer than k differ from a common value, that value is the median of any 2k - 1 of them.
    near = np.sort(np.rint((some(slice(2 * least - 1)) - mean) * factor))
    different = kernels.differing(values, median, mean, factor, float(near[len(near) // 2]))
    if different < least:
        note = f"dropped, beside {different} extreme values all others are alike; clip or mend those"
        return (Numeric(column.name, median, 0.0, 0.0, True), note) if indicator else (None, note)
    note = (
        "" if indicator or not missing else f"{missing} missing values imputed without a column of their own"
    )
    return Numeric(column.name, median, mean, scale, indicator), note


def _clock(values: np.ndarray) -> bool:
    """Seconds or milliseconds since 1970, from 2001 to 2036."""
    low, high = float(np.min(values)), float(np.max(values))
    return any(1e9 * unit <= low and high <= 2.1e9 * unit for unit in (1.0, 1e3))


def _learn_categorical(column: Column, least: int, most: int) -> tuple[Categorical | None, str]:
    if column.kind != "categorical":
        return None, column_texts.unusable(column)
    codes, count = column.values, len(column.values)
    times = np.bincount(codes + 1, minlength=len(column.levels) + 1)
    missing, times = int(times[0]), times[1:]
    distinct, present = int(np.count_nonzero(times)), count - missing
    if distinct > column_texts.MANY_TEXTS and distinct > column_texts.NEAR_UNIQUE * present:
        return None, column_texts.unusable(column)
    kept = np.flatnonzero(times >= least)
    kept = kept[np.argsort(-times[kept], kind="stable")][:most]
    others = present - int(times[kept].sum())
    own_missing = missing >= least
    grouped = others + (0 if own_missing else missing)
    levels = tuple(column.levels[code] for code in kept)
    step = Categorical(column.name, levels, other=grouped >= least, missing=own_missing)
    if len(step.outputs) < 2 and (not levels or count - int(times[kept].sum()) < least):
        different = count - int(times[kept].sum())
        return None, column_texts.no_level(column, distinct, different, least, bool(levels))
    rare = distinct - len(kept)
    slips = column_texts.mostly_numbers(column, MIN_PEOPLE)
    notes = (slips, f"{rare} rare levels grouped as other" if rare else "")
    return step, "; ".join(filter(None, notes))
