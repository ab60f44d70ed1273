"""No module imports another in a circle; the import contracts (setup.cfg) say the same of packages."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp  # comes with import-linter
import pytest

PACKAGES = ("protocols", "consent_center", "parties", "pec")


def test_no_circle_of_modules() -> None:
    """Imports in functions and those for types alone count too."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert imports["parties.node"] and imports["consent_center.center"]
    try:
        order = list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' <- '.join(error.args[1])}")
    assert len(order) == len(imports) > 400
