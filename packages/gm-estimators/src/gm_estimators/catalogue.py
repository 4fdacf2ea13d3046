"""The old name of `estimator` and `names`."""

from gm_estimators.estimator import CATALOGUE, FAMILY, Estimator, EstimatorError, families, require_advantages
from gm_estimators.names import load

__all__ = ["CATALOGUE", "FAMILY", "Estimator", "EstimatorError", "families", "load", "require_advantages"]
