"""SecretFlow's intersection (PyPI package `spu`) on the files of `pec bench align`, in its own environment.

`pec` does not depend on `spu`: `--peer-python` names a Python that has it, e.g. of

    python3 -m venv spu-env && spu-env/bin/pip install spu==0.9.5

Measured like our own parties: both processes, from starting the first to the end of the last.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from pec.bench.ports import free_port
from pec.errors import PecError

#: What runs in the peer's Python: one party. Arguments: rank, file, column, protocol, output, two ports.
_PARTY = """
import json, re, resource, sys
import spu.psi as psi
from spu import libspu

rank, path, column, protocol, out, *ports = sys.argv[1:]
desc = libspu.link.Desc()
desc.recv_timeout_ms, desc.connect_retry_times, desc.connect_retry_interval_ms = 600000, 200, 20
for number, port in enumerate(ports):
    desc.add_party("party%d" % number, "127.0.0.1:" + port)
line = libspu.link.create_brpc(desc, int(rank))
kind = psi.parse_protocol("PROTOCOL_" + protocol)
extra = {}
if protocol == "ECDH":
    extra["ecdh_params"] = psi.EcdhParams(psi.parse_curve_type("CURVE_25519"))
else:
    extra["rr22_params"] = psi.Rr22Rarams(False)
csv = psi.SourceType.SOURCE_TYPE_FILE_CSV
report = psi.psi_execute(
    psi.PsiExecuteConfig(
        protocol_conf=psi.PsiProtocolConfig(protocol=kind, receiver_rank=0, broadcast_result=False, **extra),
        input_params=psi.InputParams(type=csv, path=path, selected_keys=[column], keys_unique=True),
        output_params=psi.OutputParams(type=csv, path=out, disable_alignment=True),
        join_conf=psi.ResultJoinConfig(psi.ResultJoinType.JOIN_TYPE_INNER_JOIN, 0),
        checkpoint_conf=psi.CheckpointConfig(),
    ),
    line,
)
line.stop_link()
used = resource.getrusage(resource.RUSAGE_SELF)
peak = int(re.search("VmHWM:[^0-9]*([0-9]+)", open("/proc/self/status").read())[1])  # as parties.memory
print("FIGURES " + json.dumps({
    "matched": report.intersection_count,
    "peak_rss_mb": round(peak / 1024, 1),
    "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
}))
"""

#: Our suites and the peer's protocol that does the same.
PROTOCOLS = {"vole": "RR22", "ecdh": "ECDH"}


def run(python: Path, paths: dict[str, Path], column: str, folder: Path, suite: str) -> dict[str, Any]:
    """The peer's figures on the same two files by role, the receiver's first.

    PecError pec.bench with the peer's words if it fails.
    """
    ports = [str(free_port()), str(free_port())]
    protocol, processes = PROTOCOLS[suite], {}
    began = time.monotonic()
    for rank, (role, path) in enumerate(paths.items()):
        command = [str(python), "-c", _PARTY, str(rank), str(path), column, protocol]
        command += [str(folder / f"peer{rank}.csv"), *ports]
        processes[role] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
        )
    said = {role: process.communicate(timeout=3600)[0] for role, process in processes.items()}
    seconds = time.monotonic() - began
    sides = {}
    for role, text in said.items():
        lines = [line for line in text.splitlines() if line.startswith("FIGURES ")]
        if not lines:
            raise PecError("pec.bench", f"the peer's {role} failed: {text.strip()[-600:]}")
        sides[role] = json.loads(lines[0].removeprefix("FIGURES "))
    return {
        "system": "spu",
        "protocol": protocol,
        "seconds": round(seconds, 3),
        "matched": sides[next(iter(paths))]["matched"],
        "peak_rss_mb": {role: side["peak_rss_mb"] for role, side in sides.items()},
        "cpu_seconds": {role: side["cpu_seconds"] for role, side in sides.items()},
    }
