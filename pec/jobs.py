"""Running a job between two nodes whose operators are both at hand, as in the demo, `simulate` and
`bench`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from parties import hints
from parties.client import NodeClient
from parties.errors import NodeError
from pec.errors import EXIT_REFUSED, PecError, exit_code_of

Watch = Callable[[dict[str, Any]], None]
DONE = "succeeded"
FINAL = {DONE, "failed", "rejected", "cancelled", "stopped_by_consent"}
REFUSED = {"rejected", "stopped_by_consent"}
WAITING = "awaiting_approval"
HELD = "held"


def run(
    brand: NodeClient,
    provider: NodeClient,
    request: Mapping[str, Any],
    *,
    watch: Watch | None = None,
    timeout: float = 600.0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Submit, approve where the provider asks, wait for the end: (the brand's view, the provider's view).

    Raises `pec.job_refused` or `pec.job_failed` with the node's code and words, `pec.timeout`; NodeError for
    wrong input.
    """
    try:
        job_id = brand.submit(request)
    except NodeError as error:
        if exit_code_of(error.code) != EXIT_REFUSED:
            raise  # a mistake in what was asked keeps its own code
        raise PecError(
            "pec.job_refused", f"no job was sent: {error.code}: {error.detail}", error.hint
        ) from error
    return finish(brand, provider, job_id, watch=watch, timeout=timeout)


def finish(
    brand: NodeClient,
    provider: NodeClient,
    job_id: str,
    *,
    watch: Watch | None = None,
    timeout: float = 600.0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `run`, for a job that was submitted."""
    seen = until(brand, provider, job_id, FINAL, watch=watch, timeout=timeout)
    if seen["state"] != DONE:
        raise failure(seen)
    return seen, provider.wait(job_id, timeout)


def until(
    brand: NodeClient,
    provider: NodeClient,
    job_id: str,
    states: set[str],
    *,
    watch: Watch | None = None,
    timeout: float = 600.0,
) -> dict[str, Any]:
    """Follow a job at the brand, approve it at the provider, return it in the first of `states` that it
    reaches.
    """
    deadline = time.monotonic() + timeout
    approved = False
    while time.monotonic() < deadline:
        for seen in brand.watch(job_id, max(0.1, deadline - time.monotonic())):
            if watch is not None:
                watch(seen)
            if seen["state"] in states or seen["state"] in FINAL:
                return seen
            if seen["state"] == WAITING and not approved:
                provider.approve(job_id, "approved by the operator on this machine")
                approved = True
    raise PecError("pec.timeout", f"job {job_id} did not end within {timeout:.0f} s", "see pec job show")


def failure(job: Mapping[str, Any]) -> PecError:
    """The error that a job ended with, in the hub's own codes; the node's code stands in front of the
    message.
    """
    error = job.get("error") or {}
    inner = error.get("code") or "job.failed"
    words = error.get("detail") or error.get("message") or job["state"]
    refused = job["state"] in REFUSED or inner.split(".")[0] in ("agreement", "consent", "gate")
    return PecError(
        "pec.job_refused" if refused else "pec.job_failed",
        f"job {job['job_id']} ended as {job['state']}: {inner}: {words}",
        error.get("hint") or hints.of(inner) or "see pec job show on both sides",
    )
