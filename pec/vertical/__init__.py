"""scikit-learn estimators over jobs with a provider: a file or a partner's node. See docs/models.md."""

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
