"""How image files are read: to which size, by how many threads, and what becomes of those that are broken.

All files are looked at once before work begins, which gives their fingerprints anyway. Where broken ones are refused,
that look is a short one: header, checksums, end of file. Where they are skipped, each is decoded, once: which samples
there are is decided here, and the decision is kept in a file, so that all processes, and the same command tomorrow, see
the same samples. The file is named by what it depends on, names, sizes and times of the files and how they are read;
whoever mends an image makes a new decision.

Whether two folders share images is told from the SHA-256 of their files' bytes. What is made of a folder keeps the
`SKETCH` smallest of these (a bottom-k sketch, the idea of Broder 1997, "On the resemblance and containment of
documents"): every folder chooses alike, so that common files are found among them. Up to so many files nothing is
missed; of n files, m common ones are noticed with probability about 1 - (1 - SKETCH / n)^m. An image that was resized
or saved again has other bytes, and is not recognised.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from tqdm import tqdm

from lcg.data.atomic import sync_folder
from lcg.data.framing import Fit

T = TypeVar("T")

SKETCH = 1024
"""Files of a folder by which it is compared with others."""
BLOCK = 32
"""Files that a thread takes at a time."""
SHOWN = 8
"""Broken files that a message names."""


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Args:
        size: height and width of all images, or one number for both; None for those of the first one.
        fit: how an image of another size is brought to it: not at all (exact), scaled and cut (crop), scaled and set
            in black (pad), or scaled without regard to proportions (stretch).
        landmarks: a table of landmarks by which faces are brought into the frame of FFHQ, see `lcg.data.alignment`;
            needs one number as `size`.
        workers: threads that read; None for as many as there are cores.
        broken: what becomes of files that are missing, broken or of a wrong size: refuse them all, or skip them.
        notes: folder for the list of skipped files; None for the folder of the images.

    Raises:
        ValueError: a size or the number of threads is not positive, an option is none of its words, or landmarks are
            given without one size.
    """

    size: int | tuple[int, int] | None = None
    fit: Fit = "exact"
    landmarks: str | None = None
    workers: int | None = None
    broken: Literal["refuse", "skip"] = "refuse"
    notes: str | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("fit", self.fit, get_args(Fit)),
            ("broken", self.broken, ("refuse", "skip")),
        ):
            if value not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {value!r}")
        if self.shape is not None and min(self.shape) < 1:
            raise ValueError(f"`size` must be >= 1, got {self.size}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"`workers` must be >= 1, got {self.workers}; leave it out for as many as there are cores")
        if self.landmarks is not None and not isinstance(self.size, int):
            raise ValueError(f"`landmarks` need `size`, the side of the square that they cut, got {self.size}")
        if self.fit != "exact" and self.size is None:
            raise ValueError(f"`fit` {self.fit!r} needs `size`, such as 256 or [256, 192]")

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size and (self.size[0], self.size[1])

    @property
    def threads(self) -> int:
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def identity(self) -> dict[str, Any]:
        """What of this changes pixels, in JSON primitives; nothing for images that are taken as they are."""
        if self.landmarks is not None:
            return {"landmarks_sha256": hashlib.sha256(Path(self.landmarks).read_bytes()).hexdigest()}
        return {} if self.fit == "exact" else {"fit": self.fit}


@dataclass(frozen=True)
class Survey:
    """What a look at all files has found.

    Attributes:
        faults: what is wrong with the broken ones, by name, in order.
        fingerprints: of the others, see `lcg.data.imagefiles.ImageFiles.fingerprints`.
    """

    faults: dict[str, str]
    fingerprints: dict[str, Any]

    @classmethod
    def of(cls, names: Sequence[str], look: Callable[[int], tuple[bytes, str]], threads: int) -> Survey:
        """Looks at all files.

        Args:
            names: of the files.
            look: takes the number of a file; its SHA-256, and what is wrong with it or nothing.
            threads: that look at a time.
        """
        faults, sha256, digests = dict[str, str](), hashlib.sha256(), list[bytes]()
        for i, (digest, fault) in enumerate(in_order(look, len(names), threads, "look at files")):
            if fault:
                faults[names[i]] = fault
            else:
                sha256.update(digest)
                digests.append(digest[:8])
        smallest = sorted({digest.hex() for digest in digests})[:SKETCH]
        return cls(faults, {"files": len(digests), "sha256": sha256.hexdigest(), "smallest": smallest})


def in_order(work: Callable[[int], T], count: int, threads: int, shown: str = "") -> Iterator[T]:
    """work(0), work(1), ..., made by threads and given in order; progress is shown where it has a name."""
    size = max(1, min(BLOCK, count // (2 * threads)))

    def block(start: int) -> list[T]:
        return [work(i) for i in range(start, min(start + size, count))]

    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=count, desc=shown, unit="file", leave=False, delay=1, disable=not shown) as bar,
    ):
        for done in pool.map(block, range(0, count, size)):
            yield from done
            bar.update(len(done))


def kept(path: Path, make: Callable[[], Survey]) -> tuple[Survey, bool]:
    """The survey in a file; where there is none it is made, and the first process to finish decides for all.

    Returns:
        The survey, and whether this process has decided.

    Raises:
        PermissionError: the file cannot be written.
        ValueError: it holds something else.
    """
    decided = False
    if not path.is_file():
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(
                f"the list of skipped images cannot be written to {path.parent}; give another folder as `reading.notes`"
            )
        survey = make()
        decided = _write_once(path, json.dumps({"skipped": survey.faults, "fingerprints": survey.fingerprints}))
    try:
        told = json.loads(path.read_bytes())
        return Survey(dict(told["skipped"]), dict(told["fingerprints"])), decided
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no list of skipped images; remove it, and it is made anew") from error


def _write_once(path: Path, text: str) -> bool:
    """Puts a text into a file unless somebody else was first; whether it was this process."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)  # unlike a rename, this fails where there is a file
    except FileExistsError:
        return False
    except OSError:  # file systems without links
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def listed(faults: Mapping[str, str]) -> str:
    """Some broken files and what is wrong with them, and how many more there are."""
    told = "; ".join(f"{name}: {fault}" for name, fault in list(faults.items())[:SHOWN])
    return told + (f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else "")
