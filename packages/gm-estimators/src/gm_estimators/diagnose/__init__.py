"""How biased a meta-gradient is where no exact one is known: everything is estimated, and has an interval."""

from gm_estimators.diagnose.jackknife import Estimate, jackknife
from gm_estimators.diagnose.quality import Quality, qualities

__all__ = ["Estimate", "Quality", "jackknife", "qualities"]
