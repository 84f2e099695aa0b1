"""Images to latents on any number of ranks."""
