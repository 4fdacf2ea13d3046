"""Every permutation of the estimators I, II and III of a two-level problem, on shared samples."""

from gm_estimators.decomposition.decompose import Decomposition, decompose, exact_meta_gradient
from gm_estimators.decomposition.path import Path, sampled_path
from gm_estimators.decomposition.problem import (
    PERMUTATIONS,
    ROLES,
    Evaluation,
    ExactObjective,
    Objective,
    Point,
    Problem,
    Role,
    Rows,
    Sample,
    Splits,
)
from gm_estimators.decomposition.sizes import Size, Sizes

__all__ = [
    "PERMUTATIONS", "ROLES", "Decomposition", "Evaluation", "ExactObjective", "Objective", "Path", "Point",
    "Problem", "Role", "Rows", "Sample", "Size", "Sizes", "Splits", "decompose", "exact_meta_gradient", "sampled_path",
]  # fmt: skip
