"""What is wrong with an option or a YAML file, in one message.

The parser of both kinds of commands is jsonargparse, which says at length what it expected of which Python type. Here
that becomes what a user can act on: the option as it is typed, what was expected and what was got in plain words, the
nearest names that exist, and where the options are listed.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import textwrap
from argparse import ArgumentParser
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "names and their values",
    "NoneType": "null",
}
"""Python's types as users know them."""
SHOWN = 60
"""Characters of a value that a message repeats."""

PARTS = {
    "key": re.compile(r'Parser key "(?P<key>[^"]+)":(?P<rest>.*)', re.DOTALL),
    "union": re.compile(
        r".*Does not validate against any of the Union subtypes.*\n *Errors:\n(?P<errors>.*)\n"
        r" *Given value type: [^\n]*\n *Given value: (?P<value>.*)",
        re.DOTALL,
    ),
    "callable": re.compile(r"Type \S+ expects a function or a callable class: (?P<rest>.*)\. Got value: .*", re.DOTALL),
    "class": re.compile(r"Problem with given class_path '(?P<path>[^']+)':(?P<rest>.*)", re.DOTALL),
    "not accepted": re.compile(
        r"Option '(?P<name>[^']+)' is not accepted"
        r"|(?:Group|Subcommand) '(?P<group>[^']+)' does not accept option '(?P<inner>[^']+)'"
    ),
    "unrecognized": re.compile(r"unrecognized arguments: (?P<word>\S+).*", re.DOTALL),
    "required": re.compile(r"the following arguments are required: (?P<names>.*)"),
    "no value": re.compile(r"argument (?:-\w/)?(?P<option>--[\w.]+).*: expected one argument"),
    "kind": re.compile(r"Expected a (?P<kind>.*)\. Got value: (?P<value>.*)", re.DOTALL),
    "attribute": re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'"),
    "subclass": re.compile(
        r"Import path does not correspond to a subclass of (?P<base>\w+)(?:\. Got value: (?P<value>.*))?"
    ),
    "path": re.compile(r"Expected a dot import path string: (?P<value>.*)"),
    "module": re.compile(r"No module named '[\w.]+'"),
}
"""What the parser says, by what is wrong."""


def check_configs(words: Sequence[str]) -> None:
    """Looks at the YAML files that a command is given, before the parser does, which would not name them.

    Args:
        words: the arguments of the command.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: it is no YAML, or has no options in it; the message names file, line and column.
    """
    for number, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in ("-c", "--config"):
            check_config(value or "".join(words[number + 1 : number + 2]))


def check_config(path: str) -> None:
    """As `check_configs`, of one file; what is text rather than the name of a file is left to the parser."""
    import yaml

    file = Path(path)
    if not path or "\n" in path or path.lstrip().startswith("{"):
        return
    if file.is_dir():
        raise ValueError(f"--config must be a YAML file, got the folder {path}; give a file in it")
    if not file.is_file():
        shipped = "those of lcg are in its repository: run lcg there, or give the whole path"
        other = "--print_config, in its place, prints one to begin with"
        raise FileNotFoundError(f"no config at {path}; {shipped if path.startswith('configs/') else other}")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"--config must be a YAML file, got {path}, which is no text in UTF-8") from error
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{path}{_place(error)}: {_yaml_problem(error, file)}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, dict):
        got = "nothing" if found is None else repr(found)[:SHOWN]
        raise ValueError(f"{path} must have an option per line, such as `seed: 1`, got {got}")


def _place(error: object) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"


def _yaml_problem(error: object, file: Path) -> str:
    """What YAML says of itself, and what users usually meant."""
    mark, problem = getattr(error, "problem_mark", None), str(getattr(error, "problem", None) or error)
    lines = file.read_text(encoding="utf-8").splitlines()
    text = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in text[: len(text) - len(text.lstrip())]:
        return "YAML is indented by spaces, got a tab; replace it by spaces"
    begun = getattr(error, "context_mark", None)
    since = f" (in what begins on line {begun.line + 1})" if begun is not None else ""
    return f"{problem}{since}; put a text with any of : # & * ! | > % @ ` {{ [ in quotes"


def option_names(parser: ArgumentParser) -> list[str]:
    """The options of a parser, without their dashes; not those that add to a list."""
    return [name[2:] for name in parser._option_string_actions if name.startswith("--") and name[-1] != "+"]


def explain(message: str, command: str, options: Collection[str]) -> str:
    """A message of the parser as one of lcg.

    Args:
        message: what jsonargparse says.
        command: whose options they are, such as `generate`.
        options: the names that it has, without dashes.
    """
    told = _plain(message, options)
    return f"{told}{'' if told.endswith('?') else ';'} `lcg {command} --help` lists the options"


