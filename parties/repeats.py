"""Whom a partner has had exact sums over: keeps fits without noise from differing by a few people.

Two exact sums whose people differ by one person give that person away (SECURITY.md). The brand's node keeps,
of each fit without noise, marks of the people whom the partner's sums were over, and refuses a fit whose
people differ from those of an earlier one by fewer than the agreement's `minimum_seeds`, or whose sum leaves
so few when sums of earlier ones are added and taken away. The same people again are allowed.

    repeats/key              16 bytes, this node's own
    repeats/PARTY/JOB.N.npz  uint64, rising: `chosen`, marks of who was asked about, and `fitted`, of who was
                             in the fit; `hidden`: people drawn anew hid who else was not in it; N counts
                             the fits of a job

A mark is AES under the key of the consent center's number of the person and of the label: it says nothing
without the key, and leads to nobody once the center has erased the person. The files never leave the node.
They outlive the agreement, as the partner keeps the sums; without them the next fit would not be compared.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from parties import documents, private_files
from parties.errors import NodeError

Marks = npt.NDArray[np.uint64]

#: Fewer people, drawn anew for the job and kept from its fit, never hide who else is not in it: as many as a
#: level needs in an exact sum (`lookalike.Terms.minimum_level`).
FRESH = 10

#: People of a fit for each column that the partner may have in it (`lookalike.Terms.seeds_per_column`).
ROWS_PER_COLUMN = 10

#: How many fits are added and taken away together at the most, and of how many that are not hidden: the
#: newest. All of a region, its east and its west are three.
TOGETHER, NEWEST = 4, 24

#: Groups of people of the same fits that are looked at first.
HEAD = 4096

HINT = (
    "go on with the earlier model; or leave holdout and holdout_seed out, so that a share of the people, ten "
    "at least and one for ten of the fit, is drawn anew and kept from it; or ask for noise (params.privacy); "
    "or wait until more people have changed"
)


def hidden(fresh: int, fitted: int) -> bool:
    """Whether `fresh` people who were drawn anew and kept from a fit of `fitted` hide who else is not in it.

    As many as the partner may have columns: with d exact sums the difference of two fits is d + 1 equations
    for the people by whom they differ. Ten people among 300 columns were found one by one (SECURITY.md).
    """
    return fresh >= max(FRESH, fitted // ROWS_PER_COLUMN)


def fewest_left(new: Marks, earlier: Sequence[Marks], least: int) -> tuple[int, tuple[int, ...]]:
    """(people, which) of a combination that leaves some people, fewer than `least`; (0, ()) if none does.

    `new` and each of `earlier`: uint64, rising, the people of one sum. Combinations are `new` plus or minus
    up to `TOGETHER` − 1 of the earlier ones (`which`). People who were in the same fits stay together in all
    of them, so only these groups and their sizes are looked at.
    """
    everybody = new
    for marks in earlier:
        everybody = np.union1d(everybody, marks)
    pattern = np.zeros(len(everybody), dtype=np.uint64)
    for bit, marks in enumerate((new, *earlier)):
        pattern[np.searchsorted(everybody, marks)] |= np.uint64(1) << np.uint64(bit)
    groups, sizes = np.unique(pattern, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    groups, sizes = groups[order], sizes[order]
    bits = np.arange(len(earlier) + 1, dtype=np.uint64)[:, None]
    inside = ((groups >> bits) & np.uint64(1)).astype(np.int8)
    for count in range(1, TOGETHER):
        signs = np.array(list(product((-1, 1), repeat=count)), dtype=np.int8)
        for which in combinations(range(len(earlier)), count):
            terms = inside[1:][list(which)]
            # Mostly the largest groups alone are enough people.
            few = (((signs @ terms[:, :HEAD] + inside[0, :HEAD]) != 0) @ sizes[:HEAD]) < least
            left = ((signs[few] @ terms + inside[0]) != 0) @ sizes
            left = left[(left > 0) & (left < least)]
            if len(left):
                return int(left.min()), which
    return 0, ()


def _job_of(path: Path) -> str:
    return path.stem.rpartition(".")[0]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Not knowing whom the partner has had sums over, nothing may be given out: `node.home`."""
    try:
        yield
    except (OSError, EOFError, TypeError, ValueError, KeyError, BadZipFile) as error:
        raise NodeError("node.home", f"{path}: {error}", "restore it from a backup") from error


