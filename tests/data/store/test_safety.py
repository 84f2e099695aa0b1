"""Stores from strangers, disks that fill up and writers that do not know of each other: a clear error, nothing lost."""

import contextlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcg.data.store import LatentStore, LatentStoreWriter, manifest
from lcg.data.store.manifest import Manifest
from lcg.data.store.verify import inspect
from lcg.schema import Attribute, Schema

SCHEMA = json.loads(Path(manifest.__file__).with_name("manifest.schema.json").read_text())
FUZZ = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested lists and dictionaries."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of `value` with `new` at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


def sound_or_refused(folder: Path, latents: np.ndarray) -> bool:
    """Opens and reads a store that may be damaged: it is refused in words, or what it gives has its promised shape."""
    try:
        store = LatentStore.open(folder)
        z = store.latents()
        store.latents(np.arange(len(store))[::-1])
    except (ValueError, FileNotFoundError) as error:
        assert str(folder) in str(error)
        return False
    assert z.shape == (len(store), *store.latent_shape) and z.nbytes <= 2 * latents.nbytes
    return True


# --- fuzzing ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["plain", "whitened"])
def victim(request: pytest.FixtureRequest, stores: Any, tmp_path: Path) -> tuple[Path, np.ndarray]:
    store, latents, _ = stores.write(tmp_path / "s", sizes=(5, 3), whiten=request.param)
    return store.path, latents


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_changed_manifests(victim: tuple[Path, np.ndarray], data: st.DataObject) -> None:
    """Any value of a manifest in place of any other; what is accepted keeps to the JSON schema."""
    folder, latents = victim
    sound = (folder / "manifest.json").read_text()
    entries = json.loads(sound)
    place = data.draw(st.sampled_from(places(entries)))
    fuzzed = put(entries, place, data.draw(json_values | st.sampled_from([entries, *entries.values()])))
    (folder / "manifest.json").write_text(json.dumps(fuzzed))
    try:
        sound_or_refused(folder, latents)
        try:
            Manifest.from_json(json.dumps(fuzzed))
        except ValueError:
            return
        jsonschema.validate(fuzzed, SCHEMA)
    finally:
        (folder / "manifest.json").write_text(sound)


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_changed_bytes(victim: tuple[Path, np.ndarray], data: st.DataObject) -> None:
    """Bytes of any file replaced, inserted or cut off: opening ends well, and reading everything finds it."""
    folder, latents = victim
    path = data.draw(st.sampled_from(sorted(folder.glob("[!.]*"))))
    sound = path.read_bytes()
    start = data.draw(st.integers(0, min(len(sound) - 1, 400)))
    stop = data.draw(st.sampled_from([start, start + 1, start + 8, len(sound)]))
    changed = sound[:start] + data.draw(st.binary(max_size=16)) + sound[stop:]
    path.write_bytes(changed)
    try:
        sound_or_refused(folder, latents)
        unharmed = changed[:64] == sound[:64] if path.suffix == ".sha256" else changed == sound
        assert unharmed == inspect(folder).sound
    finally:
        path.write_bytes(sound)


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_changed_headers(victim: tuple[Path, np.ndarray], data: st.DataObject) -> None:
    """Any value of a shard's header in place of any other."""
    folder, latents = victim
    path = folder / "shard-00000.safetensors"
    sound = path.read_bytes()
    length = int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8 : 8 + length])
    place = data.draw(st.sampled_from(places(header)))
    numbers = st.integers(-(2**64), 2**64) | st.integers(0, 200)
    text = json.dumps(put(header, place, data.draw(json_values | numbers))).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + sound[8 + length :])
    try:
        sound_or_refused(folder, latents)
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.safetensors", "statistics.safetensors"])
def test_a_pickle_in_place_of_a_file_is_not_run(stores: Any, tmp_path: Path, name: str) -> None:
    stores.write(tmp_path / "s", whiten=True)
    (tmp_path / "s" / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match=name):
        LatentStore.open(tmp_path / "s")
    assert inspect(tmp_path / "s").problems and not (tmp_path / "sprung").exists()


