"""Input is refused with one line that says what was expected and what came."""

import contextlib
from collections.abc import Iterator

import gm_estimators as estimators
import gm_lab


@contextlib.contextmanager
def estimators_are_input() -> Iterator[None]:
    """Turns the fault of a user's estimator into `BadInput`."""
    try:
        yield
    except estimators.EstimatorError as error:
        raise gm_lab.BadInput(str(error)) from error
