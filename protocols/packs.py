"""A pack of compiled kernels that loads without numba: for short processes and for nodes with small jobs.

Importing numba and reading its first kernel from its cache takes some 0.4 s of processor time. `build` (which
`pec warmup` calls) writes the machine code that numba made, for what each kernel is called with, into a file;
`enable` loads it with llvmlite, which numba itself uses for that. Only kernels are packed whose machine code
calls nothing but memory management; each is the serial form of its loop.

The file is bound to numba's, llvmlite's and Python's versions, the processor, and the text of every module
that has a kernel in it. If anything differs the pack is not used and numba compiles as ever. It lies beside
numba's own cache and deserves the same trust: whoever can write there can already change the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any, Protocol

import numpy as np

_FOLDER = Path(__file__).parent
_FILE = _FOLDER / "__pycache__" / "kernels.pack"
_MAGIC = b"PECPACK1"

#: What machine code in the pack may call.
_MAY_CALL = frozenset({"NRT_MemInfo_alloc_aligned", "NRT_MemInfo_call_dtor", "memcpy", "memset", "memmove"})


class Kernel(Protocol):
    """What is packed: `protocols.parallel.Kernel`."""

    @property
    def name(self) -> str: ...

    def source(self) -> Any: ...


#: Bytes of a call's arrays up to which numba's import takes longer than its threads could save.
SMALL = 1 << 21

#: Whether this process takes kernels from the pack; kernels by name and signature; what keeps them alive.
active = False
_found: dict[tuple[str, str], Callable[[tuple[Any, ...]], None]] = {}
_keep: list[Any] = []

#: Bytes of a call's arrays up to which the pack is used, and only until numba is loaded; None: always.
_most: int | None = None
_due = False
_LOADING = threading.Lock()

#: Calls to be packed, while `recording` is not None.
recording: dict[tuple[str, str], tuple[Kernel, tuple[Any, ...]]] | None = None


def signature(arguments: tuple[Any, ...]) -> str | None:
    """What a kernel is called with, as text; None if the pack has no way to pass that."""
    parts = []
    for a in arguments:
        if isinstance(a, np.ndarray):
            if not (a.flags.c_contiguous and a.flags.aligned) or a.dtype.hasobject or a.ndim == 0:
                return None
            parts.append(f"{a.dtype.str[1:]}/{a.ndim}")
        elif isinstance(a, np.uint64):
            parts.append("Q")
        elif isinstance(a, (int, np.int64)) and not isinstance(a, bool):
            parts.append("q")
        else:
            return None
    return ",".join(parts)


def find(name: str, arguments: tuple[Any, ...]) -> Callable[[tuple[Any, ...]], None] | None:
    """The kernel in the pack for these arguments, if there is one."""
    if _most is not None:
        size = sum(a.nbytes for a in arguments if isinstance(a, np.ndarray))
        if size > _most or "numba" in sys.modules or not _loaded():
            return None
    kind = signature(arguments)
    return None if kind is None else _found.get((name, kind))


def record(kernel: Kernel, arguments: tuple[Any, ...]) -> None:
    kind = signature(arguments)
    if recording is not None and kind is not None:
        recording.setdefault((kernel.name, kind), (kernel, arguments))


# -- making the pack (with numba) ----------------------------------------------------------------------------


def build(calls: dict[tuple[str, str], tuple[Kernel, tuple[Any, ...]]]) -> int:
    """Write the pack of these recorded calls; gives how many kernels are in it.

    OSError if the folder can't be written to.
    """
    import numba
    from numba import types

    plain: Any = numba.njit  # its annotations lack two of its options
    type_of: Any = numba.typeof
    entries: list[dict[str, Any]] = []
    codes: list[bytes] = []
    for (name, kind), (kernel, arguments) in calls.items():
        made = plain(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(kernel.source())
        kinds = tuple(_type(type_of(a), types) for a in arguments)
        made.compile(kinds)
        compiled = made.overloads[kinds]
        library = compiled.library
        called = {
            f.name
            for f in library._final_module.functions
            if f.is_declaration and not f.name.startswith("llvm.")
        }
        if compiled.signature.return_type != types.none or not called <= _MAY_CALL:
            continue
        code = library._get_compiled_object()
        entries.append(
            {"name": name, "kind": kind, "symbol": compiled.fndesc.llvm_func_name, "size": len(code)}
        )
        codes.append(code)
    sources = sorted({str(_module_file(entry["name"]).relative_to(_FOLDER)) for entry in entries})
    head = json.dumps({"tag": _tag(sources), "sources": sources, "kernels": entries}).encode()
    body = head + b"".join(codes)
    _FILE.parent.mkdir(exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=_FILE.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_MAGIC + len(head).to_bytes(8, "big") + hashlib.sha256(body).digest() + body)
    os.replace(name, _FILE)
    return len(entries)


def _type(kind: Any, types: Any) -> Any:
    """Numba's type of an argument, read-only arrays as writable ones: the machine code is the same."""
    return types.Array(kind.dtype, kind.ndim, "C") if isinstance(kind, types.Array) else kind


