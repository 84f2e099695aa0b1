"""What is computed of real images is computed once, whoever asks."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch

from lcg.benchmarks import cache as module
from lcg.benchmarks.cache import Cache, Tensors


class Source:
    """Makes an entry, and counts how often."""

    def __init__(self, value: float = 1.0, size: int = 4) -> None:
        self.value, self.size, self.made = value, size, 0

    def __call__(self) -> Tensors:
        self.made += 1
        return {"x": torch.full((self.size,), self.value), "empty": torch.zeros(0, 3)}


def test_equal_keys_share_an_entry_from_run_to_run(tmp_path: Path) -> None:
    source = Source(2.5)
    for cache in (Cache(tmp_path, {"judge": "a"}), Cache(tmp_path, {"judge": "a"})):  # another process, later
        for _ in range(2):
            entry = cache.get(source, "features", 32)
            assert torch.equal(entry["x"], torch.full((4,), 2.5)) and entry["empty"].shape == (0, 3)
    assert source.made == 1


def test_whatever_changes_has_another_name(tmp_path: Path) -> None:
    source, cache = Source(), Cache(tmp_path, {"judge": "a"})
    cache.get(source, "features", 32)
    cache.get(source, "features", 33)
    cache.get(source, "latents", 32)
    Cache(tmp_path, {"judge": "b"}).get(source, "features", 32)
    assert source.made == 4
    paths = {cache.path("features", 32), cache.path("features", 33), Cache(tmp_path, {}).path("features", 32)}
    assert len(paths) == 3 and cache.path({"a": 1, "b": 2}) == cache.path({"b": 2, "a": 1})


def test_what_is_no_json_primitive_is_refused_as_a_key(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        Cache(tmp_path, {}).path(torch.zeros(1))


@pytest.mark.parametrize("damage", [b"", b"no tensors", None])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    source = Source()
    Cache(tmp_path, {}).get(source, "x")
    path = Cache(tmp_path, {}).path("x")
    path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
    assert torch.equal(Cache(tmp_path, {}).get(source, "x")["x"], torch.ones(4)) and source.made == 2
    assert Cache(tmp_path, {}).get(source, "x") and source.made == 2


def test_what_a_killed_writer_left_does_no_harm(tmp_path: Path) -> None:
    path = Cache(tmp_path, {}).path("x")
    (tmp_path / f".{path.name}.123.tmp").write_bytes(b"half")
    source = Source()
    assert len(Cache(tmp_path, {}).get(source, "x")["x"]) == 4 and source.made == 1


def test_memory_is_bounded_and_the_oldest_entry_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 2 * 400)
    cache = Cache(tmp_path, {})
    sources = {name: Source(size=100) for name in "abc"}  # 400 bytes each
    first = cache.get(sources["a"], "a")
    cache.get(sources["b"], "b")
    assert cache.get(sources["a"], "a") is first  # at hand
    cache.get(sources["c"], "c")
    assert {cache.path(name) for name in "ac"} == set(cache._at_hand)  # b was not asked for longest
    assert cache.get(sources["a"], "a") is first
    assert torch.equal(cache.get(sources["b"], "b")["x"], torch.ones(100))
    assert [source.made for source in sources.values()] == [1, 1, 1]  # b is read, not made


def test_an_entry_larger_than_memory_is_kept_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 10)
    cache = Cache(tmp_path, {})
    for name in "ab":
        assert len(cache.get(Source(), name)["x"]) == 4
    assert set(cache._at_hand) == {cache.path("b")}


def _ask(folder: str, value: float) -> None:
    for number in range(40):
        Cache(Path(folder), {}).get(Source(value, 2000), number)


def test_two_writers_do_no_harm(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_ask, args=(str(tmp_path), 1.0)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    never = Source(7.0)
    for number in range(40):
        assert torch.equal(Cache(tmp_path, {}).get(never, number)["x"], torch.ones(2000))
    assert never.made == 0 and not list(tmp_path.glob(".*.tmp"))