class Repeats:
    """The marks of one node's fits with one partner. `home`: the node's directory."""

    def __init__(self, home: Path, partner: str) -> None:
        self._root = home / "repeats"
        self._folder = self._root / documents.check_name(partner, "partner")

    @property
    def known(self) -> bool:
        """Whether there is any earlier fit to compare with."""
        return any(self._folder.glob("*.npz"))

    def marks(self, persons: npt.NDArray[np.int64], labels: npt.NDArray[np.float64] | float) -> Marks:
        """Marks of people by their numbers at the consent center, int64[n], with labels float64[n] or one for
        all; rising, each once.
        """
        blocks = np.empty((len(persons), 2), dtype="<u8")
        blocks[:, 0] = np.asarray(persons, dtype=np.int64).view(np.uint64)
        blocks[:, 1] = np.full(len(persons), labels, dtype=np.float64).view(np.uint64)
        # A permutation of single blocks, cut in half: a pseudorandom function of (person, label).
        encryptor = Cipher(algorithms.AES(self._key()), modes.ECB()).encryptor()  # noqa: S305
        mixed = np.frombuffer(encryptor.update(blocks.tobytes()), dtype="<u8").reshape(-1, 2)
        return np.unique(mixed[:, 0]).astype(np.uint64)

    def check_chosen(self, chosen: Marks, least: int) -> None:
        """`job.repeated` if the people to be asked about differ by some, but fewer than `least`, from those
        of an earlier fit: before anybody is asked, so the partner learns nothing of it.
        """
        self._compare("chosen", chosen, least, "")

    def take(self, job_id: str, chosen: Marks, fitted: Marks, fresh: int, least: int) -> None:
        """Keep the people of a fit that is about to begin, or raise `job.repeated`.

        `fresh`: people drawn anew for this job and kept from the fit. On disk before this returns: what the
        partner is sent afterwards is never forgotten.
        """
        documents.check_name(job_id, "job id")
        with self._locked():
            covered = hidden(fresh, len(fitted))
            if not covered:
                self._compare("fitted", fitted, least, job_id)
                self._combine(fitted, least, job_id)
            number = sum(_job_of(path) == job_id for path in self._folder.glob("*.npz"))
            with private_files.writing(self._folder / f"{job_id}.{number}.npz") as file:
                np.savez(file, chosen=chosen, fitted=fitted, hidden=covered)

    def _combine(self, fitted: Marks, least: int, own: str) -> None:
        """`job.repeated` if the sum over `fitted` leaves some people, but fewer than `least`, when sums of
        up to `TOGETHER` − 1 earlier fits are added to it or taken away.
        """
        newest = sorted(self._folder.glob("*.npz"), key=lambda p: (-p.stat().st_mtime_ns, p.name))
        earlier: list[tuple[str, Marks]] = []
        for path in newest:
            if _job_of(path) != own and len(earlier) < NEWEST:
                with _reading(path), np.load(path, allow_pickle=False) as kept:
                    if "hidden" not in kept.files or not bool(kept["hidden"]):
                        earlier.append((_job_of(path), kept["fitted"]))
        left, jobs = fewest_left(fitted, [marks for _, marks in earlier], least)
        if left:
            raise NodeError(
                "job.repeated",
                f"its sums and those of jobs {', '.join(earlier[j][0] for j in jobs)} (same partner, no "
                f"noise), added or taken away, are sums over {left} people, and by the agreement exact sums "
                f"are over {least} at least",
                HINT,
            )

    def _compare(self, which: str, marks: Marks, least: int, own: str) -> None:
        for path in sorted(self._folder.glob("*.npz")):
            if _job_of(path) == own:
                continue  # two fits of one job: what they say together is what the job says
            with _reading(path), np.load(path, allow_pickle=False) as kept:
                apart = len(np.setxor1d(marks, kept[which], assume_unique=True))
            if 0 < apart < least:
                raise NodeError(
                    "job.repeated",
                    f"its people and labels differ from those of job {_job_of(path)} (same partner, no "
                    f"noise) in {apart}, and by the agreement exact sums are over {least} at least: the "
                    "difference of the two would give these few away",
                    HINT,
                )

    def _key(self) -> bytes:
        path = self._root / "key"
        with self._locked():
            if not path.exists():
                with private_files.writing(path) as file:
                    file.write(os.urandom(16))
            key = path.read_bytes()
        if len(key) != 16:
            raise NodeError("node.home", f"{path} has {len(key)} bytes, not 16", "restore it from a backup")
        return key

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Jobs of one node run in threads of one process, and commands beside it.
        private_files.folder(self._root)
        private_files.folder(self._folder)
        with (self._root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
