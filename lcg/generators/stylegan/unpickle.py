"""Reads an official pickle of a StyleGAN in a process of its own: pickle on stdin, safetensors on stdout.

A pickle is a program that calls what it names. Here it can name what is in `ALLOWED` and nothing else; what stands
there is a function of this file or a container of Python's. The official files also bring the source code of their
networks, for their own loader to execute; here it is text that nobody reads.

Storages are serialised once more, within the pickle, as `torch.save` of old did. They are read by `torch.load` with
weights_only, in that old format alone, and tensors are cut from them within their bounds.

So what is trusted is Python's unpickler, which is told here what it may call, and PyTorch's for storages. Should either
have a hole, the process has bounds: memory, processor time, no file that it could write, no network where the system
lets a process give that up, and Python itself refuses what those two have no need of: to open a file, import a module,
compile code, start a process, connect a socket.

It is run by its path, in isolated mode, and imports nothing of lcg.
"""

from __future__ import annotations

import ctypes
import io
import json
import math
import os
import pickle
import struct
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

REFUSED = 3
"""Exit code after a sentence on stderr that says what is wrong with the file."""
OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How what `torch.save` wrote before PyTorch 1.6 begins, and storages within pickles to this day."""
DEPTH = 12
"""Modules within modules; official networks have four."""
HARMLESS = ("object.__setattr__", "object.__delattr__")
"""Events that reading tensors causes; all others are refused, such as open, import, exec, socket and subprocess."""


class Refused(Exception):
    """The file is not what it should be; the message says what it is instead."""


def main() -> int:
    """Reads, checks and writes.

    The arguments are the name of the network, bytes of memory, seconds, and where packages are.
    """
    isolated = leave_network()
    sys.path[:] = json.loads(sys.argv[4])
    import torch  # what may be imported is imported before the file is read
    from safetensors.torch import save

    warnings.simplefilter("ignore")  # PyTorch's about storages
    warm_up(torch, save)
    set_bounds(int(sys.argv[2]), int(sys.argv[3]))
    content = sys.stdin.buffer.read()
    lock()
    try:
        network = network_of(unpickled(content), sys.argv[1])
        tensors: dict[str, Any] = {}
        about = dict(described(network, "", tensors, DEPTH))
        header = {"about": json.dumps(about), "isolated": json.dumps(isolated)}
        sys.stdout.buffer.write(save(tensors, metadata=header))
    except Refused as error:
        return say(str(error))
    except Exception as error:  # whatever damage does to an unpickler
        if isinstance(error, MemoryError | RecursionError) or "allocate memory" in str(error):
            return say(f"it asks for more memory than its reader may have ({type(error).__name__}); raise `memory`")
        return say(f"it is damaged or no pickle ({type(error).__name__}: {error})")
    return 0


def say(sentence: str) -> int:
    """Tells the parent process why nothing was written."""
    sys.stderr.write("\n" + json.dumps(sentence) + "\n")
    return REFUSED


def unpickled(content: bytes) -> Any:
    """What is in a pickle, made of nothing but containers, numbers, text, tensors and `Module`."""
    if content.startswith(b"PK\x03\x04"):
        raise Refused("it is an archive that torch.save wrote, not an official pickle; those hold G_ema as a network")
    return Reader(io.BytesIO(content)).load()


class Reader(pickle.Unpickler):
    """Knows the names in `ALLOWED`, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("dnnlib.tflib"):
            raise Refused(
                "it is of the TensorFlow era of StyleGAN and holds code to be executed by TensorFlow 1; make a PyTorch "
                "pickle of it with legacy.py of NVIDIA's stylegan3 where you would execute that, or get the file "
                "that NVIDIA offers for PyTorch, and convert that"
            )
        if (module, name) not in ALLOWED:
            raise Refused(
                f"it names {module}.{name}, which no official file needs; it was not called, and nothing was converted"
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise Refused("it refers to something outside the file, which no official file does")


class Module:
    """A network of the official code, as the state that it had: parameters, buffers, submodules and settings."""

    __slots__ = ("class_name", "state")

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state


def module_of(meta: Any) -> Module:
    """In the place of torch_utils.persistence._reconstruct_persistent_obj, which would execute meta["module_src"]."""
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise Refused("it holds an object whose state is no dictionary, which no official file does")
    return Module(str(meta.get("class_name")), meta["state"])


class Settings(dict):
    """In the place of dnnlib.EasyDict."""

    __slots__ = ()


def storage_of(content: Any) -> Any:
    """In the place of torch.storage._load_from_bytes, which would unpickle whatever there is."""
    import torch

    if not isinstance(content, bytes) or not content.startswith(OLD_FORMAT):
        raise Refused("it holds a tensor whose bytes are not as PyTorch writes them")
    try:
        storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise Refused(
            f"it holds a tensor whose bytes are not numbers alone ({reason}); nothing was executed"
        ) from error
    if not isinstance(storage, torch.storage.TypedStorage):
        raise Refused(f"it holds a tensor whose bytes are {type(storage).__name__} rather than numbers")
    return storage


def tensor_of(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    """In the place of torch._utils._rebuild_tensor_v2, which would enlarge a storage that is too small."""
    import torch

    if not isinstance(storage, torch.storage.TypedStorage):
        raise Refused("it holds a tensor without numbers")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(number) is int and number >= 0 for number in numbers):
        raise Refused("it holds a tensor of an impossible shape")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if count and (last >= len(storage) or count > len(storage)):
        raise Refused("it holds a tensor that is larger than its numbers")
    flat = torch.empty(0, dtype=storage.dtype).set_(storage.untyped()) if count else torch.empty(0, dtype=storage.dtype)
    return flat.as_strided(size, stride, offset) if count else flat.reshape(size)


def parameter_of(tensor: Any, *_: Any) -> Any:
    """In the place of torch._utils._rebuild_parameter: what it is made of."""
    return tensor


def bytes_of(text: str, encoding: str) -> bytes:
    """In the place of _codecs.encode, by which old pickles write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"it encodes text as {encoding!r}, which no official file does")
    return text.encode("latin1")


class NumberKind:
    """In the place of numpy.dtype: what a scalar is, by NumPy's code, and in which order its bytes are."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


def scalar_of(kind: Any, content: Any = None) -> bool | int | float:
    """In the place of numpy.core.multiarray.scalar: a number, as gains of official layers are."""
    code = NUMBER_CODES.get(kind.code) if isinstance(kind, NumberKind) else None
    if code is None or not isinstance(content, bytes):
        raise Refused("it holds a scalar of NumPy that is no number")
    number: bool | int | float = struct.unpack(kind.order + code, content)[0]
    return number


class Numbers:
    """In the place of NumPy's arrays, which official networks have among their settings: never read."""

    __slots__ = ()

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


NUMBER_CODES = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}
"""What `struct` calls NumPy's numbers."""
NUMPY: dict[str, Callable[..., Any]] = {"_reconstruct": Numbers, "scalar": scalar_of}
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): bytes_of,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): tensor_of,
    ("torch._utils", "_rebuild_parameter"): parameter_of,
    ("torch.storage", "_load_from_bytes"): storage_of,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): module_of,
    ("dnnlib.util", "EasyDict"): Settings,
    ("numpy", "ndarray"): Numbers,
    ("numpy", "dtype"): NumberKind,
    **{(f"numpy.{core}.multiarray", name): stands for core in ("core", "_core") for name, stands in NUMPY.items()},
}
"""What a pickle may name, and what stands in its place here."""


