"""The ideal functionality of enrich: what a trusted third party would answer. The tests' oracle."""

from __future__ import annotations

import numpy as np

from protocols.enrich.receiver import EnrichResult
from protocols.oprf.padding import padded_size
from protocols.oprf.sender import SenderResult
from protocols.ristretto import Bytes


def enrich(receiver: Bytes, sender: Bytes, records: Bytes) -> tuple[EnrichResult, SenderResult]:
    """The receiver's records, and what the sender learns."""
    row = {item.tobytes(): j for j, item in enumerate(sender)}
    found = np.zeros(len(receiver), dtype=np.bool_)
    answer = np.zeros((len(receiver), records.shape[1]), dtype=np.uint8)
    for i, item in enumerate(receiver):
        if item.tobytes() in row:
            found[i] = True
            answer[i] = records[row[item.tobytes()]]
    return EnrichResult(found, answer), SenderResult(padded_size(len(receiver)))
