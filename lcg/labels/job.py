"""`lcg label generator | store | images | thresholds`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lcg.data.imagefiles import ImageFiles
from lcg.data.reading import Reading
from lcg.data.source import ImageSource
from lcg.data.store import LatentStore
from lcg.generators.base import Generator
from lcg.labels.base import Labeller
from lcg.labels.choosing import choose_rules
from lcg.labels.pictures import DecodedPictures, DrawnPictures, Pictures, SourcePictures, StorePictures
from lcg.labels.report import Known, check_report, write_report
from lcg.labels.ruled import RuledLabeller
from lcg.labels.rules_file import write_rules
from lcg.labels.storing import columns, joined, label_store, labelled
from lcg.labels.tabling import UnlabelledFolder, check_parquet, label_files, write_table
from lcg.labels.thresholds import Method


def generator_job(
    labeller: Labeller,
    generator: Generator,
    num: int,
    out: str,
    seed: int = 0,
    batch_size: int = 256,
    shard_size: int = 4096,
    dtype: str = "float32",
    second: Labeller | None = None,
    sample: int = 1000,
    progress: bool = True,
) -> None:
    """Draws latents from a generator's own prior and labels their images: a latent store from nothing but a generator.

    Run again, it goes on where it was stopped; with a larger `num` it adds to what is there. A report of the labels is
    written beside: OUT/labels.html, labels.md, labels.json.

    Args:
        labeller: says what is in an image, such as lcg.labels.ruled.RuledLabeller.
        generator: with a prior of its own, such as lcg.generators.faces.FaceDCGAN.
        num: how many latents.
        out: folder of the store.
        seed: others give other latents.
        batch_size: images decoded and looked at together.
        shard_size: samples stored together.
        dtype: float32, float16 or bfloat16.
        second: another labeller, whose agreement with the first the report tells.
        sample: images that the report looks at.
        progress: show samples done, rate and time left.
    """
    pictures = DrawnPictures(generator, num, seed, batch_size)
    _store(pictures, labeller, out, shard_size, dtype, None, second, sample, progress)


def store_job(
    labeller: Labeller,
    store: str,
    generator: Generator,
    out: str,
    keep: list[str] | None = None,
    batch_size: int = 256,
    shard_size: int = 4096,
    second: Labeller | None = None,
    sample: int = 1000,
    progress: bool = True,
) -> None:
    """Decodes the latents of a store and labels their images: a new store, with labels added or replaced.

    Run again, it goes on where it was stopped. A report of the labels is written beside, with their agreement with
    labels of the same attributes that the store had: OUT/labels.html, labels.md, labels.json.

    Args:
        labeller: says what is in an image; its attributes take the place of the store's of the same name.
        store: folder of the store; it is not touched.
        generator: what the latents are from.
        out: folder of the new store.
        keep: attributes of the store that are kept; all when left out.
        batch_size: images decoded and looked at together.
        shard_size: samples stored together.
        second: another labeller, whose agreement with the first the report tells.
        sample: images that the report looks at.
        progress: show samples done, rate and time left.
    """
    if Path(out).resolve() == Path(store).resolve():
        raise ValueError(f"`out` must be another folder than `store`, both are {out}")
    pictures = StorePictures(LatentStore.open(store), generator, batch_size)
    _store(pictures, labeller, out, shard_size, None, keep, second, sample, progress)


def images_job(
    labeller: Labeller,
    out: str,
    source: ImageSource | None = None,
    root: str | None = None,
    reading: Reading = Reading(),  # noqa: B008 (frozen; the defaults are the help)
    batch_size: int = 256,
    second: Labeller | None = None,
    sample: int = 1000,
    progress: bool = True,
) -> None:
    """Labels image files: a table for lcg.data.images.ImageFolder, with the labels that there were and new ones.

    Run again, it goes on where it was stopped. A report of the labels is written into a folder beside the table,
    NAME-report.

    Args:
        labeller: says what is in an image; its attributes take the place of known ones of the same name.
        out: the table, Parquet if it ends in .parquet and else CSV.
        source: image files with a table of labels, such as lcg.data.images.ImageFolder.
        root: a folder of images without a table, in its place.
        reading: how files below `root` are read, such as --reading.size 64 --reading.fit crop.
        batch_size: images looked at together.
        second: another labeller, whose agreement with the first the report tells.
        sample: images that the report looks at.
        progress: show images done, rate and time left.
    """
    if (source is None) == (root is None):
        raise ValueError("give `source`, images with a table of labels, or `root`, a folder of images; one of the two")
    files = UnlabelledFolder(root, reading) if root is not None else source
    if not isinstance(files, ImageFiles):
        raise ValueError(
            f"`source` must be image files, such as lcg.data.images.ImageFolder, got {type(source).__name__}, whose "
            "images have no names that a table could say"
        )
    check_report(labeller, second, sample)
    check_parquet(out)
    labels = label_files(files, labeller, out, batch_size, progress)
    schema = joined(files.schema, labeller.schema)
    table = np.full((len(files), len(schema)), np.nan, np.float32)
    table[:, columns(schema, files.schema.names)] = files.labels
    table[:, columns(schema, labeller.schema.names)] = labels
    write_table(out, files.files, schema, table, labelled(list(files.labelled), labeller))
    folder = Path(out).with_name(f"{Path(out).stem}-report")
    write_report(folder, SourcePictures(files), labeller, labels, sample, Known(files.schema, files.labels), second)
    print(f"{len(files)} images with {', '.join(schema.names)} in {out}; how good the labels are: {folder}/labels.html")


def thresholds_job(
    labeller: RuledLabeller,
    method: Method,
    out: str = "thresholds.yaml",
    methods: dict[str, Method] | None = None,
    source: ImageSource | None = None,
    store: str | None = None,
    generator: Generator | None = None,
    num: int = 2000,
    seed: int = 0,
    batch_size: int = 256,
) -> None:
    """Chooses the thresholds of binary attributes on images, and writes them into a file for `thresholds` of labellers.

    Args:
        labeller: whose thresholds are chosen.
        method: how, such as Otsu, Mixture, Labelled or Platt of lcg.labels.thresholds.
        out: the file, YAML, or JSON if it ends so.
        methods: others for some attributes, by name.
        source: images, with the labels that methods such as Labelled need.
        store: a store of latents with such labels, which `generator` decodes.
        generator: with `store`, what its latents are from; alone, its own draws are looked at.
        num: at most so many images, evenly spaced; or so many draws.
        seed: of the draws.
        batch_size: images looked at together.
    """
    pictures = _pictures(source, store, generator, num, seed, batch_size)
    rules, told = choose_rules(labeller, pictures, method, methods or {}, num, batch_size)
    write_rules(out, rules, told)
    for name, entry in told.items():
        place = ", ".join(f"{place:.4g}" for place in rules[name].places()) or "none"
        print(f"{name}: {place} ({entry['method']}, {entry['images']} images)")
        for doubt in entry.get("doubts", ()):
            print(f"  doubtful: {doubt}")
    print(f"written to {out}; use it with --labeller.thresholds {out}")


def _pictures(
    source: ImageSource | None, store: str | None, generator: Generator | None, num: int, seed: int, batch_size: int
) -> Pictures:
    if (source is not None) + (store is not None) > 1 or (source is None and generator is None):
        raise ValueError("give `source`; or `store` and the `generator` of its latents; or a `generator` alone")
    if source is not None:
        return SourcePictures(source)
    assert generator is not None  # refused above
    if store is None:
        return DrawnPictures(generator, num, seed, batch_size)
    return StorePictures(LatentStore.open(store), generator, batch_size)


def _store(
    pictures: DecodedPictures,
    labeller: Labeller,
    out: str,
    shard_size: int,
    dtype: str | None,
    keep: list[str] | None,
    second: Labeller | None,
    sample: int,
    progress: bool,
) -> None:
    check_report(labeller, second, sample)
    store = label_store(pictures, labeller, out, shard_size, dtype, keep, progress)
    labels = store.labels().numpy()[:, columns(store.schema, labeller.schema.names)]
    every: Any = np.arange(len(pictures))
    known = Known(pictures.schema, pictures.labels(every)) if len(pictures.schema) else None
    write_report(out, pictures, labeller, labels, sample, known, second)
    print(
        f"{len(store)} latents of shape {store.latent_shape} with {', '.join(store.schema.names)} in {out}; "
        f"how good the labels are: {out}/labels.html"
    )
