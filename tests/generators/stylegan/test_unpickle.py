"""The reader of pickles makes numbers of them and executes nothing; whatever else is in one is refused."""

from __future__ import annotations

import codecs
import contextlib
import io
import math
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from lcg import cli
from lcg.generators.stylegan import unpickle
from lcg.generators.stylegan.isolation import read_isolated
from tests.generators.stylegan.official import Persistent, as_official, pickled, stylegan2
from tests.generators.stylegan.reading import found_in

pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


# --- files that are no official ones ---------------------------------------------------------------------------------


class Evil:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def nested(mark: Path) -> bytes:
    """A pickle in the bytes of a tensor's storage."""
    from torch.storage import _load_from_bytes

    inner = pickle.dumps(Evil(os.mkdir, str(mark)))
    return pickled({"G_ema": Evil(_load_from_bytes, inner)})


def nested_in_the_old_format(mark: Path) -> bytes:
    from torch.storage import _load_from_bytes

    file = io.BytesIO()
    torch.save(Evil(os.mkdir, str(mark)), file, _use_new_zipfile_serialization=False)
    return pickled({"G_ema": Evil(_load_from_bytes, file.getvalue())})


MALICIOUS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "os.system": (lambda mark: pickled({"G_ema": Evil(os.system, f"mkdir {mark}")}), "names posix.system"),
    "eval": (lambda mark: pickled({"G_ema": Evil(eval, f"__import__('os').mkdir({str(mark)!r})")}), "builtins.eval"),
    "old protocol": (
        lambda mark: pickle.dumps(Evil(eval, f"open({str(mark)!r}, 'w')"), protocol=0),
        "__builtin__.eval",
    ),
    "getattr": (lambda mark: pickled({"G_ema": Evil(getattr, "x", "upper")}), "names builtins.getattr"),
    "among settings": (
        lambda mark: pickled(as_official(Persistent("Generator", harmless=Evil(os.mkdir, str(mark))))),
        "names posix.mkdir",
    ),
    "in a tensor": (nested, "bytes are not as PyTorch writes them"),
    "in a tensor, old format": (nested_in_the_old_format, "bytes are not numbers alone"),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_pickle_is_refused_and_executes_nothing(name: str, tmp_path: Path) -> None:
    make, message = MALICIOUS[name]
    mark = tmp_path / "executed"
    content = make(mark)
    with pytest.raises(unpickle.Refused, match=message):
        unpickle.unpickled(content)
    assert not mark.exists()
    if name not in ("getattr", "among settings"):  # the test could fail: Python's own reader executes them
        with contextlib.suppress(Exception):
            pickle.loads(content)
        assert mark.exists()


def rebuilt(**change: Any) -> bytes:
    """A tensor, rebuilt with other numbers than its own."""
    from torch._utils import _rebuild_tensor_v2
    from torch.storage import _load_from_bytes

    file = io.BytesIO()
    torch.save(torch.FloatStorage(6), file, _use_new_zipfile_serialization=False)
    arguments = {"storage": Evil(_load_from_bytes, file.getvalue()), "offset": 0, "size": (2, 3), "stride": (3, 1)}
    return pickled(Evil(_rebuild_tensor_v2, *{**arguments, **change}.values(), False, OrderedDict()))


def test_tensors_are_cut_from_their_storage() -> None:
    assert unpickle.unpickled(rebuilt()).shape == (2, 3)
    assert unpickle.unpickled(rebuilt(size=(0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (20, 3)}, "larger than its numbers"),
        ({"size": (10**9,), "stride": (0,)}, "larger than its numbers"),
        ({"offset": 1}, "larger than its numbers"),
        ({"offset": -1}, "impossible shape"),
        ({"stride": (-3, 1)}, "impossible shape"),
        ({"stride": (1,)}, "impossible shape"),
        ({"storage": "text"}, "a tensor without numbers"),
    ],
)
def test_tensors_beyond_their_storage_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(unpickle.Refused, match=message):
        unpickle.unpickled(rebuilt(**change))


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def load_from_bytes(content: Any) -> Evil:
    from torch.storage import _load_from_bytes

    return Evil(_load_from_bytes, content)


class Strange:
    """What the official loader is called with, as one likes."""

    def __init__(self, meta: Any) -> None:
        self.meta = meta

    def __reduce__(self) -> tuple[Any, ...]:
        return official_loader(), (self.meta,)


def official_loader() -> Callable[..., Any]:
    return cast(Callable[..., Any], Persistent("x").__reduce__()[0])


