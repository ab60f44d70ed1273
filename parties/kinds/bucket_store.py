"""The plan of an alignment and its buckets on disk: items and results by bucket, and what is done.

Nothing here is a data set: what is written are items that a consented view gave, in files that only their
owner may read and that the stage removes at its end.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from parties import private_files
from parties.errors import NodeError
from protocols.align import buckets as bucketing
from protocols.oprf.padding import ITEM

#: Largest set that one job aligns, in people, and in identifiers of people.
MAX_ROWS = 100_000_000
MAX_ITEMS = 4 * MAX_ROWS

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Plan:
    """What both sides agreed to before the first message of the protocol."""

    suite: str
    buckets: int
    key: str
    size: int  # the receiver's items, padded
    rows: int  # the sender's items
    people: int  # the sender's people: what it numbers its rows by
    numbered: bool

    def to_document(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def read(cls, value: Any) -> Plan:
        """A peer's or a file's plan; `kind.message` if it is none."""
        try:
            made = cls(**value)
            good = (
                isinstance(made.suite, str)
                and all(type(n) is int for n in (made.buckets, made.size, made.rows, made.people))
                and type(made.numbered) is bool
                and (made.numbered or (made.buckets == 1 and made.people == made.rows))
                and 1 <= made.buckets <= bucketing.MOST
                and made.buckets & (made.buckets - 1) == 0
                and len(bytes.fromhex(made.key)) == 32
                and 0 <= made.size <= 2 * MAX_ITEMS
                and 0 <= made.people <= made.rows <= MAX_ITEMS
            )
        except (TypeError, ValueError) as error:
            raise NodeError("kind.message", "the plan of the alignment is malformed", share=True) from error
        if not good:
            raise NodeError("kind.message", "the plan of the alignment is out of range", share=True)
        return made


class BucketStore:
    """Buckets of one side in the job's state directory: items, results, and a manifest of what is done.

    `plan` and `done` (finished buckets, from 0) are those of an earlier attempt, or None and 0.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self.path = folder / f"align-{what}"
        self.plan: Plan | None = None
        self.done = 0
        self._finished: set[int] = set()  # beyond `done`: lost if the node is killed
        manifest = self.path / "manifest.json"
        if manifest.exists():
            try:
                kept = json.loads(manifest.read_text())
                self.plan, self.done = Plan.read(kept["plan"]), int(kept["done"])
            except (OSError, ValueError, KeyError, TypeError, NodeError):
                self.forget()  # a manifest that can't be read is worth no trust: begin with the first bucket

    def forget(self) -> None:
        """Begin anew."""
        self.plan, self.done = None, 0
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def split(self, plan: Plan, items: Bytes) -> None:
        """One Parquet file a bucket (`item`, `index`: where it stands in `items`), unless they are there."""
        if self.plan == plan:
            return
        self.remove()
        private_files.folder(self.path)
        assigned = bucketing.assign(items, plan.buckets, bytes.fromhex(plan.key))
        for bucket, index in enumerate(bucketing.split(assigned, plan.buckets)):
            held = np.ascontiguousarray(items[index])
            column = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(ITEM), len(index), [None, pa.py_buffer(held)]
            )
            with private_files.writing(self._file("bucket", bucket, "parquet")) as file:
                pq.write_table(pa.table({"item": column, "index": pa.array(index)}), file, compression="none")
        self.plan, self.done = plan, 0
        self._write()

    def bucket(self, number: int) -> tuple[Bytes, Ints]:
        """(items uint8[k, 32], index int64[k]) of one bucket."""
        table = pq.read_table(self._file("bucket", number, "parquet"))
        item = table.column("item").combine_chunks()
        chunk = item.chunk(0) if isinstance(item, pa.ChunkedArray) else item
        raw = np.frombuffer(chunk.buffers()[1], dtype=np.uint8)[ITEM * chunk.offset :]
        return raw[: ITEM * len(table)].reshape(len(table), ITEM), table.column("index").to_numpy()

    def finish(self, number: int, index: Ints | None = None, rows: Ints | None = None) -> None:
        """Bucket `number` is done, in any order; the receiver keeps what it learned: (index, row) of the
        matches.
        """
        if index is not None and rows is not None:
            hit = np.flatnonzero(rows >= 0)
            with private_files.writing(self._file("rows", number, "npy")) as file:
                np.save(file, np.stack([index[hit], rows[hit]]), allow_pickle=False)
        self._finished.add(number)
        if number != self.done:
            return
        while self.done in self._finished:
            self.done += 1
        self._write()

    def back_to(self, first: int) -> None:
        """The buckets from `first` on run once more."""
        if first < self.done:
            self.done = first
            self._write()

    def rows(self, count: int) -> Ints:
        """int64[count]: the rows of all buckets."""
        out = np.full(count, -1, dtype=np.int64)
        for number in range(self.done):
            index, rows = np.load(self._file("rows", number, "npy"), allow_pickle=False)
            out[index] = rows
        return out

    def _file(self, what: str, number: int, ending: str) -> Path:
        return self.path / f"{what}-{number:05d}.{ending}"

    def _write(self) -> None:
        plan = self.plan.to_document() if self.plan else None
        text = json.dumps({"plan": plan, "done": self.done})
        with private_files.writing(self.path / "manifest.json") as file:
            file.write(text.encode())
