"""Where exported models are found by name: first in this package, then in the folder of one's own.

`$LCG_MODELS` is that folder, by default `lcg/models` in `$XDG_CACHE_HOME` or `~/.cache`. A folder that exists is taken
for what it is before its name is looked up, so that `runs/mine` and `mine` are told apart by what is there.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

EXPORTED = "model.json"
"""The file by which the folder of an exported model is known."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)  # no separator, and no dot in front
PACKAGED = Path(__file__).parent


def is_exported(path: str | PathLike[str]) -> bool:
    """Whether this is the folder of an exported model."""
    return (Path(path) / EXPORTED).is_file()


def own_folder() -> Path:
    """The folder of one's own models; it need not exist. Raises NotADirectoryError for a file."""
    if os.environ.get("LCG_MODELS"):
        folder = Path(os.environ["LCG_MODELS"]).expanduser()
        if folder.is_file():
            raise NotADirectoryError(f"LCG_MODELS must be a folder of models, got the file {folder}; change it")
        return folder
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path("~/.cache").expanduser()) / "lcg" / "models"


def known_models() -> dict[str, Path]:
    """The folders of all models that have a name; of two with one name that of the package."""
    return dict(sorted({**dict(_models_in(own_folder())), **dict(_models_in(PACKAGED))}.items()))


def find_model(model: str | PathLike[str]) -> Path:
    """The folder of a model.

    Args:
        model: its folder, model.json in it, or its name.

    Raises:
        FileNotFoundError: there is no such model.
        NotADirectoryError: as `own_folder`.
    """
    text = os.fspath(model)
    if is_exported(text):
        return Path(text)
    if Path(text).name == EXPORTED and is_exported(Path(text).parent):
        return Path(text).parent
    if NAME.fullmatch(text) and is_exported(PACKAGED / text):
        return PACKAGED / text
    known = known_models()
    if text in known:
        return known[text]
    if not NAME.fullmatch(text) or Path(text).exists():
        raise FileNotFoundError(f"no exported model at {text}; make one with `lcg export --out {text}`")
    near = difflib.get_close_matches(text, known, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ";"
    raise FileNotFoundError(
        f"no model {text!r}{hint} {own_folder()} and the package have: {', '.join(known) or 'none'}; "
        f"make one with `lcg export --name {text}`, or give the folder of one"
    )


def named_folder(name: str) -> Path:
    """Where a model of one's own with this name belongs. Raises ValueError for what cannot be a name."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"`name` must be letters, digits, '.', '_' and '-', and begin with a letter or digit, got {name[:120]!r}; "
            "to choose a folder, give --out"
        )
    if is_exported(PACKAGED / name):
        raise ValueError(
            f"`name` {name!r} is that of a model of the package, which would be found first; choose another"
        )
    return own_folder() / name


def _models_in(folder: Path) -> Iterator[tuple[str, Path]]:
    if folder.is_dir():
        for path in folder.iterdir():
            if NAME.fullmatch(path.name) and is_exported(path):
                yield path.name, path
