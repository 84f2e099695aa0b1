"""The data module: standardised batches, a split without leaks, and a Trainer that goes on exactly where it stopped."""

import pickle
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from lcg.data.datamodule import LatentDataModule
from lcg.data.store import LatentStoreWriter
from lcg.schema import Attribute, Schema

SCHEMA = Schema((Attribute("smile"), Attribute("age", "continuous")))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 latents (2, 3) in two shards; the label `age` is the number of the sample."""
    path = tmp_path_factory.mktemp("data") / "store"
    write(path, 400)
    return path


def write(path: Path, n: int, shift: float = 5.0) -> None:
    rng = np.random.default_rng(0)
    writer = LatentStoreWriter(path, (2, 3), SCHEMA, {})
    for index in np.split(np.arange(n), [n // 3]):
        labels = np.stack([index % 2, index], axis=1).astype(np.float32)
        labels[::7, 0] = np.nan
        writer.append(rng.normal(shift, 3.0, (len(index), 2, 3)), labels, index)
    writer.finish()


def ready(store: Path, **options) -> LatentDataModule:
    data = LatentDataModule(str(store), **options)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_are_the_standardised_rows_with_their_labels(store: Path, in_memory: bool) -> None:
    data = ready(store, batch_size=32, in_memory=in_memory)
    z_0 = data.store.statistics.standardise(data.store.latents())
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            assert set(batch) == {"z_0", "labels"} and batch["z_0"].dtype == batch["labels"].dtype == torch.float32
            rows = batch["labels"][:, 1].long()
            assert torch.equal(batch["z_0"], z_0[rows])
            assert torch.equal(batch["labels"].nan_to_num(-1), data.store.labels(rows).nan_to_num(-1))


def test_all_latents_together_are_standard(store: Path) -> None:
    data = ready(store, batch_size=512, val_fraction=0.0)
    (batch,) = data.train_dataloader()
    assert batch["z_0"].mean(0).abs().max() < 1e-5
    assert (batch["z_0"].std(0, correction=0) - 1).abs().max() < 1e-5


def samples(loader) -> list[int]:
    return [int(age) for batch in loader for age in batch["labels"][:, 1]]


def test_the_split_neither_leaks_nor_loses(store: Path) -> None:
    data = ready(store, batch_size=1, val_fraction=0.2)
    train, val = samples(data.train_dataloader()), samples(data.val_dataloader())
    assert sorted(train + val) == list(range(400)) and 50 < len(val) < 110
    assert samples(data.test_dataloader()) == samples(data.predict_dataloader()) == val == sorted(val)


def test_the_split_stays_when_the_store_grows_and_the_seed_changes(store: Path, tmp_path: Path) -> None:
    write(tmp_path / "s", 700)
    val = samples(ready(store).val_dataloader())
    grown = samples(ready(tmp_path / "s", seed=9, batch_size=7).val_dataloader())
    assert [i for i in grown if i < 400] == val and len(grown) > len(val)


def test_order_is_that_of_the_seed(store: Path) -> None:
    first, again, other = (samples(ready(store, seed=s).train_dataloader()) for s in (0, 0, 1))
    assert first == again != other


def test_no_validation_is_an_empty_list_of_loaders(store: Path) -> None:
    assert ready(store, val_fraction=0.0).val_dataloader() == []


def test_schema_shape_and_statistics_are_there_before_setup(store: Path) -> None:
    data = LatentDataModule(store)
    assert data.schema == SCHEMA and data.latent_shape == (2, 3) and data.statistics.latent_shape == (2, 3)


def test_a_data_module_can_be_sent_to_another_process(store: Path) -> None:
    data = LatentDataModule(store)
    assert data.schema == SCHEMA
    again = pickle.loads(pickle.dumps(data))
    again.setup()
    assert len(again.train_rows) + len(again.val_rows) == 400


def test_statistics_of_another_store(store: Path, tmp_path: Path) -> None:
    write(tmp_path / "s", 50, shift=-1.0)
    data, trained = ready(tmp_path / "s", statistics_from=store), LatentDataModule(store)
    batch = next(iter(data.val_dataloader() if len(data.val_rows) else data.train_dataloader()))
    raw = data.store.latents(batch["labels"][:, 1].long())
    assert torch.equal(batch["z_0"], trained.statistics.standardise(raw))
    data.load_state_dict(trained.state_dict())
    with pytest.raises(ValueError, match=r"standardised otherwise than those of .*statistics_from"):
        LatentDataModule(tmp_path / "s").load_state_dict(trained.state_dict())

    writer = LatentStoreWriter(tmp_path / "other", (4,), SCHEMA, {})
    writer.append(np.ones((1, 4)), np.zeros((1, 2)), np.arange(1))
    writer.finish()
    with pytest.raises(ValueError, match=r"has latents of shape \(4,\), the store has \(2, 3\)"):
        _ = LatentDataModule(store, statistics_from=tmp_path / "other").statistics
    with pytest.raises(ValueError, match="standardised otherwise"):
        LatentDataModule(tmp_path / "other").load_state_dict(trained.state_dict())


def test_wrong_arguments_are_refused(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ValueError, match="`batch_size` must be >= 1, got 0"):
        LatentDataModule(store, batch_size=0)
    with pytest.raises(ValueError, match=r"`val_fraction` must be in \[0, 1\), got 1\.5"):
        LatentDataModule(store, val_fraction=1.5)
    with pytest.raises(ValueError, match="`seed` must be >= 0, got -1"):
        LatentDataModule(store, seed=-1)
    with pytest.raises(FileNotFoundError, match=r"lcg encode --config configs/data/avatars\.yaml"):
        LatentDataModule(tmp_path / "nothing").prepare_data()
    with pytest.raises(ValueError, match="`rows` must not be empty"):
        ready(store, val_fraction=1e-9).val_dataloader()


def test_a_store_of_unsound_contents_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    write(tmp_path / "s", 30)
    path = tmp_path / "s" / "shard-00001.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    arrays["latents"][2] = np.inf
    save_file(arrays, path)
    with pytest.raises(ValueError, match=r"\(sample 12\) is not finite"):
        ready(tmp_path / "s")


# --- under a Trainer --------------------------------------------------------------------------------------------------


class Recorder(LightningModule):
    """Learns one number and remembers which samples it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 3))
        self.seen: list[list[int]] = []

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.seen.append(batch["labels"][:, 1].int().tolist())
        return (batch["z_0"] - self.weight).square().mean()

    def validation_step(self, batch: dict[str, torch.Tensor]) -> None:
        self.log("val_loss", (batch["z_0"] - self.weight).square().mean())

    def predict_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["labels"][:, 1]

    def test_step(self, batch: dict[str, torch.Tensor]) -> None:
        self.validation_step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.1)


