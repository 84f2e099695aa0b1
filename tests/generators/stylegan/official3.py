"""As `official`, for StyleGAN3."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import signal, special

from tests.generators.stylegan.official import (
    Array,
    Draw,
    Persistent,
    array,
    bounded,
    correlated,
    filtered,
    linear,
    modulated,
    zeros_between,
)

MARGIN = 10


def signals(resolution: int, layers: int, critical: int = 2) -> list[dict[str, Any]]:
    """Size, rate, cut-off and half width of each signal, as the paper's table has them."""
    share = np.minimum(np.arange(layers + 1) / (layers - critical), 1)
    cutoff = 2 * (resolution / 2 / 2) ** share
    stopband = 2**2.1 * (resolution / 2 * 2**0.3 / 2**2.1) ** share
    rate = np.exp2(np.ceil(np.log2(np.minimum(stopband * 2, resolution))))
    half_width = np.maximum(stopband, rate / 2) - cutoff
    size = rate + MARGIN * 2
    size[-2:] = resolution
    table = zip(size.astype(int), rate, cutoff, half_width, strict=True)
    return [dict(zip(("size", "rate", "cutoff", "half_width"), row, strict=True)) for row in table]


def low_pass(taps: int, cutoff: float, width: float, rate: float, jinc: bool) -> Array:
    """By SciPy, (K,) or (K, K)."""
    if not jinc:
        return np.asarray(signal.firwin(taps, cutoff, width=width, fs=rate))
    x = (np.arange(taps) - (taps - 1) / 2) / rate
    r = np.hypot(*np.meshgrid(x, x))
    beta = signal.kaiser_beta(signal.kaiser_atten(taps, width / (rate / 2)))
    window = np.kaiser(taps, beta)
    f = special.j1(2 * cutoff * np.pi * r) / (np.pi * r) * np.outer(window, window)
    return np.asarray(f / f.sum())


def stylegan3(
    resolution: int = 16,
    channels: tuple[int, ...] = (6, 6, 5, 4),
    w_dim: int = 7,
    rotates: bool = False,
    clamp: float | None = 256,
    seed: int = 0,
) -> Persistent:
    draw, plan, layers = Draw(seed), signals(resolution, len(channels)), {}
    kernel, width = 1 if rotates else 3, channels[0]
    frequencies = draw(width, 2)
    radii = frequencies.norm(dim=1, keepdim=True)
    frequencies = frequencies / (radii * radii.square().exp() ** 0.25) * float(plan[0]["cutoff"])
    affine = draw.linear(w_dim, 4)
    affine.parameters["bias"] = torch.nn.Parameter(torch.tensor([1.0, 0.2, 0.1, -0.1]))
    waves = Persistent(
        "SynthesisInput",
        {"weight": draw(width, width)},
        {"freqs": frequencies, "phases": draw(width), "transform": torch.eye(3)},
        {"affine": affine},
        size=np.array([plan[0]["size"]] * 2),
    )
    for k, target in enumerate(plan):
        source, last = plan[max(k - 1, 0)], k == len(channels)
        inputs, outputs = channels[max(k - 1, 0)], 3 if last else channels[k]
        size = 1 if last else kernel
        buffers = {"magnitude_ema": torch.tensor(0.7), "up_filter": None, "down_filter": None}
        rate = 2 * max(source["rate"], target["rate"])
        up, down = round(rate / source["rate"]), round(rate / target["rate"])
        if not last:
            jinc = rotates and k < len(channels) - 2
            f = low_pass(6 * up, source["cutoff"], 2 * source["half_width"], rate, False)
            g = low_pass(6 * down, target["cutoff"], 2 * target["half_width"], rate, jinc)
            buffers |= {"up_filter": torch.from_numpy(f).float(), "down_filter": torch.from_numpy(g).float()}
        layers[f"L{k}_{target['size']}_{outputs}"] = Persistent(
            "SynthesisLayer",
            {"weight": draw(outputs, inputs, size, size), "bias": 0.1 * draw(outputs)},
            {name: tensor for name, tensor in buffers.items() if tensor is not None},
            {"affine": draw.linear(w_dim, inputs, bias=1)},
            conv_clamp=clamp,
            in_cutoff=source["cutoff"],
        )
    arguments = {"w_dim": w_dim, "img_resolution": resolution, "img_channels": 3, "num_layers": len(channels)}
    arguments |= {"conv_kernel": kernel, "use_radial_filters": rotates, "conv_clamp": clamp}
    synthesis = Persistent("SynthesisNetwork", None, None, {"input": waves, **layers}, arguments)
    return Persistent("Generator", modules={"synthesis": synthesis, "mapping": draw.mapping(5, w_dim, 2)}, z_dim=5)


