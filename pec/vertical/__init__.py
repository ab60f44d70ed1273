"""scikit-learn estimators whose provider is another file or a partner's node, over jobs. See docs/models.md.

`pec.estimators` has those for somebody who has all columns in one table.
"""

from __future__ import annotations

from pec.vertical.base import LookalikeModel, VerticalGradientBoosting, VerticalLogisticRegression
from pec.vertical.sources import ConnectedProvider
from pec.vertical.stacking import StackedVertical, stack

__all__ = [
    "ConnectedProvider",
    "LookalikeModel",
    "StackedVertical",
    "VerticalGradientBoosting",
    "VerticalLogisticRegression",
    "stack",
]
