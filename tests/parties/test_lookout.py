"""The lookout and a partner whose node is older than this version."""

from __future__ import annotations

from types import SimpleNamespace

import grpc

from parties import lookout
from parties.errors import NodeError
from parties.transport.client import Connection


def test_a_partner_whose_version_is_too_old_to_hear_it_is_not_asked_every_minute(monkeypatch):
    asked, lines = [], []

    def tell(home, id_):
        asked.append(id_)
        raise NodeError("transport.version", "the node of p is older and doesn't know this call")

    home = SimpleNamespace(
        endings=SimpleNamespace(state=lambda id_: {"told": False, "leaf": 1}),
        agreement=lambda id_: SimpleNamespace(expires_at="2999-01-01T00:00:00Z"),
        other_party=lambda agreement: "p",
    )
    monkeypatch.setattr(lookout, "tell", tell)
    clock = [1000.0]
    monkeypatch.setattr(lookout, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    look = lookout.Lookout(home, None, None, lambda *a, **k: lines.append(a), None, None)
    for _ in range(2):
        look._look_at("a")
    clock[0] += 3600
    look._look_at("a")
    assert asked == ["a"] and len(lines) == 1
    clock[0] += 2 * lookout.LONGEST_OLD
    look._look_at("a")
    assert asked == ["a", "a"]


def test_a_call_that_the_other_side_does_not_know_is_no_broken_line():
    error = type("Old", (grpc.RpcError,), {})()
    error.code, error.details = (lambda: grpc.StatusCode.UNIMPLEMENTED), (lambda: "Method not found!")
    found = Connection.translate(SimpleNamespace(party="p", address="127.0.0.1:1"), error)
    assert found.code == "transport.version" and "older" in found.detail
