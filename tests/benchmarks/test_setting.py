"""Where a benchmark takes place: what does not fit together is refused before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lcg import cli
from lcg.baselines import LatentArithmetic
from lcg.benchmarks.benchmark import Sizes
from lcg.benchmarks.jobs import Job, assemble
from lcg.benchmarks.methods import Variation
from lcg.benchmarks.setting import Setting
from lcg.benchmarks.tracking import Tracking
from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.data.avatars import SCHEMA
from lcg.data.store import LatentStore
from lcg.metrics.judge import AvatarJudge
from lcg.schema import Schema
from lcg.settings import Editing, Guidance, Sampling

SMALL = Sizes(samples=20, unconditional=24, sources=6, references=32, neighbours=64, tuning=4)


@pytest.fixture(scope="module")
def load(demo, small_judge: Callable[[int], str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Setting]:
    cache = str(tmp_path_factory.mktemp("cache"))

    def make(**other: Any) -> Setting:
        options = {
            "store": demo.store,
            "prior": demo.prior,
            "classifier": demo.classifier,
            "generator": None,
            "judge": AvatarJudge(small_judge(0)),
            "world": None,
            "cache": cache,
            "device": torch.device("cpu"),
            "baselines": {},
        }
        return Setting.load(**options | other)

    return make


@pytest.fixture(scope="module")
def setting(load: Callable[..., Setting]) -> Setting:
    return load()


def job(out: Path, tasks: list[str] | None = None, **other: Any) -> Job:
    options = {
        "tasks": ["generate/hat"] if tasks is None else tasks,
        "out": str(out),
        "attributes": ["glasses", "hat"],
        "source_formula": "~smile",
        "seeds": [0],
        "sizes": SMALL,
        "metrics": None,
        "sampling": Sampling(steps=4),
        "guidance": Guidance(),
        "editing": Editing(steps=4),
        "variations": {},
        "baselines": {},
        "save_images": False,
        "tracking": Tracking(),
        "title": "",
        "notes": [],
        "commands": [],
    }
    return Job(**options | other)


# --- what is there ---


def test_the_embedded_world_is_the_default_and_everything_is_frozen(setting: Setting) -> None:
    assert isinstance(setting.world, AvatarWorld) and setting.faults == ()
    assert not any(parameter.requires_grad for parameter in setting.judge.parameters()) and not setting.judge.training
    assert setting.with_settings(sampling=Sampling(steps=7)).sampling.steps == 7 != setting.pipeline.sampling.steps


def test_baselines_learn_from_what_lcg_was_fitted_on(demo, setting: Setting) -> None:
    training, store = setting.training, LatentStore.open(demo.store)
    assert training.store == store.fingerprint and len(training.z_0) == len(store)
    assert training.z_0.mean(0).abs().max() < 1e-3
    torch.testing.assert_close(training.labels, store.labels(), equal_nan=True)
    hat = store.labels()[:, SCHEMA.index("hat")].double().mean()
    assert setting.marginals["hat"] == pytest.approx(float(hat)) and setting.marginals.keys() == {
        attribute.name for attribute in SCHEMA.of_kind("binary")
    }


def test_what_is_computed_of_real_images_does_not_depend_on_who_competes(
    load: Callable[..., Setting], setting: Setting, small_judge: Callable[[int], str]
) -> None:
    competed = load(baselines={"arithmetic": LatentArithmetic()})
    assert competed.cache.path("nearest") == setting.cache.path("nearest")
    for other in (load(judge=AvatarJudge(small_judge(1))), load(world=AvatarWorld(1))):
        assert other.cache.path("nearest") != setting.cache.path("nearest")
        assert other.always == setting.always  # samples depend on neither


def test_a_baseline_with_the_same_options_learns_once(setting: Setting) -> None:
    first = setting.fit(LatentArithmetic())
    assert setting.fit(LatentArithmetic()) is first is not setting.fit(LatentArithmetic("probe"))


def test_reconstruction_is_always_measured_and_nothing_twice(setting: Setting, tmp_path: Path) -> None:
    tasks, _ = assemble(job(tmp_path, ["generate/hat", "generate/{2}"]), setting)
    assert [task.name for task in tasks] == ["generate/hat", "reconstruction"]
    tasks, _ = assemble(job(tmp_path, ["reconstruction", "calibration"]), setting)
    assert [task.name for task in tasks] == ["reconstruction", "calibration"]


def test_ranks_plan_the_same_pieces_in_the_same_order(setting: Setting, tmp_path: Path) -> None:
    """The first rank tells the others numbers of pieces, so no order may come from a set, whose is another in each."""
    tasks, rivals = ["edit/+hat +beard -dark_skin", "tradeoff/+glasses"], {"a": LatentArithmetic()}
    parsed, benchmark = assemble(job(tmp_path, tasks, baselines=rivals), setting)
    looking = benchmark.looking(parsed, [0])
    names = ["edit/+hat+beard-dark_skin", "edit/+hat", "edit/+hat+beard", "edit/+hat+beard-dark_skin", "edit/+glasses"]
    splits = [0, "tuning", "tuning", "tuning", 0]
    depends = "judge", "world", "sources", "sampling", "compared with", "sizes"
    expected = [
        benchmark.folder.path(["looked", "sources", name, split], depends)
        for name, split in zip(names, splits, strict=True)
    ]
    assert [piece.path for piece in looking[1:6]] == expected and looking[0].kind == "real images, nearest"


# --- what is refused ---


def test_a_world_of_other_attributes_is_refused(load: Callable[..., Setting]) -> None:
    class Few(AvatarWorld):
        schema = Schema(SCHEMA.attributes[:2])

    with pytest.raises(ValueError, match="the classifier's attributes must be the world's, glasses, beard with the"):
        load(world=Few())


def test_a_world_of_another_size_is_refused(load: Callable[..., Setting]) -> None:
    class Large(AvatarWorld):
        image_shape = (3, 128, 128)

    with pytest.raises(ValueError, match=r"must be of the generator's shape \(3, 64, 64\), got \(3, 128, 128\)"):
        load(world=Large())


def test_a_world_that_another_generator_draws_is_refused(load: Callable[..., Setting]) -> None:
    class Drawn(AvatarWorld):
        decoder = "0123"

    with pytest.raises(ValueError, match="must be drawn by the generator that is controlled, got those of another one"):
        load(world=Drawn())


def test_another_store_is_refused(load: Callable[..., Setting], tiny_store: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"was fitted on another store than .*; fit it again, or name its own store"):
        load(store=tiny_store())


def test_a_judge_that_was_trained_on_the_store_is_refused_or_named(load: Callable[..., Setting], demo) -> None:
    judge = load().judge
    judge.provenance = {"train": dict(LatentStore.open(demo.store).provenance)["source"]}
    with pytest.raises(ValueError, match="The judge's training images are the same as those of the latent store"):
        load(judge=judge)
    (fault,) = load(judge=judge, shared_judge=True).faults
    assert "may flatter" in fault


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        ([], {}, "`tasks` and `seeds` must each hold at least one entry"),
        (None, {"seeds": []}, "`tasks` and `seeds` must each hold at least one entry"),
        (None, {"seeds": [1, 1]}, r"`seeds` must be different numbers >= 0, got \[1, 1\]"),
        (None, {"seeds": [-1]}, r"`seeds` must be different numbers >= 0, got \[-1\]"),
        (None, {"baselines": {"lcg": LatentArithmetic()}}, "`baselines` must have names of their own, got 'lcg'"),
        (None, {"variations": {"prior": Variation(editing=Editing())}}, "`variations` must have names of their own"),
        (
            None,
            {"variations": {"a": Variation(editing=Editing())}, "baselines": {"a": LatentArithmetic()}},
            "`variations` and `baselines` must have different names, got 'a' in both",
        ),
        (None, {"baselines": {"a/b": LatentArithmetic()}}, "must have names of letters, digits and .*, got 'a/b'"),
        (["generate/glases"], {}, "did you mean 'glasses'"),
        (["sing"], {}, "expected unconditional, reconstruction, calibration"),
        (["generate/{3}"], {}, "`attributes` names 2; name at least 3"),
        (["generate/glasses & ~glasses"], {}, "contradicts itself"),
        (["scale/hat & long_hair"], {}, "holds for no avatar"),
        (["edit/hair_color=red"], {}, "must each change another binary attribute"),
        (["synthetic/+hat -hat"], {}, "must each change another binary attribute"),
        (["tradeoff/+hat -hat"], {}, "must each change another binary attribute"),
        (["edit/+hat", "edit/+hat +beard"], {}, r"must measure everything once, got 'edit/\+hat' twice"),
        (["edit/-hat"], {"source_formula": "~hat"}, "holds for no avatar"),
        (["edit/+hat"], {"source_formula": "~hatt"}, "did you mean 'hat'"),
        (None, {"editing": Editing(strength=2.0)}, r"`strength` must be in \[0, 1\]"),
        (None, {"sampling": Sampling(steps=0)}, "`steps` .* must be at least 1, got 0"),
        (
            None,
            {"variations": {"a": Variation(sampling=Sampling(steps=0))}},
            "`steps` .* must be at least 1, got 0",
        ),
        (None, {"sizes": replace(SMALL, samples=4)}, "must be above 6, the judge's features, for a Frechet distance"),
        (["unconditional"], {"sizes": replace(SMALL, references=5)}, "got 24 for 'unconditional' and 5 references"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    setting: Setting, tmp_path: Path, tasks: list[str] | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        assemble(job(tmp_path / "out", tasks, **options), setting)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--store", "nowhere"), "no latent store at nowhere"),
        (("--prior", "nowhere.ckpt"), "no denoiser at nowhere.ckpt"),
        (("--sizes.tuning", "1"), "`tuning` must be at least 2, got 1"),
        (("--guidance.max_step", "0"), "`max_step` must be > 0"),
        (("--ranks.devices", "0"), "`devices` must be at least 1, got 0"),
        (("--tasks", "sing"), "expected unconditional, reconstruction"),
    ],
)
def test_the_command_line_says_what_was_wrong(
    bench_words: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    try:
        code = cli.main(bench_words(tmp_path / "out", ["generate/hat"], *more))
    except SystemExit as stopped:  # the parser's own
        code = stopped.code
    assert code == cli.USAGE_ERROR and message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["samples", "unconditional", "references", "chunk", "shown"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least 2, got 1"):
        Sizes(**{name: 1})
