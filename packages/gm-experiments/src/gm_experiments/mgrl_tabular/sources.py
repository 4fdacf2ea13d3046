"""What each estimator takes account of in an update's derivative, and the sources of bias, each alone left out."""

from gm_exact import Dependence
from gm_experiments.mgrl_tabular.settings import CORRECTED

ESTIMATORS = {
    "ad": Dependence(False, False, False, False, False, False),
    "lvc": Dependence(True, False, False, False, False, False),
    "loaded_dice": Dependence(True, True, "undamped", False, False, False),
    CORRECTED: Dependence(),
}
"""The estimators whose expectation is known."""
SOURCES = {
    "without_action": Dependence(action=False),
    "without_earlier": Dependence(earlier=False),
    "without_later": Dependence(later=False),
    "undamped": Dependence(later="undamped"),
    "without_values": Dependence(values=False),
    "without_critic": Dependence(critic=False),
    "without_entropy": Dependence(entropy=False),
}
"""The truth less one of its parts, so that what is left of bias is that part's."""
LABELS = {
    "without_action": "policy: own action",
    "without_earlier": "policy: earlier actions",
    "without_later": "policy: later actions",
    "undamped": "policy: later, undamped",
    "without_values": "V in advantages, targets",
    "without_critic": "critic's term: sampling",
    "without_entropy": "entropy's term: sampling",
}
OF = {
    "ad": ("without_action", "without_earlier", "without_later", "without_values", "without_critic", "without_entropy"),
    "lvc": ("without_earlier", "without_later", "without_values", "without_critic", "without_entropy"),
    "loaded_dice": ("undamped", "without_values", "without_critic", "without_entropy"),
}
"""Which sources an estimator has."""
