"""The sender's half of an `ecdh` alignment, kept between jobs: one key, and its output for every item.

    prepared/<name>/manifest.json     what it belongs to, until when it holds, how many items were asked about
    prepared/<name>/key.npy           uint8[32]
    prepared/<name>/outputs.npy       uint8[q, 64], F of the items in the order of their bytes

`protocols/align/README.md`, section 2.2, says when that is safe and what it gives the receiver. The name is a
hash of agreement, data set, purpose, recipient and data categories. Anything else than the very same set of
items, the time, or too many questions: the folder is removed and made anew with another key.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parties import documents, private_files
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


def find(ctx: StageContext, items: Bytes, asking: int) -> Kept | None:
    """The preparation of `items` uint8[q, 32] for this job, in which `asking` items may be asked about.

    None where node.toml does not allow one (`prepared_hours`). Writes the sum of all questions before any of
    them is answered.
    """
    hours = float(getattr(ctx.settings, "prepared_hours", 0.0))
    if not hours or ctx.prepared is None or not len(items):
        return None
    order = np.lexsort(np.ascontiguousarray(items).view(">u8").T[::-1])
    identity = _identity(ctx)
    folder = ctx.prepared / identity["name"]
    stamp = hashlib.sha256(items[order].tobytes()).hexdigest()
    with _lock:
        sweep(ctx.prepared)
        held, asked = _load(folder, stamp, len(items)), 0
        if held is not None:
            asked = held[1] + asking
            if asked <= ASKED_MOST:
                _note(folder, asked)
                return Kept(_placed(*held[0], order), asked, True)
        shutil.rmtree(folder, ignore_errors=True)
    made = prepare(items[order], os.urandom, _BLOCK, lambda n: ctx.channel.progress(n, len(items), "prepare"))
    with _lock:
        until = time.time() + 3600 * hours
        _write(folder, {**identity, "items": stamp, "until": until, "asked": asking}, made)
    return Kept(_placed(made.key, made.outputs, order), asking, False)


def sweep(root: Path) -> None:
    """Remove what has expired, or can't be read."""
    for folder in root.iterdir() if root.is_dir() else ():
        manifest = _manifest(folder)
        if manifest is None or not manifest["until"] > time.time():
            shutil.rmtree(folder, ignore_errors=True)


def _identity(ctx: StageContext) -> dict[str, Any]:
    told = {
        "agreement": documents.hash_of(ctx.agreement.to_json()).hex(),
        "dataset": ctx.spec.datasets[ctx.role],
        "purpose": ctx.spec.purpose,
        "recipient": ctx.spec.recipient_of[ctx.role],
        "categories": sorted(ctx.spec.categories),
    }
    return {"name": documents.hash_of(told).hex()[:32], "of": told}


def _placed(key: Bytes, outputs: Bytes, order: npt.NDArray[np.int64]) -> Prepared:
    placed = np.empty_like(outputs)
    placed[order] = outputs
    return Prepared(key, placed)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "manifest.json").read_text())
        good = type(found["asked"]) is int and isinstance(found["items"], str)
        return found if good and isinstance(found["until"], float) else None
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
