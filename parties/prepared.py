"""The sender's half of an `ecdh` alignment, kept between jobs: one key, and its output for every item.

    prepared/<name>/manifest.json     what it belongs to, until when it holds, how many items were asked about
    prepared/<name>/key.npy           uint8[32]
    prepared/<name>/outputs.npy       uint8[q, 64], F of the items in the order of their bytes

`protocols/align/README.md`, section 2.2, says when that is safe and what it gives the receiver. The name is a
hash of agreement, data set, purpose, recipient and data categories. Anything else than the very same set of
items, the time, or too many questions: the folder is removed and made anew with another key. The first job
makes it, or the operator before that (`parties.preparing`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parties import documents, private_files
from parties.documents import Agreement
from parties.errors import NodeError
from parties.stage import StageContext
from protocols.align.sender import Prepared, prepare

#: Items that may be asked about under one key, in all jobs.
ASKED_MOST = 1 << 26

#: Items that are evaluated at a time.
_BLOCK = 1 << 14

Bytes = npt.NDArray[np.uint8]
_lock = threading.Lock()


@dataclass(frozen=True)
class Kept:
    """A preparation for this job, in the order of its items; `asked`: under this key, this job included;
    `reused`: nothing had to be evaluated.
    """

    value: Prepared = field(repr=False)
    asked: int
    reused: bool


def purpose_of(
    agreement: Agreement, dataset: str, purpose: str, recipient: str, categories: Iterable[str]
) -> dict[str, Any]:
    """What a preparation is for, and nothing else may use it; the agreement by its hash and, for people, its
    id.
    """
    return {
        "agreement": documents.hash_of(agreement.to_json()).hex(),
        "dataset": dataset,
        "purpose": purpose,
        "recipient": recipient,
        "categories": sorted(categories),
    }


class Shelf:
    """The place of one preparation in `root`: that of `items` uint8[q, 32] for what `purpose_of` says, for
    `hours` from when it is made.
    """

    def __init__(self, root: Path, hours: float, of: dict[str, Any], items: Bytes) -> None:
        self.root, self.hours, self.of, self.items = root, hours, of, items
        self.folder = root / documents.hash_of(of).hex()[:32]

    @functools.cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        """Items by their bytes. They are hashes, so the first eight decide but for those made to collide."""
        words = np.ascontiguousarray(self.items).view(">u8")
        order = np.argsort(words[:, 0].astype(np.uint64), kind="stable")
        if (np.diff(words[order, 0].astype(np.uint64)) == 0).any():
            order = np.lexsort(words.T[::-1])
        return order

    @functools.cached_property
    def _stamp(self) -> str:
        return hashlib.sha256(self.items[self._order].tobytes()).hexdigest()

    def asked(self) -> int | None:
        """How many items were asked about so far under a key that the next job may use; None without one."""
        with _lock:
            sweep(self.root)
            manifest = _manifest(self.folder)
            # The order of these two matters for time alone: sorting a large set takes some seconds.
            if manifest is None or manifest["count"] != len(self.items) or manifest["items"] != self._stamp:
                return None
            return int(manifest["asked"])

    def find(self, asking: int, progress: Callable[[int], None]) -> Kept:
        """The preparation, made if it is not there; `asking` items may be asked about in this job. `progress`
        is told how many items have been evaluated.

        Writes the sum of all questions before any of them is answered.
        """
        with _lock:
            sweep(self.root)
            held = _load(self.folder, self._stamp, len(self.items))
            if held is not None:
                asked = held[1] + asking
                if asked <= ASKED_MOST:
                    _note(self.folder, asked)
                    return Kept(_placed(*held[0], self._order), asked, True)
            shutil.rmtree(self.folder, ignore_errors=True)
        made = prepare(self.items[self._order], os.urandom, _BLOCK, progress)
        with _lock:
            manifest = {
                "of": self.of,
                "items": self._stamp,
                "count": len(self.items),
                "until": time.time() + 3600 * self.hours,
                "asked": asking,
            }
            _write(self.folder, manifest, made)
        return Kept(_placed(made.key, made.outputs, self._order), asking, False)

    def more(self, kept: Kept, asking: int) -> Kept:
        """The same preparation after `asking` further questions, of a bucket that is asked again; written
        before they are answered. `node.prepared` if that would be too many under its key.
        """
        with _lock:
            manifest = _manifest(self.folder)
            asked = kept.asked if manifest is None else max(kept.asked, int(manifest["asked"]))
            if asked + asking > ASKED_MOST:
                raise NodeError(
                    "node.prepared",
                    f"a bucket can't be asked again: over {ASKED_MOST:,} questions under the prepared key",
                    "run the job again: a new key is made",
                )
            _note(self.folder, asked + asking)
        return replace(kept, asked=asked + asking)


def shelf(ctx: StageContext, items: Bytes) -> Shelf | None:
    """Where the preparation of `items` for this job lies or would lie; None where node.toml allows none
    (`prepared_hours`).
    """
    hours = float(getattr(ctx.settings, "prepared_hours", 0.0))
    if not hours or ctx.prepared is None or not len(items):
        return None
    of = purpose_of(
        ctx.agreement,
        ctx.spec.datasets[ctx.role],
        ctx.spec.purpose,
        ctx.spec.recipient_of[ctx.role],
        ctx.spec.categories,
    )
    return Shelf(ctx.prepared, hours, of, items)


def listed(root: Path) -> list[dict[str, Any]]:
    """What is kept: `of`, `count`, `asked`, `until` (Unix seconds), `bytes` on disk, `name`."""
    with _lock:
        sweep(root)
        out = []
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            manifest = _manifest(folder)
            if manifest is not None:
                size = sum(path.stat().st_size for path in folder.iterdir())
                out.append({**manifest, "name": folder.name, "bytes": size})
    return out


def drop(root: Path, name: str) -> bool:
    """Remove one of those that `listed` names. A job that has it open goes on with what it has read."""
    with _lock:
        known = {folder.name for folder in root.iterdir()} if root.is_dir() else set()
        if name in known:
            shutil.rmtree(root / name, ignore_errors=True)
    return name in known


def sweep(root: Path) -> None:
    """Remove what has expired, or can't be read."""
    for folder in root.iterdir() if root.is_dir() else ():
        manifest = _manifest(folder)
        if manifest is None or not manifest["until"] > time.time():
            shutil.rmtree(folder, ignore_errors=True)


