"""SHA-256 and HMAC-SHA-256 over columns (FIPS 180-4, RFC 2104): kernels for many rows, hashlib for few.

Kernels (`hashing_kernels`) take a fraction of a hashlib call a row, but half a second to load; so a process
that hashes little never loads them. They release the GIL and are split over the machine's cores with threads
(numba's own thread pool aborts the process when two threads of a server use it at once).
`tests/consent_center/test_hashing.py` compares every function, both ways, with hashlib and hmac on random
lengths.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes2 = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

#: Below this many rows one thread is quicker than two.
_SPLIT = 20_000

#: Below this many rows hashlib does it: with kernels that are loaded already, and without.
_FEW, _FEW_UNLOADED = 16, 2048
_KERNELS = "consent_center.hashing_kernels"


class Batches(Protocol):
    """Quicker hashes of many texts: text i is data[offsets[i] : offsets[i + 1]]; uint8[n, 32]."""

    def digests(self, prefix: bytes, data: Bytes2, offsets: Ints) -> Bytes2: ...
    def hmacs(self, key: bytes, prefix: bytes, data: Bytes2, offsets: Ints) -> Bytes2: ...


_batches: Batches | None = None


def use(batches: Batches | None) -> None:
    """Let whoever embeds a center bring hashes of its own, for so many rows that kernels pay.

    A party node does: its protocols hash with the processor's own instructions, at a quarter of the time.
    """
    global _batches
    _batches = batches


def _given(rows: int) -> Batches | None:
    return _batches if rows >= _FEW_UNLOADED else None


def _kernels(rows: int) -> Any:
    """The module of kernels, or None where `rows` are too few for it."""
    loaded = sys.modules.get(_KERNELS)
    if rows < (_FEW_UNLOADED if loaded is None else _FEW):
        return None
    return importlib.import_module(_KERNELS)


def _split(kernel: Callable[..., Any], rows: int, *arguments: Any) -> None:
    """Run `kernel(*arguments, lo, hi)` over 0..rows, on all cores when that pays."""
    # Asking for the cores costs more than a few rows do.
    cores = 1 if rows < _SPLIT else min(os.cpu_count() or 1, 8)
    if cores == 1:
        kernel(*arguments, 0, rows)
        return
    edges = [rows * i // cores for i in range(cores + 1)]
    with ThreadPoolExecutor(cores) as pool:
        for job in [pool.submit(kernel, *arguments, a, b) for a, b in zip(edges, edges[1:], strict=False)]:
            job.result()


def sha256_rows(rows: Bytes2) -> Bytes2:
    """SHA-256 of each row of uint8[n, k] -> uint8[n, 32]."""
    rows = np.ascontiguousarray(rows, dtype=np.uint8)
    if (given := _given(len(rows))) is not None:
        return given.digests(b"", rows.reshape(-1), _ends(rows))
    if (kernels := _kernels(len(rows))) is None:
        return as_rows([hashlib.sha256(row).digest() for row in rows])
    out = np.empty((len(rows), 32), np.uint8)
    _split(kernels.sha256_rows, len(rows), _read_only(rows), out)
    return out


def string_buffers(values: pa.Array) -> tuple[Ints, npt.NDArray[np.uint8]]:
    """(offsets int64[n+1], bytes) of a string column; nulls count as empty."""
    column = values.cast(pa.large_binary())
    if column.null_count:
        column = column.fill_null(b"")
    buffers = column.buffers()
    offsets = np.frombuffer(buffers[1], dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(buffers[2], dtype=np.uint8) if buffers[2] is not None else np.empty(0, np.uint8)
    return offsets, data


def hmac_strings(key: bytes, prefix: bytes, values: pa.Array) -> Bytes2:
    """HMAC-SHA-256(key, prefix ‖ value) of a string column -> uint8[n, 32]; a null hashes as empty."""
    if len(values) == 0:
        return np.empty((0, 32), np.uint8)
    offsets, data = string_buffers(values)
    if (given := _given(len(values))) is not None:
        return given.hmacs(key, prefix, data, offsets)
    if (kernels := _kernels(len(values))) is None:
        raw, ends = data.tobytes(), offsets.tolist()
        pairs = zip(ends, ends[1:], strict=False)
        return as_rows([hmac.digest(key, prefix + raw[a:b], "sha256") for a, b in pairs])
    longest = int(np.diff(offsets).max())
    inner, outer = _pads(kernels, key)
    out = np.empty((len(values), 32), np.uint8)
    lead = np.frombuffer(prefix, dtype=np.uint8)
    texts = _read_only(offsets), _read_only(data)
    _split(kernels.hmac_strings, len(values), inner, outer, lead, *texts, longest, out)
    return out


def hmac_rows(key: bytes, rows: Bytes2) -> Bytes2:
    """HMAC-SHA-256(key, row) of each row of uint8[n, k] -> uint8[n, 32]."""
    rows = np.ascontiguousarray(rows, dtype=np.uint8)
    n, width = rows.shape
    if (given := _given(n)) is not None:
        return given.hmacs(key, b"", rows.reshape(-1), _ends(rows))
    if (kernels := _kernels(n)) is None:
        return as_rows([hmac.digest(key, row, "sha256") for row in rows])
    inner, outer = _pads(kernels, key)
    out = np.empty((n, 32), np.uint8)
    texts, lead = (_read_only(_ends(rows)), _read_only(rows.reshape(-1))), np.frombuffer(b"", np.uint8)
    _split(kernels.hmac_strings, n, inner, outer, lead, *texts, width, out)
    return out


def _ends(rows: Bytes2) -> Ints:
    """int64[n + 1]: where the rows of uint8[n, k] begin and end."""
    ends: Ints = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    return ends


def hmac_keyed(keys: Bytes2, messages: Bytes2) -> Bytes2:
    """HMAC-SHA-256(keys[i], messages[i]), keys uint8[n, k <= 64], messages uint8[n, m] -> uint8[n, 32]."""
    keys, messages = np.ascontiguousarray(keys), np.ascontiguousarray(messages)
    if (given := _given(len(keys))) is not None:
        inner, outer = (_padded(keys, pad) for pad in (0x36, 0x5C))  # RFC 2104, the key within a block
        rows = np.hstack([inner, messages])
        rows = np.hstack([outer, given.digests(b"", rows.reshape(-1), _ends(rows))])
        return given.digests(b"", rows.reshape(-1), _ends(rows))
    if (kernels := _kernels(len(keys))) is None:
        return as_rows([hmac.digest(k, m, "sha256") for k, m in zip(blobs(keys), messages, strict=True)])
    out = np.empty((len(keys), 32), np.uint8)
    _split(kernels.hmac_keyed, len(keys), _read_only(keys), _read_only(messages), out)
    return out


def _padded(keys: Bytes2, pad: int) -> Bytes2:
    """uint8[n, 64]: keys filled up with zeros, every byte with `pad` added to it in GF(2)."""
    block = np.full((len(keys), 64), pad, np.uint8)
    block[:, : keys.shape[1]] ^= keys
    return block


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """For a kernel that only reads it: numba compiles anew for an array that may be written to."""
    seen = array.view()
    seen.flags.writeable = False
    return seen


def _pads(kernels: Any, key: bytes) -> tuple[Any, Any]:
    short = hashlib.sha256(key).digest() if len(key) > 64 else key
    raw = np.frombuffer(short, dtype=np.uint8)
    return kernels.midstate(raw, 0x36), kernels.midstate(raw, 0x5C)


def as_rows(blobs: list[bytes], width: int = 32) -> Bytes2:
    """A list of equally long byte strings as uint8[n, width]."""
    return np.frombuffer(b"".join(blobs), dtype=np.uint8).reshape(len(blobs), width)


def big_endian(values: npt.ArrayLike) -> Bytes2:
    """int64[n] -> uint8[n, 8], big-endian two's complement."""
    return (
        np.ascontiguousarray(np.asarray(values, dtype=np.int64).astype(">i8")).view(np.uint8).reshape(-1, 8)
    )


def blobs(rows: Bytes2) -> list[bytes]:
    """The rows of uint8[n, k] as byte strings."""
    rows = np.ascontiguousarray(rows)
    # A void scalar of k bytes keeps trailing zeros, which numpy's S type would drop.
    return rows.view(f"V{rows.shape[1]}").reshape(-1).tolist() if len(rows) else []
