"""Loops that leave every Jacobian out, as first-order MAML does, beside estimators that don't."""

from dataclasses import dataclass, fields

from gm_estimators.estimator import CATALOGUE, Estimator
from gm_estimators.names import load

NAME = "first_order"


@dataclass(frozen=True)
class FirstOrder(Estimator):
    """A loop by an estimator's gradients in which a step's Jacobian counts as the identity (Finn et al. 2017).

    Attributes:
        of: the estimator whose inner and outer gradients it takes.
    """

    of: Estimator = CATALOGUE["ad"]


def named(name: str) -> Estimator:
    """The estimator of a name; "first_order" takes the gradients of AD, "dice+first_order" those of DiCE.

    Raises:
        EstimatorError: if there is none of that name.
    """
    plain, plus, ending = name.rpartition("+")
    if name != NAME and (plus, ending) != ("+", NAME):
        return load(name, suffixes=False)
    of = CATALOGUE["ad"] if name == NAME else load(plain, suffixes=False)
    same = {field.name: getattr(of, field.name) for field in fields(Estimator)}
    return FirstOrder(**same | {"name": name, "source": f"{of.source}; Finn et al. 2017"}, of=of)


FIRST_ORDER = named(NAME)
"""By the gradients of AD, which are those of LVC and Loaded-DiCE."""
