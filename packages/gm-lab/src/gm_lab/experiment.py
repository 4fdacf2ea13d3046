"""What an app states about itself; everything else is done by `gm_lab.app.main`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gm_lab.run.cells import Row
from gm_lab.run.context import Context
from gm_lab.run.late import late
from gm_lab.run.progress import alike
from gm_lab.run.resources import NOTHING, Need
from gm_lab.run.settings import RunSettings, SettingsT

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from gm_lab.analysis.claims import Verdict
    from gm_lab.track.curves import Curves

CellT = TypeVar("CellT")
OF_SETTINGS = {
    **{name: name.lower() for name in ("Settings", "KEY", "COLUMNS", "CURVES", "UNIT", "GROWS", "BUDGET")},
    **{name: name for name in ("cells", "extra_columns", "further_cells", "measured_by", "need", "weight", "foreword")},
}
OF_ROOMS = {"run_cell": "run", "figures": "figures", "summary": "figures", "claims": "claims"}


def no_further_columns(_settings: RunSettings) -> tuple[str, ...]:
    """Says that results.csv has the same columns whatever the settings are."""
    return ()


def nothing_to_say(_settings: RunSettings) -> Sequence[str]:
    """Needs no words before it begins."""
    return ()


def nothing_known(_settings: RunSettings) -> Need:
    """Refuses nothing."""
    return NOTHING


def no_further_cells(_settings: RunSettings, _units: range, _needs: frozenset[Any]) -> Sequence[Any]:
    """Has nothing to measure in more units."""
    return ()


def no_way_known(_settings: RunSettings, _needs: frozenset[Any]) -> str:
    """Doesn't say what would measure more."""
    return ""


def nothing_concluded(_settings: RunSettings, _frame: "pd.DataFrame") -> Sequence[str]:
    """Leaves it to the pictures to say what was found."""
    return ()


def on_the_cpu(settings: RunSettings) -> Context:
    """The context of cells that need nothing prepared."""
    return Context(settings.run_dir)


@dataclass(frozen=True)
class Experiment(Generic[SettingsT, CellT]):
    """An experiment: a grid of cells, a function that computes one, and what is made of all the rows.

    `settings` is a frozen dataclass derived from `RunSettings`, whose attribute docstrings become the help. The columns
    `key` sort results.csv and, with the other settings, identify a row; `extra_columns` come after both.

    `need` says what a run takes, before anything is: it is asked of settings that nobody has checked yet, with numbers
    of any size, and imports nothing heavy.

    `cells` gives frozen dataclasses of plain values that differ from each other. `run_cell`, a module-level function or
    a `late` one, returns rows that depend on the cell alone. `prepare`, called once before the workers start and once
    in each worker process, may set up a numerical library. All three may raise `BadInput`.

    `foreword` gives sentences that readers need first, such as what a run with these settings cannot show: they are its
    first lines in the terminal and on its report.

    `weight` is how much work a cell is beside the others, for the time left that is told while the run goes on.

    `unit` is the setting that says how many independent units there are, such as MDPs or seeds, each with random
    streams of its own: a run with more of them goes on from one with fewer. Where the settings have `until_decided` and
    `most_<unit>`, too, `further_cells` gives the cells of more units, for what claims that are undecided need: all that
    their verdicts name; `grows` are further settings that may be larger then. `budget` names the settings whose
    defaults are the paper's budget. `measured_by` says with which flags claims would be measured that need what these
    settings lack.

    `conclusion` gives sentences on what was found, beside those that the pictures have as their titles.

    The numbers of `summary`, the small table printed first at the end, are the run's headline metrics in W&B, and its
    `curves` are keys of that run; those of single seeds may be runs beside it (`Curves.alone`). With `resumable_cells`,
    `run_cell` catches `Interrupted` to write a checkpoint and later goes on from there: the first Ctrl-C, like SIGTERM,
    then stops the cells in flight.
    """

    name: str
    settings: type[SettingsT]
    columns: tuple[str, ...]
    key: tuple[str, ...]
    cells: Callable[[SettingsT], Sequence[CellT]]
    run_cell: Callable[[CellT, Context], list[Row]]
    figures: "Callable[[SettingsT, pd.DataFrame], dict[str, Figure]]"
    claims: "Callable[[SettingsT, pd.DataFrame], list[Verdict]]"
    summary: "Callable[[SettingsT, pd.DataFrame], pd.DataFrame]"
    conclusion: "Callable[[SettingsT, pd.DataFrame], Sequence[str]]" = nothing_concluded
    extra_columns: Callable[[SettingsT], tuple[str, ...]] = no_further_columns
    prepare: Callable[[SettingsT], Context] = on_the_cpu
    need: Callable[[SettingsT], Need] = nothing_known
    weight: Callable[[CellT], float] = alike
    foreword: Callable[[SettingsT], Sequence[str]] = nothing_to_say
    unit: str = ""
    grows: tuple[str, ...] = ()
    budget: tuple[str, ...] = ()
    further_cells: Callable[[SettingsT, range, frozenset[Any]], Sequence[CellT]] = no_further_cells
    measured_by: Callable[[SettingsT, frozenset[Any]], str] = no_way_known
    curves: "tuple[Curves, ...]" = ()
    resumable_cells: bool = False

    @property
    def growing(self) -> frozenset[str]:
        """Settings that may be larger when a run is resumed."""
        of_unit = (self.unit, "until_decided", f"most_{self.unit}") if self.unit else ()
        return frozenset((*of_unit, *self.grows))

    @classmethod
    def of(cls, settings: ModuleType, name: str, **others: Any) -> "Experiment[Any, Any]":
        """Returns the experiment of a folder, from the names that its modules have by convention.

        Its module `settings` has Settings, cells, KEY, COLUMNS and perhaps CURVES, UNIT, GROWS, BUDGET, extra_columns,
        further_cells, measured_by, need, weight, foreword; imported late are `run.run_cell`, `figures.figures`,
        `figures.summary` and `claims.claims`, unless `others` say otherwise.
        """
        folder = settings.__name__.rpartition(".")[0]
        parts = {part: getattr(settings, its) for its, part in OF_SETTINGS.items() if hasattr(settings, its)}
        rooms = {part: late(f"{folder}.{room}:{part}") for part, room in OF_ROOMS.items()}
        return cls(name=name, **parts | rooms | others)
