"""Commands: what they ask for is what the configuration asked for, and a shell reads them as they were meant."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from lcg.benchmarks.report.commands import command_for

TASKS = [
    "unconditional",
    "generate/glasses",
    "scale/hair={red|blond}",
    "edit/+beard glasses -hat",
    "edit/+hat",
    "edit/+hat_color=red +smile",
    "tradeoff/+beard +glasses",
]


def provenance(**changes: Any) -> dict[str, Any]:
    return {"folder": "runs/my bench/", "config": {"tasks": TASKS, "seeds": [1, 2]}} | changes


def options(command: str) -> dict[str, str]:
    """Of `lcg bench`."""
    words = shlex.split(command.splitlines()[0])
    assert words[:2] == ["lcg", "bench"]
    return dict(zip(words[2::2], words[3::2], strict=True))


def test_a_command_is_two_lines_that_leave_the_first_results_alone() -> None:
    simple = provenance(folder="runs/demo/bench")
    assert command_for(simple, "generate/glasses").splitlines() == [
        "lcg bench --config runs/demo/bench/config.yaml --tasks '[\"generate/glasses\"]' --seeds '[1, 2]' "
        "--out runs/demo/bench-again",
        "lcg report runs/demo/bench-again --out runs/demo/bench-again/report.html",
    ]


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        ("unconditional", "unconditional"),
        ("generate/glasses", "generate/glasses"),
        ("edit/+beard", "edit/+beard glasses -hat"),  # a step needs its whole sequence, whose sources it shares
        ("edit/+beard+glasses", "edit/+beard glasses -hat"),
        ("edit/+beard+glasses-hat", "edit/+beard glasses -hat"),
        ("edit/+hat", "edit/+hat"),
        ("edit/+hat_color=red", "edit/+hat_color=red +smile"),
        ("tradeoff/+beard+glasses", "tradeoff/+beard +glasses"),
    ],
)
def test_tasks_are_named_as_the_configuration_names_them(task: str, asked: str) -> None:
    assert json.loads(options(command_for(provenance(), task))["--tasks"]) == [asked]


def test_several_tasks_are_asked_for_once_each() -> None:
    found = options(command_for(provenance(), "edit/+beard", "edit/+beard+glasses", "unconditional"))
    assert json.loads(found["--tasks"]) == ["edit/+beard glasses -hat", "unconditional"]


def test_everything_is_quoted_for_the_shell() -> None:
    task = "generate/a & ~(b | c)' ; rm -rf ~"
    found = options(command_for(provenance(folder="$(evil) bench"), task))
    assert found["--out"] == "$(evil) bench-again" and json.loads(found["--tasks"]) == [task]


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({"folder": ""}, "generate/glasses"),
        ({}, "edit/+smile"),
        ({}, "disentanglement"),
        ({"config": {}}, "generate/glasses"),
    ],
)
def test_where_too_little_is_known_there_is_no_command(changes: dict[str, Any], task: str) -> None:
    assert command_for(provenance(**changes), task) == ""
    assert command_for({"config": {"tasks": TASKS}}, "generate/glasses") == ""
    assert command_for(provenance(), "generate/glasses", "edit/+smile") == ""  # rather none than half of it


def test_without_seeds_the_configuration_decides() -> None:
    assert "--seeds" not in command_for(provenance(config={"tasks": TASKS}), "unconditional")


def test_lcg_bench_reads_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lcg.cli import main

    (tmp_path / "config.yaml").write_text("tasks: [unconditional]\nseeds: [7]\n")
    words = shlex.split(command_for(provenance(folder=str(tmp_path)), "edit/+beard").splitlines()[0])
    with pytest.raises(SystemExit) as stop:
        main([*words[1:], "--print_config"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and "- edit/+beard glasses -hat" in printed and f"out: {tmp_path}-again" in printed
    assert "seeds:\n- 1\n- 2\n" in printed
