"""Who may judge whom: real folders of avatars, a judge fitted for a moment on one of them, every way to be partial."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer, seed_everything

from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.benchmarks.worlds.discipline import Images, Sketch, check_judge, check_world, same_source
from lcg.benchmarks.worlds.folder import FolderWorld
from lcg.data.avatars import SCHEMA, AvatarSource
from lcg.data.imagemodule import ImageDataModule
from lcg.data.images import ImageFolder, provenance_of
from lcg.generators.base import pixels_to_x, weights_sha256
from lcg.metrics.judge import AvatarJudge, Judge, TrainedJudge
from lcg.modules.export import ExportWeights
from lcg.modules.judge import JudgeModule
from lcg.schema import Attribute, Schema
from lcg.weights import load_weights

KNOWN = Schema(tuple(Attribute(name) for name in ("glasses", "smile", "hat")))
STORE = {"source": AvatarSource("biased", 8, "train").identity()}  # as `lcg encode` writes it


def write_folder(path: Path, split: str, count: int) -> ImageFolder:
    """Uniform avatars as PNG files with a table in which the first has no label for a hat."""
    images, labels = AvatarSource("uniform", count, split).chunk(0, count)
    path.mkdir()
    rows = ["file,glasses,smile,hat"]
    for i, (image, row) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(path / f"{i:04d}.png")
        glasses, smile, hat = (int(row[SCHEMA.index(name)]) for name in KNOWN.names)
        rows.append(f"{i:04d}.png,{glasses},{smile},{hat if i else ''}")
    (path / "table.csv").write_text("\n".join(rows))
    return ImageFolder(path, path / "table.csv")


@dataclass(frozen=True)
class Parts:
    """Four folders of avatars that share none, and a judge fitted on two of them."""

    store: ImageFolder
    train: ImageFolder
    val: ImageFolder
    world: ImageFolder
    weights: Path

    @property
    def judge(self) -> TrainedJudge:
        return TrainedJudge(str(self.weights))


def fit(train: ImageFolder, val: ImageFolder, path: Path, shrink: int = 1, steps: int = 4) -> Trainer:
    seed_everything(0)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=path.parent,
        callbacks=[ExportWeights(str(path))],
    )
    module = JudgeModule(width=8, features=12, shrink=shrink, warmup=1, lr=1e-2)
    trainer.fit(module, ImageDataModule(train, val, batch_size=16))
    return trainer


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    root = tmp_path_factory.mktemp("folders")
    sizes = {"store": 24, "train": 32, "val": 8, "world": 40}
    folders = {name: write_folder(root / name, f"discipline-{name}", count) for name, count in sizes.items()}
    fit(folders["train"], folders["val"], root / "judge.safetensors")
    return Parts(**folders, weights=root / "judge.safetensors")


def judged(parts: Parts, **replaced: Any) -> TrainedJudge:
    """The judge with another provenance."""
    judge = parts.judge
    judge.provenance = {**judge.provenance, **replaced}
    return judge


# --- the whole path ---


def test_folders_that_share_nothing_are_accepted(parts: Parts) -> None:
    world, judge, store = FolderWorld(parts.world), parts.judge, provenance_of(source=parts.store)
    guides = {"the prior": "0" * 64, "the generator": weights_sha256(AvatarJudge())}
    assert check_judge(judge, world, store, guides) == check_world(world, store) == []

    assert judge.schema == world.schema == KNOWN and judge.image_shape == world.image_shape == (3, 64, 64)
    real = world.real("biased", 6, "sources-0")
    seen = judge.judge(pixels_to_x(torch.from_numpy(real.images)))
    assert seen.labels.shape == real.labels.shape == (6, 3) and seen.features.shape == (6, 12)
    assert bool(((seen.probabilities > 0) & (seen.probabilities < 1)).all())


def test_what_a_judge_was_trained_on_goes_with_its_weights(parts: Parts) -> None:
    kept = load_weights(parts.weights)[2]
    expected = json.loads(json.dumps(provenance_of(train=parts.train, val=parts.val)))
    assert {key: kept[key] for key in expected} == expected
    assert kept["fingerprints"]["train"]["files"] == 32


def test_a_smaller_judge_takes_the_same_images(parts: Parts, tmp_path: Path) -> None:
    trainer = fit(parts.train, parts.val, tmp_path / "small.safetensors", shrink=2)
    assert {"val/accuracy/hat", "val/accuracy_all"} <= set(trainer.callback_metrics)
    judge = TrainedJudge(str(tmp_path / "small.safetensors"))
    assert judge.image_shape == (3, 32, 32)
    assert check_judge(judge, FolderWorld(parts.world), provenance_of(source=parts.store), {}) == []


def test_a_size_that_does_not_divide_is_refused(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`shrink` must divide the images' sides, got 3 for 64 x 64"):
        fit(parts.train, parts.val, tmp_path / "odd.safetensors", shrink=3)
    with pytest.raises(ValueError, match="`shrink` must be at least 1, got 0"):
        JudgeModule(shrink=0)


def test_the_shipped_judge_may_judge_avatars() -> None:
    assert check_judge(AvatarJudge(), AvatarWorld(), STORE, {}) == check_world(AvatarWorld(), STORE) == []


# --- who is refused, and what is said when that is allowed ---

Case = Callable[[Parts], tuple[Judge, FolderWorld, Mapping[str, Any], dict[str, str]]]


def case(
    judge: Callable[[Parts], Judge] = lambda p: p.judge,
    world: Callable[[Parts], ImageFolder] = lambda p: p.world,
    store: Callable[[Parts], Mapping[str, Any]] = lambda p: provenance_of(source=p.store),
    guides: Callable[[Parts], dict[str, str]] = lambda p: {},
) -> Case:
    return lambda p: (judge(p), FolderWorld(world(p)), store(p), guides(p))


REFUSED = {
    "its weights guide": (
        case(guides=lambda p: {"the prior": "0", "lace": weights_sha256(p.judge)}),
        ["The judge has the weights of lace, which guides."],
    ),
    "its file guides": (
        case(guides=lambda p: {"lace": p.judge.file_sha256}),
        ["The judge has the weights of lace, which guides."],
    ),
    "trained on the store": (
        case(store=lambda p: provenance_of(source=p.train)),
        ["The judge's training images are the same as those of the latent store."],
    ),
    "validated on the store": (
        case(store=lambda p: provenance_of(source=p.val)),
        ["The judge's validation images are the same as those of the latent store."],
    ),
    "trained on the world": (
        case(world=lambda p: p.train),
        ["The judge's training images are the same as those of the world."],
    ),
    "shares files with the world": (
        case(world=lambda p: subset(p.world, p.train, 5)),
        ["The judge's training images share files (5 seen, about 62% of the smaller folder) with those of the world."],
    ),
    "shares one file with the store": (
        case(store=lambda p: provenance_of(source=subset(p.store, p.val, 1))),
        [
            "The judge's validation images share files (1 seen, about 12% of the smaller folder) with those of the "
            "latent store."
        ],
    ),
    "says nothing": (
        case(judge=lambda p: Judge(KNOWN)),
        ["The judge does not say which images it has: make it again with this version of lcg."],
    ),
    "says it in no way that is known": (
        case(judge=lambda p: judged(p, train="my images")),
        ["The judge does not say which images it has: make it again with this version of lcg."],
    ),
    "the store says nothing": (
        case(store=lambda p: {}),
        ["The latent store does not say which images it has: make it again with this version of lcg."],
    ),
    "the store has no fingerprints": (
        case(store=lambda p: {"source": p.store.identity()}),
        [
            f"The judge's {part} images cannot be compared, for lack of fingerprints (`lcg encode` and `lcg fit` make "
            "them), with those of the latent store."
            for part in ("training", "validation")
        ],
    ),
    "fingerprints that are none": (
        case(judge=lambda p: judged(p, fingerprints={"train": {"smallest": ["x"], "files": 1}}, val=None)),
        [
            "The judge's training images cannot be compared, for lack of fingerprints (`lcg encode` and `lcg fit` make "
            f"them), with those of the {place}."
            for place in ("latent store", "world")
        ],
    ),
}


def subset(one: ImageFolder, other: ImageFolder, shared: int) -> ImageFolder:
    """A new folder of eight files of one and others, of which so many are the other's, under other names."""
    path = one.root.parent / f"{one.root.name}-{other.root.name}-{shared}"
    if not path.exists():
        path.mkdir()
        rows = ["file,glasses,smile,hat"]
        for i in range(8):
            source = other if i < shared else one
            (path / f"copy-{i}.png").write_bytes((source.root / source.files[i]).read_bytes())
            rows.append(f"copy-{i}.png,1,0,1")
        (path / "table.csv").write_text("\n".join(rows))
    return ImageFolder(path, path / "table.csv")


