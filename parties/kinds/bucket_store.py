"""The plan of an alignment and its buckets on disk: items and results by bucket, and what is done.

Nothing here is a data set: what is written are items that a consented view gave, in files that only their
owner may read and that the stage removes at its end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
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
from protocols.permute import taken

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

    def __init__(self, folder: Path, what: str, stage: str = "align") -> None:
        self.path = folder / f"{stage}-{what}"
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

    def split(self, plan: Plan, items: Bytes, records: Callable[[Ints], Bytes] | None = None) -> None:
        """One Parquet file a bucket (`item`, `index`: where it stands in `items`), unless they are there.

        `records(index)` gives the uint8[k, width] that belong to items, kept beside them.
        """
        if self.plan == plan:
            return
        self.remove()
        private_files.folder(self.path)
        assigned = bucketing.assign(items, plan.buckets, bytes.fromhex(plan.key))
        for bucket, index in enumerate(bucketing.split(assigned, plan.buckets)):
            held = taken(items, index)
            column = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(ITEM), len(index), [None, pa.py_buffer(held)]
            )
            with private_files.writing(self._file("bucket", bucket, "parquet")) as file:
                pq.write_table(pa.table({"item": column, "index": pa.array(index)}), file, compression="none")
            if records is not None:
                self._keep("records", bucket, records(index))
        self.plan, self.done = plan, 0
        self._write()

    def bucket(self, number: int) -> tuple[Bytes, Ints]:
        """(items uint8[k, 32], index int64[k]) of one bucket."""
        table = pq.read_table(self._file("bucket", number, "parquet"))
        item = table.column("item").combine_chunks()
        chunk = item.chunk(0) if isinstance(item, pa.ChunkedArray) else item
        raw = np.frombuffer(chunk.buffers()[1], dtype=np.uint8)[ITEM * chunk.offset :]
        return raw[: ITEM * len(table)].reshape(len(table), ITEM), table.column("index").to_numpy()

    def records(self, number: int) -> Bytes:
        """uint8[k, width]: what `split` kept beside the items of a bucket."""
        return self._kept("records", number)

    def finish(self, number: int, index: Ints | None = None, rows: Ints | None = None) -> None:
        """Bucket `number` is done, in any order; the receiver keeps what it learned: (index, row) of the
        matches.
        """
        if index is not None and rows is not None:
            hit = np.flatnonzero(rows >= 0)
            self._keep("rows", number, np.stack([index[hit], rows[hit]]))
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
            index, rows = self._kept("rows", number)
            out[index] = rows
        return out

    def finish_records(self, number: int, index: Ints, records: Bytes) -> None:
        """Bucket `number` is done; the receiver keeps the records that it opened, and of which items."""
        self._keep("index", number, index)
        self._keep("opened", number, records)
        self.finish(number)

    def opened(self, width: int) -> tuple[Ints, Bytes]:
        """(int64[k] rising, uint8[k, width]): the items whose records were opened, and these records."""
        parts = [(self._kept("index", n), self._kept("opened", n)) for n in range(self.done)]
        index = np.concatenate([np.empty(0, np.int64), *(i for i, _ in parts)])
        records = np.concatenate([np.empty((0, width), np.uint8), *(r for _, r in parts)])
        order = np.argsort(index)
        return index[order], records[order]

    def _keep(self, what: str, number: int, array: npt.NDArray[Any]) -> None:
        with private_files.writing(self._file(what, number, "npy")) as file:
            np.save(file, array, allow_pickle=False)

    def _kept(self, what: str, number: int) -> npt.NDArray[Any]:
        kept: npt.NDArray[Any] = np.load(self._file(what, number, "npy"), allow_pickle=False)
        return kept

    def _file(self, what: str, number: int, ending: str) -> Path:
        return self.path / f"{what}-{number:05d}.{ending}"

    def _write(self) -> None:
        plan = self.plan.to_document() if self.plan else None
        text = json.dumps({"plan": plan, "done": self.done})
        with private_files.writing(self.path / "manifest.json") as file:
            file.write(text.encode())
