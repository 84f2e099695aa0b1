"""Prior and classifiers of generator A, drawn by generator B through maps of 100 to 10 000 pairs; see README.md.

OMP_NUM_THREADS=1 python experiments/13_transfer/compare.py      writes results.csv and figure.png beside itself
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import lcg
from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.data.avatars import AvatarSource
from lcg.generators.autoencoder import AvatarAutoencoder
from lcg.generators.base import Generator, pixels_to_x, weights_sha256
from lcg.guidance import parse, parse_edit
from lcg.metrics.accuracy import proportion
from lcg.metrics.frechet import frechet_between
from lcg.metrics.judge import AvatarJudge
from lcg.metrics.preservation import edit_success, kept, l1_outside
from lcg.pictures import strips
from lcg.pipeline import Pipeline
from lcg.transfer import HOW, MappedGenerator, RelativeGenerator, fit_map
from lcg.transfer.job import judge_map
from lcg.transfer.maps import LatentMap
from lcg.transfer.pairs import read_pairs
from lcg.transfer.solvers import regularised

HERE = Path(__file__).parent
PAIRS = (100, 1000, 10_000)
HELD_OUT = 2000
FORMULAS = ("glasses & hat", "smile & ~beard", "glasses & beard & smile & hat")
EDITS = ("+glasses", "-hat")
SAMPLES, SOURCES = 256, 32
Latents = dict[tuple[torch.nn.Module, str | None], Tensor]
SHOWN = {"A": "A", "no adaptation": "unadapted", "B": "B, trained", "cca-100": "cca, 100", "cca-1000": "cca, 1000",
         "ridge-1000": "ridge, 1000"}  # fmt: skip


class Truncated(Generator):
    """No adaptation: B is given the first elements of A's latents as its own. The null that every map has to beat."""

    def __init__(self, generator: Generator, size: int) -> None:
        super().__init__()
        self.generator, self.latent_shape, self.image_shape = generator, (size,), generator.image_shape

    def decode(self, z: Tensor) -> Tensor:
        return self.generator.decode(z[:, : self.generator.latent_shape[0]])

    def encode(self, x: Tensor) -> Tensor:
        z = self.generator.encode(x)
        return torch.cat([z, z.new_zeros(len(z), self.latent_shape[0] - z.shape[1])], dim=1)


