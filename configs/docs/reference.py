"""Reference pages made of what stands in the code: public names, configs, the formula language, formats of files."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from commands import code, escaped

from lcg.editing import EditSession
from lcg.schema import Attribute, Schema

ORDER = (  # of a user's path; packages and modules that are not named here follow
    "lcg",
    "lcg.schema",
    "lcg.settings",
    "lcg.pipeline",
    "lcg.pipeline.pipeline",
    "lcg.pipeline.drawing",
    "lcg.pipeline.sessions",
    "lcg.pipeline.fitted",
    "lcg.results",
    "lcg.results.samples",
    "lcg.results.edited",
    "lcg.results.beliefs",
    "lcg.guidance",
    "lcg.guidance.phrases",
    "lcg.editing",
    "lcg.generation",
    "lcg.generators",
    "lcg.generators.stylegan",
    "lcg.generators.diffusion_autoencoder",
    "lcg.data",
    "lcg.data.store",
    "lcg.labels",
    "lcg.metrics",
    "lcg.models",
    "lcg.transfer",
    "lcg.benchmarks",
    "lcg.benchmarks.worlds",
    "lcg.benchmarks.measures",
    "lcg.modules",
    "lcg.diffusion",
    "lcg.diffusion.samplers",
    "lcg.nets",
    "lcg.baselines",
)
AT_THE_TOP = frozenset({"lcg.checkpoint", "lcg.settings", "lcg.weights"})
"""Modules of `lcg` itself that are shown beside those whose names it exports; the others serve these."""

INTERNAL = frozenset(
    {
        "lcg.__main__",
        "lcg.app",
        "lcg.benchmarks.encoding",
        "lcg.benchmarks.speed",
        "lcg.benchmarks.storage",
        "lcg.cli",
        "lcg.job_parser",
        "lcg.memory",
        "lcg.scaffold",
        "lcg.torchvision_operators",
        "lcg.trainer_command",
    }
)
"""What is no part of the Python API: what runs commands, the page of `lcg app`, timings of our own."""


def docstring(path: Path) -> str:
    """The docstring of a module, without importing it."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def packages(root: Path, commands: frozenset[str]) -> Iterator[tuple[str, list[str]]]:
    """Every public package with its modules.

    Args:
        root: the repository.
        commands: modules that are documented as commands.
    """
    found: dict[str, list[str]] = {}
    for path in sorted((root / "lcg").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        parents = {name} | {".".join(parts[:i]) for i in range(1, len(parts))}
        if parents & INTERNAL or "template" in parts:
            continue
        modules = found.setdefault(package, [])
        if name != package and name not in commands and public_names(path):
            modules.append(name)
    origins = {origin.rpartition(".")[0] for _, origin in exported(root / "lcg/__init__.py")}
    found["lcg"] = [module for module in found["lcg"] if module in origins | AT_THE_TOP]
    for package in sorted(found, key=rank):
        if found[package] or public_names(root / package.replace(".", "/") / "__init__.py"):
            yield package, sorted(found[package], key=rank)


def rank(name: str) -> tuple[int, str]:
    """Where a package or a module comes."""
    return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def public_names(path: Path) -> list[str]:
    """What a module defines for others: public classes and functions, and constants with a docstring below them."""
    body, names = ast.parse(path.read_text(encoding="utf-8")).body, []
    for node, below in pairwise([*body, ast.Pass()]):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and is_text(below):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            names += [target.id] if isinstance(target, ast.Name) else []
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]  # once, however often overloaded


