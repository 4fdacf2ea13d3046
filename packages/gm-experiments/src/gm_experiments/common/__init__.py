"""What several experiments share."""

__all__ = ["checks", "claims", "findings", "labels", "mdps", "problem", "settings"]
