"""Files that can tell whether they are whole."""

import io
import os
import zipfile
from pathlib import Path

import pytest
import torch

from lcg.sealed import SEAL, DamagedError, check_seal, load_sealed, sealed

CONTENT = {"state_dict": {"w": torch.arange(1000.0)}, "global_step": 7, "names": ["a", "b"]}


class Runs:
    """Unpickled, it would leave a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.ckpt"
    path.write_bytes(sealed(CONTENT))
    return path


@pytest.mark.parametrize("mmap", [False, True])
def test_a_sealed_file_is_a_file_of_torch_save(path: Path, mmap: bool) -> None:
    for content in (load_sealed(path, mmap=mmap), torch.load(path, weights_only=True, mmap=mmap)):
        assert torch.equal(content["state_dict"]["w"], CONTENT["state_dict"]["w"]) and content["global_step"] == 7
    assert check_seal(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and len(archive.comment) == SEAL


def test_what_others_have_written_has_no_seal_and_is_read(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "b.ckpt")
    assert not check_seal(tmp_path / "b.ckpt") and load_sealed(tmp_path / "b.ckpt")["global_step"] == 7


def test_every_flipped_bit_is_found(path: Path) -> None:
    whole = path.read_bytes()
    for byte in (*range(0, len(whole) - SEAL, 97), len(whole) - SEAL - 1, len(whole) - 1):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 4]) + whole[byte + 1 :])
        with pytest.raises(DamagedError, match=r"a\.ckpt: (its SHA-256 is not the one it was saved|it was cut off)"):
            load_sealed(path)


def test_every_truncation_is_found(path: Path) -> None:
    whole = path.read_bytes()
    for length in (
        *range(0, len(whole) - SEAL, 101),
        len(whole) // 3,
        len(whole) - SEAL,
        len(whole) - 60,
        len(whole) - 1,
    ):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError, match=r"cannot be read|nothing in it was run|cut off"):
            load_sealed(path)


@pytest.mark.parametrize("seal", [False, True])
def test_what_a_pickle_would_run_is_not_run(tmp_path: Path, seal: bool) -> None:
    evil, path = {"state_dict": Runs(tmp_path / "ran")}, tmp_path / "evil.ckpt"
    buffer = io.BytesIO()
    torch.save(evil, buffer)
    path.write_bytes(sealed(evil) if seal else buffer.getvalue())
    with pytest.raises(DamagedError, match="no archive of tensors and plain values; nothing in it was run"):
        load_sealed(path)
    assert not (tmp_path / "ran").exists()
    load_sealed(path, weights_only=False)  # the test would notice
    assert (tmp_path / "ran").exists()


def test_what_holds_no_mapping_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(DamagedError, match="it holds a list, not a checkpoint"):
        load_sealed(tmp_path / "list.ckpt")
    with pytest.raises(FileNotFoundError):
        load_sealed(tmp_path / "none.ckpt")