def _module_file(kernel: str) -> Path:
    module = sys.modules[kernel.rpartition(".")[0]]
    return Path(str(module.__file__))


# -- using it (without numba) --------------------------------------------------------------------------------


def enable() -> bool:
    """Take kernels from the pack from now on, if there is one for exactly this machine and program."""
    global active, _due, _most
    _due, _most = False, None
    active = _read()
    return active


def enable_for_small() -> None:
    """Take kernels from the pack for calls with up to `SMALL` bytes, until a larger one has loaded numba.

    The pack is loaded at the first such call.
    """
    global active, _due, _most
    active, _due, _most = True, True, SMALL


def _loaded() -> bool:
    """Whether there is a pack; the first to ask loads it."""
    global active, _due
    if _due:
        with _LOADING:
            if _due:
                active = _read()
                _due = False
    return active


def made() -> bool:
    """Whether `pec warmup` has made a pack for exactly this machine and program; nothing is loaded."""
    return _fitting() is not None


def _read() -> bool:
    """Load the pack if there is one that fits."""
    found = _fitting()
    if found is None:
        return False
    _load(*found)
    return True


def _fitting() -> tuple[list[dict[str, Any]], bytes] | None:
    """The pack's kernels and their code, if there is one that fits."""
    try:
        data = _FILE.read_bytes()
    except OSError:
        return None
    at = len(_MAGIC) + 8 + 32
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(data[at:]).digest() != data[at - 32 : at]:
        return None  # cut short, or of another version
    size = int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 8], "big")
    head = json.loads(data[at : at + size])
    if head["tag"] != _tag(head["sources"]):
        return None
    return head["kernels"], data[at + size :]


def _tag(sources: list[str]) -> str:
    """What the machine code depends on."""
    import llvmlite.binding as llvm

    parts: list[str] = [importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    parts += [sys.version, platform.machine(), llvm.get_host_cpu_name(), str(llvm.get_host_cpu_features())]
    digest = hashlib.sha256("\0".join(parts).encode())
    for source in ["packs.py", "parallel.py", *sources]:
        with contextlib.suppress(OSError):  # a module that is gone changes the tag by its absence
            digest.update(source.encode() + b"\0" + (_FOLDER / source).read_bytes())
    return digest.hexdigest()


def _load(entries: list[dict[str, Any]], code: bytes) -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name, address in _memory_functions().items():
        llvm.add_symbol(name, address)
    target = llvm.Target.from_default_triple().create_target_machine(codemodel="jitdefault", jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    at = 0
    for entry in entries:
        engine.add_object_file(llvm.ObjectFileRef.from_data(code[at : at + entry["size"]]))
        at += entry["size"]
    engine.finalize_object()
    _keep.append((engine, target))
    for entry in entries:
        address = engine.get_function_address(entry["symbol"])
        _found[entry["name"], entry["kind"]] = _Native(entry["name"], address)


def _memory_functions() -> dict[str, int]:
    """Addresses of numba's memory management, from its own extension module but without importing numba."""
    home = importlib.util.find_spec("numba")
    places = list(home.submodule_search_locations or ()) if home is not None else []
    files = [
        f for p in places for f in Path(p).glob("core/runtime/_nrt_python.*") if f.suffix in (".so", ".pyd")
    ]
    if not files:
        raise ImportError("numba's memory management is missing; reinstall numba")
    loader = ExtensionFileLoader("_nrt_python", str(files[0]))
    spec = importlib.util.spec_from_loader("_nrt_python", loader)
    if spec is None:
        raise ImportError("numba's memory management can't be loaded")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    _keep.append(module)
    return {n if n.startswith("_") else "NRT_" + n: address for n, address in module.c_helpers.items()}


class _Native:
    """A kernel at an address; called as numba calls it: where a result and an error go, then the arguments.

    An array is passed as (owner, parent, items, bytes an item, data, shape…, strides…), all 64-bit words.
    """

    def __init__(self, name: str, address: int) -> None:
        self._name, self._address = name, address
        self._function: Any = None

    def __call__(self, arguments: tuple[Any, ...]) -> None:
        result, error = ctypes.c_uint64(0), ctypes.c_uint64(0)
        words: list[int] = [ctypes.addressof(result), ctypes.addressof(error)]
        for a in arguments:
            if isinstance(a, np.ndarray):
                words += [0, 0, a.size, a.itemsize, a.ctypes.data, *a.shape, *a.strides]
            else:
                words.append(int(a) & 0xFFFFFFFFFFFFFFFF)
        if self._function is None:
            kind = ctypes.CFUNCTYPE(ctypes.c_int32, *([ctypes.c_uint64] * len(words)))
            self._function = kind(self._address)
        status = self._function(*words)
        if status not in (0, -2):  # -2: "none" is returned
            raise MemoryError(f"{self._name} ended with status {status}: not enough memory")