def main() -> None:
    """Every arm through the same formulas and edits."""
    options = argparse.ArgumentParser()
    options.add_argument("--demo", default="runs/demo")
    options.add_argument("--runs", default="runs/transfer")
    options.add_argument("--out", default=str(HERE))
    given = options.parse_args()
    world, judge = AvatarWorld(), AvatarJudge()
    reals = world.real("biased", 4096, "transfer-reference")
    reference = judge.judge(pixels_to_x(torch.from_numpy(reals.images))).features
    scale = reference.std(0)
    floor = world.real("biased", SAMPLES, "transfer-floor").images
    seen = judge.judge(pixels_to_x(torch.from_numpy(floor))).features
    distance = float(frechet_between(seen / scale, reference / scale))
    rows: list[tuple[object, ...]] = [("real", "unconditional", "frechet_distance", distance, "", SAMPLES, 0)]
    pictures: dict[str, np.ndarray] = {}
    latents: Latents = {}
    rows += stitched(given.demo, given.runs, AvatarAutoencoder(), other_generator(given.runs))
    for name, pipeline, figures in arms(given.demo, given.runs):
        rows += [(name, "map", metric, value, "", HELD_OUT, 0) for metric, value in figures.items()]
        rows += [(name, *row, 0) for row in generated(pipeline, judge, reference, name, pictures, latents)]
        if not name.startswith(("procrustes", "relative-")):  # edits take most of the time
            rows += [(name, *row, 0) for row in edited(pipeline, world, judge)]
        print(*(f"{r[1]} {r[2]} {r[3]:.3f}" for r in rows if r[0] == name), sep="; ", flush=True)
        with (Path(given.out) / "results.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("method", "task", "metric", "value", "stderr", "n", "seed"), *rows])
    columns = [label for label in SHOWN.values() if label in pictures]
    strips(np.stack([pictures[label] for label in columns], axis=1), columns).save(Path(given.out) / "figure.png")


def arms(demo: str, runs: str) -> Iterator[tuple[str, Pipeline, dict[str, float]]]:
    """The pipelines, by name, and R^2 of their maps on pairs held out."""
    a, b = AvatarAutoencoder(), other_generator(runs)
    native = lcg.load(f"{demo}/prior/prior.ckpt", f"{demo}/classifier/classifier.ckpt", a)
    yield "A", native, {}
    yield "B", lcg.load(f"{runs}/prior/prior.ckpt", f"{runs}/classifier/classifier.ckpt", b), {}
    yield "no adaptation", replace(native, generator=Truncated(b, a.latent_shape[0])), {}
    pairs = read_pairs(f"{demo}/store", f"{runs}/store", HELD_OUT + max(PAIRS))
    for count in PAIRS:
        for how in HOW:
            fitted = slice(HELD_OUT, HELD_OUT + count)
            found = fit_map(pairs.z_a[fitted], pairs.z_b[fitted], how, provenance=pairs.provenance)
            report = judge_map(found, pairs, slice(0, HELD_OUT))
            figures = {name: report[name] for name in ("there", "back", "there_and_back")}
            figures |= {f"there/{name}": value for name, value in report["attributes"].items()}
            yield f"{how}-{count}", replace(native, generator=mapped(b, found, weights_sha256(a))), figures


def stitched(demo: str, runs: str, a: Generator, b: Generator) -> Iterator[tuple[object, ...]]:
    """Linear classifiers of one space applied to another, without a map: their mean balanced accuracy held out."""
    pairs = read_pairs(f"{demo}/store", f"{runs}/store", 2 * HELD_OUT)
    anchors = AvatarSource("uniform", 256, "anchors")
    one, other = (RelativeGenerator(generator, anchors, 256).relative for generator in (a, b))
    size = pairs.z_b.shape[1]
    spaces = {
        "A's latents, on A": (pairs.z_a, pairs.z_a),
        "A's latents, on B": (pairs.z_a[:, :size], pairs.z_b),
        "relative, A on A": (one(pairs.z_a), one(pairs.z_a)),
        "relative, A on B": (one(pairs.z_a), other(pairs.z_b)),
        "relative, B on B": (other(pairs.z_b), other(pairs.z_b)),
    }
    binary = [j for j, attribute in enumerate(pairs.schema) if attribute.kind == "binary"]
    y = 2 * pairs.labels[:, binary] - 1
    for name, (train, test) in spaces.items():
        x, rest = train[:HELD_OUT].double(), test[HELD_OUT:].double()
        w = regularised(x - x.mean(0), 1e-4) @ (y[:HELD_OUT] - y[:HELD_OUT].mean(0)).double()
        right = ((rest - x.mean(0)) @ w + y[:HELD_OUT].mean(0) > 0) == (y[HELD_OUT:] > 0)
        positive = y[HELD_OUT:] > 0
        shares = [(right & side).sum(0) / side.sum(0) for side in (positive, ~positive)]
        yield name, "linear classifier", "balanced_accuracy", float(torch.stack(shares).mean()), "", HELD_OUT, 0


def other_generator(runs: str) -> Generator:
    """Generator B."""
    return AvatarAutoencoder(f"{runs}/generator/b.safetensors")


def mapped(b: Generator, found: LatentMap, a_sha256: str) -> MappedGenerator:
    """B behind a map; refuses one that is not from A."""
    with tempfile.TemporaryDirectory() as folder:
        found.save(f"{folder}/map.safetensors")
        generator = MappedGenerator(b, f"{folder}/map.safetensors").eval()
    if generator.latents_sha256() != a_sha256:
        raise RuntimeError("the map does not begin at A")
    return generator


def generated(
    pipeline: Pipeline,
    judge: AvatarJudge,
    reference: Tensor,
    name: str,
    pictures: dict[str, np.ndarray],
    latents: Latents,
) -> Iterator[tuple[object, ...]]:
    """Joint accuracy of formulas by the judge, and Frechet distance of unconditional samples to biased avatars."""
    seen = judge.judge(pixels_to_x(torch.from_numpy(pipeline.decode(drawn(pipeline, None, latents)))))
    scale = reference.std(0)  # the features are measured in the spread that they have on real images
    distance = frechet_between(seen.features / scale, reference / scale)
    yield "unconditional", "frechet_distance", float(distance), "", SAMPLES
    for text in FORMULAS:
        images = pipeline.decode(drawn(pipeline, text, latents))
        labels = judge.judge(pixels_to_x(torch.from_numpy(images))).labels
        hits = parse(text, pipeline.schema).holds(labels)
        yield f"generate/{text}", "joint_accuracy", *proportion(hits), SAMPLES
        if text == FORMULAS[-1] and name in SHOWN:
            pictures[SHOWN[name]] = images[:5]


def drawn(pipeline: Pipeline, text: str | None, latents: Latents) -> Tensor:
    """Latents of a formula: with one prior the same ones, whoever decodes them."""
    key = pipeline.denoiser, text
    if key not in latents:
        latents[key] = pipeline.draw(range(SAMPLES), None if text is None else parse(text, pipeline.schema)).z_0
    return latents[key]


def edited(pipeline: Pipeline, world: AvatarWorld, judge: AvatarJudge) -> Iterator[tuple[object, ...]]:
    """Success and preservation of edits of real images, by the judge and in the pixels."""
    for edit in EDITS:
        wanted = parse_edit(edit, pipeline.schema)
        lacking = parse(f"~({wanted})", pipeline.schema)
        sources = world.real("biased", SOURCES, f"transfer-{edit}", lacking)
        before = pixels_to_x(torch.from_numpy(sources.images))
        reconstruction, after = (pixels_to_x(torch.from_numpy(x)) for x in pipeline.edit(sources.images, edit))
        labels = judge.judge(after).labels
        present = wanted.holds(labels)
        same = kept(pipeline.schema, sources.labels, labels, wanted.attributes)
        region = torch.from_numpy(world.regions(sources, (wanted,)))
        outside = l1_outside(before, after, region)
        yield f"edit/{edit}", "edit_success", *proportion(edit_success(present, same, outside)), SOURCES
        yield f"edit/{edit}", "accuracy", *proportion(present), SOURCES
        yield f"edit/{edit}", "kept", *proportion(same), SOURCES
        yield f"edit/{edit}", "l1_outside", float(outside.mean()), "", SOURCES
        yield f"edit/{edit}", "l1_reconstruction", float((reconstruction - before).abs().mean() / 2), "", SOURCES


if __name__ == "__main__":
    main()
