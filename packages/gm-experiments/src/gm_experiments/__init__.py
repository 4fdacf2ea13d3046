"""The workbench's experiments, one folder each: what is measured, how, and what the paper claims about it."""

__all__ = [
    "attribution", "common", "explore", "frontier", "lirpg", "lola", "lpg", "maml", "mgrl", "mgrl_chain",
    "mgrl_minatar", "mgrl_tabular", "reproduce", "theory",
]  # fmt: skip
