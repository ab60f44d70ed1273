"""That kernels are being compiled is told to whoever waits for a job."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from parties import compiling
from parties.jobs import Jobs


def test_progress_says_that_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10.0]
    monkeypatch.setattr(compiling, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    shown = {"stage": "align", "what": "align", "done": 1, "total": 4, "seconds_left": 3.0}
    jobs = SimpleNamespace(_progress={"j": {**shown, "began": 1.0, "first": 0}})
    before = compiling.seconds()
    compiling._change(1)
    compiling._change(1)  # a kernel that another one calls
    clock[0] += 5
    found = Jobs.progress(jobs, "j")  # type: ignore[arg-type]
    assert found is not None and "compiling kernels" in found["what"] and found["seconds_left"] is None
    assert compiling.seconds() - before == 5
    compiling._change(-1)
    clock[0] += 2
    compiling._change(-1)
    clock[0] += 9
    assert not compiling.running() and compiling.seconds() - before == 7
    assert Jobs.progress(jobs, "j") == shown  # type: ignore[arg-type]
    assert Jobs.progress(jobs, "k") is None  # type: ignore[arg-type]


def test_numba_tells_of_its_compilations(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: a kernel that is new is heard of, and only while it is compiled."""
    from numba import njit
    from numba.core import event

    listeners, register = [], event.register

    def kept(kind: str, listener: object) -> None:
        listeners.append(listener)
        register(kind, listener)

    monkeypatch.setattr(event, "register", kept)
    compiling._listen()
    try:
        before = compiling.seconds()
        assert njit(lambda x: x + 1)(1) == 2
        assert compiling.seconds() > before and not compiling.running()
    finally:  # tests after this one compile too, and don't expect to be told
        event.unregister("numba:compile", listeners[0])
