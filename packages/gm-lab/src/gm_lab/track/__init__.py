"""Weights & Biases: a process beside the run that reads its directory, so that the run never waits for it."""

from gm_lab.track.curves import Curves

__all__ = ["Curves", "connection", "curves", "tracker", "wandb_report"]
