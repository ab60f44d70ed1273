"""From a decoded element to a tag: the outer hash of the OPRF. README, section 3."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.align.tags import NUMBER_BYTES
from protocols.align.vole.messages import Terms
from protocols.labels import label
from protocols.okvs.store import mixed
from protocols.ristretto import Bytes, joined, sha512

U64 = npt.NDArray[np.uint64]

#: Where a row's mask stands in the malicious variant's hash, behind the tag.
_MASK_AT = 32


def tags_and_masks(
    elements: U64, items: Bytes | None, coin: bytes, terms: Terms
) -> tuple[Bytes, Bytes | None]:
    """Tags `uint8[n, terms.tag]` and, in a numbered run, masks `uint8[n, 5]`.

    `elements: uint64[n, 2]`. For the malicious variant: `items: uint8[n, 32]` in their order, and `coin`.
    """
    if terms.malicious and items is not None:
        words = elements ^ np.frombuffer(coin[:16], dtype="<u8").astype(np.uint64)
        prefix = label("align", "sender", "vole output", terms.session)
        hashed = sha512(joined(len(words), prefix, _bytes(words), items))
        masks = hashed[:, _MASK_AT : _MASK_AT + NUMBER_BYTES].copy() if terms.numbered else None
        return hashed[:, : terms.tag].copy(), masks
    tags = _bytes(mixed(elements, terms.key("vole tag")))[:, : terms.tag]
    if not terms.numbered:
        return tags, None
    return tags, _bytes(mixed(elements, terms.key("vole mask")))[:, :NUMBER_BYTES]


def _bytes(words: U64) -> Bytes:
    return words.astype("<u8", copy=False).view(np.uint8).reshape(len(words), 16)
