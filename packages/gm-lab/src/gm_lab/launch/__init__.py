"""Launchers: they compute the cells of a run, here or on a Ray cluster, and say as each one is finished."""

__all__ = ["local", "outcome", "ray"]
