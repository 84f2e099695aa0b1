"""Every command of `lcg` with its options, read off the parsers that read them from users."""

from __future__ import annotations

import argparse
import inspect
import re
import typing
from collections.abc import Iterator
from typing import NoReturn
from unittest import mock

from lcg import cli
from lcg.job_parser import JobParser

HELP = re.compile(r"(.*\.)?(help|print_config|config)$")
TITLES = {"positional arguments": "", "options": ""}


def commands_page() -> str:
    """The page: what all commands have in common, then each of them."""
    overview = cli.overview().partition("commands:\n")[2].partition("\n\n")[2]
    parts = [
        "# Commands",
        "    lcg COMMAND [--config FILE.yaml ...] [--option VALUE ...]",
        f"{overview}\n{{ .lines }}",
        "Options may stand in a YAML file, `--config FILE.yaml`, repeated as one likes: later files win, and what is "
        "on the command line wins over all of them. An option with a dot is an entry of a mapping there.",
        "| command | what it does |\n|---|---|\n"
        + "\n".join(f"| [`lcg {n}`](#{anchor(n)}) | {escaped(s)} |" for n, s in summaries()),
    ]
    for name, parser, description in parsers():
        parts += [f"## `lcg {name}` {{ #{anchor(name)} }}", description, *tables(parser)]
    return "\n\n".join(parts) + "\n"


def anchor(command: str) -> str:
    """The heading of a command, by name: `lcg store info` is at #lcg-store-info."""
    return f"lcg-{command.replace(' ', '-')}"


def summaries() -> Iterator[tuple[str, str]]:
    """Every command with the line that `lcg --help` has about it."""
    yield from cli.TRAINER_COMMANDS.items()
    yield from ((name, job.summary) for name, job in cli.JOBS.items())


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """(command, its parser, what it says about itself in Markdown) of every command."""
    for name, summary in cli.TRAINER_COMMANDS.items():
        yield name, trainer_parser(name), f"{summary[0].upper()}{summary[1:]}."
    for name, job in cli.JOBS.items():
        function = job.load()
        description = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
        yield name, JobParser(name, function, job.positional).parser, description


def trainer_parser(command: str) -> argparse.ArgumentParser:
    """The parser of fit, validate, test or predict: Lightning builds it on its way to running the command."""
    from lcg.trainer_command import TrainerCLI, run_trainer

    def stop(self: TrainerCLI, parser: argparse.ArgumentParser, args: object) -> NoReturn:
        raise StopIteration(self._subcommand_parsers[command])

    with mock.patch.object(TrainerCLI, "parse_arguments", stop):
        try:
            run_trainer(command, [command])
        except StopIteration as stopped:
            return stopped.value
    raise RuntimeError(f"Lightning ran {command} without parsing its arguments")


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[argparse.Action]]]:
    """(title, options) of each group of a parser that has any; not the options about options that all commands have."""
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if not HELP.fullmatch(a.dest) and a.help != argparse.SUPPRESS]
        actions = [a for a in actions if type(a).__name__ != "_ActionConfigLoad"]  # a file for one group of options
        if actions:
            yield TITLES.get(group.title or "", group.title or ""), actions


def tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a parser, a table for each group."""
    for title, actions in options(parser):
        if title:
            yield f"**{title[0].upper()}{title[1:]}**" + "\n{ .group }"
        rows = (f"| {name_of(a)}<br>{type_of(a)}{default_of(a)} | {escaped(a.help or '')} |" for a in actions)
        yield "| option | what it says |\n|---|---|\n" + "\n".join(rows)


def name_of(action: argparse.Action) -> str:
    """As it is written on the command line."""
    written = [option for option in action.option_strings if not option.endswith("+")]
    return " ".join(f"**`{name}`**" for name in written or [action.dest.upper()])


def type_of(action: argparse.Action) -> str:
    """What it takes."""
    return escaped(spelled(getattr(action, "_typehint", None) or action.type or str))


def spelled(hint: object) -> str:
    """A type as one says it: `float or null`, a choice of words, the class whose subclasses may be named."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(str, arguments))
    if type(None) in arguments:
        return " or ".join([*(spelled(one) for one in arguments if one is not type(None)), "null"])
    if arguments and not isinstance(hint, type) and typing.get_origin(hint) in (typing.Union, type(int | str)):
        return " or ".join(map(spelled, arguments))
    if isinstance(hint, type) and not arguments:
        return hint.__name__
    return re.sub(r"\b(\w+\.)+(?=\w)", "", str(hint).replace("NoneType", "null").replace("...", "…")).replace(
        "…", "..."
    )


def default_of(action: argparse.Action) -> str:
    """What holds when it is left out, behind its type."""
    if action.required:
        return ", required"
    default = action.default
    if default is None or default is argparse.SUPPRESS:
        return ""
    if isinstance(default, bool):
        default = str(default).lower()
    return f", {code(str(default))} by default" if default not in ("", [], {}, ()) else ""


def code(text: str) -> str:
    """Text as code in a table's cell."""
    return f"`{escaped(text)}`" if text else ""


def escaped(text: str) -> str:
    """Text for a table's cell, where a bar would end it and a line break the table."""
    return " ".join(text.split()).replace("|", "\\|")