def network_of(top: Any, name: str) -> Module:
    """One of the networks of a file."""
    network = top.get(name) if isinstance(top, dict) else top
    if not isinstance(network, Module):
        known = [key for key, value in top.items() if isinstance(value, Module)] if isinstance(top, dict) else []
        raise Refused(f"it holds no network {name!r}; its networks are: {', '.join(map(str, known)) or 'none'}")
    return network


def described(module: Module, prefix: str, tensors: dict[str, Any], depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Class, constructor's arguments and settings of a module and all within it, by name; fills `tensors`."""
    if not depth:
        raise Refused("it holds modules within modules without end")
    import torch

    parts = [module.state.get(key) or {} for key in ("_parameters", "_buffers", "_modules")]
    if not all(isinstance(part, dict) for part in parts):
        raise Refused("it holds a network whose parts are no dictionaries")
    parameters, buffers, modules = parts
    for name, tensor in [*parameters.items(), *buffers.items()]:
        if isinstance(tensor, torch.Tensor):
            tensors[f"{prefix}{name}"] = tensor.clone(memory_format=torch.contiguous_format)
    settings = {key: value for key, value in module.state.items() if not str(key).startswith("_") and is_plain(value)}
    arguments = plain(module.state.get("_init_kwargs"))
    yield prefix.removesuffix("."), {"class": module.class_name, "arguments": arguments, "settings": settings}
    for name, child in modules.items():
        if isinstance(child, Module):
            yield from described(child, f"{prefix}{name}.", tensors, depth - 1)


def is_plain(value: Any) -> bool:
    """Whether it is what JSON has a number, a text or nothing for."""
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def plain(value: Any) -> Any:
    """A dictionary of dictionaries, lists and plain values; what else is there is left out."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value if is_plain(value) else None


def leave_network() -> bool:
    """Moves this process to where there is no network; False where the system does not let it."""
    if not sys.platform.startswith("linux"):
        return False
    new_network, new_user = 0x40000000, 0x10000000
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    return unshare(new_network) == 0 or unshare(new_network | new_user) == 0


def set_bounds(memory: int, seconds: int) -> None:
    """At most so many further bytes and seconds, no file longer than stdout's, no further process."""
    try:
        import resource
    except ImportError:  # Windows has no such bounds; the parent's clock holds there too
        return
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # those that are open stay so


def warm_up(torch: Any, save: Callable[..., bytes]) -> None:
    """Makes PyTorch import what it imports on first use, while it may."""
    file = io.BytesIO()
    pickle.dump(torch.nn.Parameter(torch.zeros(2)), file)
    old = io.BytesIO()
    torch.save(torch.FloatStorage(1), old, _use_new_zipfile_serialization=False)
    storage = torch.load(io.BytesIO(old.getvalue()), map_location="cpu", weights_only=True)
    save({"x": tensor_of(storage, 0, (1,), (1,)).clone()}, metadata={"about": json.dumps({})})


def lock() -> None:
    """From here on Python refuses what reading tensors does not need; there is no way back."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in HARMLESS:
            raise Refused(f"reading it led to {event}, which this process may not do; nothing was converted")

    sys.addaudithook(refuse)


if __name__ == "__main__":
    sys.exit(main())
