"""What several experiments share."""

__all__ = ["checks", "claims", "grid", "labels", "mdps", "problem", "run", "settings", "softmax", "training"]
