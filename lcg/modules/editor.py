"""`lcg predict` of the guided editor: edits all latents that a data module serves, over any number of devices.

Each batch is edited as `lcg edit` would edit it, one attribute after another, and every sample from its own seed, so
that the results depend neither on the batches nor on the number of processes. Guidance takes gradients, and a Trainer
predicts under inference mode, where there are none, unless it is told `inference_mode: false`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from torch import Tensor

from lcg import __version__
from lcg.checkpoint import LoadedNetwork, load_networks
from lcg.data.datamodule import LatentDataModule
from lcg.editing import edit_sequence
from lcg.guidance import parse_edit
from lcg.modules.writer import EditWriter
from lcg.pipeline import CLASSIFIER, PRIOR
from lcg.settings import Editing


class EditorModule(LightningModule):
    """Edits the prediction batches of a `LatentDataModule` and writes what comes out; nothing is trained.

    Args:
        edits: what to change, in order: +NAME, -NAME or NAME=VALUE.
        prior: checkpoint of the prior.
        classifier: checkpoint of the classifiers.
        editing: how edits are made.
        seed: of the starts that draw noise.
        out: folder of the results, one file per process; see `lcg.modules.writer`.
        overwrite: replace the results of an earlier run.

    Raises:
        ValueError: there are no edits; in `setup`, networks, edits and store do not fit together.
        RuntimeError: predicting under inference mode.
    """

    def __init__(
        self,
        edits: list[str],
        prior: str = PRIOR,
        classifier: str = CLASSIFIER,
        editing: Editing = Editing(),  # noqa: B008 (frozen; the defaults are the help)
        seed: int = 0,
        out: str = "runs/edited",
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        if not edits:
            raise ValueError("`edits` must name at least one edit, got none; such as [+glasses, -hat, hair_color=red]")
        self.edits, self.prior_path, self.classifier_path = list(edits), prior, classifier
        self.editing, self.seed, self.out, self.overwrite = editing, seed, out, overwrite

    def configure_callbacks(self) -> list[Callback]:
        return [EditWriter(self.out, self.overwrite)]

    def setup(self, stage: str) -> None:
        """Loads the networks and checks that they, the edits and the store fit together; called by the Trainer."""
        prior, classifier = load_networks(self.prior_path, self.classifier_path)
        data = LatentDataModule.of(self.trainer)
        check_store(prior, data)
        self.denoiser, self.classifier = prior.network, classifier.network
        schema = self.classifier.schema
        if schema != data.schema:
            raise ValueError(
                f"{classifier.path} knows other attributes than the store {data.path}; "
                "use the store that it was fitted on"
            )
        self.parsed = [parse_edit(edit, schema) for edit in self.edits]
        self.editing.build(self.denoiser, self.classifier)  # refuses wrong settings now rather than at the first batch

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Edits a batch.

        Args:
            batch: "z_0" (B, *latent) standardised, "labels" (B, A), "index" (B,) the samples' numbers in their source.
            batch_idx: not used.

        Returns:
            "index" (B,), "z_0" (B, *latent) and "edited" (B, steps, *latent), the latents after each edit.

        Raises:
            RuntimeError: under inference mode.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "guided editing takes gradients, which inference mode forbids: set `trainer.inference_mode: false`, "
                "as configs/editor/avatars.yaml does, or use Trainer(inference_mode=False)"
            )
        z_0, index = batch["z_0"], batch["index"]
        seeds = [self.seed + number for number in index.tolist()]
        editor = self.editing.build(self.denoiser, self.classifier, seeds)
        results = edit_sequence(editor, z_0, self.parsed, batch["labels"])
        return {"index": index, "z_0": z_0, "edited": torch.stack([result.z_0 for result in results], dim=1)}

    def provenance(self) -> dict[str, Any]:
        """What made the results, in JSON primitives."""
        return {
            "lcg": __version__,
            "store": LatentDataModule.of(self.trainer).store.fingerprint,
            "prior": self.prior_path,
            "classifier": self.classifier_path,
            "edits": self.edits,
            "editing": asdict(self.editing),
            "seed": self.seed,
        }


def check_store(prior: LoadedNetwork, data: LatentDataModule) -> None:
    """Raises ValueError unless the latents are such as the prior was fitted on: shape, generator, standardisation."""
    shape = tuple(prior.config["latent_shape"])
    if shape != tuple(data.latent_shape):
        raise ValueError(
            f"{prior.path} was fitted on latents of shape {shape}, the store {data.path} has "
            f"{tuple(data.latent_shape)}; use the store that it was fitted on"
        )
    generator = data.store.provenance.get("generator", {}).get("weights_sha256", "")
    if prior.generator and generator and prior.generator != generator:
        raise ValueError(
            f"{prior.path} was fitted on latents of a generator with weights {prior.generator[:12]}, the store "
            f"{data.path} was encoded by {generator[:12]}; encode the images with that generator"
        )
    own = prior.statistics
    data.check_standardisation(own.mean, own.std, None if own.whitening is None else own.whitening.matrix)
