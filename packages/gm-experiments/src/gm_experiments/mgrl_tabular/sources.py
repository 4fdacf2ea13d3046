"""What each estimator takes account of in an update's derivative, and what is left of its bias without a source."""

from gm_exact import Dependence
from gm_experiments.mgrl_tabular.settings import CORRECTED

AD = Dependence(False, False, False, False, False, False)
LVC = AD._replace(action=True)
LOADED_DICE = LVC._replace(earlier=True, later="undamped")
ESTIMATORS = {"ad": AD, "lvc": LVC, "loaded_dice": LOADED_DICE, CORRECTED: Dependence()}
"""The estimators whose expectation is known."""
LEFT_OUT = {
    "action": Dependence(action=False),
    "earlier": Dependence(earlier=False),
    "later": Dependence(later=False),
    "undamped": Dependence(later="undamped"),
    "values": Dependence(values=False),
    "critic": Dependence(critic=False),
    "entropy": Dependence(entropy=False),
}
"""The truth less one of its parts: what bias there is then is that part's."""
REPAIRED = {
    "ad+values": AD._replace(values=True),
    "lvc+values": LVC._replace(values=True),
    "loaded_dice+values": LOADED_DICE._replace(values=True),
    "loaded_dice+terms": LOADED_DICE._replace(critic=True, entropy=True),
}
"""An estimator with what it lacks in one respect: values that are differentiated, or the other terms' sampling."""
ALL = ESTIMATORS | LEFT_OUT | REPAIRED
