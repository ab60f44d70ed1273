"""Synthetic files for the benchmarks: deterministic in the seed, generated and written in blocks.

Identifiers are distinct mobile numbers in an order that says nothing about who is in both files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pec.errors import PecError

FIRST_NUMBER = 13_000_000_000
MAX_PEOPLE = 900_000_000
BLOCK = 1 << 17


@dataclass(frozen=True)
class Files:
    brand: Path
    provider: Path
    expected: int  # people in both files


def numbers(start: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` distinct mobile numbers, those of people start … start + count − 1, shuffled."""
    return rng.permutation(np.arange(start, start + count, dtype=np.int64)) + FIRST_NUMBER


def align_files(folder: Path, receiver: int, sender: int, share: float = 0.5, seed: int = 1) -> Files:
    """Two files of one column. `share` of the smaller side is in both."""
    both = round(min(receiver, sender) * share)
    if receiver < 1 or sender < 1 or receiver + sender - both > MAX_PEOPLE:
        raise PecError("pec.usage", f"sizes must be from 1 to {MAX_PEOPLE:,} people together")
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    brand, provider = folder / "brand.parquet", folder / "provider.parquet"
    pq.write_table(_ids(numbers(0, receiver, rng)), brand)
    pq.write_table(_ids(numbers(receiver - both, sender, rng)), provider)
    return Files(brand, provider, both)


def align_csv(folder: Path, receiver: int, sender: int, share: float = 0.5, seed: int = 1) -> Files:
    """`align_files` as CSV with one column, `id`."""
    import pyarrow.csv as pacsv

    both = round(min(receiver, sender) * share)
    if receiver < 1 or sender < 1 or receiver + sender - both > MAX_PEOPLE:
        raise PecError("pec.usage", f"sizes must be from 1 to {MAX_PEOPLE:,} people together")
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    brand, provider = folder / "receiver.csv", folder / "sender.csv"
    for path, start, count in ((brand, 0, receiver), (provider, receiver - both, sender)):
        pacsv.write_csv(pa.table({"id": numbers(start, count, rng)}), path)
    return Files(brand, provider, both)


def lookalike_files(folder: Path, rows: int, features: int, seeds: int, seed: int = 1) -> Files:
    """`rows` people × `features` normal columns at the provider; the brand's file is its `seeds`, all of
    them there.

    A person is a seed with a chance that a logistic model of the features gives, whose weights fall off
    like 1/k: the best columns matter, most hardly do.
    """
    if not 1 <= seeds < rows <= MAX_PEOPLE or features < 1:
        raise PecError(
            "pec.usage", "need --features of 1 or more and --seeds of 1 or more, fewer than --rows"
        )
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    brand, provider = folder / "brand.parquet", folder / "provider.parquet"
    ids = numbers(0, rows, rng)
    weights = rng.choice([-1.0, 1.0], features) / np.arange(1, features + 1)
    weights = (weights * 1.5 / np.linalg.norm(weights)).astype(np.float32)
    names = [f"x{k:03d}" for k in range(features)]
    schema = pa.schema([("phone", pa.string()), *((name, pa.float32()) for name in names)])
    logit = np.empty(rows, dtype=np.float32)
    with pq.ParquetWriter(provider, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, rows, BLOCK):
            stop = min(rows, start + BLOCK)
            x = rng.standard_normal((features, stop - start), dtype=np.float32)
            logit[start:stop] = weights @ x
            writer.write_table(pa.table([text(ids[start:stop]), *(pa.array(c) for c in x)], schema=schema))
    # Gumbel noise on the logits and the largest `seeds`: a sample without replacement by exp(logit).
    drawn = np.argpartition(logit + rng.gumbel(size=rows), rows - seeds)[rows - seeds :]
    pq.write_table(_ids(ids[rng.permutation(drawn)]), brand)
    return Files(brand, provider, seeds)


def joint_files(folder: Path, rows: int, brand: int, provider: int, seed: int = 1) -> Files:
    """The same `rows` people at both sides, `brand` and `provider` columns of scikit-learn's
    `make_classification`, shuffled between the sides; the brand's file has the label.

    A quarter of the columns are informative and a quarter redundant, as those that PEERS figures speak of.
    """
    from sklearn.datasets import make_classification

    total = brand + provider
    if not 1 <= rows <= MAX_PEOPLE or min(brand, provider) < 1 or rows < 40 * total:
        raise PecError(
            "pec.usage", "need --features-brand and --features-provider of 1 or more and 40 rows a column"
        )
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    made = Files(folder / "brand.parquet", folder / "provider.parquet", rows)
    informative = max(1, total // 4)
    x, y = make_classification(
        n_samples=rows,
        n_features=total,
        n_informative=max(2, informative) if total > 1 else 1,
        n_redundant=informative if total >= 4 else 0,
        n_clusters_per_class=2 if total >= 4 else 1,
        flip_y=0.05,
        class_sep=0.7,
        random_state=seed,
    )
    ids, order = numbers(0, rows, rng), rng.permutation(total)
    mixed = rng.permutation(rows)  # the provider's file has another order
    left = {f"b{k:03d}": x[:, j].astype(np.float32) for k, j in enumerate(order[:brand])}
    right = {f"p{k:03d}": x[mixed, j].astype(np.float32) for k, j in enumerate(order[brand:])}
    pq.write_table(pa.table({"phone": text(ids), **left, "y": y.astype(np.int8)}), made.brand)
    pq.write_table(pa.table({"phone": text(ids[mixed]), **right}), made.provider)
    return made


def text(values: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(values).cast(pa.string())


def _ids(values: npt.NDArray[np.int64]) -> pa.Table:
    return pa.table({"phone": text(values)})
