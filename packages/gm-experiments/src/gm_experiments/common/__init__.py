"""What several experiments share."""

__all__ = ["checks", "claims", "dots", "findings", "labels", "mdps", "problem", "settings", "words"]
