"""Values of chosen rows, without saying which were chosen. README.md is the specification."""

from protocols.select.chooser import Chooser
from protocols.select.holder import Holder

__all__ = ["Chooser", "Holder"]