def _plain(message: str, options: Collection[str], key: str = "") -> str:
    """Without the parser's way of speaking; `key` is the option that the message is about."""
    message = textwrap.dedent(message).strip()
    about = f"`--{key}`: " if key else ""
    if found := PARTS["key"].fullmatch(message):
        return _plain(found["rest"], options, _joined(key, found["key"]))
    if found := PARTS["union"].fullmatch(message):
        return _plain(_likeliest(found["errors"], found["value"]), options, key)
    if found := PARTS["callable"].fullmatch(message):
        return _plain(found["rest"], options, key)
    if found := PARTS["class"].fullmatch(message):
        return _plain(found["rest"], [_joined(key, name) for name in _init_args(found["path"])], key)
    if found := PARTS["not accepted"].fullmatch(message):
        group = found["group"] if found["group"] in {name.partition(".")[0] for name in options} else ""
        return _unknown(_joined(key, group, found["name"] or found["inner"]), options)
    if found := PARTS["unrecognized"].fullmatch(message):
        if found["word"].startswith("-"):
            return _unknown(found["word"].lstrip("-").partition("=")[0], options)
        return f"{found['word']!r} belongs to no option; a value that has spaces stands in quotes"
    if found := PARTS["required"].fullmatch(message):
        names = [_joined(key, name.strip()) for name in found["names"].split(",")]
        given = ", ".join(f"--{name}" if name in options else name for name in names)
        return f"required, and not given: {given}; say it, or give a --config that does"
    if found := PARTS["no value"].fullmatch(message):
        return f"`{found['option']}` needs a value; one that begins with - is written {found['option']}=VALUE"
    if found := PARTS["kind"].fullmatch(message):
        return f"{about}expected {_kinds(found['kind'])}, got {_short(found['value'])}"
    if found := PARTS["attribute"].fullmatch(message):
        return f"{about}{message}{_near(found['name'], vars(importlib.import_module(found['module'])))}"
    if found := PARTS["path"].fullmatch(message):
        return f"{about}unknown class {found['value']!r}; write its whole path, such as lcg.data.images.ImageFolder"
    if found := PARTS["subclass"].fullmatch(message):
        return f"{about}expected a {found['base']}, got {found['value']}"
    if PARTS["module"].fullmatch(message):
        return f"{about}{message}; it is looked for in the working folder and among what is installed"
    return about + " ".join(message.split())


def _likeliest(errors: str, value: str) -> str:
    """Of what is wrong by each of several types, what the user meant."""
    told = [part.strip() for part in re.split(r"^- ", textwrap.dedent(errors), flags=re.MULTILINE) if part.strip()]
    told = [part for part in told if part != "Expected a <class 'NoneType'>"]
    deep = [part for part in told if not part.startswith(("Expected a <", "Expected a typing", "Not a valid subclass"))]
    if deep:
        return f"{deep[0]}. Got value: {value}" if PARTS["subclass"].fullmatch(deep[0]) else deep[0]
    kinds = " or ".join(part.removeprefix("Expected a ") for part in told if part.startswith("Expected a "))
    return f"Expected a {kinds}. Got value: {value}" if kinds else " ".join([*told, f"got {_short(value)}"])


def _kinds(kinds: str) -> str:
    """Types as users know them, `a number` or `one of a, b`."""
    parts = kinds.split(" or ")
    words = [word for part in parts for word in re.findall(r"'([^']+)'", part) if part.startswith("typing.Literal")]
    plain = [KINDS.get(name, name) for part in parts for name in re.findall(r"<class '([^']+)'>", part)]
    told = [*plain, *([f"one of {', '.join(words)}"] if words else [])]
    return " or ".join(told or parts)


def _unknown(name: str, options: Collection[str]) -> str:
    """The message of an option that does not exist, with those that do and are most like it."""
    spelled = name.replace("-", "_")
    same = [option for option in options if spelled in (option, option.rpartition(".")[2])]
    near = same or difflib.get_close_matches(spelled, options, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(f'--{found}' for found in near[:3])}?" if near else ""
    return f"unknown option --{name}{hint}"


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _init_args(path: str) -> list[str]:
    """The parameters of a class, or of what else can be called; none where it cannot be found."""
    module, _, name = path.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError):
        return []


def _joined(*parts: str | None) -> str:
    return ".".join(filter(None, parts))


def _short(value: str) -> str:
    return value if len(value) <= SHOWN else f"{value[:SHOWN]} ..."
