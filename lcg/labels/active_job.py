"""`lcg label next` and `lcg label merge`: choose latents, fill in a table, merge it; then fit the classifiers again."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lcg.checkpoint import LoadedNetwork, load_network
from lcg.data.store import LatentStore
from lcg.data.store.labelling import read_schema
from lcg.data.store.shards import ROWS_AT_ONCE
from lcg.generators.base import Generator
from lcg.labels.active_acquisition import BLIND, Acquisition, choose
from lcg.labels.active_table import joined, merge_labels, numbered_sheet, write_table
from lcg.labels.pictures import StorePictures
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import make_schedule
from lcg.schema import Schema

KNOWN = 20_000
"""Labelled latents that are looked at, at most, for each attribute together."""


def next_job(
    store: str,
    generator: Generator,
    classifier: str | None = None,
    attributes: list[str] = [],  # noqa: B006 (never changed; the default is the help)
    num: int = 50,
    per_attribute: bool = False,
    acquisition: Acquisition = "coverage",
    candidates: int = 10_000,
    band: tuple[float, float] = (0.1, 0.9),
    schema: str | None = None,
    columns: int = 10,
    seed: int = 0,
    out: str = "runs/label",
) -> None:
    """Chooses latents to label next: a numbered sheet of images, and a table to fill in for `lcg label merge`.

    Writes OUT/sheet.png and OUT/table.csv; for each attribute by itself OUT/ATTRIBUTE.png and OUT/ATTRIBUTE.csv.

    Args:
        store: folder of the latents, few of them labelled.
        generator: the frozen generator that draws them.
        classifier: checkpoint of the classifiers; random and coverage need none.
        attributes: which; all of the classifier or the store when left out.
        num: how many latents, for all attributes together or for each.
        per_attribute: choose for each attribute by itself.
        acquisition: entropy (measured best, see experiments/12_active_labels), bald (most information about the last
            layer), guidance (what takes most from the variance of guidance), margin,
            coverage (unlike all that are labelled), random.
        candidates: latents without a label that are looked at, at most, drawn at random.
        band: noise levels at which guidance acts.
        schema: YAML file that describes attributes which the store lacks.
        columns: images in a row of the sheet.
        seed: of what is drawn at random.
        out: folder for the results, empty or not there yet.
    """
    opened = LatentStore.open(store)
    known = joined(opened.schema, None if schema is None else read_schema(schema))
    loaded = None if acquisition in BLIND or classifier is None else load_network(classifier, "classifier")
    names = asked(attributes, known, loaded)
    folder = empty_folder(out)
    pictures = StorePictures(opened, generator)
    state = label_state(opened, known, names)
    for title, mine in [(name, [name]) for name in names] if per_attribute else [("", list(names))]:
        missing, labelled = (each[:, [names.index(name) for name in mine]] for each in state)
        rows = chosen_rows(opened, missing, labelled, mine, num, acquisition, loaded, candidates, band, seed)
        images = pictures.images(rows.numpy())
        scale = max(1, 128 // images.shape[2])
        numbered_sheet(images, columns, scale).save(folder / f"{title or 'sheet'}.png")
        write_table(folder / f"{title or 'table'}.csv", rows.tolist(), mine, missing[rows])
        print(f"{num} latents for {', '.join(mine)}: look at {folder / (title or 'sheet')}.png, fill in", end=" ")
        print(f"{folder / (title or 'table')}.csv, then lcg label merge")


def merge_job(
    store: str,
    table: str,
    out: str,
    schema: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Makes a store of the same latents with the labels that were filled into a table of `lcg label next`.

    Args:
        store: folder of the store; it is not touched.
        table: the filled table.
        out: folder of the new store.
        schema: YAML file that describes attributes which the store lacks.
        overwrite: whether the table wins over labels that are known.
        progress: show samples done, rate and time left.
    """
    new = None if schema is None else read_schema(schema)
    merged, filled = merge_labels(store, table, out, new, overwrite, progress)
    print(f"{filled} labels added to {len(merged)} latents in {out}; fit the classifiers again on it")


def asked(
    attributes: list[str], known: Schema, loaded: LoadedNetwork[TimeConditionedClassifier] | None
) -> tuple[str, ...]:
    """The attributes to ask for. Raises ValueError for one that is not there, twice there, or for none."""
    for name in attributes:
        known.index(name)
        if loaded is not None:
            loaded.network.schema.index(name)
    names = tuple(attributes or (known if loaded is None else loaded.network.schema).names)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"`attributes` must name distinct attributes, got {list(names)}; or describe them by `schema`")
    return names


def empty_folder(out: str) -> Path:
    """The folder for results. Raises FileExistsError where there is something: perhaps a table half filled in."""
    folder = Path(out)
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty, it may hold a table that is being filled in; choose another out")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def label_state(store: LatentStore, schema: Schema, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Which labels of these attributes are missing, and which are known, (N, A) each.

    A detail that is known not to apply is neither.
    """
    missing, known = [], []
    for start in range(0, len(store), ROWS_AT_ONCE):
        labels = store.labels(slice(start, start + ROWS_AT_ONCE))
        labels = torch.cat([labels, labels.new_full((len(labels), len(schema) - labels.shape[1]), torch.nan)], dim=1)
        known.append(~labels[:, [schema.index(name) for name in names]].isnan())
        missing.append(~known[-1])
        for j, name in enumerate(names):
            for parent, value in schema[name].applies_if.items():
                of_parent = labels[:, schema.index(parent)]
                missing[-1][:, j] &= of_parent.isnan() | (of_parent == float(value))
    return torch.cat(missing), torch.cat(known)


def chosen_rows(
    store: LatentStore,
    missing: Tensor,
    labelled: Tensor,
    names: list[str],
    num: int,
    acquisition: Acquisition,
    loaded: LoadedNetwork[TimeConditionedClassifier] | None,
    candidates: int,
    band: tuple[float, float],
    seed: int,
) -> Tensor:
    """Rows of the store (num,), those worth most first; see `choose`."""
    rng = torch.Generator().manual_seed(seed)

    def some(rows: Tensor, most: int) -> Tensor:
        return rows[torch.randperm(len(rows), generator=rng)[:most]].sort().values

    pool = some(missing.any(1).nonzero()[:, 0], max(candidates, num))
    known = some(labelled.any(1).nonzero()[:, 0], KNOWN)
    statistics = store.statistics if loaded is None else loaded.statistics
    schedule = None if loaded is None else make_schedule(loaded.config["schedule"])
    picked = choose(
        acquisition,
        num,
        statistics.standardise(store.latents(pool)),
        missing[pool],
        statistics.standardise(store.latents(known)),
        labelled[known],
        names,
        None if loaded is None else loaded.network,
        schedule,
        band,
        seed,
    )
    return pool[picked]
