"""What jobs need is imported before a node has a second thread.

Each module has a lock of its own while it is imported. A package whose `__init__` takes names from its own
modules can be begun from two ends by two threads; they would wait for each other for ever, and Python lets
one go on with a module that is not complete: "cannot import name". So a node imports all that is ours, and
what several of them share, before it starts threads: about a second, once. What a thread still imports has
one way in each, such as numba (`protocols.parallel`) and OpenDP (`protocols.lookalike.noise`).
"""

from __future__ import annotations

import importlib

from parties.kinds import KINDS

#: Modules that are imported inside functions elsewhere: commands of the hub do without them.
MODULES = (
    "llvmlite.binding",
    "parties.bundle",
    "parties.cost",
    "parties.forest_cost",
    "parties.gate",
    "parties.lookout",
    "parties.model_card",
    "parties.preparing",
    "parties.repeats",
    "protocols.align.vole.receiver",
    "protocols.align.vole.sender",
    "protocols.private_join",
    "scipy.sparse.csgraph",
)


def before_threads() -> None:
    """Import every kind of job and what its stages use. Costs nothing when it has been done."""
    for name in KINDS:
        KINDS[name]
    for module in MODULES:
        importlib.import_module(module)
