"""Data: where images and labels come from (avatars, image folders), the store of encoded latents, and its batches.

    source --encode--> LatentStore --LatentDataModule--> {"z_0": standardised, "labels": (B, A)}

Nothing is imported here: `lcg.data.store` costs numpy and torch, `lcg.data.datamodule` alone costs Lightning.
"""
