"""Everything of the paper that this machine can do: each experiment in turn, one progress display, one report."""

from gm_experiments.reproduce.run import main

__all__ = ["display", "main", "run", "settings"]
