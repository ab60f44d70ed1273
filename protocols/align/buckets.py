"""Sets larger than memory: which bucket an item falls into, and how full every bucket is made.

README, section 2.1. A bucket is the unit of work; whoever runs a job gives each bucket a session of its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError
from protocols.labels import label
from protocols.oprf.padding import ITEM, padded_size
from protocols.parallel import compiled
from protocols.ristretto import Bytes, Rng, random_bytes, rows
from protocols.security import STATISTICAL_BITS

#: Most buckets of a job: 2^14 of 2^20 items are more people than there are.
MOST = 1 << 14


@compiled
def _hash(
    words: npt.NDArray[np.uint32], k: npt.NDArray[np.uint64], shift: int, out: npt.NDArray[np.int32]
) -> None:  # pragma: no cover (compiled)
    for j in range(len(words)):
        h = k[0]
        for i in range(8):
            h += np.uint64(words[j, i]) * k[i + 1]  # modulo 2^64, as meant
        out[j] = np.int32(h >> np.uint64(shift))


@compiled
def _group(
    assigned: npt.NDArray[np.int32], at: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> None:  # pragma: no cover (compiled)
    """Rows by bucket, in rising order; `at` is where each bucket begins, and is used up."""
    for j in range(len(assigned)):
        b = assigned[j]
        order[at[b]] = j
        at[b] += 1


def count(receiver: int, sender: int, bucket_rows: int) -> int:
    """The least power of two of buckets by which neither side has more than `bucket_rows` in one on average.

    LocalError if that is more than `MOST`.
    """
    parts = -(-max(receiver, sender, 1) // bucket_rows)
    buckets = 1 << (parts - 1).bit_length()
    if buckets > MOST:
        raise LocalError("protocol.argument", f"{parts} buckets of {bucket_rows} rows; {MOST} is the most")
    return buckets


def capacity(n: int, buckets: int) -> int:
    """Items that each bucket of a set of n is filled to: a padded size, too small once in 2^40 jobs."""
    if buckets == 1:
        return padded_size(n)
    mean = n / buckets
    l_ = (STATISTICAL_BITS + math.log2(buckets)) * math.log(2)
    return padded_size(math.ceil(mean + l_ / 3 + math.sqrt(l_ * l_ / 9 + 2 * l_ * mean)))


def assign(items: npt.ArrayLike, buckets: int, key: bytes) -> npt.NDArray[np.int32]:
    """int32[n]: the bucket of each of `items: uint8[n, 32]`; `key` is what both sides share for the job."""
    array = rows(items, ITEM)
    bits = max(buckets, 1).bit_length() - 1
    if buckets != 1 << bits or buckets > MOST:
        raise LocalError("protocol.argument", f"{buckets} buckets; a power of two up to {MOST} is needed")
    out = np.zeros(len(array), dtype=np.int32)
    if buckets == 1:
        return out
    k = np.frombuffer(hashlib.shake_256(label("align", "both", "bucket key", key)).digest(72), dtype="<u8")
    _hash(array.view("<u4").astype(np.uint32, copy=False), k.astype(np.uint64), 64 - bits, out)
    return out


def split(assigned: npt.NDArray[np.int32], buckets: int) -> Iterator[npt.NDArray[np.int64]]:
    """For each bucket in turn, int64[k]: the rows that are in it, in rising order."""
    order, ends = np.empty(len(assigned), dtype=np.int64), np.cumsum(np.bincount(assigned, minlength=buckets))
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    _group(np.ascontiguousarray(assigned), starts.copy(), order)
    for low, high in zip(starts, ends, strict=True):
        yield order[low:high]


def fill(items: Bytes, cap: int, rng: Rng) -> Bytes:
    """A bucket with random items up to `cap`; LocalError align.bucket if it has more already."""
    if len(items) > cap:
        raise LocalError("align.bucket", f"{len(items)} items in a bucket for {cap}; start the job again")
    return np.concatenate([items, random_bytes(cap - len(items), ITEM, rng)])
