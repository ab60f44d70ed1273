"""One way for programs to file an impact assessment: demo, simulation, measurements, examples and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consent_center.model import Assessment

if TYPE_CHECKING:
    from consent_center.client import CenterClient


def file_assessment(
    center: CenterClient, purpose: str, recipient: str, reference: str, actor: str
) -> Assessment:
    """File the assessment of a purpose for one recipient, as `pec consent assessment put` does.

    `reference` says where the report is, or why there is none: an auditor reads it. The same again changes
    nothing. `registry.assessment`, `registry.unknown`.
    """
    wanted = Assessment(f"pia-{purpose}-{recipient}", purpose, reference, recipient=recipient)
    if wanted in center.assessments():
        return wanted
    return center.put_assessment(wanted, actor)
