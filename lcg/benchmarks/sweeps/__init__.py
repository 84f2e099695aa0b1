"""W&B's sweep files, run here without a server."""