GREEDY = {
    "manifest.json": [
        b"[" + b"[]," * (5 * 2**20),
        b'{"format": "lcg-latents", "a": [' + b"{}," * (5 * 2**20),
        b"9" * 2**23,
    ],
    "shard-00000.safetensors": [(2**20).to_bytes(8, "little") + b"[" + b"[]," * (2**20 // 3), b"\xff" * 2**20],
}


@pytest.mark.parametrize(("name", "which"), [(name, i) for name, all_of in GREEDY.items() for i in range(len(all_of))])
def test_no_file_can_take_the_memory(stores: Any, tmp_path: Path, name: str, which: int) -> None:
    """The address space of the reader is limited to a gibibyte more than it has after its imports."""
    stores.write(tmp_path / "s")
    (tmp_path / "s" / name).write_bytes(GREEDY[name][which])
    script = (
        "import resource, sys\n"
        "from lcg.data.store import LatentStore\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + 2**30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
        "try:\n"
        "    LatentStore.open(sys.argv[1])\n"
        "except ValueError as error:\n"
        "    print('refused', error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "s")], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("refused"), run.stderr


# --- disks ------------------------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def told_by_child(work: Any) -> str:
    """Runs `work` in a forked process, whose limits and user end with it; what it raised, as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_a_full_disk_loses_the_last_shard_only(stores: Any, tmp_path: Path) -> None:
    """A limit on the size of files, as real as a full disk: the write of a shard is cut short."""
    store, _, _ = stores.write(tmp_path / "s", sizes=(5,))
    large, large_labels = stores.rows(4000)

    def work() -> None:
        writer = stores.writer(tmp_path / "s")
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        writer.append(large, large_labels, np.arange(5, 4005))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = files_of(store.path)
    assert told_by_child(work).startswith("OSError: [Errno 27]")
    assert files_of(store.path) == before
    writer = stores.writer(tmp_path / "s")
    writer.append(large, large_labels, np.arange(5, 4005))
    assert len(writer.finish()) == 4005
    writer.finish().verify()


@pytest.mark.parametrize("victim", [1, 2, 3])
def test_no_space_left_at_any_file(stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int) -> None:
    """Shard, its folder's entry, manifest: the fsync that fails tells that the disk is full."""
    store, latents, labels = stores.write(tmp_path / "s", sizes=(5,))
    writer, calls, true_fsync = stores.writer(tmp_path / "s"), 0, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == victim:
            raise OSError(28, "No space left on device")
        true_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left on device"):
        writer.append(latents, labels, np.arange(5, 10))
    monkeypatch.undo()
    assert not list(store.path.glob(".*.tmp")) and len(LatentStore.open(store.path)) == 5
    again = stores.writer(tmp_path / "s")
    again.append(latents, labels, np.arange(5, 10))
    again.finish().verify()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_may_not_be_written(stores: Any, tmp_path: Path) -> None:
    store, _, _ = stores.write(tmp_path / "s", sizes=(5,))
    for folder in (store.path, *store.path.parents):
        with contextlib.suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o055)
    before = files_of(store.path)

    def nobody(work: Any) -> Any:
        def as_nobody() -> None:
            os.setgid(65534)
            os.setuid(65534)
            work()

        return as_nobody

    for path in (tmp_path / "s", tmp_path / "new"):
        said = told_by_child(nobody(lambda path=path: stores.writer(path)))
        assert said.startswith(f"PermissionError: [Errno 13] cannot write a latent store to {path}: Permission denied")
    assert told_by_child(nobody(lambda: LatentStore.open(tmp_path / "s").verify())) == "nothing"
    assert files_of(store.path) == before and not (tmp_path / "new").exists()


# --- two writers ------------------------------------------------------------------------------------------------------


WRITER = """
import pathlib, sys
import numpy as np
from lcg.data.store import LatentStoreWriter
from lcg.schema import Attribute, Schema
path, value, stop = sys.argv[1], float(sys.argv[2]), pathlib.Path(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
try:
    writer = LatentStoreWriter(path, (64,), Schema((Attribute("a"),)), {})
    while not stop.exists():
        index = np.arange(writer.count, writer.count + 200)
        writer.append(np.full((200, 64), value, "f4"), np.zeros((200, 1)), index)
        print(writer.count - 200, writer.count, flush=True)
except RuntimeError as error:
    print("told", error)
"""


@pytest.mark.parametrize("attempt", range(2))
def test_of_two_processes_one_goes_on_and_loses_nothing(tmp_path: Path, attempt: int) -> None:
    """Both begin at the same moment. What a process was told to be stored is there in the end, as it wrote it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "s", value, tmp_path / "stop"], **pipes)
        for value in "12"
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    while all(process.poll() is None for process in processes):
        time.sleep(0.02)
    (tmp_path / "stop").touch()
    said = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    told = [lines.pop() for lines in said if lines and lines[-1].startswith("told")]
    assert len(told) == 1 and told[0].startswith("told another process writes the latent store at")
    store = LatentStoreWriter(tmp_path / "s", (64,), Schema((Attribute("a"),)), {}).finish()
    store.verify()
    z = store.latents()[:, 0]
    for value, lines in zip((1, 2), said, strict=True):
        for begin, end in (map(int, line.split()) for line in lines):
            assert (z[begin:end] == value).all()
    assert len(z) == 200 * sum(map(len, said))
