"""Scores by prompts, without training: CLIP compares an image with sentences,

    p(v | x) = softmax_v( s <f(x), g_v> ),      g_v = normalise( mean_k normalise( g(prompt_vk) ) ),

with unit features f and g of image and text, and the model's own logit scale s. Several prompts for one value are
averaged as above. Radford et al. 2021, "Learning transferable visual models from natural language supervision",
arXiv:2103.00020, section 3.1. The models are those of open_clip, which ships the vocabulary of the tokenizer.

What comes out is a probability among the prompts that were given and none of truth: choose thresholds on images of your
own (`lcg label thresholds`), and look at the report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcg.generators.base import weights_sha256
from lcg.labels.base import Floats, Images
from lcg.labels.scorer import Scorer, stated

Prompts = dict[str, dict[str, str | list[str]]]


class ClipScorer(Scorer):
    """Zero-shot probabilities: binary for prompts of `yes` and `no`, one per value for all others.

    Args:
        model: an architecture of open_clip, such as ViT-B-32 (ViT-B-32-quickgelu for OpenAI's own weights), or a folder
            with `open_clip_config.json` and weights.
        prompts: by attribute and value, one or several: {"smile": {"yes": "a smiling face", "no": "a serious face"}}.
        weights: file of the weights (safetensors, or a state dictionary by torch.save); None where `model` is a folder.
        device: where it runs.
        trained_on: the images that it was trained on, in words; for a benchmark's judge.

    Raises:
        ImportError: open_clip is not installed.
        FileNotFoundError: the weights are missing.
        ValueError: the architecture is unknown, the weights are of another one, or prompts are not as above.
    """

    probabilities = True

    def __init__(
        self,
        model: str,
        prompts: Prompts,
        weights: str | None = None,
        device: str = "cpu",
        trained_on: str | None = None,
    ) -> None:
        self.prompts = checked_prompts(prompts)
        self.model_name, self.device, self.provenance = model, torch.device(device), stated(trained_on)
        self.model, self._transform, tokenizer = load_clip(model, weights, self.device)
        binary = {name for name, values in self.prompts.items() if set(values) == {"yes", "no"}}
        self.names = tuple(
            score
            for name, values in self.prompts.items()
            for score in ([name] if name in binary else [f"{name}={value}" for value in values])
        )
        self._binary = binary
        self._texts = {name: self._text_features(values, tokenizer) for name, values in self.prompts.items()}

    def scores(self, images: Images) -> Floats:
        return self.scores_and_features(images)[0]

    @torch.no_grad()
    def scores_and_features(self, images: Images) -> tuple[Floats, Floats | None]:
        """Probabilities, and the unit features of the images."""
        if not len(images):
            return np.empty((0, len(self.names)), np.float32), None
        from PIL import Image

        x = torch.stack([self._transform(Image.fromarray(image)) for image in images]).to(self.device)
        features = self.model.encode_image(x, normalize=True).float()
        scale, columns = self.model.logit_scale.exp().float(), []
        for name, text in self._texts.items():
            p = (scale * features @ text.T).softmax(1)
            columns.append(p[:, list(self.prompts[name]).index("yes")][:, None] if name in self._binary else p)
        return torch.cat(columns, 1).cpu().numpy(), features.cpu().numpy()

    def identity(self) -> dict[str, Any]:
        return {
            "class": "lcg.labels.clip.ClipScorer",
            "model": self.model_name,
            "weights_sha256": weights_sha256(self.model),
            "prompts": self.prompts,
        }

    @torch.no_grad()
    def _text_features(self, values: dict[str, list[str]], tokenizer: Any) -> Tensor:
        """(V, F), unit vectors, one for each value."""
        means = [
            self.model.encode_text(tokenizer(prompts).to(self.device), normalize=True).float().mean(0)
            for prompts in values.values()
        ]
        return torch.nn.functional.normalize(torch.stack(means), dim=1)


def load_clip(model: str, weights: str | None, device: torch.device) -> tuple[Any, Any, Any]:
    """The model, frozen; what turns a PIL image into its input; and its tokenizer. Raises as `ClipScorer`."""
    try:
        import open_clip  # type: ignore[import-untyped]
        from open_clip.transform import PreprocessCfg, image_transform_v2  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("labels by prompts need open_clip: pip install 'lcg[clip]'") from error
    folder = Path(model).is_dir()
    if not folder and model not in open_clip.list_models():
        from lcg.schema import unknown_name

        raise unknown_name("architecture of `model`", model, open_clip.list_models(), "open_clip")
    if not folder and (weights is None or not Path(weights).is_file()):
        raise FileNotFoundError(
            f"no weights of {model} at {weights}; download them (open_clip's README lists where) and give `weights`"
        )
    name = f"local-dir:{Path(model).resolve()}" if folder else model
    try:
        network = open_clip.create_model(name, pretrained=None, load_weights=folder, device=device)
        if weights is not None:
            open_clip.load_checkpoint(network, weights)
        tokenizer = open_clip.get_tokenizer(name)
        transform = image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
    except Exception as error:  # whatever open_clip and torch meet in files of others
        raise ValueError(
            f"open_clip cannot load {model} with weights {weights} ({error}); do they belong together?"
        ) from error
    return network.eval().requires_grad_(False), transform, tokenizer


def checked_prompts(prompts: Prompts) -> dict[str, dict[str, list[str]]]:
    """Prompts as lists. Raises ValueError for an attribute with fewer than two values, or a value without prompts."""
    if not prompts:
        raise ValueError(
            '`prompts` must be like {"smile": {"yes": "a smiling face", "no": "a serious face"}}, got none'
        )
    lists: dict[str, dict[str, list[str]]] = {}
    for name, values in prompts.items():
        if len(values) < 2:
            raise ValueError(
                f"`prompts` of {name!r} must be of two values at least, such as yes and no, got {list(values)}"
            )
        # YAML reads a bare yes or no as a truth value.
        spelled = {{"True": "yes", "False": "no"}.get(str(value), str(value)): texts for value, texts in values.items()}
        lists[name] = {value: [texts] if isinstance(texts, str) else list(texts) for value, texts in spelled.items()}
        for value, texts in lists[name].items():
            if not texts:
                raise ValueError(f"`prompts` of {name}={value} are empty; give a sentence")
    return lists
