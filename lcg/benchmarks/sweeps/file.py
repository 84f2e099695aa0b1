"""A sweep in W&B's format (https://docs.wandb.ai/guides/sweeps/sweep-config-keys): what may stand in the file.

A sweep is a command, parameters and how to choose their values. What needs W&B's server is refused with advice.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from lcg.schema import unknown_name

Search = Literal["grid", "random"]
Goal = Literal["minimize", "maximize"]

KEYS = ("program", "command", "method", "metric", "parameters", "run_cap")
LABELS = ("name", "description", "project", "entity", "apiVersion", "kind", "controller")
"""What W&B's server shows or sorts by; it changes no run."""

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
ENV = "/usr/bin/env"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
MACRO = re.compile(r"\$\{([^}]*)\}")
ARGS = ("args", "args_no_equals", "args_no_hyphens", "args_no_boolean_flags", "args_json")
WORDS = ("env", "interpreter", "program", *ARGS)
"""The macros that stand for whole words; ${out} and ${envvar:NAME} may also be a part of one."""

BOUNDS, QUANTUM, MOMENTS = ("min", "max"), ("q",), ("mu", "sigma")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "constant": ("value",),
    "categorical": ("values",),
    "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": BOUNDS,
    "uniform": BOUNDS,
    "q_uniform": BOUNDS + QUANTUM,
    "log_uniform_values": BOUNDS,
    "q_log_uniform_values": BOUNDS + QUANTUM,
    "normal": MOMENTS,
    "q_normal": MOMENTS + QUANTUM,
    "log_normal": MOMENTS,
    "q_log_normal": MOMENTS + QUANTUM,
}
DEFAULTS: Mapping[str, float] = {"q": 1.0, "mu": 0.0, "sigma": 1.0}
IN_A_GRID = ("constant", "categorical", "int_uniform", "q_uniform")


@dataclass(frozen=True)
class Parameter:
    """One parameter and where its values come from.

    Args:
        path: its name, below the names of the parameters that it is nested in.
        distribution: one of `FIELDS`.
        options: those of the distribution, all of them.
    """

    path: tuple[str, ...]
    distribution: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def values(self) -> list[Any]:
        """All values, for a grid. As in W&B, equal ones count once, and `max` is no value of q_uniform."""
        options = self.options
        if self.distribution == "constant":
            return [options["value"]]
        if self.distribution == "int_uniform":
            return list(range(options["min"], options["max"] + 1))
        if self.distribution == "q_uniform":
            stepped: list[Any] = np.arange(options["min"], options["max"], options["q"]).tolist()
            return stepped
        return list({canonical(value): value for value in options["values"]}.values())

    def draw(self, u: float) -> Any:
        """The value at quantile u in [0, 1)."""
        options, kind = self.options, self.distribution.removeprefix("q_")
        if kind == "constant":
            return options["value"]
        if kind == "categorical":
            return options["values"][min(int(u * len(options["values"])), len(options["values"]) - 1)]
        if kind == "categorical_w_probabilities":
            totals = list(itertools.accumulate(options["probabilities"]))
            return options["values"][next(i for i, total in enumerate(totals) if u * totals[-1] < total)]
        if kind == "int_uniform":
            return min(options["min"] + int(u * (options["max"] - options["min"] + 1)), options["max"])
        if kind == "uniform":
            x = options["min"] + u * (options["max"] - options["min"])
        elif kind == "log_uniform_values":
            low, high = math.log(options["min"]), math.log(options["max"])
            x = math.exp(low + u * (high - low))
        else:
            x = options["mu"] + options["sigma"] * statistics.NormalDist().inv_cdf(max(u, 2.0**-54))
            x = math.exp(x) if kind == "log_normal" else x
        return x if kind == self.distribution else round(x / options["q"]) * options["q"]  # whole where q is


