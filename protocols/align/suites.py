"""The suites of align: same inputs and results, different assumptions and costs. README.md compares."""

from __future__ import annotations

from protocols.errors import LocalError

ECDH = "ecdh"
VOLE = "vole"
SUITES = (ECDH, VOLE)


def check(suite: str, malicious: bool) -> None:
    """LocalError for a suite that is none, or a variant that it does not have."""
    if suite not in SUITES:
        raise LocalError("protocol.argument", f"there is no suite {suite!r}; use one of {', '.join(SUITES)}")
    if malicious and suite != VOLE:
        raise LocalError("protocol.argument", f"suite {suite!r} has no malicious variant; use {VOLE!r}")
