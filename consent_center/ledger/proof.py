"""Inclusion and consistency proofs (RFC 6962, 2.1.1 and 2.1.2), and the C2SP tlog-proof text.

Making a proof needs a reader of complete subtrees; checking one needs nothing (RFC 9162, 2.1.3.2 and
2.1.4.2). A check that fails raises ConsentError `ledger.proof`; it never returns False.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from consent_center.errors import ConsentError
from consent_center.ledger.tree import EMPTY_ROOT, NodeReader, node_hash, peaks

_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 63


def _fail(why: str) -> ConsentError:
    return ConsentError("ledger.proof", why)


def _split(size: int) -> int:
    """The largest power of two below `size` (size > 1)."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_hash(start: int, size: int, node: NodeReader) -> bytes:
    """Root of leaves start … start+size; `start` is a multiple of the power of two at or above `size`."""
    hashes = [node(height, (start >> height) + index) for height, index in peaks(size)]
    root = hashes.pop()
    while hashes:
        root = node_hash(hashes.pop(), root)
    return root


def inclusion(index: int, size: int, node: NodeReader) -> list[bytes]:
    """PATH(index, D[size]): siblings from the leaf up."""
    if not 0 <= index < size:
        raise ConsentError("ledger.index", f"leaf {index} is not in a tree of {size} leaves")
    path: list[bytes] = []
    start = 0
    while size > 1:
        k = _split(size)
        if index < k:
            path.append(_range_hash(start + k, size - k, node))
            size = k
        else:
            path.append(_range_hash(start, k, node))
            start, index, size = start + k, index - k, size - k
    return path[::-1]


def consistency(old: int, new: int, node: NodeReader) -> list[bytes]:
    """PROOF(old, D[new]); empty for old = 0 or old = new."""
    if not 0 <= old <= new:
        raise ConsentError("ledger.index", f"no tree of {old} leaves precedes one of {new}")
    if old in (0, new):
        return []
    path: list[bytes] = []
    start, size, whole = 0, new, True
    while old != size:
        k = _split(size)
        if old <= k:
            path.append(_range_hash(start + k, size - k, node))
            size = k
        else:
            path.append(_range_hash(start, k, node))
            start, old, size, whole = start + k, old - k, size - k, False
    if not whole:
        path.append(_range_hash(start, size, node))
    return path[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> None:
    """RFC 9162, 2.1.3.2: `leaf` (a leaf hash) is number `index` of the tree of `size` leaves with `root`."""
    if not 0 <= index < size:
        raise _fail(f"leaf {index} can't be in a tree of {size} leaves")
    if any(len(step) != 32 for step in path) or len(leaf) != 32:
        raise _fail("a hash of the proof is not 32 bytes long")
    fn, sn, value = index, size - 1, leaf
    for step in path:
        if sn == 0:
            raise _fail("the inclusion proof is too long")
        if fn & 1 or fn == sn:
            value = node_hash(step, value)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            value = node_hash(value, step)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise _fail("the inclusion proof is too short")
    if value != root:
        raise _fail(f"leaf {index} is not under this root of {size} leaves")


def check_consistency(old: int, new: int, path: list[bytes], old_root: bytes, new_root: bytes) -> None:
    """RFC 9162, 2.1.4.2: the tree of `new` leaves extends that of `old` leaves, 0 <= old <= new."""
    if not 0 <= old <= new:
        raise _fail(f"a tree of {old} leaves can't precede one of {new}")
    if any(len(step) != 32 for step in path):
        raise _fail("a hash of the proof is not 32 bytes long")
    if old in (0, new):
        if path:
            raise _fail("the consistency proof should be empty")
        if old == new and old_root != new_root or old == 0 and old_root != EMPTY_ROOT:
            raise _fail("two roots of one size differ")
        return
    if not path:
        raise _fail("the consistency proof is empty")
    steps = [old_root, *path] if old & (old - 1) == 0 else list(path)
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = steps[0]
    for step in steps[1:]:
        if sn == 0:
            raise _fail("the consistency proof is too long")
        if fn & 1 or fn == sn:
            first, second = node_hash(step, first), node_hash(step, second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, step)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise _fail("the consistency proof is too short")
    if first != old_root or second != new_root:
        raise _fail(f"the tree of {new} leaves does not extend that of {old} leaves")


@dataclass(frozen=True)
class TlogProof:
    """A leaf's index, its inclusion proof and the checkpoint it leads to (c2sp.org/tlog-proof)."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    extra: bytes = b""

    def text(self) -> str:
        lines = [_HEADER]
        if self.extra:
            lines.append("extra " + base64.b64encode(self.extra).decode())
        lines.append(f"index {self.index}")
        lines += [base64.b64encode(step).decode() for step in self.path]
        return "\n".join(lines) + "\n\n" + self.checkpoint


def parse_tlog_proof(text: str) -> TlogProof:
    """Parse a tlog-proof; ConsentError `ledger.proof` on anything malformed."""
    head, separator, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if lines[0] != _HEADER or not separator:
        raise _fail(f"a tlog-proof begins with {_HEADER!r} and has an empty line before the checkpoint")
    lines = lines[1:]
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = _base64(lines.pop(0)[6:], "extra data")
    if not lines or not lines[0].startswith("index "):
        raise _fail("the tlog-proof has no index")
    digits = lines.pop(0)[6:]
    # Python's int() raises on more than 4,300 digits: the length first.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20) or int(digits) >> 64:
        raise _fail("the tlog-proof's index is no 64-bit number")
    if str(int(digits)) != digits:
        raise _fail("the tlog-proof's index is no 64-bit number")
    if len(lines) > _MAX_HASHES:
        raise _fail(f"the tlog-proof has {len(lines)} hashes, {_MAX_HASHES} are possible")
    path = tuple(_base64(line, "a hash") for line in lines)
    if any(len(step) != 32 for step in path):
        raise _fail("a hash of the tlog-proof is not 32 bytes long")
    return TlogProof(int(digits), path, checkpoint, extra)


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _fail(f"{what} of the tlog-proof is not base64") from None
