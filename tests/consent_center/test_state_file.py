"""The state kept on disk: equal to the fold or not used, never a wrong yes; ends as a dictionary has them."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from consent_helpers import REQUEST, START, Clock, event, make, phone, reason
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from consent_center import state_file
from consent_center.batch import NEVER
from consent_center.center import Center
from consent_center.ends import Ends
from consent_center.state import State

PEOPLE = range(45)
ACTIONS = ("granted", "withdrawn", "denied")


def filled(home: Path) -> tuple[Center, list[str]]:
    center = make(home, Clock())
    center.record_many([event(n, action=ACTIONS[n % 3]) for n in range(40)])
    center.record(event(41, action="guardian_granted", birth_date=(START - timedelta(days=2000)).date()))
    center.erase("phone", phone(6), "dpo")
    return center, [reason(center, n) for n in PEOPLE]


def test_a_restored_state_answers_the_same_and_follows(tmp_path: Path) -> None:
    center, expected = filled(tmp_path / "c")
    assert center.keep_state() and not center.keep_state() and center.fsck() is None
    center.record(event(1, action="renewed", occurred_at=START))
    with Center.open(tmp_path / "c", Clock()) as opened:
        assert [reason(opened, n) for n in PEOPLE] == [expected[0], "eligible", *expected[2:]]
        assert opened._state.file_sequence > 40
        opened.record(event(3, action="withdrawn", occurred_at=START))
        opened.erase("phone", phone(9), "dpo")
        assert [reason(opened, n) for n in (3, 9)] == ["withdrawn", "unknown_subject"]
        assert opened.fsck() is None and opened.keep_state() and opened.fsck() is None
        later = replace(REQUEST, as_of=START + timedelta(days=400))
        assert reason(opened, 0, later) == "expired" and reason(opened, 1, later) == "expired"
    center.close()


def test_any_flipped_byte_is_found_and_never_makes_a_yes(tmp_path: Path) -> None:
    center, expected = filled(tmp_path / "c")
    center.keep_state()
    path = tmp_path / "c" / state_file.NAME
    whole = path.read_bytes()
    for at in random.Random(1).sample(range(len(whole)), 40):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        found = center.fsck()
        assert found is not None and found.where == state_file.NAME
        with Center.open(tmp_path / "c", Clock()) as opened:
            assert {reason(opened, n) for n in (0, 1)} <= {*expected[:2], "stale"}
            assert [reason(opened, n) for n in (0, 1, 2, 6)] == [*expected[:3], expected[6]]
    path.write_bytes(whole[:-1])
    assert "length" in center.fsck().detail  # type: ignore[union-attr]
    path.unlink()
    assert center.fsck() is None
    center.close()


@pytest.mark.sqlite
def test_a_file_of_another_or_a_newer_ledger_is_not_used(tmp_path: Path) -> None:
    center, expected = filled(tmp_path / "c")
    center.close()
    old = (tmp_path / "c/center.db").read_bytes()
    with Center.open(tmp_path / "c", Clock()) as center:
        center.record(event(1, action="renewed", occurred_at=START))
        center.keep_state()
    (tmp_path / "c/center.db").write_bytes(old)  # an old backup put back
    with Center.open(tmp_path / "c", Clock()) as center:
        assert "put back" in center.fsck().detail  # type: ignore[union-attr]
        assert reason(center, 1) == "stale"
        center.recover("put back by a test", "admin")
        assert reason(center, 1) == expected[1]
        for number in range(200, 203):  # the other way that the log might have gone
            center.record(event(number))
        assert "another" in center.fsck().detail  # type: ignore[union-attr]
    with Center.open(tmp_path / "c", Clock()) as center:
        assert reason(center, 1) == expected[1]
        assert center.keep_state() and center.fsck() is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.integers(0, 300), st.integers(NEVER, 50), min_size=1, max_size=200), max_size=6
    ),
    st.integers(0, 50),
    st.booleans(),
)
def test_ends_are_those_of_a_dictionary(changes: list[dict[int, int]], as_of: int, large: bool) -> None:
    from consent_center import ends as module

    limit, module._RECENT = module._RECENT, 0 if large else 4096
    try:
        held, model = Ends(), dict[int, int]()
        for change in changes:
            held.put(np.array([*change], np.int64), np.array([*change.values()], np.int64))
            model |= change
            for people in (range(0, 301), range(0, 301, 7)):
                over = {one for one in people if NEVER < model.get(one, NEVER) <= as_of}
                assert set(held.ended(as_of, BitMap(people))) == over
                wanted = [model.get(one, NEVER) for one in people]
                assert held.of(np.array(people)).tolist() == wanted
    finally:
        module._RECENT = limit


def test_one_few_and_many_are_decided_alike(tmp_path: Path) -> None:
    """Three ways through `judge`: one by one, a sparse set, everybody."""
    with make(tmp_path / "c", Clock()) as center:
        rng = random.Random(3)
        center.record_many([event(n, action=rng.choice(ACTIONS)) for n in range(2_000)])
        many = center.decide_subjects(REQUEST, np.arange(-1, 2_000)).codes
        sparse = np.array([-1, *range(0, 2_000, 20), *range(0, 2_000, 50)])
        assert (center.decide_subjects(REQUEST, sparse).codes == many[sparse + 1]).all()
        for start in range(-1, 500, 50):
            few = np.arange(start, start + 50)
            assert (center.decide_subjects(REQUEST, few).codes == many[few + 1]).all()
        last = int(center.checkpoint().split("\n")[1]) - 1
        assert center.opening(last)["payload"]["kind"] == "subject"


def test_a_state_without_a_file_reads_the_tables(tmp_path: Path) -> None:
    center, _ = filled(tmp_path / "c")
    with center._read() as connection:
        fresh = State()
        fresh.catch_up(connection)
        assert dict(fresh.parts()) == dict(center._state.parts())
    center.close()
