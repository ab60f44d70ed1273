"""The consent to a linked purpose, as the center's own decision gives it, and when it will end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from consent_center import decide
from consent_center.batch import NEVER
from consent_center.model import DecisionRequest
from consent_center.state import State

Ints = npt.NDArray[np.int64]


def judge(
    state: State,
    controller: str,
    request: DecisionRequest,
    ordinals: Ints,
    as_of: int,
    rules: Sequence[decide.Rule],
) -> tuple[npt.NDArray[np.uint8], Ints]:
    """(codes uint8[n] of model.REASONS, ends int64[n] in microseconds, -1 for none) of known subjects.

    An empty recipient is the controller itself; no categories are all those of the purpose, so that a consent
    to less than the purpose asks for is a no. Events can't lie in the future, so a consent refused now stays
    refused without a new event, and one that stands now stands until its end.
    """
    registry = state.registry
    purpose = registry.current.get(request.purpose) if registry else None
    asked = DecisionRequest(
        request.purpose,
        request.recipient or controller,
        request.categories or (purpose.categories if purpose else ()),
    )
    codes, ends = np.zeros(len(ordinals), np.uint8), np.full(len(ordinals), NEVER, np.int64)
    if not len(ordinals):
        return codes, ends
    codes = decide.judge(state, controller, asked, ordinals, as_of, rules)
    for context in state.contexts.values():
        mine = (context.controller, context.purpose, context.recipient)
        if mine == (controller, asked.purpose, asked.recipient):
            end = context.ends.of(ordinals)
            ends = np.where((end != NEVER) & ((ends == NEVER) | (end < ends)), end, ends)
    return codes, ends
