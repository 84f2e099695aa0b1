"""The command that makes a figure or a table again: the same benchmark, with the tasks that it shows and no others.

lcg bench --config FOLDER/config.yaml --tasks '["generate/glasses"]' --seeds '[1]' --out FOLDER-again
lcg report FOLDER-again --out FOLDER-again/report.html
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

SEQUENCES = ("edit", "synthetic", "tradeoff")
"""Kinds of tasks that the results do not call by what the configuration calls them: `edit/+beard +glasses`, with spaces
between the edits, is edit/+beard and edit/+beard+glasses there."""


def command_for(provenance: Mapping[str, Any], *tasks: str) -> str:
    """The commands that measure tasks again and show them.

    Args:
        provenance: with `folder`, the benchmark's folder as it was given, and its `config` with `tasks` and `seeds`.
        tasks: as the results call them. A step of a sequence of edits needs the whole sequence.

    Returns:
        Two lines for a shell, everything quoted; nothing where the provenance does not say enough.
    """
    folder = str(provenance.get("folder", "")).rstrip("/")
    config = provenance["config"]
    known = [str(task) for task in config.get("tasks", ())]
    wanted = list(dict.fromkeys(_asked(task, known) for task in tasks))
    if not folder or not wanted or "" in wanted:
        return ""
    again = f"{folder}-again"
    bench = ["lcg", "bench", "--config", f"{folder}/config.yaml", "--tasks", json.dumps(wanted, ensure_ascii=False)]
    if config.get("seeds"):
        bench += ["--seeds", json.dumps(config["seeds"])]
    report = ["lcg", "report", again, "--out", f"{again}/report.html"]
    return "\n".join(shlex.join(words) for words in ([*bench, "--out", again], report))


def _asked(task: str, known: Sequence[str]) -> str:
    """What the configuration calls a task; nothing where it has none of which this is a part."""
    kind = task.partition("/")[0]
    if kind not in SEQUENCES:
        return task if any(one.partition("/")[0] == kind for one in known) else ""
    sequences = [(one, _steps(one)) for one in known if one.partition("/")[0] == kind]
    return next((one for one, steps in sequences if task == steps[-1]), "") or next(
        (one for one, steps in sequences if task in steps), ""
    )


def _steps(task: str) -> list[str]:
    """A sequence of edits as the results call it after each of its steps."""
    kind, _, edits = task.partition("/")
    words = [word if word[0] in "+-" or "=" in word else f"+{word}" for word in edits.split()]
    return [f"{kind}/{''.join(words[: k + 1])}" for k in range(len(words))] or [task]