def is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def exported(path: Path) -> list[tuple[str, str]]:
    """(name, where it comes from) of what a package imports and names in `__all__`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    origins = {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [(name, origins[name]) for name in ast.literal_eval(node.value) if name in origins]
    return []


def api_page(root: Path, package: str, modules: list[str]) -> str:
    """A package: what it is for, what may be imported from it, and its modules with their public names."""
    init = root / package.replace(".", "/") / "__init__.py"
    parts = [
        f"# `{package}`",
        shown(package, public_names(init), show_root_heading="false", show_root_toc_entry="false"),
    ]
    if origins := exported(init):
        listed = ", ".join(f"[`{name}`][{origin}]" for name, origin in origins)
        parts.append(f"To be imported from `{package}`: {listed}.")
    for module in modules:
        names = public_names(root / f"{module.replace('.', '/')}.py")
        parts.append(shown(module, names, inherited_members=str(package == "lcg").lower()))
    return "\n\n".join(parts) + "\n"


def shown(name: str, members: list[str], **options: str) -> str:
    """What mkdocstrings is told to show."""
    lines = [f"{option}: {value}" for option, value in {"members": members, **options}.items()]
    return "\n      ".join([f"::: {name}\n    options:", *lines])


def formulas_page(root: Path) -> str:
    """The formula language, in the words of the modules that read it."""
    texts = [docstring(root / "lcg/guidance" / name) for name in ("formula.py", "logic.py", "phrases/__init__.py")]
    titles = ("What a formula says", "How it is written", "In English")
    return (
        "\n\n".join(["# Formulas", *(f"## {title}\n\n{text}" for title, text in zip(titles, texts, strict=True))])
        + "\n"
    )


def configs_page(root: Path) -> str:
    """Every file in configs/ that a command reads, as it is."""
    parts = ["# Configs", "Each is read by `--config`; several go on top of each other, and later ones win."]
    for path in sorted((root / "configs").glob("*/*")):
        if path.parent.name == "docs" or path.suffix not in (".yaml", ".sbatch"):
            continue
        title = path.relative_to(root / "configs")
        if f"## {title.parts[0]}" not in parts:
            parts.append(f"## {title.parts[0]}")
        language = "yaml" if path.suffix == ".yaml" else "bash"
        parts += [f"### {title} {{ #{config_anchor(path)} }}", f"```{language}\n{path.read_text().rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def config_anchor(path: Path) -> str:
    """The heading of a config: prior/avatars.yaml is at #prior-avatars-yaml."""
    return f"{path.parent.name}-{path.name}".replace(".", "-")


def formats_page(root: Path) -> str:
    """The files that lcg writes and reads: the schemas by which they are checked, and what explains them."""
    parts = [
        "# Files",
        "What may come from others is checked before it is believed, most of it by JSON schemas in the package.",
        "## session.json of edits",
        docstring_of(EditSession.from_json),
        f"```json\n{json.dumps(json.loads(example_session()), indent=2)}\n```",
    ]
    for path in sorted((root / "lcg").rglob("*.schema.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        parts += [f"## {schema['title']}", f"`{path.relative_to(root)}`", docstring(path.parent / "__init__.py")]
        parts += ["| field | type | what it says |\n|---|---|---|\n" + "\n".join(fields(schema, schema))]
    return "\n\n".join(parts) + "\n"


def docstring_of(function: object) -> str:
    """What a function says about itself, without its arguments."""
    return (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]


def example_session() -> str:
    """A session as it is written: two latents of two numbers, an edit, another one."""
    session = EditSession(torch.zeros(2, 2), Schema((Attribute("glasses"), Attribute("hat"))))
    return session.add("+glasses").add("-hat", weight=0.5).to_json()


def fields(schema: dict[str, Any], whole: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """A row of a table for each field of a JSON schema, and of what is in it."""
    if "$ref" in schema:
        schema = {**pointed(whole, schema["$ref"]), **schema}
    for name, entry in schema.get("properties", {}).items():
        entry = {**pointed(whole, entry["$ref"]), **entry} if "$ref" in entry else entry
        needed = "" if name in schema.get("required", ()) else " (optional)"
        kind = json_type(entry, whole)
        yield f"| `{prefix}{name}`{needed} | {code(kind)} | {escaped(entry.get('description', ''))} |"
        if depth < 3:
            yield from fields(entry, whole, f"{prefix}{name}.", depth + 1)
            if isinstance(entry.get("items"), dict):
                yield from fields(entry["items"], whole, f"{prefix}{name}[].", depth + 1)


def pointed(whole: dict[str, Any], pointer: str) -> dict[str, Any]:
    """What `#/$defs/NAME` points at."""
    found: Any = whole
    for part in pointer.removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def json_type(entry: dict[str, Any], whole: dict[str, Any]) -> str:
    """The type of a field, or the values that it may have."""
    if "const" in entry:
        return json.dumps(entry["const"])
    if "enum" in entry:
        return ", ".join(json.dumps(value) for value in entry["enum"])
    if isinstance(entry.get("items"), dict):
        items = entry["items"]
        items = {**pointed(whole, items["$ref"]), **items} if "$ref" in items else items
        return f"array of {json_type(items, whole)}"
    kind = entry.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(kind)
