"""The old name of what `surrogates` has now."""

from gm_estimators.surrogates import DerivativesFunction, LogProbDerivatives, SignalCotangents, automatic_derivatives

__all__ = ["DerivativesFunction", "LogProbDerivatives", "SignalCotangents", "automatic_derivatives"]
