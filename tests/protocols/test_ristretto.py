"""ristretto255 and the other kernels: RFC 9496's vectors, and other implementations' answers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from oprf_helpers import stream

from protocols import ristretto
from protocols._native import At, each
from protocols.errors import LocalError

L = 2**252 + 27742317777372353535851937790883648493
#: RFC 9496, appendix A.1: the generator, and 2 and 15 times it.
GENERATOR = "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
DOUBLE = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919"
#: RFC 9496, appendix A.3, first vector.
UNIFORM = (
    "5d1be09e3d0c82fc538112490e35701979d99e06ca3e2b5b54bffe8b4dc772c1"
    "4d98b696a1bbfb5ca32c436cc61c16563790306c79eaca7705668b47dffe5bb6"
)
ELEMENT = "3066f82a1a747d45120d1740f14358531a8f04bbffe6a819f86dfe50f44a0a46"


def matrix(*hexes: str) -> np.ndarray:
    return np.array([list(bytes.fromhex(h)) for h in hexes], dtype=np.uint8).reshape(len(hexes), -1)


def scalars(*values: int) -> np.ndarray:
    return matrix(*(v.to_bytes(32, "little").hex() for v in values))


def integers(array: np.ndarray) -> list[int]:
    return [int.from_bytes(row.tobytes(), "little") for row in array]


def hexes(array: np.ndarray) -> list[str]:
    return [row.tobytes().hex() for row in array]


def test_generator_and_map() -> None:
    product, good = ristretto.multiply(scalars(1, 2, L + 1), matrix(GENERATOR, GENERATOR, GENERATOR))
    assert hexes(product)[:2] == [GENERATOR, DOUBLE]
    assert good[:2].all()
    assert hexes(ristretto.from_uniform(matrix(UNIFORM))) == [ELEMENT]


def test_rfc_9496_vectors(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "vectors/ristretto255/rfc9496.json").read_text())
    multiples = vectors["A1_multiples_of_generator"]
    assert len(multiples) == 16
    encodings = matrix(*(v["encoding"] for v in multiples))
    assert ristretto.is_valid(encodings).all()
    base = np.repeat(encodings[1:2], len(multiples), axis=0)
    product, good = ristretto.multiply(scalars(*(v["scalar"] for v in multiples)), base)
    assert (product == encodings).all()
    assert good.tolist() == [v["scalar"] != 0 for v in multiples]  # the identity is refused

    invalid = matrix(*(v["encoding"] for v in vectors["A2_invalid_encodings"]))
    assert len(invalid) == 29
    assert not ristretto.is_valid(invalid).any()
    product, good = ristretto.multiply(scalars(3)[0], invalid)
    assert not good.any()
    assert not product.any()

    mapped = vectors["A3_from_uniform_bytes"]
    got = ristretto.from_uniform(matrix(*(v["sha512_of_label"] for v in mapped)))
    assert hexes(got) == [v["element"] for v in mapped]
    same = vectors["A3_equivalent_uniform_bytes"]
    assert set(hexes(ristretto.from_uniform(matrix(*same["inputs"])))) == {same["element"]}


def test_identity_zero_and_bad_rows_are_named_and_zeroed() -> None:
    points = matrix(GENERATOR, "00" * 32, GENERATOR, "ff" * 32, GENERATOR)
    product, good = ristretto.multiply(scalars(5, 5, 0, 5, 5), points)
    assert good.tolist() == [True, False, False, False, True]
    assert not product[~good].any()
    assert (product[0] == product[4]).all()
    assert ristretto.is_valid(points).tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 100])
def test_inversion(n: int) -> None:
    values = ristretto.random_scalars(n, stream("invert"))
    inverses = integers(ristretto.invert(values))
    assert inverses == [pow(v, -1, L) for v in integers(values)]


def test_zero_has_no_inverse() -> None:
    with pytest.raises(LocalError, match="zero"):
        ristretto.invert(scalars(4, 0, 9))


def test_random_scalars_are_reduced_from_64_bytes() -> None:
    drawn = integers(ristretto.random_scalars(50, stream("scalars")))
    wide = np.frombuffer(stream("scalars")(50 * 64), dtype=np.uint8).reshape(50, 64)
    assert drawn == [v % L for v in integers(wide)]


def test_a_broken_source_of_randomness_is_refused() -> None:
    with pytest.raises(LocalError, match="zero"):
        ristretto.random_scalars(3, bytes)
    with pytest.raises(LocalError, match="asked for"):
        ristretto.random_scalars(3, lambda n: bytes(n - 1))


def test_many_rows_in_parallel_equal_one_by_one() -> None:
    points = ristretto.from_uniform(ristretto.random_bytes(300, 64, stream("points")))
    factors = ristretto.random_scalars(300, stream("factors"))
    together, good = ristretto.multiply(factors, points)
    assert good.all()
    for i in range(0, 300, 50):
        assert (ristretto.multiply(factors[i], points[i : i + 1])[0] == together[i]).all()
    back, _ = ristretto.multiply(ristretto.invert(factors), together)
    assert (back == points).all()


@pytest.mark.parametrize("length", [0, 1, 111, 112, 127, 128, 129, 500])
def test_sha512(length: int) -> None:
    messages = ristretto.random_bytes(5, length, stream("sha"))
    assert hexes(ristretto.sha512(messages)) == [hashlib.sha512(m.tobytes()).hexdigest() for m in messages]


@pytest.mark.parametrize("width", [1, 64, 1000])
def test_sealing_is_the_other_librarys(width: int) -> None:
    keys, records = ristretto.random_bytes(4, 32, os.urandom), ristretto.random_bytes(4, width, os.urandom)
    sealed = ristretto.seal(keys, records)
    for key, record, box in zip(keys, records, sealed, strict=True):
        assert ChaCha20Poly1305(key.tobytes()).encrypt(bytes(12), record.tobytes(), None) == box.tobytes()
    sealed[2, width // 2] ^= 1
    opened, good = ristretto.unseal(keys, sealed)
    assert good.tolist() == [True, True, False, True]
    assert (opened[good] == records[good]).all()
    assert not opened[2].any()


def test_addresses_out_of_bounds_never_reach_c() -> None:
    with pytest.raises(LocalError, match="4 items"):
        each("crypto_core_ristretto255_is_valid_point", 4, At(np.zeros((3, 32), np.uint8), 32))
    with pytest.raises(LocalError, match="contiguous"):
        each("crypto_core_ristretto255_is_valid_point", 2, At(np.zeros((4, 32), np.uint8)[::2], 32))
    for shape in ((4, 31), (128,)):
        with pytest.raises(LocalError, match="uint8"):
            ristretto.is_valid(np.zeros(shape, np.uint8))
    with pytest.raises(LocalError, match="scalars"):
        ristretto.multiply(scalars(1, 2), matrix(GENERATOR))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the file stays in use")
def test_no_library_is_left_in_the_temporary_directory(tmp_path: Path) -> None:
    code = (
        "from protocols import ristretto; import numpy; print(ristretto.is_valid(numpy.zeros((1,32),'u1')))"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[ True]"
    assert list(tmp_path.iterdir()) == []


def test_two_threads_may_work_at_once_without_openmp() -> None:
    """numba's own work queue ends the process when two parallel loops meet; see `protocols.parallel`."""
    code = """
import os, threading, numpy
from protocols import ristretto
wide = ristretto.random_bytes(300, 64, os.urandom)
done = []
def work():
    for _ in range(10):
        points = ristretto.from_uniform(wide)
        done.append(ristretto.multiply(ristretto.random_scalars(300, os.urandom), points)[1].all())
threads = [threading.Thread(target=work) for _ in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(done), all(done))
"""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("30 True", 0), done.stderr
