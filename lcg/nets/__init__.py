"""Networks over latents: the prior's denoiser and the time-conditioned classifier, built from the same blocks."""