class Kill(Callback):
    """Ends the run as an exception does, after a training step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def trainer(path: Path, callbacks: list[Callback], **options) -> Trainer:
    return Trainer(
        default_root_dir=path, max_epochs=3, accelerator="cpu", logger=False, callbacks=callbacks, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("saved_at", [3, 7, 8, 14])
def test_a_killed_run_goes_on_with_exactly_the_batches_it_had_left(store: Path, tmp_path: Path, saved_at: int) -> None:
    """Seven batches in an epoch: the checkpoint lies within the first, at its end, within the second, at its end."""
    whole = Recorder()
    trainer(tmp_path, [], enable_checkpointing=False).fit(whole, datamodule=LatentDataModule(store, 50))
    assert len(whole.seen) == 21 and len({str(sorted(chain(*whole.seen[i : i + 7]))) for i in (0, 7, 14)}) == 3

    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=saved_at, save_top_k=-1)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path, [saver, Kill(saved_at + 2)]).fit(Recorder(), datamodule=LatentDataModule(store, 50))

    resumed = Recorder()
    trainer(tmp_path, [], enable_checkpointing=False).fit(
        resumed, datamodule=LatentDataModule(store, 50), ckpt_path=str(tmp_path / f"step={saved_at}.ckpt")
    )
    assert resumed.seen == whole.seen[saved_at:]
    assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{"monitor": "val_loss"}, {"save_on_train_epoch_end": True}])
def test_a_checkpoint_of_an_epoch_s_end_starts_the_next(
    store: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    whole = Recorder()
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, **options)
    trainer(tmp_path, [saver]).fit(whole, datamodule=LatentDataModule(store, 50))
    resumed = Recorder()
    trainer(tmp_path, [], enable_checkpointing=False).fit(
        resumed, datamodule=LatentDataModule(store, 50), ckpt_path=str(tmp_path / "epoch=0.ckpt")
    )
    assert resumed.seen == whole.seen[7:]


@pytest.mark.filterwarnings("ignore")
def test_predict_and_test_go_through_the_held_out_samples_once(store: Path, tmp_path: Path) -> None:
    data, quiet = LatentDataModule(store, batch_size=6), trainer(tmp_path, [], enable_checkpointing=False)
    ages = torch.cat(quiet.predict(Recorder(), datamodule=data))
    assert ages.int().tolist() == data.val_rows.tolist()
    (metrics,) = quiet.test(Recorder(), datamodule=data, verbose=False)
    expected = data.statistics.standardise(data.store.latents(data.val_rows)).square().mean()
    assert abs(metrics["val_loss"] - expected) < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_loads_with_weights_only(store: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, [], enable_checkpointing=False)
    run.fit(Recorder(), datamodule=LatentDataModule(store, 50))
    run.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(checkpoint["LatentDataModule"]["mean"], LatentDataModule(store).statistics.mean)
