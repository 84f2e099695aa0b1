"""Arrays of others: the same rows whatever the format, no code of theirs run, little memory taken."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lcg.data.arrays import Rows, open_array


def rows(count: int = 10, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *(shape or (4,)))).astype(np.float32)


@pytest.fixture(params=["npy", "npz", "compressed.npz", "safetensors"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Saves an array in one of the formats; gives the path."""

    def save(array: np.ndarray) -> Path:
        path = tmp_path / f"latents.{request.param}"
        if request.param == "npy":
            np.save(path, array)
        elif request.param == "safetensors":
            save_file({"w": torch.from_numpy(array)}, path)
        else:
            (np.savez if request.param == "npz" else np.savez_compressed)(path, w=array)
        return path

    return save


@pytest.mark.parametrize("shape", [(4,), (18, 5), (2, 3, 3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_rows_in_any_order(saved: Any, shape: tuple[int, ...], dtype: type) -> None:
    array = rows(10, *shape).astype(dtype)
    file = open_array(saved(array))
    assert file.shape == array.shape
    for start, stop in ((0, 3), (3, 10), (7, 8), (2, 99)):
        part = file.rows(start, stop)
        assert part.dtype == dtype and np.array_equal(part, array[start:stop])


def test_rows_of_an_array_that_is_stored_column_by_column(tmp_path: Path) -> None:
    array = rows(10, 3, 2)
    np.save(tmp_path / "w.npy", np.asfortranarray(array))
    part = open_array(tmp_path / "w.npy").rows(2, 7)
    assert np.array_equal(part, array[2:7]) and part.flags.writeable


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    array = torch.from_numpy(rows()).bfloat16()
    save_file({"w": array}, tmp_path / "w.safetensors")
    assert np.array_equal(open_array(tmp_path / "w.safetensors").rows(2, 5), array[2:5].float().numpy())


def test_several_files_are_one_after_another(tmp_path: Path) -> None:
    array = rows(10)
    for name, part in (("a", array[:3]), ("b", array[3:3]), ("c", array[3:])):
        np.save(tmp_path / f"{name}.npy", part)
    joined = Rows([open_array(tmp_path / f"{name}.npy") for name in "abc"])
    assert len(joined) == 10 and joined.shape == (4,)
    for start, stop in ((0, 3), (2, 4), (0, 10), (9, 10)):
        assert np.array_equal(joined.rows(start, stop), array[start:stop])
    assert joined.where(2).startswith("row 2 of ") and joined.where(2).endswith("a.npy")
    assert joined.where(3).startswith("row 0 of ") and joined.where(3).endswith("c.npy")


def test_the_member_is_chosen_by_name(tmp_path: Path) -> None:
    a, b = rows(3), rows(5)
    np.savez(tmp_path / "s.npz", a=a, b=b)
    save_file({"a": torch.from_numpy(a), "b": torch.from_numpy(b)}, tmp_path / "s.safetensors")
    for name in ("s.npz", "s.safetensors"):
        assert np.array_equal(open_array(tmp_path / name, "b").rows(0, 5), b)
        with pytest.raises(ValueError, match=r"holds 2 arrays \(a, b\); say which with `member`"):
            open_array(tmp_path / name)
        with pytest.raises(ValueError, match="holds no array 'c'; it holds: a, b"):
            open_array(tmp_path / name, "c")
    np.save(tmp_path / "s.npy", a)
    with pytest.raises(ValueError, match="one array without a name, got the name 'a'; leave it out"):
        open_array(tmp_path / "s.npy", "a")


class Malice:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    objects = np.array([Malice(harm)], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "objects.npz", w=objects)
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Malice(harm)))
    with zipfile.ZipFile(tmp_path / "bare.npz", "w") as archive:
        archive.writestr("w.npy", pickle.dumps(Malice(harm)))
    torch.save(Malice(harm), tmp_path / "torch.npz")
    for name in ("objects.npy", "objects.npz", "bare.npy", "bare.npz", "torch.npz"):
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            open_array(tmp_path / name)
    assert not harm.exists()
    np.load(tmp_path / "objects.npy", allow_pickle=True)  # the danger is real
    assert harm.is_dir()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors"])
@pytest.mark.parametrize("data", [b"", b"text", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\xff" * 100])
def test_what_is_none_of_the_formats_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        open_array(tmp_path / name)


def test_a_file_that_was_cut_off_is_refused(saved: Any) -> None:
    path = saved(rows(1000))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="latents"):
        open_array(path).rows(0, 1000)


def test_a_member_with_another_checksum_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=rows(1000))
    data = bytearray((tmp_path / "w.npz").read_bytes())
    data[5000] ^= 1
    (tmp_path / "w.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"w\.npz, 'w' is damaged: .*copy the file again"):
        open_array(tmp_path / "w.npz").rows(0, 1000)


def test_what_holds_no_numbers_in_rows_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.arange(5))
    np.save(tmp_path / "one.npy", np.float32(1))
    save_file({"w": torch.arange(5)}, tmp_path / "i.safetensors")
    np.savez(tmp_path / "f.npz", w=np.asfortranarray(rows(5)))
    for name, message in {
        "i.npy": "holds numbers of type int64, expected floating-point numbers; save it as float32",
        "one.npy": "must have a row per sample",
        "i.safetensors": "holds numbers of type I64, expected floating-point",
        "f.npz": "is stored column by column.*save np.ascontiguousarray of it",
    }.items():
        with pytest.raises(ValueError, match=message):
            open_array(tmp_path / name)
    (tmp_path / "x.pt").touch()
    with pytest.raises(ValueError, match=r"x\.pt must end in \.npy, \.npz, \.safetensors"):
        open_array(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="no file at"):
        open_array(tmp_path / "none.npy")


def test_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows(3))
    np.save(tmp_path / "b.npy", rows(3, 5))
    np.save(tmp_path / "none.npy", rows(0))
    with pytest.raises(ValueError, match=r"b\.npy has rows of shape \(5,\), .*a\.npy of \(4,\); import files of one"):
        Rows([open_array(tmp_path / "a.npy"), open_array(tmp_path / "b.npy")])
    with pytest.raises(ValueError, match="has no rows; there is nothing to import"):
        Rows([open_array(tmp_path / "none.npy")])


def test_an_archive_is_unpacked_as_it_is_read(tmp_path: Path) -> None:
    """64 MiB of zeros take 64 kB there; a part of them takes what the part takes."""
    np.savez_compressed(tmp_path / "w.npz", w=np.zeros((2**18, 64), np.float32))
    file = open_array(tmp_path / "w.npz")
    tracemalloc.start()
    for start in range(0, 2**18, 2**14):
        assert not file.rows(start, start + 2**14).any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


@pytest.mark.parametrize("version", [1, 2])
def test_a_header_that_lies_takes_no_memory(tmp_path: Path, version: int) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2147483647, 2147483647), }\n"
    length = len(header).to_bytes(2 * version, "little") if version == 1 else (2**32 - 1).to_bytes(4, "little")
    data = b"\x93NUMPY" + bytes([version, 0]) + length + header
    (tmp_path / "w.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("w.npy", data)
    for name in ("w.npy", "w.npz"):
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            open_array(tmp_path / name)
