"""Rules in a file, so that what was chosen once is used ever after:

    smile:
      rule: Threshold
      threshold: 0.43
      chosen: {method: Otsu, images: 2000, bimodal: true}       # how; for people

YAML or JSON; what is left out has the rule's default.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lcg.data.atomic import write_atomic
from lcg.labels.rules import ArgMax, Cuts, Linear, Rule, Threshold
from lcg.schema import unknown_name

RULES: Mapping[str, type[Rule]] = {rule.__name__: rule for rule in (Threshold, Cuts, ArgMax, Linear)}


def read_rules(path: str | os.PathLike[str]) -> dict[str, Rule]:
    """The rules in a file, by attribute.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else; the message names the attribute.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no rules at {file}; write them with `lcg label thresholds`")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{file} must hold a rule for each of some attributes, got {type(found).__name__}")
    return {str(name): _rule(file, str(name), entry) for name, entry in found.items()}


def write_rules(
    path: str | os.PathLike[str], rules: Mapping[str, Rule], chosen: Mapping[str, Mapping[str, Any]]
) -> None:
    """Writes rules, each with how it was chosen, if that is known; JSON where the name ends so."""
    told = {
        name: {
            "rule": type(rule).__name__,
            **{key: value for key, value in rule.settings().items() if value is not None},
            **({"chosen": dict(chosen[name])} if name in chosen else {}),
        }
        for name, rule in rules.items()
    }
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix.lower() == ".json":
        import json

        text = json.dumps(told, indent=2) + "\n"
    else:
        text = yaml.safe_dump(told, sort_keys=False)
    write_atomic(file, text.encode())


def _rule(file: Path, name: str, entry: Any) -> Rule:
    where = f"{file}, {name!r}"
    if not isinstance(entry, dict) or "rule" not in entry:
        raise ValueError(f"{where}: expected `rule`, one of {', '.join(RULES)}, and its settings; got {entry!r}")
    settings = {key: value for key, value in entry.items() if key not in ("rule", "chosen")}
    if entry["rule"] not in RULES:
        raise unknown_name("rule", str(entry["rule"]), RULES, where)
    rule = RULES[entry["rule"]]
    known = inspect.signature(rule).parameters
    for key in settings:
        if key not in known:
            raise unknown_name("setting", key, known, f"{where}: {rule.__name__}")
    try:
        return rule(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
