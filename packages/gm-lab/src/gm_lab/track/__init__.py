"""Weights & Biases: a process beside the run that reads its directory, so that the run never waits for it."""

from gm_lab.track.curves import Curves
from gm_lab.track.diagnosis import log_diagnosis

__all__ = ["Curves", "connection", "curves", "diagnosis", "log_diagnosis", "tracker", "wandb_report"]
