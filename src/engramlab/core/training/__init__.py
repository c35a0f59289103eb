"""Training: the loop, its stages, checkpoints and losses."""
