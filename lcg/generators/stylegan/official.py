"""What NVIDIA's networks call what ours call otherwise, and what their layers do when they are run.

Their linear layers multiply weights by a gain when they are run, so that all learn at one rate; ours hold the product.
Sizes and channels are told from the tensors, all else from the settings that layers keep. Whatever our networks do not
have (labels, another filter, another rectifier) is refused by name, and so is a tensor that nobody has asked for.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor

from lcg.generators.stylegan.isolation import Found
from lcg.generators.stylegan.resampling import binomial

FILTER_TOLERANCE = 1e-4
"""How far the taps of an official filter may be from those that we compute."""
OFFICIAL_STYLEGAN3 = {
    "num_critical": ("critical", 2),
    "first_cutoff": ("first_cutoff", 2),
    "first_stopband": ("first_stopband", 2**2.1),
    "last_stopband_rel": ("last_stopband", 2**0.3),
    "margin_size": ("margin", 10),
    "output_scale": ("scale", 0.25),
    "conv_kernel": ("kernel", 3),
    "filter_size": ("taps", 6),
    "use_radial_filters": ("round_response", False),
    "conv_clamp": ("clamp", 256),
}
"""Our names of the arguments of the official synthesis network, and their official defaults."""

Converted = tuple[str, dict[str, Any], dict[str, Tensor], dict[str, Tensor]]
"""Kind, architecture, state, and filters that have to be those of our networks, by the names of their buffers."""


def converted(found: Found) -> Converted:
    """Our kind, architecture and state of an official network.

    Raises:
        ValueError: it is no StyleGAN2 or StyleGAN3, or has something that ours have not.
    """
    return Conversion(found).converted()


class Conversion:
    """An official network, of whose tensors each is taken once.

    Args:
        found: what was in the pickle.
    """

    def __init__(self, found: Found) -> None:
        self.about, self.left = found.about, dict(found.tensors)

    def converted(self) -> Converted:
        if any(name.startswith("mapping.embed") for name in self.left):
            raise ValueError("it is conditioned on labels, and only networks without labels are converted")
        mapping, state = self.mapping()
        filters: dict[str, Tensor] = {}
        if "synthesis.input.freqs" in self.left:
            kind, (synthesis, more, filters) = "StyleGAN3", self.stylegan3()
        elif "synthesis.b4.const" in self.left:
            kind, (synthesis, more) = "StyleGAN2", self.stylegan2()
        else:
            some = ", ".join(sorted(self.left)[:3]) or "none"
            raise ValueError(f"it is neither StyleGAN2 nor StyleGAN3; its tensors are called otherwise: {some}")
        if self.left:
            raise ValueError(f"it has tensors that our networks have not: {', '.join(sorted(self.left)[:3])}")
        return (
            kind,
            {"mapping": mapping, "synthesis": {"w_dim": mapping["w_dim"], **synthesis}},
            {**state, **more},
            filters,
        )

    def take(self, name: str) -> Tensor:
        if name not in self.left:
            raise ValueError(f"its tensor {name} is missing")
        return self.left.pop(name).float()

    def setting(self, module: str, name: str, default: Any = None) -> Any:
        return self.about.get(module, {}).get("settings", {}).get(name, default)

    def gain(self, module: str, name: str = "weight_gain") -> float:
        value = self.setting(module, name)
        if not isinstance(value, int | float):
            raise ValueError(f"its layer {module} has no setting {name}, by which its weights are multiplied")
        return float(value)

    def affine(self, official: str, ours: str) -> dict[str, Tensor]:
        """A linear layer."""
        return {
            f"{ours}.weight": self.take(f"{official}.weight") * self.gain(official),
            f"{ours}.bias": self.take(f"{official}.bias") * self.gain(official, "bias_gain"),
        }

    def rectified(self, module: str) -> None:
        """Raises ValueError where a layer has another rectifier than ours."""
        if (activation := self.setting(module, "activation", "lrelu")) != "lrelu":
            raise ValueError(f"its layer {module} has the activation {activation!r}; only 'lrelu' is converted")

    def mapping(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        numbers = sorted(int(n) for n in re.findall(r"^mapping\.fc(\d+)\.weight$", "\n".join(self.left), re.MULTILINE))
        if not numbers or "mapping.w_avg" not in self.left:
            raise ValueError("it has no mapping network; give one of the networks G_ema or G")
        sizes = [self.left[f"mapping.fc{k}.weight"].shape for k in numbers]
        state = {"mapping.w_mean": self.take("mapping.w_avg")}
        for k in numbers:
            self.rectified(f"mapping.fc{k}")
            state |= self.affine(f"mapping.fc{k}", f"mapping.layers.{k}")
        return {"z_dim": sizes[0][1], "w_dim": sizes[-1][0], "layers": len(numbers)}, state

    def stylegan2(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        state, sizes = {"synthesis.constant": self.take("synthesis.b4.const")}, list[int]()
        while f"synthesis.b{4 * 2 ** len(sizes)}.conv1.weight" in self.left:
            sizes.append(4 * 2 ** len(sizes))
        channels = [self.left[f"synthesis.b{size}.conv1.weight"].shape[0] for size in sizes]
        architecture = "skip" if "synthesis.b4.torgb.weight" in self.left else "orig"
        for k, size in enumerate(sizes):
            theirs, ours = f"synthesis.b{size}", f"synthesis.blocks.{k}"
            for number, name in (("conv0", "first"), ("conv1", "second")):
                if f"{theirs}.{number}.weight" in self.left:
                    state |= self.styled(f"{theirs}.{number}", f"{ours}.{name}", size)
            if f"{theirs}.torgb.weight" in self.left:
                state |= self.colours(f"{theirs}.torgb", f"{ours}.colours", self.gain(f"{theirs}.torgb"))
            if f"{theirs}.skip.weight" in self.left:
                architecture = "resnet"
                state[f"{ours}.shortcut"] = self.take(f"{theirs}.skip.weight") * self.gain(f"{theirs}.skip")
        for name in [name for name in self.left if name.endswith("resample_filter")]:
            f = self.take(name)
            if f.shape != (4, 4) or not torch.allclose(f, binomial().outer(binomial()), atol=FILTER_TOLERANCE):
                raise ValueError(f"its filter {name} is not 1 3 3 1; only networks with this filter are converted")
        clamp = self.setting("synthesis.b4.conv1", "conv_clamp")
        return {"channels": channels, "architecture": architecture, "clamp": clamp}, state

    def styled(self, theirs: str, ours: str, size: int) -> dict[str, Tensor]:
        """A modulated convolution of StyleGAN2."""
        self.rectified(theirs)
        state = self.affine(f"{theirs}.affine", f"{ours}.affine")
        noisy = f"{theirs}.noise_const" in self.left
        state[f"{ours}.noise"] = self.take(f"{theirs}.noise_const") if noisy else torch.zeros(size, size)
        state[f"{ours}.noise_strength"] = self.take(f"{theirs}.noise_strength") if noisy else torch.zeros(())
        return {**state, f"{ours}.weight": self.take(f"{theirs}.weight"), f"{ours}.bias": self.take(f"{theirs}.bias")}

    def colours(self, theirs: str, ours: str, gain: float) -> dict[str, Tensor]:
        """A layer to colours, whose gain belongs to its styles officially, which is the same."""
        state, weight = self.affine(f"{theirs}.affine", f"{ours}.affine"), self.take(f"{theirs}.weight")
        if len(weight) != 3:
            raise ValueError(f"its images have {len(weight)} channels; only RGB is converted")
        return {**state, f"{ours}.weight": weight * gain, f"{ours}.bias": self.take(f"{theirs}.bias")}

    def stylegan3(self) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
        theirs, ours = "synthesis.input", "synthesis.waves"
        weight = self.take(f"{theirs}.weight")
        state, filters = self.affine(f"{theirs}.affine", f"{ours}.affine"), dict[str, Tensor]()
        state[f"{ours}.weight"] = weight / math.sqrt(len(weight))
        for official, name in (("freqs", "frequencies"), ("phases", "phases"), ("transform", "transform")):
            state[f"{ours}.{name}"] = self.take(f"{theirs}.{official}")
        found = {
            match[1]: int(match[2])
            for name in self.left
            if (match := re.match(r"(synthesis\.L(\d+)_.*)\.weight$", name)) and ".affine" not in name
        }
        names = sorted(found, key=found.__getitem__)
        channels = [len(weight)] + [self.left[f"{name}.weight"].shape[0] for name in names[1:-1]]
        for k, theirs in enumerate(names):
            ours = f"synthesis.layers.{k}"
            state[f"{ours}.gain"] = self.take(f"{theirs}.magnitude_ema").rsqrt()
            if k == len(names) - 1:
                inputs = self.left[f"{theirs}.weight"][0].numel()
                state |= self.colours(theirs, ours, 1 / math.sqrt(inputs))
                continue
            state |= self.affine(f"{theirs}.affine", f"{ours}.affine")
            state |= {f"{ours}.{name}": self.take(f"{theirs}.{name}") for name in ("weight", "bias")}
            filters |= {f"{ours}.{name}": self.take(f"{theirs}.{name}_filter") for name in ("up", "down")}
        return self.stylegan3_options(channels), state, filters

    def stylegan3_options(self, channels: list[int]) -> dict[str, Any]:
        given = self.about.get("synthesis", {}).get("arguments") or {}
        if given.get("lrelu_upsampling", 2) != 2:
            raise ValueError(f"its rectifiers have {given['lrelu_upsampling']} times the rate; only 2 is converted")
        options = {ours: given.get(theirs, default) for theirs, (ours, default) in OFFICIAL_STYLEGAN3.items()}
        return {"resolution": given.get("img_resolution", 0), "channels": channels, **options}
