"""`store`: the test runs on SQLite and on PostgreSQL. A module asks with `pytestmark = usefixtures("store")`.

A test that looks into SQLite's own file is marked `sqlite` and runs on it only.
"""

from __future__ import annotations

import consent_helpers
import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store" in metafunc.fixturenames:
        only = any(mark.name == "sqlite" for mark in metafunc.definition.iter_markers())
        metafunc.parametrize("store", ["sqlite"] if only else ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where `consent_helpers.make` puts the database of a center: `sqlite` or `postgresql`."""
    if request.param == "postgresql":
        monkeypatch.setattr(consent_helpers, "storage", request.getfixturevalue("postgresql"))
    return str(request.param)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    """URL of an empty database for a center that a whole module shares, None for SQLite; on both in turn."""
    return request.getfixturevalue("postgresql")() if request.param == "postgresql" else None
