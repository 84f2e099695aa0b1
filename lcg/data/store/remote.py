"""Stores elsewhere: fetched once through fsspec, each file checked as it arrives, then read like any other.

    s3://bucket/store, https://host/store, memory://...  ->  $LCG_CACHE/stores/NAME-HASH   (or ~/.cache/lcg/stores/...)

Random rows from far away would take a request each, so the whole store comes. HASH is of address and manifest: another
manifest at the same address is another folder, and nothing stale is read. Shards are kept one by one, so a fetch that
was stopped goes on with the first that is missing; the manifest comes last, and with it the folder is a store.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lcg.data.atomic import write_atomic
from lcg.data.store.manifest import MAX_BYTES, NAME, Manifest, StatisticsFile
from lcg.data.store.shards import MAX_HEADER, Array, arrays_of
from lcg.data.store.statistics_file import statistics_arrays

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BLOCK = 2**20


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether this is an address and not a folder."""
    return "://" in os.fspath(path)


def fetch(url: str, cache: Path | None = None) -> Path:
    """The folder with a copy of the store at `url`, after fetching what is not there yet.

    Args:
        url: an address that fsspec knows, of the folder that holds manifest and shards.
        cache: where copies are kept.

    Raises:
        FileNotFoundError: there is no store at the address, or a file of it is missing.
        ValueError: what is there is no finished latent store, is damaged, or the kind of address is not known.
        OSError: the address cannot be reached, or the copy not be written.
        ImportError: the package for this kind of address is not installed.
    """
    cache = default_cache() if cache is None else cache
    files, root = _file_system(url)
    source = f"{root.rstrip('/')}/{NAME}"
    text = b"".join(_limited(_blocks(files, source, url), MAX_BYTES, source))
    manifest = Manifest.from_bytes(text, f"{url}/{NAME}")
    if manifest.statistics is None:
        raise ValueError(f"the latent store at {url} is not finished; run the command that wrote it again, over there")
    folder = cache / _name(url, text)
    if (folder / NAME).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {s.file: (s.sha256, _size(arrays_of(manifest, s.count))) for s in manifest.shards}
    if isinstance(manifest.statistics, StatisticsFile):
        wanted[manifest.statistics.file] = manifest.statistics.sha256, _size(statistics_arrays(manifest))
    missing = {name: entry for name, entry in wanted.items() if not (folder / name).is_file()}
    total = sum(size for _, size in missing.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc=f"fetch {url}", disable=None) as bar:
        for name, (sha256, size) in missing.items():
            source = f"{root.rstrip('/')}/{name}"
            _keep(_limited(_blocks(files, source, url), size + MAX_HEADER, source), folder / name, sha256, bar)
    write_atomic(folder / NAME, text, shared=True)
    return folder


def default_cache() -> Path:
    """$LCG_CACHE/stores, or ~/.cache/lcg/stores."""
    return Path(os.environ.get("LCG_CACHE") or Path.home() / ".cache" / "lcg") / "stores"


def _file_system(url: str) -> tuple[AbstractFileSystem, str]:
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url)
    except ImportError as error:
        raise ImportError(f"{url} needs a package that is not installed ({error}); install it with pip") from error
    except ValueError as error:
        raise ValueError(
            f"`path` {url!r} is no address that can be read ({error}); give a folder, s3://... or https://..."
        ) from error
    return files, root


def _blocks(files: AbstractFileSystem, source: str, url: str) -> Iterator[bytes]:
    """The bytes of a file far away; whatever goes wrong on the way becomes an OSError."""
    # Without blocks of its own a file over HTTP is one stream, which servers that know no ranges can give as well.
    options: dict[str, Any] = {"block_size": 0} if "http" in files.protocol else {}
    try:
        with files.open(source, "rb", **options) as file:
            while block := file.read(BLOCK):
                yield block
    except FileNotFoundError as error:
        cause = error.__cause__  # over HTTP a server that is not there is a file that is not there
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise _unreachable(source, cause) from error
        raise FileNotFoundError(f"no latent store at {url}: {source} is missing; look at the address") from error
    except ImportError as error:
        raise ImportError(f"{url} needs a package that is not installed ({error}); install it with pip") from error
    except Exception as error:  # every file system has errors of its own
        raise _unreachable(source, error) from error


def _unreachable(source: str, error: Exception) -> OSError:
    return OSError(
        f"cannot fetch {source} ({type(error).__name__}: {error}); look at the network and the address, and run the "
        "command again: it goes on from there"
    )


def _limited(blocks: Iterator[bytes], limit: int, name: str) -> Iterator[bytes]:
    """The same blocks, of which a stranger may not send without end."""
    size = 0
    for block in blocks:
        size += len(block)
        if size > limit:
            raise ValueError(f"{name} should have at most {limit} bytes, and more came; it is no file of this store")
        yield block


def _keep(blocks: Iterator[bytes], path: Path, sha256: str, bar: tqdm[Any]) -> None:
    """Writes a file that is put in place only if it is what the manifest says."""
    digest, aside = hashlib.sha256(), path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise ValueError(
                f"{path.name} came with SHA-256 {digest.hexdigest()}, the manifest says {sha256}; it is damaged over "
                "there or on the way: run the command again, and if that does not help upload the file again"
            )
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _size(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _name(url: str, manifest: bytes) -> str:
    """A folder's name that a person can read and that is of this address and this manifest only."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", url.rstrip("/").rpartition("/")[2])[:40].strip("-.") or "store"
    return f"{readable}-{hashlib.sha256(url.encode() + manifest).hexdigest()[:16]}"