@dataclass(frozen=True)
class Metric:
    """What makes one run better than another: a metric of results.csv; W&B minimises unless told otherwise."""

    name: str
    goal: Goal = "minimize"


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Args:
        path: of the file.
        method: how values are chosen.
        parameters: in W&B's order.
        command: the words of the command, with macros.
        program: what ${program} stands for.
        metric: None where the file names none.
        run_cap: the largest number of runs; None for no bound.
        name: what it is called.
    """

    path: Path
    method: Search
    parameters: tuple[Parameter, ...]
    command: tuple[str, ...]
    program: str | None
    metric: Metric | None
    run_cap: int | None
    name: str


def read_sweep(path: str | Path) -> Sweep:
    """Reads a sweep file in W&B's format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a sweep, or one that cannot be run here; the message names the key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no sweep at {path}; give a W&B sweep file such as experiments/02_composition/sweep.yaml"
        )
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML ({' '.join(str(error).split())}); mend it there") from error
    if not isinstance(written, dict):
        raise ValueError(f"{path} must be a mapping with `method` and `parameters`, got {describe(written)}")
    try:
        return _sweep(path, written)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _sweep(path: Path, written: dict[Any, Any]) -> Sweep:
    refused = {
        "early_terminate": "runs are not stopped early here; remove it",
        "scheduler": "there is none here; remove it",
        "metrics": "name the one that decides as `metric`",
        "job": "only a `command` or `program` can be run here",
        "image_uri": "only a `command` or `program` can be run here",
    }
    for key in written:
        if key in refused:
            raise ValueError(f"`{key}` is not supported by `lcg sweep`: {refused[key]}")
        if key not in (*KEYS, *LABELS):
            raise unknown_name("key", str(key), (*KEYS, *LABELS), "a sweep")
    method = _method(written.get("method"))
    parameters = written.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(
            f"`parameters` must be a mapping such as {{lr: {{values: [0.1, 0.01]}}}}, got {describe(parameters)}"
        )
    read = tuple(_parameters(parameters, ()))
    names = [parameter.name for parameter in read]
    if again := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"the parameter `{min(again)}` is given twice, once with a dot and once nested; remove one")
    for parameter in read if method == "grid" else ():
        if parameter.distribution not in IN_A_GRID:
            raise ValueError(
                f"`parameters.{parameter.name}` has the distribution {parameter.distribution!r}, of which there is no "
                "grid; list its `values`, or set `method: random`"
            )
    run_cap = written.get("run_cap")
    if run_cap is not None and (type(run_cap) is not int or run_cap < 1):
        raise ValueError(f"`run_cap` must be a whole number of at least 1, got {run_cap!r}; leave it out for no bound")
    command, program = _command(written)
    name = str(written.get("name") or path.parent.name or path.stem)
    return Sweep(path, method, read, command, program, _metric(written.get("metric")), run_cap, name)


def _method(method: object) -> Search:
    if method in ("bayes", "custom"):
        raise ValueError(
            f"`method` is {method!r}, which needs W&B's server to choose the next run; set `method: random` and a "
            "`run_cap` to run it here, or give the file to `wandb sweep`"
        )
    for search in get_args(Search):
        if method == search:
            return search
    raise ValueError(f"`method` must be grid or random, got {describe(method)}")


def _metric(metric: object) -> Metric | None:
    if metric is None:
        return None
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise ValueError(f"`metric` must be such as {{name: sharp, goal: maximize}}, got {describe(metric)}")
    known = ("name", "goal", "impute", "impute_while_running")  # the last two speak of bayes only
    for key in metric:
        if key == "target":
            raise ValueError("`metric.target` is not supported by `lcg sweep`: all runs are made; remove it")
        if key not in known:
            raise unknown_name("key", str(key), known, "`metric`")
    goal = metric.get("goal", "minimize")
    if goal not in get_args(Goal):
        raise ValueError(f"`metric.goal` must be minimize or maximize, got {goal!r}")
    return Metric(metric["name"], goal)


def _command(written: dict[Any, Any]) -> tuple[tuple[str, ...], str | None]:
    program, command = written.get("program"), written.get("command", list(DEFAULT_COMMAND))
    if program is not None and not isinstance(program, str):
        raise ValueError(f"`program` must be the path of a script or the name of a program, got {describe(program)}")
    if not isinstance(command, list) or not command or any(isinstance(w, dict | list) or w is None for w in command):
        raise ValueError(
            f"`command` must be a list of words such as [lcg, bench, '${{args}}'], got {describe(command)}; "
            "quote words with brackets"
        )
    words = tuple(str(word) for word in command)
    for word in words:
        for macro in MACRO.findall(word):
            if macro != "out" and not macro.startswith("envvar:") and macro not in WORDS:
                raise unknown_name("macro", f"${{{macro}}}", [f"${{{m}}}" for m in (*WORDS, "out")], "`command`")
            if macro in WORDS and word != f"${{{macro}}}":
                raise ValueError(
                    f"`command`: ${{{macro}}} must be a word of its own, got {word!r}; put it on a new line"
                )
    if program is None and "${program}" in words:
        raise ValueError("`program` must be given where `command` holds ${program}, as W&B's default does, got none")
    if not any(f"${{{macro}}}" in words for macro in ARGS):
        raise ValueError(f"`command` must hold ${{args}}, or else all runs are the same, got {shlex.join(words)}")
    return words, program


