"""What a run is on disk and at the command line: settings, cells, the run directory, provenance, interruption."""

from gm_lab.run import output, provenance, reading, resources
from gm_lab.run.cells import Row, cell_id, describe_cell, seed_of
from gm_lab.run.context import Context
from gm_lab.run.errors import BadInput, CellFailed, Interrupted
from gm_lab.run.interruption import receiving
from gm_lab.run.late import late
from gm_lab.run.live import LiveRows, Tail
from gm_lab.run.progress import Headway, progressed, shown_by, ticking
from gm_lab.run.resources import Need
from gm_lab.run.settings import (
    RunSettings,
    got,
    parse,
    parsed_line,
    plain,
    require,
    result_settings,
    usable_cores,
    worker_count,
)
from gm_lab.run.store import allowed_to, kinds_of_machine, make_folder, write_atomically

__all__ = [
    "BadInput", "CellFailed", "Context", "Headway", "Interrupted", "LiveRows", "Need", "Row", "RunSettings", "Tail",
    "allowed_to", "cell_id", "describe_cell", "got", "kinds_of_machine", "late", "make_folder", "output", "parse",
    "parsed_line", "plain", "progressed", "provenance", "reading", "receiving", "require", "resources",
    "result_settings", "seed_of", "shown_by", "ticking", "usable_cores", "worker_count", "write_atomically",
]  # fmt: skip
