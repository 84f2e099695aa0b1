"""`DistilledModule`: paths and student against the exact probability flow of a Gaussian, and through the Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.testing import assert_close

from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.diffusion import CosineSchedule, GaussianDenoiser, randn, z0_from_eps
from lcg.modules.distilled import DistilledModule, distillation_loss, random_times, solve_path
from lcg.modules.prior import PriorModule
from lcg.nets.denoiser import LatentDenoiser

GAUSSIAN = GaussianDenoiser(torch.tensor([0.5, 0.0]), torch.tensor([[1.0, 0.9], [0.9, 1.0]]), CosineSchedule())


def trainer(out: Path, steps: int) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        callbacks=[ModelCheckpoint(out, "prior", enable_version_counter=False), EMAWeightAveraging(decay=0.9)],
    )


def fit(module: LightningModule, store: str, out: Path, steps: int) -> tuple[str, Trainer]:
    run = trainer(out, steps)
    run.fit(module, LatentDataModule(store, batch_size=64))
    return str(out / "prior.ckpt"), run


# --- the paths --------------------------------------------------------------------------------------------------------


def test_paths_are_those_of_the_probability_flow() -> None:
    times = random_times(40, 0.99, 0.01, torch.Generator().manual_seed(0))
    z, t = randn((64, 2), torch.Generator().manual_seed(1), dtype=torch.float64), times[:1].expand(64)
    path, end = solve_path(GAUSSIAN, CosineSchedule(), z, times)
    assert len(path) == 40 and torch.equal(path[0], z)
    for z_t, s in zip(path, times, strict=True):
        assert_close(z_t, GAUSSIAN.flow(z, t, s.expand(64)), rtol=0, atol=0.03)
    assert_close(end, GAUSSIAN.flow(z, t, torch.zeros(64).double()), rtol=0, atol=0.03)


def test_times_fall_from_one_end_to_the_other_and_are_all_seen() -> None:
    drawn = torch.stack([random_times(10, 0.99, 0.05, torch.Generator().manual_seed(seed)) for seed in range(200)])
    assert (drawn.diff() < 0).all()
    assert (drawn[:, 0] == 0.99).all() and drawn[:, -1].tolist() == pytest.approx([0.05] * 200)
    assert drawn[:, 1:-1].flatten().sort().values.diff().max() < 0.03


# --- the student ------------------------------------------------------------------------------------------------------


def test_a_student_approaches_the_exact_consistency_function() -> None:
    torch.manual_seed(0)
    student, schedule = LatentDenoiser((2,), width=32, depth=1), CosineSchedule()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)

    def error() -> float:
        """Root mean square distance from the exact map."""
        generator = torch.Generator().manual_seed(1)
        t = 0.3 + 0.69 * torch.rand(2000, generator=generator)
        noised = GAUSSIAN.flow(GAUSSIAN.sample(2000, generator).float(), torch.zeros(2000), t)
        with torch.no_grad():
            found = z0_from_eps(schedule, noised, t, student(noised, t))
        return float((found - GAUSSIAN.flow(noised, t, torch.zeros(2000))).square().mean().sqrt())

    before = error()
    for _ in range(200):
        z_0 = GAUSSIAN.sample(64, torch.Generator().manual_seed(int(torch.randint(10**6, ())))).float()
        times = random_times(8, 0.99, 0.05).float()
        loss = distillation_loss(student, GAUSSIAN, z_0, torch.randn_like(z_0), times, asked=6, points=4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    assert before > 0.3 and error() < 0.1


def test_a_fit_starts_as_the_teacher_lowers_the_loss_and_leaves_a_denoiser(tmp_path: Path, tiny_store: Any) -> None:
    seed_everything(0)
    store = tiny_store()
    teacher, _ = fit(PriorModule(width=32, depth=1, warmup=5, lr=1e-2), store, tmp_path / "teacher", 60)
    module = DistilledModule(teacher, lr=1e-2, warmup=5)
    data = LatentDataModule(store, batch_size=64)
    before = trainer(tmp_path, 1).validate(module, data, verbose=False)[0]["val/loss"]
    taught = load_network(teacher, "denoiser")
    assert all(torch.equal(module.denoiser.state_dict()[k], v) for k, v in taught.network.state_dict().items())

    path, run = fit(module, store, tmp_path / "student", 60)
    assert float(run.callback_metrics["val/loss"]) < 0.9 * before
    loaded, state = load_network(path, "denoiser"), torch.load(path, weights_only=True)
    assert loaded.config == taught.config and loaded.store == taught.store
    assert loaded.distilled and not taught.distilled
    assert all(name.startswith("denoiser.") for name in state["state_dict"]) and state["lcg"]["consistency"] is True
    again = trainer(tmp_path, 1).validate(DistilledModule(teacher), data, path, verbose=False)[0]["val/loss"]
    assert again == pytest.approx(float(run.callback_metrics["val/loss"]), rel=1e-4)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused(tmp_path: Path, tiny_store: Any) -> None:
    for options in ({"solver_steps": 2}, {"points": 0}):
        with pytest.raises(ValueError, match=r"`solver_steps` must be at least 3 and `points` at least 1, got"):
            DistilledModule("prior.ckpt", **options)
    with pytest.raises(ValueError, match=r"0 < t_end < t_least < t_start < 1, got t_end=0.05, t_least=0.02"):
        DistilledModule("prior.ckpt", t_least=0.02)


def test_a_teacher_that_does_not_fit_is_refused(tmp_path: Path, tiny_store: Any) -> None:
    eps, _ = fit(PriorModule(width=8, depth=1, prediction="eps"), tiny_store(), tmp_path / "eps", 1)
    with pytest.raises(ValueError, match=r"`teacher` must be a prior of this store that predicts v, .* predicts eps"):
        fit(DistilledModule(eps), tiny_store(), tmp_path, 1)
    other, _ = fit(PriorModule(width=8, depth=1), tiny_store(n=300), tmp_path / "other", 1)
    with pytest.raises(ValueError, match=r"got .*, which predicts v, of the store .*; fit one"):
        fit(DistilledModule(other), tiny_store(), tmp_path, 1)
