"""The words of figures, tables and verdicts: one name for one thing everywhere."""

ESTIMATORS = {"ad": "AD", "dice": "DiCE", "loaded_dice": "Loaded-DiCE", "lvc": "LVC"}
ORDER = ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")
"""The permutations as the paper shows them, from the most to the least sampled."""
SIZES = "trajectories per estimate"
STEPS = "inner steps K"
RATE = "inner learning rate α"
ACCURACY = "accuracy (cosine)"
SPREAD = "Σ standard deviations"


def estimator(name: str) -> str:
    """What people call an estimator; a user's own keeps its name."""
    return ESTIMATORS.get(name, name)