def _placed(key: Bytes, outputs: Bytes, order: npt.NDArray[np.int64]) -> Prepared:
    placed = np.empty_like(outputs)
    placed[order] = outputs
    return Prepared(key, placed)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "manifest.json").read_text())
        good = type(found["asked"]) is int and type(found["count"]) is int and isinstance(found["items"], str)
        return found if good and isinstance(found["until"], float) and isinstance(found["of"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _load(folder: Path, stamp: str, count: int) -> tuple[tuple[Bytes, Bytes], int] | None:
    manifest = _manifest(folder)
    if manifest is None or manifest["items"] != stamp:
        return None
    try:
        key = np.load(folder / "key.npy", allow_pickle=False)
        outputs = np.load(folder / "outputs.npy", allow_pickle=False)
    except (OSError, ValueError):
        return None
    good = key.shape == (32,) and outputs.shape == (count, 64) and key.dtype == outputs.dtype == np.uint8
    return ((key, outputs), int(manifest["asked"])) if good else None


def _write(folder: Path, manifest: dict[str, Any], made: Prepared) -> None:
    """The manifest last: without it the folder is none."""
    shutil.rmtree(folder, ignore_errors=True)
    private_files.folder(folder)
    for name, array in (("key", made.key), ("outputs", made.outputs)):
        with private_files.writing(folder / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
    _put(folder, manifest)


def _note(folder: Path, asked: int) -> None:
    manifest = _manifest(folder)
    if manifest is not None:
        _put(folder, {**manifest, "asked": asked})


def _put(folder: Path, manifest: dict[str, Any]) -> None:
    with private_files.writing(folder / "manifest.json") as file:
        file.write(json.dumps(manifest).encode())
