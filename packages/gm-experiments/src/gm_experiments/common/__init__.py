"""What the tabular experiments share: settings and cells, random MDPs, checks, labels, and what a claim is."""

__all__ = ["checks", "claims", "grid", "labels", "mdps", "problem", "run", "settings"]