@pytest.mark.parametrize("name", REFUSED)
def test_a_partial_judge_is_refused_or_noted(parts: Parts, name: str) -> None:
    make, faults = REFUSED[name]
    judge, world, store, guides = make(parts)
    with pytest.raises(ValueError) as refused:
        check_judge(judge, world, store, guides)
    assert str(refused.value) == (
        f"{' '.join(faults)} Figures that rest on this may flatter: fit a judge on images of its own with `lcg fit "
        "--config configs/judge/folder.yaml`, or go on with `--shared_judge true`, and the report will say so"
    )
    notes = check_judge(judge, world, store, guides, allow=True)
    assert notes == [f"{fault} Figures that rest on this may flatter." for fault in faults]


def test_a_judge_of_other_attributes_or_sizes_is_refused_even_so(parts: Parts) -> None:
    world, store = FolderWorld(parts.world), provenance_of(source=parts.store)
    with pytest.raises(
        ValueError, match=r"the judge's attributes must be the world's, glasses, smile, hat .* got hat;"
    ):
        check_judge(Judge(Schema((Attribute("hat"),))), world, store, {}, allow=True)
    with pytest.raises(ValueError, match=r"the judge expects images of shape \(3, 48, 48\)"):
        check_judge(Judge(KNOWN, (3, 48, 48)), world, store, {}, allow=True)


