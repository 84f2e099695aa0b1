"""A finished benchmark in TensorBoard, always, and in Weights & Biases, where it is asked for.

Both show what results.csv and costs.csv say, as METHOD/TASK/METRIC. Beside them, under its bare name, stands every
metric of one method, averaged over the tasks that have it,

    metric = mean_task value(method, task, metric),

which is what a sweep file's `metric: {name: sharp}` finds, and by which `lcg sweep` chooses, too.
"""

from __future__ import annotations

import json
import netrc
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

from lcg.benchmarks.results.estimates import COLUMNS, Results, read_results
from lcg.benchmarks.sweeps.table import average, by_task, spell
from lcg.data.atomic import write_atomic

Mode = Literal["off", "offline", "online"]

EVENTS = "events.out.tfevents.0.lcg"
"""TensorBoard's file. The name never changes, so that tracking a folder again replaces what it shows."""

FILES = ("results.csv", "costs.csv", "comparisons.csv", "provenance.json")
"""What W&B's artifact holds, where it is there; config.yaml comes on top."""

FORBIDDEN = "/\\#?%:"
"""Characters that W&B takes in no project's name."""


@dataclass(frozen=True)
class Tracking:
    """Where W&B is told of results. TensorBoard's events are always written.

    Args:
        wandb: `auto` logs only where a W&B agent started this run, as WANDB_MODE says (online by default); `off` never;
            `offline` to files for `wandb sync`; `online` needs `wandb login`.
        project: W&B's project; an agent's runs are in that of their sweep.
        entity: user or team; W&B's default when left out.
        name: of the run; W&B makes one up when left out.
        group: of runs that belong together.
        tags: of the run.
    """

    wandb: Literal["auto", "off", "offline", "online"] = "auto"
    project: str = "lcg"
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.project) <= 128 or set(self.project) & set(FORBIDDEN):
            raise ValueError(
                f"`project` must have 1 to 128 characters, none of {' '.join(FORBIDDEN)}, got {self.project!r}; "
                "a user or team goes to `entity`"
            )

    @property
    def mode(self) -> Mode:
        """What `auto` comes to here."""
        if self.wandb != "auto":
            return self.wandb
        if not os.environ.get("WANDB_SWEEP_ID"):
            return "off"
        said: dict[str, Mode] = {"disabled": "off", "offline": "offline", "dryrun": "offline"}
        return said.get(os.environ.get("WANDB_MODE", ""), "online")


def check_tracking(tracking: Tracking) -> None:
    """To be called before the work whose results are tracked.

    Raises:
        ValueError: they shall go to W&B's server, but nobody is logged in.
    """
    if tracking.mode == "online" and not _logged_in():
        raise ValueError(
            "`tracking.wandb` is online, but there is no W&B account: neither WANDB_API_KEY nor an entry in ~/.netrc; "
            "run `wandb login`, or set `offline` (or WANDB_MODE=offline for an agent) and `wandb sync` the run later"
        )


def _logged_in() -> bool:
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb.setup().settings
    if settings.api_key:
        return True
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(host) for host in (urlsplit(settings.base_url).netloc, "api.wandb.ai"))


def track(folder: Path, tracking: Tracking, config: Mapping[str, Any], method: str = "lcg") -> None:
    """Shows a finished benchmark in OUT/tensorboard and, where it is asked for, as a run of W&B.

    Tracking a folder again replaces TensorBoard's events; at W&B it is another run, except for an agent's, whose
    id is given. A run that is offline is in OUT/wandb, the files of its artifact in W&B's own folder (WANDB_DATA_DIR);
    `wandb sync` sends both.

    Args:
        folder: OUT, with results.csv, pictures.json and provenance.json, perhaps costs.csv and comparisons.csv.
        tracking: where to.
        config: the settings that led to the results, JSON's types only.
        method: whose averages over tasks stand under the bare names of metrics.

    Raises:
        FileNotFoundError: the folder has no results.
        RuntimeError: W&B refused the run.
    """
    done = read_finished(folder, config, method)
    write_events(done)
    if (mode := tracking.mode) != "off":
        log_run(done, tracking, mode)


@dataclass(frozen=True)
class Finished:
    """What is shown of a benchmark.

    Args:
        folder: OUT.
        table: results.csv and costs.csv.
        averages: the metrics of one method, averaged over its tasks.
        pictures: the entries of pictures.json.
        config: the settings that led here.
    """

    folder: Path
    table: Results
    averages: Mapping[str, float]
    pictures: Sequence[Mapping[str, str]]
    config: Mapping[str, Any]


