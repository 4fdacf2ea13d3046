"""Lemma 4.4 and Theorem 4.5 beside what they bound: the studies that the MAML experiment's `--figure theory` adds."""

__all__ = ["claims", "figures", "findings", "run", "settings"]
