"""`PriorModule` through the Trainer: it learns, what is saved is the average, and what was killed goes on."""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor

from lcg.checkpoint import load_network
from lcg.data.datamodule import LatentDataModule
from lcg.modules.bands import BANDS, band_name, band_times
from lcg.modules.prior import PriorModule, interpolate, mixing
from lcg.nets.denoiser import LatentDenoiser

SMALL: dict[str, Any] = {"width": 48, "depth": 2, "warmup": 5, "lr": 3e-3}


class Losses(Callback):
    """The training losses of all steps."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.values.append(float(trainer.callback_metrics["train/loss"]))


class Weights(Callback):
    """The weights after every step, as training has them."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append(copy.deepcopy(pl_module.denoiser.state_dict()))


def trainer(out: Path, steps: int, *callbacks: Callback, every_n_train_steps: int | None = None) -> Trainer:
    saved = ModelCheckpoint(out, "prior", enable_version_counter=False, every_n_train_steps=every_n_train_steps)
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        callbacks=[saved, *callbacks],
    )


@pytest.mark.parametrize("prediction", ["v", "eps"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_fit_lowers_the_loss_and_leaves_a_network(tmp_path: Path, tiny_store, prediction: str, schedule: str) -> None:
    seed_everything(0)
    losses, data = Losses(), LatentDataModule(tiny_store(), batch_size=128)
    fit = trainer(tmp_path, 100, losses)
    fit.fit(PriorModule(prediction=prediction, schedule=schedule, **{**SMALL, "lr": 1e-2}), data)
    first, last = (torch.tensor(part).mean() for part in (losses.values[:5], losses.values[-30:]))
    assert last < 0.96 * first
    metrics = fit.callback_metrics
    assert {"val/loss", *(f"val/loss/{band_name(band)}" for band in range(BANDS))} <= set(metrics)
    assert all(metrics[f"val/loss/{band_name(band)}"].isfinite() for band in range(BANDS))

    torch.load(tmp_path / "prior.ckpt", weights_only=True)
    loaded = load_network(tmp_path / "prior.ckpt", "denoiser")
    assert (loaded.network.prediction, loaded.config["schedule"]) == (prediction, schedule)
    assert loaded.store == data.store.fingerprint
    assert torch.equal(loaded.statistics.mean, data.statistics.mean)


def test_the_network_and_optimiser_of_diffusion_autoencoders(tmp_path: Path, tiny_store) -> None:
    """Absolute errors, no warm-up and no decay; the network is found again from its checkpoint."""
    seed_everything(0)
    losses, data = Losses(), LatentDataModule(tiny_store(), batch_size=128)
    options = {"layers": "concat", "depth": 4, "prediction": "eps", "schedule": "constant", "loss": "absolute"}
    module = PriorModule(**{**SMALL, **options, "lr": 3e-3, "warmup": 0, "decay": False, "time_spread": None})
    fit = trainer(tmp_path, 60, losses)
    fit.fit(module, data)
    assert torch.tensor(losses.values[-15:]).mean() < 0.9 * torch.tensor(losses.values[:3]).mean()
    assert fit.optimizers[0].param_groups[0]["lr"] == 3e-3
    loaded = load_network(tmp_path / "prior.ckpt", "denoiser")
    assert loaded.config["layers"] == "concat"
    z_t, t = torch.randn(5, 4), torch.tensor(0.4).expand(5)
    torch.testing.assert_close(loaded.network.prepare(t[:1])[0](z_t), loaded.network(z_t, t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("loss", "power"), [("squared", 2), ("absolute", 1)])
def test_the_loss_is_the_mean_of_its_power_of_the_error(loss: str, power: int) -> None:
    module = PriorModule(loss=loss, **SMALL)
    module.denoiser = LatentDenoiser((3, 2), 8, 2)
    torch.nn.init.normal_(module.denoiser.net.output.weight)
    z_0, eps, t = torch.randn(7, 3, 2), torch.randn(7, 3, 2), torch.rand(7)
    expected = module.denoiser.error(z_0, t, eps).abs().pow(power).mean()
    torch.testing.assert_close(module._loss(z_0, t, eps), expected)
    with pytest.raises(ValueError, match="`loss` must be one of squared, absolute, got 'huber'"):
        PriorModule(loss="huber")


def test_latents_of_any_shape(tmp_path: Path, tiny_store) -> None:
    trainer(tmp_path, 2).fit(PriorModule(**SMALL), LatentDataModule(tiny_store(shape=(2, 3))))
    assert load_network(tmp_path / "prior.ckpt", "denoiser").network.latent_shape == (2, 3)


def test_the_average_of_the_weights_is_what_is_saved(tmp_path: Path, tiny_store) -> None:
    decay, weights = 0.8, Weights()
    fit = trainer(tmp_path, 12, weights, EMAWeightAveraging(decay=decay))
    fit.fit(PriorModule(**SMALL), LatentDataModule(tiny_store(), batch_size=128))
    loaded = load_network(tmp_path / "prior.ckpt", "denoiser").network.state_dict()
    name = next(name for name in loaded if name.endswith("weight"))
    average = weights.steps[0][name]
    for step in weights.steps[1:]:
        average = decay * average + (1 - decay) * step[name]
    assert (loaded[name] - average).abs().max() < 1e-5
    assert (loaded[name] - weights.steps[-1][name]).abs().max() > 1e-3  # and not what training ended with


def test_validation_uses_the_averaged_weights_and_the_same_noise_every_time(tmp_path: Path, tiny_store) -> None:
    data = LatentDataModule(tiny_store(), batch_size=128)
    fit = trainer(tmp_path, 12, EMAWeightAveraging(decay=0.8))
    fit.fit(PriorModule(**SMALL), data)
    during = fit.callback_metrics["val/loss"]
    after = [
        trainer(tmp_path, 1).validate(PriorModule(**SMALL), data, str(tmp_path / "prior.ckpt"), verbose=False)
        for _ in range(2)
    ]
    assert after[0] == after[1] and after[0][0]["val/loss"] == pytest.approx(float(during), abs=1e-5)


def test_what_was_killed_goes_on(tmp_path: Path, tiny_store) -> None:
    """Straight through, and killed in the middle of an epoch: the same samples at the same rates."""

    class Killed(Exception):
        pass

    class Watch(Callback):
        def __init__(self, seen: dict[int, tuple[float, float]], last: int) -> None:
            self.seen, self.last = seen, last

        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, _: int) -> None:
            if trainer.global_step == self.last:
                raise Killed
            self.seen[trainer.global_step] = (trainer.optimizers[0].param_groups[0]["lr"], float(batch["z_0"].sum()))

    store, runs = tiny_store(), []
    for kills in ((), (9,)):
        out, seen = tmp_path / str(kills), {}
        for part, last in enumerate((*kills, 20)):
            fit = trainer(out, 20, Watch(seen, last), every_n_train_steps=3)
            again = str(out / "prior.ckpt") if part else None
            with contextlib.suppress(Killed):
                fit.fit(PriorModule(**SMALL), LatentDataModule(store, 64), ckpt_path=again, weights_only=True)
            assert fit.global_step == last
        runs.append(seen)
    assert runs[0] == runs[1] and len(runs[0]) == 20


def test_interpolation_moves_a_share_of_the_rows_less_than_half_way_to_others() -> None:
    rng = torch.Generator().manual_seed(0)
    z_0 = torch.randn(10, 2, 3, generator=rng)
    mixed = interpolate(z_0, mixing(10, 0.4, rng))
    assert torch.equal(mixed[4:], z_0[4:])
    way = (mixed - z_0)[:4] / (z_0.roll(-5, 0) - z_0)[:4]  # 1 - u, the same for the whole latent
    assert (way - way[:, :1, :1]).abs().max() < 1e-4
    assert way.min() > 0 and way.max() < 0.5 and way[:, 0, 0].std() > 0.01


def test_fine_tuning_starts_from_another_prior(tmp_path: Path, tiny_store) -> None:
    store = tiny_store()
    trainer(tmp_path, 5).fit(PriorModule(**SMALL), LatentDataModule(store, 64))
    start = load_network(tmp_path / "prior.ckpt", "denoiser").network.state_dict()
    module = PriorModule(**{**SMALL, "lr": 1e-12}, mixup=0.4, start_from=str(tmp_path / "prior.ckpt"))
    trainer(tmp_path / "tuned", 2).fit(module, LatentDataModule(store, 64))
    tuned = load_network(tmp_path / "tuned" / "prior.ckpt", "denoiser").network.state_dict()
    assert all((tuned[name] - weight).abs().max() < 1e-6 for name, weight in start.items())

    other = PriorModule(**{**SMALL, "width": SMALL["width"] * 2}, start_from=str(tmp_path / "prior.ckpt"))
    with pytest.raises(ValueError, match="`start_from` must be an undistilled prior of the same network"):
        trainer(tmp_path / "other", 2).fit(other, LatentDataModule(store, 64))


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`mixup` must be in \[0, 1\], got 1.5; 0.4 extrapolates"):
        PriorModule(mixup=1.5)


def test_band_times_cover_their_band_evenly() -> None:
    for band in range(BANDS):
        t = band_times(band, 10, torch.device("cpu"))
        assert t.min() > band / BANDS and t.max() < (band + 1) / BANDS
        assert (t.diff() - 1 / (10 * BANDS)).abs().max() < 1e-6
    assert band_name(0) == "t0.0-0.2" and band_name(4) == "t0.8-1.0"