def endless() -> bytes:
    network = Persistent("x")
    for _ in range(unpickle.DEPTH):
        network = Persistent("x", modules={"a": network})
    return pickled({"G_ema": network})


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "another library's": (lambda: pickled({"G_ema": nn.Linear(1, 1)}), "names torch.nn.modules.linear.Linear"),
    "torch.save": (lambda: b"PK\x03\x04...", "an archive that torch.save wrote"),
    "TensorFlow's": (lambda: b"cdnnlib.tflib.network\nNetwork\n.", "TensorFlow era of StyleGAN"),
    "without networks": (lambda: pickled({"x": 1}), "no network 'G_ema'; its networks are: none"),
    "with other networks": (lambda: pickled({"G": Persistent("Generator")}), "its networks are: G$"),
    "a list": (lambda: pickled([1]), "its networks are: none"),
    "state of another kind": (lambda: pickled(Strange({"type": "class", "state": 3})), "state is no dictionary"),
    "parts of another kind": (
        lambda: pickled(Strange({"type": "class", "state": {"_modules": [1]}})),
        "parts are no dictionaries",
    ),
    "without end": (endless, "modules within modules without end"),
    "persistent id": (lambda: b"Px\n.", "refers to something outside the file"),
    "numbers of another kind": (lambda: pickled(load_from_bytes(saved([1, 2]))), "bytes are list rather than numbers"),
    "text for bytes": (lambda: pickled(load_from_bytes("text")), "bytes are not as PyTorch writes them"),
    "encoded text": (lambda: pickled(Evil(codecs.encode, "x", "rot13")), "encodes text as 'rot13'"),
    "scalar of text": (lambda: pickled(np.str_("x")), "a scalar of NumPy that is no number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_file_is_refused_with_a_sentence(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(unpickle.Refused, match=message):
        found_in(make())


def test_scalars_and_arrays_of_numpy_are_read_or_left() -> None:
    values = [np.float64(0.1), np.float32(0.5), np.int64(-3), np.int32(7), np.bool_(True), np.zeros(3)]
    for protocol in (2, 3, 4):
        *numbers, array_ = unpickle.unpickled(pickled(values, protocol))
        assert numbers == [0.1, 0.5, -3, 7, True] and isinstance(array_, unpickle.Numbers)


def test_settings_that_json_has_no_word_for_are_left_out() -> None:
    network = Persistent("Generator", arguments={"a": {"b": [1, object]}}, here=1.5, not_here=[1], nor_here=math.inf)
    about = found_in(pickled_with_type(network)).about[""]
    assert about == {
        "class": "Generator",
        "arguments": {"a": {"b": [1, None]}},
        "settings": {"training": False, "here": 1.5},
    }


def pickled_with_type(network: Persistent) -> bytes:
    """`object` stands for anything that is allowed and no number."""
    network.arguments["a"]["b"][1] = set()
    return pickled({"G_ema": network})


# --- the process apart -----------------------------------------------------------------------------------------------


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "some.pkl"
    path.write_bytes(content)
    return path


def stands_in(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program in the reader's place."""
    script = tmp_path / "reader.py"
    script.write_text(code)
    monkeypatch.setattr(unpickle, "__file__", str(script))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import time; time.sleep(60)", "was not read within 1 s; raise `seconds`"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "was stopped, by its bound of 1 s of processor time or for want of memory",
        ),
        ("raise KeyError('broken')", r"ended with code 1 \(KeyError: 'broken'\)"),
        ("print('no safetensors at all')", "its reader wrote nothing usable"),
    ],
)
def test_a_reader_that_fails_is_told_of(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands_in(code, tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=message):
        read_isolated(written(tmp_path, b"."), "G_ema", 2**30, 1)


def test_the_reader_sees_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    stands_in("import os; raise KeyError('SECRET' in os.environ)", tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="KeyError: False"):
        read_isolated(written(tmp_path, b"."), "G_ema", 2**30, 10)


def test_a_malicious_file_ends_the_command_with_a_sentence_and_executes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "executed"
    path = written(tmp_path, pickled({"G_ema": Evil(os.system, f"mkdir {mark}")}))
    assert cli.main(["convert-stylegan", str(path), str(tmp_path / "out.safetensors")]) == cli.USAGE_ERROR
    assert "names posix.system, which no official file needs; it was not called" in capsys.readouterr().err
    assert not mark.exists() and not (tmp_path / "out.safetensors").exists()


@pytest.mark.slow
def test_a_truncated_file_is_damaged_and_a_greedy_one_is_held(tmp_path: Path) -> None:
    whole = pickled(as_official(stylegan2(channels=(4, 4))))
    with pytest.raises(ValueError, match="damaged or no pickle"):
        read_isolated(written(tmp_path, whole[: len(whole) // 2]), "G_ema", 2**30, 60)
    six = saved(torch.FloatStorage(6))
    greedy = six.replace(b"K\x06Nt", b"\x8a\x05\x00\x00\x00\x00\x01Nt")  # 2^32 numbers
    assert greedy != six
    with pytest.raises(ValueError, match="asks for more memory than its reader may have"):
        read_isolated(written(tmp_path, pickled(load_from_bytes(greedy))), "G_ema", 2**30, 60)


READER = """
import importlib.util, os, socket, subprocess, sys
specification = importlib.util.spec_from_file_location("unpickle", sys.argv[1])
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
"""
LOCKED = """
tries = {
    "open": lambda: open("/etc/hostname"),
    "os.system": lambda: os.system("true"),
    "subprocess.Popen": lambda: subprocess.Popen(["true"]),
    "socket": lambda: socket.socket(),
    "import": lambda: __import__("wave"),
    "exec": lambda: exec("1"),
    "os.remove": lambda: os.remove("/nothing"),
}
module.lock()
for name, attempt in tries.items():
    try:
        attempt()
    except module.Refused as error:
        print(name, "refused")
    else:
        print(name, "done")
"""
BOUND = """
module.set_bounds(2**28, 60)
for attempt in (lambda: open("/etc/hostname"), socket.socket, lambda: bytearray(2**29)):
    try:
        attempt()
    except (OSError, MemoryError) as error:
        print(type(error).__name__)
"""
OFFLINE = "print(module.leave_network(), [name for _, name in socket.if_nameindex()])"


def reader_says(code: str) -> list[str]:
    """What a process prints that has the reader's functions in `module`."""
    command = [sys.executable, "-c", READER + code, unpickle.__file__]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_python_refuses_what_reading_tensors_does_not_need() -> None:
    lines = reader_says(LOCKED)
    assert len(lines) == 7 and all(line.endswith("refused") for line in lines), lines


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems know fewer bounds")
def test_the_system_refuses_files_sockets_and_memory() -> None:
    assert reader_says(BOUND) == ["OSError", "OSError", "MemoryError"]


def test_a_reader_that_says_so_has_no_network() -> None:
    (line,) = reader_says(OFFLINE)
    assert line.startswith("False") or line == "True ['lo']"
