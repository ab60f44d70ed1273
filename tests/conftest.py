"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data and vectors beside the checkout; skips loudly where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("NOT RUN: ../shared/data is absent, so third-party vectors were not checked")
    return SHARED