def image3(network: Persistent, w: Array) -> Array:
    """The image (3, H, W), not clamped, of one w of W+ (latents, w_dim), by StyleGAN3."""
    parts = network["synthesis"].modules
    waves, layers = parts["input"], [part for name, part in parts.items() if name != "input"]
    plan = signals(int(network["synthesis"].arguments["img_resolution"]), len(layers) - 1)
    x = sines(waves, w[0], plan[0])
    for k, layer in enumerate(layers):
        source, target, last = plan[max(k - 1, 0)], plan[k], k == len(layers) - 1
        weight, bias = modulated(layer, w[k + 1], demodulate=not last), array(layer.parameters["bias"])
        weight = weight / np.sqrt(array(layer.buffers["magnitude_ema"]))
        if last:
            x = correlated(x, weight / np.sqrt(weight[0].size), 0) + bias[:, None, None]
            return 0.25 * bounded(x, layer.settings["conv_clamp"])
        kernel = weight.shape[-1]
        x = correlated(x, weight, kernel - 1) + bias[:, None, None]
        up, down = (array(layer.buffers[f"{name}_filter"]) for name in ("up", "down"))
        up, down = (f if f.ndim == 2 else np.outer(f, f) for f in (up, down))
        more, less = len(up) // 6, len(down) // 6
        before, after = margins(int(source["size"]) + kernel - 1, int(target["size"]), more, less, len(up), len(down))
        x = zeros_between(x, more)
        x = np.pad(x, ((0, 0), (max(before, 0), max(after, 0)), (max(before, 0), max(after, 0))))
        first, stop = max(-before, 0), x.shape[1] - max(-after, 0)
        x = filtered(x[:, first:stop, first:stop], more**2 * up)
        x = bounded(np.where(x > 0, x, 0.2 * x) * np.sqrt(2), layer.settings["conv_clamp"])
        x = filtered(x, down)[:, ::less, ::less]
    raise AssertionError("the last layer returns")


def margins(inputs: int, outputs: int, more: int, less: int, up: int, down: int) -> tuple[int, int]:
    """Zeros around samples and zeros between them, such that both signals have one centre, from where samples lie."""
    first = -(inputs - 1) / 2 * more  # of the first input sample, in samples of the higher rate, from the centre
    wanted = -(outputs - 1) / 2 * less - (up - 1) / 2 - (down - 1) / 2  # where the filters of the first output begin
    before = int(np.floor(first - wanted + 1e-9))
    length = (outputs - 1) * less + up + down - 1
    return before, length - before - inputs * more


def sines(waves: Persistent, w: Array, target: dict[str, Any]) -> Array:
    c, s, t_x, t_y = linear(waves["affine"], w[None])[0]
    length = np.hypot(c, s)
    rotation = np.array([[c, -s], [s, c]]) / length
    frequencies = array(waves.buffers["freqs"]) @ rotation
    place = (np.arange(target["size"]) + 0.5 - target["size"] / 2) / target["rate"]
    points = np.stack(np.meshgrid(place, place), axis=-1) - np.array([t_x, t_y]) / length
    x = np.sin(2 * np.pi * (points @ frequencies.T + array(waves.buffers["phases"])))
    fade = (np.linalg.norm(frequencies, axis=1) - target["cutoff"]) / (target["rate"] / 2 - target["cutoff"])
    weight = array(waves.parameters["weight"])
    return np.moveaxis(x * np.clip(1 - fade, 0, 1) @ (weight / np.sqrt(len(weight))).T, -1, 0)
