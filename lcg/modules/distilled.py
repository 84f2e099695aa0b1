"""`lcg fit` of a consistency function: what the prior's probability flow makes of a latent, learnt as one evaluation.

A trained prior, the teacher, is solved from noised latents to clean ones. All latents z_i at t_i on the way to the same
z_0 must be mapped there, so the student regresses on it:

    loss = E |net(z_i, t_i) - v_i|^2,      v_i = (alpha_t z_i - z_0) / sigma_t,      f(z_t, t) = alpha_t z_t - sigma_t v

(v as in Salimans & Ho 2022, arXiv:2202.00512; f(z_0, 0) = z_0 holds by itself). Consistency distillation (Song et al.
2023, arXiv:2303.01469, algorithm 2) sets the student's own answer at a neighbouring time as the target, for a solution
of the whole ODE is dear with images. With latents it costs no more than the student's gradients; then the target is the
truth, nothing is bootstrapped, and errors do not travel from time to time. It is Luhman & Luhman 2021
(arXiv:2101.02388) with all times on the way, not the first alone, as `lcg.diffusion.samplers.consistency` needs them.

The checkpoint holds a `LatentDenoiser`, as a prior's does, but eps_hat is that of f and not of the posterior mean: it
belongs to the sampler `Consistency`. Solvers, inversion and likelihoods need the teacher.
"""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lcg.checkpoint import describe_network, load_network
from lcg.data.datamodule import LatentDataModule
from lcg.diffusion import Denoiser, UniPC, diffuse
from lcg.diffusion.process import v_from_z0
from lcg.diffusion.schedule import Schedule
from lcg.modules.draws import StepDraws
from lcg.modules.optimizer import adamw
from lcg.modules.ranks import mean_over_ranks
from lcg.nets.denoiser import LatentDenoiser


