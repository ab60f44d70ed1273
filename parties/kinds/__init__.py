"""Job kinds by name. A kind is a list of stages with what each role does in them; see `parties.stage`."""

from __future__ import annotations

from parties.kinds.boost import BOOST
from parties.kinds.enrich import ENRICH
from parties.kinds.feature_report import FEATURE_REPORT
from parties.kinds.joint_lr import JOINT_LR
from parties.kinds.lead_score import LEAD_SCORE
from parties.kinds.lookalike import LOOKALIKE
from parties.kinds.overlap import OVERLAP
from parties.kinds.retarget import RETARGET
from parties.kinds.score import SCORE
from parties.stage import JobKind

KINDS: dict[str, JobKind] = {
    kind.name: kind
    for kind in (
        *(OVERLAP, RETARGET, LOOKALIKE, ENRICH, FEATURE_REPORT),
        *(BOOST, JOINT_LR, LEAD_SCORE, SCORE),
    )
}

__all__ = ["KINDS"]
