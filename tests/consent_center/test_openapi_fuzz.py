"""schemathesis reads the OpenAPI page and calls everything: no answer may be a 5xx, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from console_helpers import TOKEN
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.errors import SerializationNotPossible

from consent_center.center import Center
from consent_center.model import Notice, Purpose
from consent_center.rest import wire
from consent_center.rest.app import create_app

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, database: str | None) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("fuzz") / "center"
    with Center.create(home, "brand", database=database) as center:
        center.put_purpose(Purpose("ads", 1, {"zh": "广告", "en": "Ads"}, ("contact",)))
        center.put_notice(Notice("text", 1, "ads", 1, {"en": "What we do"}))
        loaded = schemathesis.openapi.from_wsgi("/openapi.json", create_app(center, TOKEN))
        yield loaded


@pytest.mark.parametrize(
    ("database", "mode", "examples"),
    [
        ("sqlite", GenerationMode.POSITIVE, 2),
        ("sqlite", GenerationMode.NEGATIVE, 2),
        ("postgresql", GenerationMode.POSITIVE, 1),
    ],
    indirect=["database"],
    scope="module",
)
def test_no_call_ends_in_a_5xx(api: Any, mode: GenerationMode, examples: int) -> None:
    seen = []
    for found in api.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def call(case: Any) -> None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {TOKEN}"}
            response = case.call()
            assert response.status_code < 500, (case.method, case.path, response.text[:500])

        try:
            call()
        except Unsatisfiable:
            continue  # a call without parameters can't be wrong
        except SerializationNotPossible:
            # Arrow streams, which test_rest damages by hand.
            assert any(medium == wire.ARROW for medium in operation.get_request_payload_content_types())
            continue
        seen.append(operation.label)
    assert len(seen) > 20, seen
