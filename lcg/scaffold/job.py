"""`lcg new my-generator`: everything that a generator of one's own needs, and that already works."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

TEMPLATES = {path.name: path for path in sorted((Path(__file__).parent / "template").glob("*.j2"))}
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
OWN = {"adapter.py": "{module}.py", "test.py": "test_{module}.py"}
"""Files that are named after the generator; the others are named as their templates."""


def new_job(name: str) -> None:
    """Begins an adapter of your own generator: lcg new my-generator.

    Writes the folder NAME with an adapter that works at once, its tests, configs for everything from images to a
    benchmark, and a README with the commands in order.

    Args:
        name: of the folder, in lower case, such as my-generator; the adapter is then my_generator.MyGenerator.
    """
    folder = write_scaffold(name, Path())
    print(f"{folder} holds {', '.join(sorted(path.name for path in folder.iterdir()))}")
    print(f"cd {folder} && pytest . && less README.md")


def write_scaffold(name: str, where: Path) -> Path:
    """Writes WHERE/NAME.

    Args:
        name: of the folder; words of lower-case letters and digits, joined by hyphens or underscores.
        where: an existing folder.

    Returns:
        The new folder.

    Raises:
        ValueError: the name is none that Python can import, or one that it imports already.
        FileExistsError: there is such a file or folder; nothing is overwritten.
        OSError: it cannot be written.
    """
    module, class_name = names(name)
    folder, files = where / name, rendered(name, module, class_name)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already and is left as it is; choose another name")
    if importlib.util.find_spec(module) is not None or f"{module}.py.j2" in TEMPLATES:
        raise ValueError(f"`name` must be new to Python, but {module!r} can be imported already; choose another")
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def names(name: str) -> tuple[str, str]:
    """The module and the class of a generator, my_generator and MyGenerator of "my-generator"; see `write_scaffold`."""
    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise ValueError(
            "`name` must be words of lower-case letters and digits joined by hyphens, and none that Python has for "
            f"itself; such as my-generator, got {name!r}"
        )
    return module, "".join(word.capitalize() for word in module.split("_"))


def rendered(name: str, module: str, class_name: str) -> dict[str, str]:
    """The files of the folder, by name."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # no HTML
    files = {}
    for path in TEMPLATES.values():
        file = OWN.get(path.stem, path.stem).format(module=module)
        text = environment.from_string(path.read_text(encoding="utf-8"))
        files[file] = text.render(name=name, module=module, class_name=class_name)
    return files