class DistilledModule(LightningModule):
    """Distils a prior into a consistency function of the same architecture, which starts as the prior.

    Args:
        teacher: checkpoint of the prior, which predicts v, of the same store.
        solver_steps: evaluations of the teacher on a path, at least 3.
        points: latents on a path that the student learns from: its start, and others at random.
        t_start: where paths begin, and sampling will.
        t_least: the student learns nothing of times below; few evaluations leave them out.
        t_end: where the teacher is asked last.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; then a half cosine to zero over the planned steps.
    """

    def __init__(
        self,
        teacher: str,
        solver_steps: int = 10,
        points: int = 4,
        t_start: float = 0.99,
        t_least: float = 0.3,
        t_end: float = 0.05,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: int = 100,
    ) -> None:
        super().__init__()
        if solver_steps < 3 or points < 1:
            raise ValueError(
                f"`solver_steps` must be at least 3 and `points` at least 1, got {solver_steps} and {points}; "
                "10 and 4 are usual"
            )
        if not 0 < t_end < t_least < t_start < 1:
            raise ValueError(
                f"times must satisfy 0 < t_end < t_least < t_start < 1, got t_end={t_end}, t_least={t_least}, "
                f"t_start={t_start}; 0.05, 0.3 and 0.99 are usual"
            )
        self.save_hyperparameters()
        self.teacher_path, self.solver_steps, self.points = teacher, solver_steps, points
        self.t_start, self.t_least, self.t_end = t_start, t_least, t_end
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.draws = StepDraws()
        self.denoiser: LatentDenoiser

    def configure_model(self) -> None:
        """Loads the teacher and copies it; called by the Trainer, does nothing the second time."""
        if hasattr(self, "denoiser"):
            return
        data, loaded = LatentDataModule.of(self.trainer), load_network(self.teacher_path, "denoiser")
        if loaded.store != data.store.fingerprint or loaded.network.prediction != "v" or loaded.distilled:
            raise ValueError(
                f"`teacher` must be a prior of this store that predicts v, got {self.teacher_path}, which predicts "
                f"{loaded.network.prediction}, of the store {loaded.store[:12]}"
                f"{', and is distilled itself' if loaded.distilled else ''}; fit one with prediction=v on {data.path}"
            )
        self.denoiser = LatentDenoiser(**{**loaded.config, "latent_shape": tuple(loaded.config["latent_shape"])})
        self.denoiser.load_state_dict(loaded.network.state_dict())
        self._teacher = [loaded.network]  # in a list, so that its weights are neither trained nor saved

    def configure_callbacks(self) -> list[Callback]:
        return [self.draws]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        z_0 = batch["z_0"]
        loss = self._loss(z_0, self.draws.randn_like(z_0), self.draws.choice)
        self.log("train/loss", mean_over_ranks(loss), prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        generator = torch.Generator().manual_seed(batch_idx)  # the same paths at every validation
        z_0 = batch["z_0"]
        eps = torch.randn(z_0.shape, generator=generator).to(z_0)
        self.log("val/loss", self._loss(z_0, eps, generator), batch_size=len(z_0), sync_dist=True, prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), self.lr, self.weight_decay, self.warmup, total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        describe_network(checkpoint, "denoiser", self.denoiser.config, LatentDataModule.of(self.trainer))
        checkpoint["lcg"]["consistency"] = True

    def _loss(self, z_0: Tensor, eps: Tensor, generator: torch.Generator) -> Tensor:
        times = random_times(self.solver_steps, self.t_start, self.t_end, generator).to(z_0)
        asked = int((times > self.t_least).sum())
        teacher = self._teacher[0].to(z_0.device)
        return distillation_loss(self.denoiser, teacher, z_0, eps, times, asked, self.points, generator)


def distillation_loss(
    student: LatentDenoiser,
    teacher: Denoiser,
    z_0: Tensor,
    eps: Tensor,
    times: Tensor,
    asked: int,
    points: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The student's mean squared error in v at points of the teacher's paths.

    Args:
        student: to be trained, predicts v.
        teacher: the prior's denoiser.
        z_0: latents (B, *latent).
        eps: noise (B, *latent), by which they come to where the paths begin.
        times: (steps,) decreasing, at which the teacher is asked.
        asked: how many of these, from the first on, the student is trained for.
        points: how many of those are taken: the first, and others at random.
        generator: of that choice.
    """
    schedule = student.schedule
    path, end = solve_path(teacher, schedule, diffuse(schedule, z_0, times[:1].expand(len(z_0)), eps), times)
    chosen = [0, *(1 + torch.randperm(asked - 1, generator=generator)[: points - 1]).tolist()]
    z_t, t = torch.cat([path[i] for i in chosen]), times[chosen].repeat_interleave(len(z_0))
    v = v_from_z0(schedule, z_t, t, end.repeat(len(chosen), *(1,) * (end.ndim - 1)))
    return (student.predict(z_t, t) - v).square().mean()


def random_times(steps: int, t_start: float, t_end: float, generator: torch.Generator | None = None) -> Tensor:
    """Decreasing times (steps,) float64 from t_start to t_end, about even, so that over many paths all are seen."""
    place = torch.arange(steps, dtype=torch.float64)
    place[1:-1] += 0.8 * torch.rand(steps - 2, generator=generator, dtype=torch.float64) - 0.4
    return t_start + (t_end - t_start) / (steps - 1) * place


@torch.no_grad()
def solve_path(teacher: Denoiser, schedule: Schedule, z: Tensor, times: Tensor) -> tuple[list[Tensor], Tensor]:
    """The latents (B, *latent) on the probability flow of z at times[0] to the other times, and the clean ones."""
    path: list[Tensor] = []

    def recorded(z_t: Tensor, t: Tensor) -> Tensor:
        path.append(z_t)
        return teacher(z_t, t)

    solver = UniPC(schedule, len(times))
    return path, solver.solve(solver.path(recorded, times), z, None, None)
