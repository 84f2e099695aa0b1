"""Real images to compare with, and who may judge."""