def test_a_world_that_was_trained_on_is_refused_or_noted(parts: Parts) -> None:
    world = FolderWorld(parts.world)
    for store, words in (
        (provenance_of(source=parts.world), "are the same as those of the latent store"),
        (provenance_of(source=subset(parts.store, parts.world, 2)), r"share files \(2 seen, about 25% .* latent store"),
        ({}, "latent store does not say which images it has"),
    ):
        with pytest.raises(ValueError, match=f"{words}.*give the benchmark images that nothing was trained on, or"):
            check_world(world, store)
        assert len(check_world(world, store, allow=True)) == 1


def test_a_world_that_says_nothing_is_refused(parts: Parts) -> None:
    class Silent(FolderWorld):
        def sources(self) -> list[dict[str, Any]]:
            return []

    world, store = Silent(parts.world), provenance_of(source=parts.store)
    for check in (lambda: check_world(world, store), lambda: check_judge(parts.judge, world, store, {})):
        with pytest.raises(ValueError, match="The world does not say which images it has"):
            check()


@pytest.mark.parametrize("split", ["bench-reference", "bench-sources-0"])
def test_a_judge_of_the_avatar_worlds_own_splits_is_refused(split: str) -> None:
    judge = AvatarJudge()
    judge.provenance = {"train": AvatarSource("uniform", 8, split).identity()}
    with pytest.raises(ValueError, match="training images are the same as those of the world"):
        check_judge(judge, AvatarWorld(), STORE, {})
    judge.provenance = {"train": AvatarSource("uniform", 8, split, seed=1).identity()}
    assert check_judge(judge, AvatarWorld(), STORE, {}) == []


# --- the parts of it ---


def test_avatars_of_one_stream_are_the_same_however_drawn_and_rendered() -> None:
    one = AvatarSource("biased", 8, "train").identity()
    assert same_source(one, {**AvatarSource("uniform", 8, "train").identity(), "resvg_py": "9"})
    assert not same_source(one, AvatarSource("biased", 8, "train", seed=1).identity())
    assert not same_source(one, AvatarSource("biased", 8, "training").identity())


def test_one_table_is_one_source_and_other_identities_are_believed() -> None:
    folder = {"class": "lcg.data.images.ImageFolder", "table_sha256": "a", "image_shape": [3, 64, 64]}
    assert same_source(folder, {**folder, "image_shape": [3, 256, 256]})
    assert not same_source(folder, {**folder, "table_sha256": "b"})
    assert not same_source(folder, AvatarSource("uniform", 8, "train").identity())
    mine = {"class": "Mine", "part": "a*"}
    assert same_source(mine, {"class": "Mine", "part": "abc"}) and same_source({"class": "Mine", "part": "abc"}, mine)
    assert not same_source(mine, {"class": "Mine", "part": "b"}) and not same_source(mine, {"class": "Mine"})
    assert Images.of({"a": {"class": "Mine"}}, "a").shared(Images.of({"a": folder}, "a")) == ""


def sketch(hashes: set[int], size: int) -> Sketch:
    smallest = [f"{h:016x}" for h in sorted(hashes)[:size]]
    return Sketch.of({"files": len(hashes), "smallest": smallest})


def test_small_folders_are_compared_exactly_and_large_ones_estimated() -> None:
    one, other = set(range(0, 50)), set(range(40, 240))
    assert sketch(one, 1000).common(sketch(other, 1000)) == (10, 0.2)
    assert sketch(one, 1000).common(sketch({999}, 1000)) == (0, 0.0)
    rng = torch.Generator().manual_seed(0)
    hashes = torch.randint(2**62, (30_000,), generator=rng).tolist()
    left, right = set(hashes[:20_000]), set(hashes[15_000:])  # 5000 in common, a third of the smaller
    for a, b in ((left, right), (right, left)):
        count, share = sketch(a, 1024).common(sketch(b, 1024))
        assert count > 150 and share == pytest.approx(1 / 3, abs=0.05)
    assert sketch(left, 1024).common(sketch(set(hashes[20_000:]), 1024)) == (0, 0.0)
    assert sketch(left, 1024).common(sketch(set(hashes[:200]), 1024))[1] in (0, 1)  # a few of them, if any, are known