def read_finished(folder: Path, config: Mapping[str, Any], method: str) -> Finished:
    """Reads OUT; results.csv and pictures.json must be there."""
    table = read_results(folder)
    pictures = json.loads((folder / "pictures.json").read_text())
    return Finished(folder, table, averages_of(table, method), pictures, config)


def averages_of(table: Results, method: str) -> dict[str, float]:
    """Every metric of a method, averaged over its tasks."""
    metrics = dict.fromkeys(row.metric for row in table.rows if row.method == method)
    return {metric: average(list(by_task(table, metric, method).values())).value for metric in metrics}


def write_events(done: Finished) -> None:
    """OUT/tensorboard: METHOD/TASK/METRIC with the seed as step, averages at step 0, pictures, hyperparameters.

    The events are written as they are defined, https://www.tensorflow.org/tutorials/load_data/tfrecord, because
    TensorBoard's own writers load TensorFlow where it is installed.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    def summaries() -> Iterator[tuple[int, Any]]:
        yield 0, hparams_pb(flat(done.config), start_time_secs=written)
        for metric, value in done.averages.items():
            yield 0, Summary(value=[Summary.Value(tag=metric, simple_value=value)])
        for row in done.table.rows:
            tag = f"{row.method}/{row.task}/{row.metric}"
            yield row.seed or 0, Summary(value=[Summary.Value(tag=tag, simple_value=row.value)])
        for picture in done.pictures:
            data = (done.folder / picture["file"]).read_bytes()
            width, height = struct.unpack(">II", data[16:24])  # of a PNG's header
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
            yield 0, Summary(value=[Summary.Value(tag=_tag(picture), image=image)])

    written = (done.folder / "results.csv").stat().st_mtime
    events = [Event(wall_time=written, file_version="brain.Event:2")]
    events += [Event(wall_time=written, step=step, summary=summary) for step, summary in summaries()]
    framed = bytearray()
    for event in events:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        framed += length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
    (done.folder / "tensorboard").mkdir(exist_ok=True)
    write_atomic(done.folder / "tensorboard" / EVENTS, bytes(framed))


def log_run(done: Finished, tracking: Tracking, mode: Literal["offline", "online"]) -> None:
    """One run of W&B: numbers, a table of results, pictures, and the files as an artifact of type `benchmark`."""
    import wandb

    rows = [[getattr(row, column) for column in COLUMNS] for row in done.table.rows]
    figures = {"/".join(key): estimate.value for key, estimate in done.table.estimates.items()}
    try:
        with wandb.init(
            mode=mode,
            project=tracking.project,
            entity=tracking.entity,
            name=tracking.name,
            group=tracking.group,
            tags=tracking.tags,
            dir=done.folder,
            job_type="benchmark",
            config=dict(done.config),
            reinit="create_new",  # whatever run the caller may have is left alone
            settings=wandb.Settings(console="off"),  # the work, and what it printed, is over
        ) as run:
            shown = {_tag(p): wandb.Image(str(done.folder / p["file"]), caption=_caption(p)) for p in done.pictures}
            run.log({**figures, **done.averages, **shown, "results": wandb.Table(columns=list(COLUMNS), data=rows)})
            artifact = wandb.Artifact(f"benchmark-{run.id}", "benchmark")
            for name in FILES:
                if (done.folder / name).is_file():
                    artifact.add_file(str(done.folder / name), name)
            with artifact.new_file("config.yaml") as file:  # lcg writes its own when the job has returned
                yaml.safe_dump(dict(done.config), file, sort_keys=False)
            run.log_artifact(artifact)
    except wandb.Error as error:
        raise RuntimeError(
            f"W&B refused the run ({error}); all results are in {done.folder}: give the same command again, or set "
            "`tracking.wandb` to offline and `wandb sync` the run later"
        ) from error


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, bool | float | str]:
    """A nested mapping by dotted names; what is neither a number nor text is written as JSON."""
    found: dict[str, bool | float | str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value if isinstance(value, bool | int | float) else spell(value)
    return found


def _tag(picture: Mapping[str, str]) -> str:
    return f"{picture['kind']}/{picture['method']}/{picture['task']}"


def _caption(picture: Mapping[str, str]) -> str:
    return f"{picture['title']}. {picture['caption']}"
