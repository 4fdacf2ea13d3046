"""What several experiments share."""

__all__ = ["checks", "claims", "labels", "mdps", "problem", "settings"]
