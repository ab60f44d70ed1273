"""Batches of calls into libsodium: one compiled loop that calls a C function once an item, on every core.

`rbcl` carries the whole of libsodium, and calls it once for each Python call (60 to 77 µs a scalar
multiplication). Here a numba loop calls the same C function by its address (25 to 37 µs an item on two cores
of the same machine), without the interpreter between two items. The address is an argument and not a
constant, so that the compiled loop stays valid on disk from one process to the next.

    each("crypto_scalarmult_ristretto255", n, At(out, 32), At(key, 0), At(points, 32))

is, for i in 0…n−1, `status[i] = f(out + 32 i, key, points + 32 i)`. Every argument is a 64-bit word (a
pointer or a length), which is how the C functions used here take theirs on every 64-bit platform.

Nothing outside of `protocols.ristretto` may import this module: it takes addresses, and checks bounds only.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from protocols import packs
from protocols.errors import LocalError
from protocols.parallel import Inline, compiled, parallel, prange

Bytes = npt.NDArray[np.uint8]


def _load() -> Any:
    """libsodium as a ctypes library.

    rbcl unpacks the library into a temporary file and leaves it there, a megabyte or more each time a process
    starts. Once it is mapped, Linux needs the name no longer, so it is removed here.
    """
    module = importlib.import_module("rbcl._sodium")
    if sys.platform.startswith("linux"):
        path = Path(module.lib_path)
        # Only the very file that rbcl has just written, never a library that something else installed.
        if path.name.startswith("tmp") and path.suffix == ".so":
            with contextlib.suppress(OSError):  # another user's file or gone already: litter, not a failure
                os.unlink(path)
    library = module._sodium
    if library.sodium_init() < 0:
        raise LocalError("protocol.argument", "libsodium can't be initialised on this machine")
    return library


_LIBRARY = _load()


@cache
def _address(function: str) -> int:
    return int(ctypes.cast(getattr(_LIBRARY, function), ctypes.c_void_p).value or 0)


class At(NamedTuple):
    """One argument of a batch: item i gets the address of `array` plus `offset` + i · `stride` bytes.

    `size` is how many bytes C touches there; the whole stride (or array, if the stride is 0) when not given.
    """

    array: Bytes
    stride: int
    offset: int = 0
    size: int | None = None


@Inline
def _call(typingctx: Any, function: Any, bases: Any, strides: Any, i: Any) -> Any:
    """`function(bases[0] + i * strides[0], …)` for tuples of any length, all 64-bit words; gives an int32."""
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils

    signature = types.int32(function, bases, strides, i)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        at, by = (cgutils.unpack_tuple(builder, a) for a in args[1:3])  # type: ignore[no-untyped-call]
        values = [builder.add(a, builder.mul(b, args[3])) for a, b in zip(at, by, strict=True)]
        kind = ir.FunctionType(ir.IntType(32), [word] * len(values))
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), values)

    return signature, build


@compiled
def _serial(function: int, bases: Any, strides: Any, status: Any) -> None:  # pragma: no cover (compiled)
    for i in range(status.shape[0]):
        status[i] = _call(function, bases, strides, np.int64(i))


@parallel
def _parallel(function: int, bases: Any, strides: Any, status: Any) -> None:  # pragma: no cover (compiled)
    for i in prange(status.shape[0]):
        status[i] = _call(function, bases, strides, np.int64(i))


#: Rough cost of a call in µs on one core of a 2024 server; what isn't listed costs about one.
_COST = {
    "crypto_scalarmult_ristretto255": 50.0,
    "crypto_scalarmult_ristretto255_base": 20.0,
    "crypto_core_ristretto255_add": 15.0,
    "crypto_core_ristretto255_sub": 15.0,
    "crypto_core_ristretto255_from_hash": 14.0,
    "crypto_core_ristretto255_is_valid_point": 5.0,
    "crypto_core_ristretto255_scalar_mul": 0.1,
}

#: Work in µs from which all cores are used: waiting for a core that another process has just taken costs more
#: than this (seen: 12 ms a loop, one time slice).
_WORTH_SHARING = 1000.0


#: Calls up to which a process that has not loaded numba does without it: importing it takes longer.
_WITHOUT_NUMBA = 2048


def _interpreted(
    function: int, bases: tuple[int, ...], strides: tuple[int, ...], status: npt.NDArray[np.int32]
) -> None:
    call = ctypes.CFUNCTYPE(ctypes.c_int32, *([ctypes.c_uint64] * len(bases)))(function)
    for i in range(len(status)):
        status[i] = call(*(base + i * stride for base, stride in zip(bases, strides, strict=True)))


def each(function: str, n: int, *arguments: At | int) -> npt.NDArray[np.int32]:
    """Call `function` for i in 0…n−1; gives its n return values (0 is libsodium's success).

    A plain integer is passed as it is (a length; 0 for a null pointer). LocalError if an array is not
    contiguous or too short for n items: an address out of bounds must never reach C.
    """
    bases, strides = [], []
    for argument in arguments:
        if isinstance(argument, int):
            bases.append(argument)
            strides.append(0)
            continue
        array, stride, offset, given = argument
        size = given if given is not None else stride or array.nbytes
        if array.dtype != np.uint8 or not array.flags.c_contiguous:
            raise LocalError("protocol.argument", f"{function}: an array is not contiguous bytes")
        if n and offset + (n - 1) * stride + size > array.nbytes:
            raise LocalError(
                "protocol.argument", f"{function}: an array of {array.nbytes} bytes for {n} items"
            )
        bases.append(array.ctypes.data + offset)
        strides.append(stride)
    status = np.zeros(n, dtype=np.int32)
    call = _address(function), tuple(bases), tuple(strides), status
    if packs.active and n <= _WITHOUT_NUMBA and "numba" not in sys.modules:
        _interpreted(*call)
    elif n * _COST.get(function, 1.0) < _WORTH_SHARING:
        _serial(*call)
    else:
        _parallel(*call)
    return status
