"""What a running job keeps on disk so that a killed node can go on: the view, and the state between stages.

    state/<job>/view/            the consented view (`ConsentedView.save`), written once
    state/<job>/peer.json        both sides' signed snapshots
    state/<job>/dataset.json     what the data set was when the job began
    state/<job>/at-<k>/          everything that stage k begins with: carry, result, dropped rows
    state/<job>/…                what a stage keeps for itself (`StageContext.state`)

A checkpoint is on disk before the boundary message of its stage leaves. So a side that has seen the peer's
message knows that the peer has that checkpoint too, and only then the one before is removed: the two sides'
latest ones differ by one at the most, and the earlier of them is there on both. The directory has mode 0700,
its files 0600; the job's end removes it.

Values are arrays, Arrow tables, plain JSON, and the results of protocols that `KINDS_OF_RESULT` names. What
is none of these can't be kept; the job then goes on from an earlier checkpoint, or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from parties import private_files
from parties.errors import NodeError

#: Dataclasses of protocols that may lie between two stages: module and name.
KINDS_OF_RESULT = {"protocols.lookalike.features.FitResult"}


@dataclass(frozen=True)
class Saved:
    """One checkpoint: the stage that begins with it, and what that stage's context held."""

    position: int
    carry: dict[str, Any]
    result: dict[str, Any]


class Unsaveable(TypeError):
    """A value that no checkpoint can hold."""


class Checkpoints:
    """The checkpoints of one job in its state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def view(self) -> Path:
        return self.folder / "view"

    def latest(self) -> int:
        """Position of the stage that the newest checkpoint is before; -1 if there is none."""
        if not self.folder.is_dir():
            return -1
        found = [int(p.name[3:]) for p in self.folder.glob("at-*") if (p / "state.json").exists()]
        return max(found, default=-1)

    def buckets(self) -> tuple[int, int] | None:
        """(buckets that are done, buckets in all) of the stage that works in buckets; None outside of one."""
        for manifest in self.folder.glob("*/manifest.json"):
            try:
                found = json.loads(manifest.read_text())
                done, count = int(found["done"]), int(found["plan"]["buckets"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # being written or removed at this moment, or not to be trusted
            if count > 1:
                return done, count
        return None

    def write_peer(self, snapshots: Mapping[str, Any]) -> None:
        private_files.folder(self.folder)
        with private_files.writing(self.folder / "peer.json") as file:
            file.write(json.dumps(snapshots).encode())

    def read_peer(self) -> dict[str, Any]:
        return self._read("peer.json")

    def write_dataset(self, reading: Mapping[str, Any]) -> None:
        """What the data set was when the job began (`Dataset.reading`)."""
        with private_files.writing(self.folder / "dataset.json") as file:
            file.write(json.dumps(reading).encode())

    def read_dataset(self) -> dict[str, Any]:
        return self._read("dataset.json")

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / name).read_text())
        except (OSError, ValueError) as error:
            raise _broken(error) from error
        return found

    def save(self, position: int, carry: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
        """Write the checkpoint before stage `position`; False if a value can't be kept (then none is
        written).
        """
        target = self.folder / f"at-{position}"
        if (target / "state.json").exists():
            return True
        shutil.rmtree(target, ignore_errors=True)
        private_files.folder(target)
        writer = _Writer(target)
        try:
            state = {"carry": writer.encode(dict(carry)), "result": dict(result)}
            text = json.dumps(state, allow_nan=False)
        except (Unsaveable, TypeError, ValueError):
            shutil.rmtree(target, ignore_errors=True)
            return False
        with private_files.writing(target / "state.json") as file:
            file.write(text.encode())
        return True

    def load(self, position: int) -> Saved:
        """The checkpoint before stage `position`; `node.interrupted` if it is not there or unreadable."""
        source = self.folder / f"at-{position}"
        try:
            state = json.loads((source / "state.json").read_text())
            carry = _Reader(source).decode(state["carry"])
            return Saved(position, carry, dict(state["result"]))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise _broken(error) from error

    def keep(self, position: int) -> None:
        """Remove the checkpoints before `position`: the peer has that one too."""
        for path in self.folder.glob("at-*"):
            if int(path.name[3:]) < position:
                shutil.rmtree(path, ignore_errors=True)

    def back_to(self, position: int) -> None:
        """Remove the checkpoints after `position`: their stages run again."""
        for path in self.folder.glob("at-*"):
            if int(path.name[3:]) > position:
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _broken(error: Exception) -> NodeError:
    return NodeError(
        "node.interrupted",
        f"the job's checkpoint can't be read: {type(error).__name__}",
        "submit the job again",
        share=True,
    )


class _Writer:
    def __init__(self, folder: Path) -> None:
        self._folder, self._files = folder, 0

    def encode(self, value: Any) -> Any:
        """JSON of a value; arrays and tables go to files of their own."""
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float):
            return {"float": value.hex()}
        if isinstance(value, np.generic):
            return self.encode(value.item())
        if isinstance(value, np.ndarray) and value.dtype.kind in "iufb":
            with private_files.writing(self._folder / self._name("npy")) as file:
                np.save(file, value, allow_pickle=False)
            return {"array": self._files}
        if isinstance(value, pa.Table):
            with (
                private_files.writing(self._folder / self._name("arrow")) as file,
                pa.ipc.new_stream(file, value.schema) as stream,
            ):
                stream.write_table(value)
            return {"table": self._files}
        if isinstance(value, list | tuple):
            return {"tuple" if isinstance(value, tuple) else "list": [self.encode(v) for v in value]}
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return {"dict": {k: self.encode(v) for k, v in value.items()}}
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        if is_dataclass(value) and name in KINDS_OF_RESULT:
            return {
                "result": name,
                "fields": {f.name: self.encode(getattr(value, f.name)) for f in fields(value)},
            }
        raise Unsaveable(name)

    def _name(self, ending: str) -> str:
        self._files += 1
        return f"{self._files}.{ending}"


class _Reader:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def decode(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "result" in value:
            return self._result(str(value["result"]), value["fields"])
        ((kind, held),) = value.items()
        if kind == "float":
            return float.fromhex(held)
        if kind == "array":
            return np.load(self._folder / f"{int(held)}.npy", allow_pickle=False)
        if kind == "table":
            with pa.ipc.open_stream((self._folder / f"{int(held)}.arrow").read_bytes()) as stream:
                return stream.read_all()
        if kind == "list":
            return [self.decode(v) for v in held]
        if kind == "tuple":
            return tuple(self.decode(v) for v in held)
        if kind == "dict":
            return {k: self.decode(v) for k, v in held.items()}
        raise ValueError(kind)

    def _result(self, name: str, held: dict[str, Any]) -> Any:
        import importlib

        if name not in KINDS_OF_RESULT:
            raise ValueError(name)
        module, _, cls = name.rpartition(".")
        return getattr(importlib.import_module(module), cls)(**{k: self.decode(v) for k, v in held.items()})