def _parameters(written: dict[Any, Any], above: tuple[str, ...]) -> Iterator[Parameter]:
    """The parameters, by name, those that are nested in the place of what they are nested in."""
    for name in written:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"the name of a parameter must begin with a letter and go on with letters, digits, _, . and -, "
                f"got {name!r}; rename it"
            )
    for name, options in sorted(written.items()):
        path = (*above, name)
        where = f"`parameters.{'.'.join(path)}`"
        if not isinstance(options, dict) or not options:
            raise ValueError(
                f"{where} must be a mapping such as {{values: [1, 2]}}, {{value: 3}} or {{min: 0.0, max: 1.0}}, "
                f"got {describe(options)}"
            )
        if "parameters" in options:
            if not isinstance(options["parameters"], dict) or not options["parameters"] or len(options) > 1:
                raise ValueError(
                    f"{where} must hold `parameters`, a mapping, and nothing else, got {describe(options)}"
                )
            yield from _parameters(options["parameters"], path)
        else:
            yield _parameter(path, options, where)


def _parameter(path: tuple[str, ...], written: dict[Any, Any], where: str) -> Parameter:
    distribution = written.get("distribution", _inferred(written))
    if distribution is None:
        raise ValueError(f"{where} must have `value`, `values`, `min` and `max`, or a `distribution`, got {written}")
    advice = {
        "log_uniform": "use log_uniform_values, whose bounds are values rather than exponents",
        "q_log_uniform": "use q_log_uniform_values, whose bounds are values rather than exponents",
        "inv_log_uniform": "use log_uniform_values, whose bounds are values rather than exponents",
        "inv_log_uniform_values": "use log_uniform_values, which draws from the same distribution",
        "beta": "use uniform or normal, or list its `values`",
        "q_beta": "use q_uniform or q_normal, or list its `values`",
    }
    if isinstance(distribution, str) and distribution in advice:
        raise ValueError(f"{where} has the distribution {distribution!r}; {advice[distribution]}")
    if not isinstance(distribution, str) or distribution not in FIELDS:
        raise unknown_name(f"distribution of {where}", str(distribution), FIELDS, "`lcg sweep`")
    fields = FIELDS[distribution]
    for key in written:
        if key not in (*fields, "distribution"):
            raise ValueError(f"{where} has `{key}`, which {distribution} does not; it has {', '.join(fields)}")
    options = {**{field: DEFAULTS[field] for field in fields if field in DEFAULTS}, **written}
    options.pop("distribution", None)
    if missing := [field for field in fields if field not in options]:
        raise ValueError(f"{where} must have `{missing[0]}` for the distribution {distribution!r}, got {written}")
    _check_options(distribution, options, where)
    return Parameter(path, distribution, options)


def _inferred(written: dict[Any, Any]) -> str | None:
    """The distribution of a parameter that names none, as W&B reads it."""
    if "value" in written:
        return "constant"
    if "values" in written:
        return "categorical_w_probabilities" if "probabilities" in written else "categorical"
    if "min" in written and "max" in written:
        return "int_uniform" if type(written["min"]) is int and type(written["max"]) is int else "uniform"
    return None


def _check_options(distribution: str, options: Mapping[str, Any], where: str) -> None:
    for name in (*BOUNDS, *QUANTUM, *MOMENTS):
        kind = int if distribution == "int_uniform" else (int, float)
        value = options.get(name, 0)
        if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value):
            expected = "a whole number" if kind is int else "a finite number"
            raise ValueError(f"{where}: `{name}` must be {expected}, got {value!r}; YAML needs a dot, as in 1.0e-3")
    if "min" in options and not options["min"] < options["max"]:
        raise ValueError(f"{where}: `min` must be below `max`, got {options['min']} and {options['max']}; swap them")
    if "log_uniform" in distribution and not options["min"] > 0:
        raise ValueError(f"{where}: `min` must be > 0 for {distribution}, got {options['min']}; use uniform from 0 on")
    if not options.get("q", 1) > 0 or options.get("sigma", 0) < 0:
        name = "q" if "q" in options and not options["q"] > 0 else "sigma"
        raise ValueError(f"{where}: `{name}` must be {'> 0' if name == 'q' else '>= 0'}, got {options[name]}")
    values = options.get("values", [options.get("value")])
    if not isinstance(values, list) or not values:
        raise ValueError(f"{where}: `values` must be a list of at least one, got {describe(values)}")
    for value in values:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {value!r} is no value of JSON ({error}); quote it") from error
    shares = options.get("probabilities", [1.0])
    plain = isinstance(shares, list) and all(isinstance(s, int | float) and s >= 0 for s in shares)
    if not plain or ("probabilities" in options and len(shares) != len(values)) or not math.isclose(sum(shares), 1):
        raise ValueError(f"{where}: `probabilities` must be one per value and sum to 1, got {shares!r}")


def describe(value: object) -> str:
    """What stands in the place of something else, in words."""
    if value is None or value in ([], {}):
        return "none"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def canonical(value: object) -> str:
    """JSON in which equal values are equal; as for W&B, 3.0 is 3, but not within a list."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
