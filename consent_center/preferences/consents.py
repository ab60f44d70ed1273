"""The consent to a linked purpose, as the center's own decision gives it, and when it will end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from consent_center import decide
from consent_center.batch import NEVER
from consent_center.model import CODE, DecisionRequest
from consent_center.state import State, bitmap

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
    table = np.zeros(int(ordinals.max()) + 1, np.uint8)
    for code, members in decide.classify(state, controller, asked, bitmap(ordinals), as_of, rules):
        if members:
            table[np.frombuffer(members.to_array(), np.uint32)] = code
    if purpose is None or not purpose.active:
        table[:] = CODE["purpose_inactive"]
    for context in state.contexts.values():
        mine = (context.controller, context.purpose, context.recipient)
        if mine == (controller, asked.purpose, asked.recipient) and len(context.end_subject):
            at = np.minimum(np.searchsorted(context.end_subject, ordinals), len(context.end_subject) - 1)
            has = context.end_subject[at] == ordinals
            end = np.where(has, context.end_at[at], NEVER)
            earlier = has & ((ends == NEVER) | (end < ends))
            ends = np.where(earlier, end, ends)
    return table[ordinals], ends
