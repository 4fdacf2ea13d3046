"""How biased a meta-gradient is where no exact one is known: everything is estimated, and has an interval."""

from gm_estimators.diagnose.advice import Advice, Choice
from gm_estimators.diagnose.diagnosis import Report, diagnose
from gm_estimators.diagnose.jackknife import Estimate, jackknife
from gm_estimators.diagnose.loop import Draw, Loop, See
from gm_estimators.diagnose.measured import Verdict
from gm_estimators.diagnose.quality import Quality, qualities

__all__ = [
    "Advice", "Choice", "Draw", "Estimate", "Loop", "Quality", "Report", "See", "Verdict", "diagnose", "jackknife",
    "qualities",
]  # fmt: skip
