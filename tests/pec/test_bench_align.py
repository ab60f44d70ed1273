"""`pec bench align`: two real processes, and what they say when something is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pec.bench import align
from pec.errors import PecError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("suite", "more"),
    [("vole", {}), ("vole", {"bucket_rows": 300}), ("vole", {"malicious": True}), ("ecdh", {})],
)
def test_synthetic_people(suite: str, more: dict) -> None:
    found = align.run(align.Inputs(900, 700, suite=suite, **more))
    assert found["matched"] == found["expected"] == 350
    assert found["sizes"] == {"receiver": 900, "sender": 700}
    assert found["bytes_sent"] > 0 and found["bytes_received"] > 0 and found["seconds"] > 0
    assert set(found["peak_rss_mb"]) == {"receiver", "sender"} and found["stages"] and found["stages_sender"]
    if suite == "ecdh":
        assert found["bare_seconds"] > 0 and found["ratio"] > 0


def test_files_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = tmp_path / "a.csv", tmp_path / "b.csv"
    mine.write_text("mail,x\nA@b.cn,1\nc@d.cn,2\n,3\nnot a mail,4\nc@d.cn,5\n")
    theirs.write_text("mail\ne@f.cn\nC@D.CN\na@b.cn \n")
    kept = {}

    def keep(given, paths, kind, keys, folder):
        out = once(given, paths, kind, keys, folder)
        kept["table"] = pq.read_table(folder / "matched.parquet").to_pydict()
        return out

    once = align._once
    monkeypatch.setattr(align, "_once", keep)
    found = align.run(align.Inputs(1, 1, receiver_file=mine, sender_file=theirs, id="mail"))
    assert found["matched"] == 2 and found["sizes"] == {"receiver": 2, "sender": 3}
    assert sorted(kept["table"]["mail"]) == ["a@b.cn", "c@d.cn"]
    assert set(kept["table"]["sender_row"]) <= {0, 1, 2}
    with pytest.raises(PecError, match=r"pec\.bench.*process ended with 1.*rows\.column"):
        align.run(align.Inputs(1, 1, receiver_file=mine, sender_file=theirs, id="phone"))
    with pytest.raises(PecError, match=r"pec\.usage"):
        align.run(align.Inputs(1, 1, receiver_file=mine))


def test_a_peer_that_is_not_installed(tmp_path: Path) -> None:
    from pec.bench import peer

    file = tmp_path / "a.csv"
    file.write_text("id\n13800000001\n")
    with pytest.raises(PecError, match=r"pec\.bench: the peer's receiver failed"):
        peer.run(Path(sys.executable), {"receiver": file, "sender": file}, "id", tmp_path, "vole")
