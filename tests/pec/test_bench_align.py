"""`pec bench align`: two real processes, and what they say when something is wrong."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

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


def test_growth_as_a_plot_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "growth.py"))

    def line(n: int, seconds: float) -> str:
        return json.dumps({"sizes": {"receiver": n}, "seconds": seconds, "cpu": {"a": seconds, "b": 1.0}})

    runs, image = tmp_path / "runs.jsonl", tmp_path / "growth.svg"
    runs.write_text("\n".join([line(1_000_000, 9.0), line(10_000, 2.0), line(1_000_000, 3.0), ""]))
    asked = ["sizes.receiver=people", "seconds,cpu.a+cpu.b=CPU < both", str(image), str(runs)]
    assert script["main"](asked) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| people | seconds | CPU < both |"
    assert rows[2:] == ["| 10,000 | 2 | 3 |", "| 1,000,000 | 3 | 4 |"]
    root = ElementTree.fromstring(image.read_text())  # noqa: S314 (our own)
    assert len([e for e in root if e.tag.endswith("circle")]) == 4
    assert {"CPU < both", "people", "seconds"} <= {e.text for e in root}
    asked[1] = "cpu.b@MiB"
    assert script["main"](asked) == 0 and ">MiB</text>" in image.read_text()
    runs.write_text('{"bench": "ledger"}')
    with pytest.raises(KeyError, match="sizes"):
        script["main"](asked)
