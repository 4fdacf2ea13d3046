"""A run that goes on until its claims are decided: which are open, and the cells of more units that they need."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gm_lab.experiment import Experiment
from gm_lab.run.resources import Need, in_time
from gm_lab.run.settings import RunSettings, flag_of, worker_count

WORDS = {"mdps": "MDPs"}


class Open(NamedTuple):
    """The claims that more units would decide, all that they need, and how many of how many are decided."""

    ids: list[str]
    needs: frozenset[Any]
    decided: int
    claims: int


class Growth:
    """Looks at the claims when all cells so far are finished, and gives the cells of the next look.

    `decide` says which claims are open. Looks are at 10, 20, 40 … units, up to as many as there may be.
    """

    def __init__(
        self, experiment: Experiment[Any, Any], settings: Any, decide: Callable[[], Open], say: Callable[[str], None]
    ) -> None:
        self._experiment, self._settings, self._decide, self._say = experiment, settings, decide, say
        self._units: int = getattr(settings, experiment.unit)
        self._most: int = getattr(settings, f"most_{experiment.unit}")
        self._seconds, self._computed = 0.0, 0

    def took(self, seconds: float) -> None:
        """Notes how long a cell took, from which the time left is estimated."""
        self._seconds, self._computed = self._seconds + seconds, self._computed + 1

    def cells(self) -> Sequence[Any]:
        """The cells of the next look; none if every claim is decided, or there are as many units as there may be."""
        from gm_lab.analysis.decisions import next_look

        found = self._decide()
        words = WORDS.get(self._experiment.unit, self._experiment.unit)
        told = f"{self._units} {words}: {found.decided} of {found.claims} claims decided"
        if not found.ids or next_look(self._units) > self._most:
            self._say(told + (f"; open: {', '.join(found.ids)}" if found.ids else ""))
            return ()
        units = range(self._units, next_look(self._units))
        cells = self._experiment.further_cells(self._settings, units, found.needs)
        self._say(f"{told}; open: {', '.join(found.ids)}{self._estimate(units, len(cells), words)}")
        self._units = units.stop
        return cells

    def _estimate(self, units: range, cells: int, words: str) -> str:
        if not self._computed:
            return ""
        seconds = self._seconds / self._computed * cells / worker_count(self._settings)
        all_of_them = seconds * (self._most - units.start) / len(units)
        return f"; {units.stop} {words} in about {in_time(seconds)}, {self._most} in at most {in_time(all_of_them)}"


def need_of(experiment: Experiment[Any, Any]) -> Callable[[Any], Need]:
    """What a run takes if it goes on to as many units as there may be."""

    def need(settings: Any) -> Need:
        if not getattr(settings, "until_decided", False):
            return experiment.need(settings)
        most = max(getattr(settings, experiment.unit), getattr(settings, f"most_{experiment.unit}"))
        return experiment.need(dataclasses.replace(settings, **{experiment.unit: most}))

    return need


def budget(experiment: Experiment[Any, Any], settings: RunSettings) -> tuple[str, bool]:
    """Says with which budget claims are judged, and whether it is the paper's, which the defaults are."""
    paper = {field.name: field.default for field in dataclasses.fields(settings)}
    asked = {name: getattr(settings, name) for name in experiment.budget}
    less = [f"{flag_of(name)} {value} ({paper[name]})" for name, value in asked.items() if value < paper[name]]
    if less:
        return f"at less than the paper's budget: {', '.join(less)}", False
    words = WORDS.get(experiment.unit, experiment.unit)
    if getattr(settings, "until_decided", False):
        return (
            f"judged until they are decided, with up to {getattr(settings, f'most_{experiment.unit}')} {words}",
            False,
        )
    same = bool(asked) and all(value == paper[name] for name, value in asked.items())
    units = f"{getattr(settings, experiment.unit)} {words}" if experiment.unit else ""
    return (f"at the paper's budget: {units}" if same and units else ""), same
