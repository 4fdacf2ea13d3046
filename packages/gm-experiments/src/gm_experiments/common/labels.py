"""The words of figures, tables and verdicts: one name for one thing everywhere."""

from collections.abc import Iterable

ESTIMATORS = {"ad": "AD", "dice": "DiCE", "loaded_dice": "Loaded-DiCE", "lvc": "LVC"}
ORDER = ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")
"""The permutations as the paper shows them, from the most to the least sampled."""
PARTS = ("inner gradient", "Hessian", "outer gradient")
"""What the letters of a permutation are about, S sampled and E exact."""
SIZES = "trajectories per estimate"
STEPS = "inner steps K"
RATE = "inner learning rate α"
ACCURACY = "accuracy (cosine)"
COSINES = (-1.0, 1.0)
"""Where an accuracy can be."""
SPREAD = "Σ standard deviations"


def estimator(name: str) -> str:
    """What people call an estimator; a user's own keeps its name."""
    return ESTIMATORS.get(name, name)


def short(names: Iterable[str]) -> dict[str, str]:
    """What lines of a picture are called: a user's own estimator loses its module unless two would be called alike."""
    every = {name: estimator(name).rsplit(":", 1)[-1] for name in names}
    called = list(every.values())
    return {name: label if called.count(label) == 1 else estimator(name) for name, label in every.items()}


def permutation(name: str) -> str:
    """What a permutation samples, in words; any other name as it is."""
    sampled = [part for part, letter in zip(PARTS, name, strict=False) if letter == "S"]
    if len(name) != len(PARTS) or set(name) - set("SE"):
        return name
    if len(sampled) in (0, len(PARTS)):
        return "everything sampled" if sampled else "everything exact"
    return f"only the {sampled[0]} sampled" if len(sampled) == 1 else f"{' and '.join(sampled)} sampled"
