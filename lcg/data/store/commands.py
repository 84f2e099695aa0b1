"""`lcg store info | verify | merge | split | import`."""

from __future__ import annotations

from json import dumps
from pathlib import Path

from tqdm import tqdm

from lcg.data.store.describing import describe_store, in_words
from lcg.data.store.importing import import_latents
from lcg.data.store.labelling import read_schema
from lcg.data.store.manifest import NAME, Manifest
from lcg.data.store.merging import merge_stores
from lcg.data.store.remote import fetch, is_remote
from lcg.data.store.splitting import split_store
from lcg.data.store.verify import inspect
from lcg.generators.base import Generator


def info_job(path: str, json: bool = False, val_fraction: float = 0.05, test_fraction: float = 0.0) -> None:
    """Tells what is in a latent store: latents, attributes and how often each value occurs, split, provenance.

    Args:
        path: folder of the store.
        json: print all of it as JSON.
        val_fraction: expected fraction of validation samples in the split that is told.
        test_fraction: expected fraction of test samples.
    """
    told = describe_store(path, val_fraction, test_fraction)
    print(dumps(told, indent=2) if json else in_words(told))


def verify_job(path: str, progress: bool = True) -> int:
    """Reads all of a latent store and names every file that is damaged; exits with 1 if there is one.

    Args:
        path: folder of the store.
        progress: show samples read, rate and time left.
    """
    folder = fetch(path) if is_remote(path) else Path(path)
    with tqdm(unit="latent", desc="verify", disable=not progress) as bar:
        if not bar.disable:
            bar.total = _count(folder)
        report = inspect(folder, bar.update)
    for problem in report.problems:
        print(problem)
    verdict = "sound" if report.sound else f"damaged: {len(report.problems)} problems"
    print(f"{path}: {report.rows} latents in {report.shards} shards, {verdict}")
    return 0 if report.sound else 1


def _count(folder: Path) -> int | None:
    """How many samples a store says it has; None if it cannot."""
    try:
        return Manifest.read(folder).count if (folder / NAME).is_file() else None
    except ValueError:
        return None


def merge_job(
    stores: list[str],
    out: str = "runs/merged",
    dtype: str | None = None,
    renumber: bool = False,
    any_generator: bool = False,
    shard_size: int | None = None,
    progress: bool = True,
) -> None:
    """Makes one latent store of several of the same kind. Run again, it goes on where it was stopped.

    Args:
        stores: folders of the stores; they are not touched.
        out: folder of the new store.
        dtype: float32, float16 or bfloat16; that of the first store when left out.
        renumber: number the samples of each store after those of the stores before it, for stores that share numbers;
            this moves samples of the later stores between training and validation.
        any_generator: merge latents of different generators, too.
        shard_size: samples stored together; about 64 MiB of latents when left out.
        progress: show samples done, rate and time left.
    """
    store = merge_stores(stores, out, dtype, renumber, any_generator, shard_size, progress)
    if renumber:
        print("warning: samples of all stores but the first have new numbers, and may be on the other side of a split")
    print(f"{len(store)} latents of shape {store.latent_shape} in {out}")


def split_job(
    path: str,
    out: str = "runs/split",
    parts: dict[str, float] | None = None,
    by: str | None = None,
    shard_size: int | None = None,
    progress: bool = True,
) -> None:
    """Makes several latent stores of one, by shares or by an attribute: --parts '{"train": 0.8, "judge": 0.2}'.

    Which part a sample is in depends on its number alone; run again, the command goes on where it was stopped.

    Args:
        path: folder of the store; it is not touched.
        out: folder of the new stores, OUT/PART.
        parts: the share of each part by its name.
        by: a binary or categorical attribute, in the place of shares.
        shard_size: samples stored together; about 64 MiB of latents when left out.
        progress: show samples done, rate and time left.
    """
    for name, store in split_store(path, out, parts, by, shard_size, progress).items():
        print(f"{len(store)} latents in {out}/{name}")


def import_job(
    latents: list[str],
    out: str,
    table: str | None = None,
    schema: str | None = None,
    member: str | None = None,
    labels: str | None = None,
    dtype: str = "float32",
    generator: Generator | None = None,
    shard_size: int | None = None,
    progress: bool = True,
) -> None:
    """Makes a latent store of latents that you have, with a table of their labels. Run again, it goes on.

    Args:
        latents: .npy, .npz or .safetensors files of arrays (N, ...), in order.
        out: folder of the store.
        table: CSV or Parquet, a column per attribute, a line per latent in their order; or with a column `row` that
            numbers them from 0. Left out, the store has no attributes: enough for a prior.
        schema: YAML file with a list of attributes (name, kind, values); read off the table when left out.
        member: name of the latents in .npz and .safetensors files, if they hold several arrays.
        labels: name of an array of labels (N, A) in the same files, in the place of a table; needs `schema`.
        dtype: float32, float16 or bfloat16.
        generator: the generator that the latents belong to; its identity is kept, so that no other one draws them.
        shard_size: samples stored together; about 64 MiB of latents when left out.
        progress: show samples done, rate and time left.
    """
    attributes = None if schema is None else read_schema(schema)
    store = import_latents(latents, out, table, attributes, member, labels, dtype, generator, shard_size, progress)
    named = f" with {', '.join(store.schema.names)}" if len(store.schema) else " without attributes"
    print(f"{len(store)} latents of shape {store.latent_shape}{named} in {out}")
