"""The data module: standardised batches, a split without leaks, and a Trainer that goes on exactly where it stopped."""

import json
import pickle
import socket
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from lcg.data import datamodule
from lcg.data.batches import LatentBatches
from lcg.data.datamodule import LatentDataModule
from lcg.data.split import TEST, keeps_labels, side_of
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


# --- test samples, few labels, strata ---------------------------------------------------------------------------------


def test_test_samples_are_a_side_of_their_own(store: Path) -> None:
    plain, data = ready(store, val_fraction=0.2), ready(store, val_fraction=0.2, test_fraction=0.1, batch_size=1)
    train, val, test = (samples(f()) for f in (data.train_dataloader, data.val_dataloader, data.test_dataloader))
    assert val == plain.val_rows.tolist() and sorted(train + val + test) == list(range(400))
    assert test == samples(data.predict_dataloader()) == data.test_rows.tolist()
    assert test == np.flatnonzero(side_of(np.arange(400), 0.0, 0.1) == TEST).tolist() and 20 < len(test) < 60
    assert plain.test_rows.tolist() == plain.val_rows.tolist()


def test_the_split_of_a_store_read_in_many_chunks(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ready(store, val_fraction=0.2, test_fraction=0.1, stratify=["smile"])
    monkeypatch.setattr(datamodule, "ROWS_AT_ONCE", 17)
    parts = ready(store, val_fraction=0.2, test_fraction=0.1, stratify=["smile"])
    for name in ("train_rows", "val_rows", "test_rows"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
    assert samples(whole.train_dataloader()) == samples(parts.train_dataloader())


@pytest.mark.parametrize("in_memory", [True, False])
def test_few_labels_are_hidden_from_training_alone(store: Path, in_memory: bool) -> None:
    data = ready(store, val_fraction=0.2, test_fraction=0.1, label_fraction=0.3, in_memory=in_memory)
    kept = torch.from_numpy(keeps_labels(np.arange(400), 0.3, SCHEMA.names)[:, 0])
    everything, seen = data.store.labels(), data.gather(torch.arange(400))["labels"]
    kept[data.val_rows] = kept[data.test_rows] = True
    assert torch.equal(seen[kept].nan_to_num(-1), everything[kept].nan_to_num(-1)) and seen[~kept].isnan().all()
    assert 0.5 < (~kept)[data.train_rows].float().mean() < 0.9
    assert torch.equal(seen.nan_to_num(-1), data.labels().nan_to_num(-1))
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"][:, 1].isnan().float().mean() > 0.5


def test_few_labels_of_one_attribute(store: Path) -> None:
    labels = ready(store, val_fraction=0.0, label_fraction={"smile": 0.2}).gather(torch.arange(400))["labels"]
    assert torch.equal(labels[:, 1], torch.arange(400.0))
    kept = torch.from_numpy(keeps_labels(np.arange(400), {"smile": 0.2}, SCHEMA.names)[:, 0])
    assert labels[~kept, 0].isnan().all() and not labels[kept, 0].isnan().all()


def smiles(batch: dict[str, torch.Tensor]) -> list[int]:
    """How many are missing, do not smile, smile."""
    smile = batch["labels"][:, 0].nan_to_num(-1)
    return [int((smile == value).sum()) for value in (-1, 0, 1)]


def test_stratified_batches_have_the_store_s_shares(store: Path) -> None:
    data = ready(store, batch_size=40, val_fraction=0.0, stratify=["smile"])
    loader = data.train_dataloader()
    shares = np.array(smiles({"labels": data.store.labels()})) / 10
    assert sorted(samples(loader)) == list(range(400))
    for batch in loader:
        assert np.abs(np.array(smiles(batch)) - shares).max() <= 2


def test_balanced_batches_and_chosen_shares(store: Path) -> None:
    """Hidden labels are missing labels: equal shares make two thirds of every batch known ones."""
    few = {"label_fraction": 0.1, "stratify": ["smile"], "val_fraction": 0.0, "batch_size": 60}
    for batch in ready(store, shares="equal", **few).train_dataloader():
        assert np.abs(np.array(smiles(batch)) - 20).max() <= 2
    shares = {"smile=?": 0.5, "~smile": 0.0, "smile": 0.5}
    for batch in ready(store, shares=shares, **few).train_dataloader():
        assert smiles(batch)[1] == 0 and abs(smiles(batch)[2] - 30) <= 2


# --- memory and workers -----------------------------------------------------------------------------------------------


def test_latents_are_held_while_they_take_a_quarter_of_memory(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 rows of 6 numbers and 2 labels in float32 are 12,800 bytes, for each process."""
    for available, processes, held in ((51_201, 1, True), (51_200, 1, False), (102_400, 2, False), (102_401, 2, True)):
        monkeypatch.setattr(datamodule, "available_memory", lambda available=available: available)
        data = LatentDataModule(store)
        if processes > 1:
            data.trainer = Trainer(accelerator="cpu", devices=processes, logger=False, enable_checkpointing=False)
        data.setup("fit")
        assert (data._memory is not None) == held
        for loader in (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()):
            assert isinstance(loader, LatentBatches) and loader.workers == (0 if held else 2)
    assert ready(store, workers=3).train_dataloader().workers == 3


def test_workers_and_files_give_the_same_batches(store: Path) -> None:
    def seen(**options: object) -> list[dict[str, torch.Tensor]]:
        return list(ready(store, batch_size=7, label_fraction=0.5, **options).train_dataloader())

    expected = seen(in_memory=True)
    for options in ({"in_memory": False, "workers": 0}, {"in_memory": False, "workers": 3}, {"workers": 2}):
        for one, other in zip(seen(**options), expected, strict=True):
            assert all(torch.equal(one[name].nan_to_num(-9), other[name].nan_to_num(-9)) for name in other)


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
    with pytest.raises(ValueError, match=r"`test_fraction` must be in \[0, 1\), got 1"):
        LatentDataModule(store, test_fraction=1)
    with pytest.raises(ValueError, match=r"`val_fraction` \+ `test_fraction` must be below 1, got 0\.5 \+ 0\.6"):
        LatentDataModule(store, val_fraction=0.5, test_fraction=0.6)
    with pytest.raises(ValueError, match=r"`label_fraction` of 'smile' must be in \[0, 1\], got 2"):
        LatentDataModule(store, label_fraction={"smile": 2})
    with pytest.raises(ValueError, match="`shares` 'equal' need `stratify`"):
        LatentDataModule(store, shares="equal")
    with pytest.raises(ValueError, match="`workers` must be >= 0 or None, got -1"):
        LatentDataModule(store, workers=-1)
    with pytest.raises(ValueError, match="unknown attribute 'smlie'; did you mean 'smile'"):
        ready(store, label_fraction={"smlie": 0.5})
    with pytest.raises(ValueError, match="`stratify`: 'age' is continuous"):
        ready(store, stratify=["age"])
    with pytest.raises(ValueError, match="`seed` must be >= 0, got -1"):
        LatentDataModule(store, seed=-1)
    with pytest.raises(FileNotFoundError, match=r"lcg encode --config configs/data/avatars\.yaml"):
        LatentDataModule(tmp_path / "nothing").prepare_data()
    with pytest.raises(FileNotFoundError, match=r"no latent store at .*nothing"):
        LatentDataModule(store, statistics_from=tmp_path / "nothing").prepare_data()
    with pytest.raises(ValueError, match="`rows` must not be empty"):
        ready(store, val_fraction=1e-9).val_dataloader()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device to copy to")
def test_pinned_memory_needs_a_device(store: Path) -> None:
    with pytest.raises(ValueError, match="`pin_memory` must be False or None here, got True: there is no CUDA device"):
        LatentDataModule(store, pin_memory=True)
    assert not ready(store).train_dataloader().pin_memory


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_pinned_for_a_device(store: Path) -> None:
    for workers in (0, 2):
        assert all(
            values.is_pinned() for values in next(iter(ready(store, workers=workers).train_dataloader())).values()
        )


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


def stopped(store: Path, path: Path, **options: object) -> str:
    """A checkpoint made after the third of seven batches."""
    saver = ModelCheckpoint(path, filename="stopped", every_n_train_steps=3)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(path, [saver, Kill(4)]).fit(Recorder(), datamodule=LatentDataModule(store, 50, **options))
    return str(path / "stopped.ckpt")


def resume(path: Path, checkpoint: str, data: LatentDataModule) -> list[list[int]]:
    module = Recorder()
    trainer(path, [], enable_checkpointing=False).fit(module, datamodule=data, ckpt_path=checkpoint)
    return module.seen


@pytest.mark.filterwarnings("ignore")
def test_a_stratified_run_from_files_with_workers_goes_on_exactly(store: Path, tmp_path: Path) -> None:
    options = {
        "in_memory": False,
        "workers": 2,
        "stratify": ["smile"],
        "shares": "equal",
        "label_fraction": {"smile": 0.5},
    }
    whole = Recorder()
    trainer(tmp_path, [], enable_checkpointing=False).fit(whole, datamodule=LatentDataModule(store, 50, **options))
    checkpoint = stopped(store, tmp_path, **options)
    assert resume(tmp_path, checkpoint, LatentDataModule(store, 50, **options)) == whole.seen[3:]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.filterwarnings("ignore")
def test_a_run_does_not_go_on_with_another_store(store: Path, tmp_path: Path) -> None:
    write(tmp_path / "s", 410)
    checkpoint, other = stopped(store, tmp_path), LatentDataModule(tmp_path / "s", 50, statistics_from=store)
    own = LatentDataModule(store).store.fingerprint[:12]
    with pytest.raises(
        ValueError, match=rf"fit on another store \({own}\) than .*s \({other.store.fingerprint[:12]}\)"
    ):
        resume(tmp_path, checkpoint, other)
    quiet = trainer(tmp_path, [], enable_checkpointing=False)
    quiet.validate(Recorder(), datamodule=other, ckpt_path=checkpoint, verbose=False)  # only a fit belongs to a store

    old = torch.load(checkpoint, weights_only=True)
    del old["LatentDataModule"]["store"]
    for state in old["loops"]["fit_loop"]["state_dict"]["combined_loader"]:
        del state["order"], state["batches"]
    torch.save(old, tmp_path / "old.ckpt")
    assert len(resume(tmp_path, str(tmp_path / "old.ckpt"), LatentDataModule(store, 50))) == 18


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"batch_size": 49}, "global_batch 50 -> 49"),
        ({"seed": 1}, "seed 0 -> 1"),
        ({"test_fraction": 0.1}, r"rows 381 -> \d+, test_fraction 0\.0 -> 0\.1"),
        ({"stratify": ["smile"]}, r"stratify \[\] -> \['smile'\]"),
    ],
)
def test_an_epoch_does_not_go_on_in_another_order(
    store: Path, tmp_path: Path, options: dict[str, object], changed: str
) -> None:
    checkpoint = stopped(store, tmp_path)
    with pytest.raises(ValueError, match=rf"after batch 3 of 7 of an epoch.*changed: {changed}"):
        resume(tmp_path, checkpoint, LatentDataModule(store, **{"batch_size": 50, **options}))


def test_a_whitened_standardisation_is_compared_too(store: Path) -> None:
    data = LatentDataModule(store)
    state = data.state_dict()
    assert set(state) == {"mean", "std", "store"}
    with pytest.raises(ValueError, match="standardised otherwise"):
        data.load_state_dict({**state, "whitening": torch.eye(6)})
    whitened = LatentDataModule(store)
    whitened.statistics = type(data.statistics).of([data.store.latents().numpy()], whiten=True)
    whitened.load_state_dict(whitened.state_dict())
    for other in (state, {**whitened.state_dict(), "whitening": torch.eye(6)}):
        with pytest.raises(ValueError, match="standardised otherwise"):
            whitened.load_state_dict(other)


RANK = """
import json, sys
import torch
from lcg.data.datamodule import LatentDataModule

rank, world, port, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
data = LatentDataModule(store, 48 // world, stratify=["smile"], shares="equal", in_memory=False, seed=4)
data.setup("fit")
print(json.dumps([batch["labels"][:, 1].int().tolist() for batch in data.train_dataloader()]))
"""


@pytest.mark.slow
def test_two_real_ranks_take_turns_in_the_batches_of_one_process(store: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen([*command, str(rank), "2", port, str(store)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    first, second = (json.loads(rank.communicate(timeout=120)[0]) for rank in ranks)
    data = ready(store, batch_size=48, stratify=["smile"], shares="equal", seed=4)
    whole = [batch["labels"][:, 1].int().tolist() for batch in data.train_dataloader()]
    assert [batch[0::2] for batch in whole] == first and [batch[1::2] for batch in whole] == second


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
