"""What several experiments share."""

__all__ = ["checks", "claims", "coincide", "dots", "findings", "labels", "mdps", "problem", "settings", "words"]
