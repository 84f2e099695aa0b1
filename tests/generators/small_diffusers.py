"""Small autoencoders of diffusers with random weights, written to a folder as `save_pretrained` writes them."""

from __future__ import annotations

from pathlib import Path

import torch

TWO = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
CONVOLUTIONAL = {**TWO, "block_out_channels": (8, 16), "norm_num_groups": 4, "sample_size": 16}
CONFIGS = {
    "AutoencoderKL": {**CONVOLUTIONAL, "latent_channels": 4, "scaling_factor": 0.13, "shift_factor": 0.7},
    "VQModel": {**CONVOLUTIONAL, "latent_channels": 3, "num_vq_embeddings": 64},
    "AutoencoderTiny": {
        "encoder_block_out_channels": (8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8),
        "num_encoder_blocks": (1, 1, 1),
        "num_decoder_blocks": (1, 1, 1),
    },
    "AutoencoderRAE": {
        "encoder_hidden_size": 64,
        "encoder_num_hidden_layers": 2,
        "decoder_hidden_size": 32,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 64,
        "encoder_input_size": 56,
        "patch_size": 8,
        "noise_tau": 0.8,
        "latents_mean": torch.linspace(-1, 1, 64)[:, None, None].tolist(),
        "latents_std": torch.linspace(0.5, 2, 64)[:, None, None].tolist(),
    },
}


def write_autoencoder(kind: str, folder: Path, seed: int = 0) -> str:
    """Writes one of `CONFIGS`; its folder."""
    import diffusers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = getattr(diffusers, kind)(**CONFIGS[kind])
    network.save_pretrained(folder)
    return str(folder)
