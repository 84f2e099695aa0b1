"""What the words behind a job's name say: the options of a function, from YAML files and dotted overrides."""

from __future__ import annotations

import inspect
import json
import os
import traceback
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lcg.wrong_options import check_configs, explain, option_names


class JobParser:
    """Reads the options of a job.

    Args:
        command: its name.
        function: whose parameters are the options and whose docstring is their help.
        positional: whether the function's required parameters are positional arguments rather than options.
    """

    def __init__(self, command: str, function: Callable[..., object], positional: bool = False) -> None:
        from jsonargparse import ArgumentParser, DefaultHelpFormatter  # a moment, which `lcg --help` does not need

        class Paragraphs(DefaultHelpFormatter):
            """Leaves the paragraphs of a docstring apart."""

            def _fill_text(self, text: str, width: int, indent: str) -> str:
                fill = super()._fill_text
                return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))

        self.command, self.function, self.positional = command, function, positional
        description = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]  # the arguments get a line each, below
        self.parser = ArgumentParser(
            prog=f"lcg {command}",
            description=description,
            formatter_class=Paragraphs,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self.parser.add_argument(
            "-c", "--config", action="config", help="YAML file with options; may be repeated, later ones win"
        )
        self.parser.add_function_arguments(function, as_group=False, as_positional=positional)

    def parse(self, words: Sequence[str]) -> Any:
        """The options as jsonargparse's Namespace, objects as class_path and init_args.

        Raises:
            ValueError: a word or a YAML file is wrong.
            FileNotFoundError: a YAML file is not there.
            SystemExit: a word asks for help, which has been printed.
        """
        check_configs(words)
        try:
            config = self.parser.parse_args(join_lists(self.function, words, self.positional))
        except ArgumentError as error:
            raise ValueError(explain(str(error), self.command, option_names(self.parser))) from error
        if isinstance(config.get("out"), str):
            config["out"] = os.path.expandvars(config["out"])  # such as runs/agent/$WANDB_RUN_ID
        return config

    def values(self, config: Any) -> dict[str, Any]:
        """The function's arguments, by name. Raises what the constructors of objects among them raise."""
        try:
            values: dict[str, Any] = vars(self.parser.instantiate(config))
        except ValueError as error:
            raised = without_parser(error)
        else:
            values.pop("config")
            return values
        raise raised

    def save(self, config: Any, folder: Path) -> None:
        """FOLDER/config.yaml: the options as they were given, ready for --config."""
        self.parser.save(config, folder / "config.yaml", overwrite=True, multifile=False)


def without_parser(error: BaseException) -> BaseException:
    """What a constructor raised, where jsonargparse wrapped it in errors of its own, or else the error itself."""
    import jsonargparse

    found: BaseException | None = error
    while found is not None and found.__traceback__ is not None:
        *_, (frame, _) = traceback.walk_tb(found.__traceback__)
        if Path(jsonargparse.__file__).parent not in Path(frame.f_code.co_filename).parents:
            return found
        found = found.__cause__ or found.__context__
    return error


def join_lists(function: Callable[..., object], words: Sequence[str], positional: bool = False) -> list[str]:
    """Lets lists be plain words: `--edits +glasses -hat` becomes `--edits '["+glasses", "-hat"]'`.

    If the function's first parameter is a list and `positional`, so do the words in front of all options.
    """
    parameters = inspect.signature(function).parameters
    names = [name for name, p in parameters.items() if str(p.annotation).startswith("list[")]
    lists = {f"--{name}" for name in names}
    joined: list[str] = []
    position = 0
    if positional and names[:1] == list(parameters)[:1]:
        while position < len(words) and not words[position].startswith("-"):
            position += 1
        if position > 1 or (position == 1 and not words[0].startswith("[")):
            joined = [json.dumps(list(words[:position]))]
        else:
            position = 0
    while position < len(words):
        option = words[position]
        joined.append(option)
        position += 1
        if option in lists:
            end = position
            while end < len(words) and not words[end].startswith("--"):
                end += 1
            listed = words[position:end]
            plain = len(listed) == 1 and listed[0].startswith("[")
            joined.append(listed[0] if plain else json.dumps(list(listed)))
            position = end
    return joined
