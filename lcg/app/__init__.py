"""The page in which a model is played with: `lcg app`."""
