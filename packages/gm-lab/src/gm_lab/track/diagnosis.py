"""A diagnosis in Weights & Biases: its numbers, its table and its picture, sent by the process that sends runs, too."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gm_lab.run.output import encoded, say
from gm_lab.run.store import make_folder, write_atomically
from gm_lab.track.tracker import Mode, Tracker

if TYPE_CHECKING:
    from gm_lab.analysis.diagnosis import Row
    from gm_lab.analysis.diagnosis_page import Diagnosis

NAME = "diagnosis"
COLUMNS = ("estimator", "measure", "source", "value", "low", "high")
WHOLE = "all"
"""What stands for the source in the rows of a whole."""


def log_diagnosis(
    report: "Diagnosis", folder: str | Path, *, caption: str = "", mode: Mode = "disabled",
    warn: Callable[[str], None] = say, project: str | None = None, entity: str | None = None, group: str | None = None,
) -> str | None:  # fmt: skip
    """Writes a diagnosis to a folder as a run has its results, and has it sent to W&B unless that is disabled.

    The W&B run has each number and the ends of its interval in its summary, as `ad/bias_sq/hessian/value`, the table as
    `summary` and the picture as `figures/diagnosis`; repeats, environment steps and seed are its config. A process
    beside this one sends them. It is waited for at most a minute; what does not come through, and all that is offline,
    stays in the folder.

    Args:
        report: what `gm_estimators.diagnose.diagnose` returned, or anything with the same members.
        folder: where summary.csv, the picture and W&B's own files go.
        caption: what the loop is, in a sentence or two.
        mode: "disabled", "offline", "online", or "auto": online if W&B can be reached.
        warn: what is told of troubles.
        project: of W&B; "diagnosis", or WANDB_PROJECT, if not given.
        entity: the user or team.
        group: of W&B runs.

    Returns:
        The command that uploads what has been kept offline, if anything has.

    Raises:
        BadInput: if the folder can't be written.
    """
    folder, rows = Path(folder), report.rows()
    made = {"repeats": report.repeats, "env_steps": report.env_steps, "seed": report.plan.seed, "caption": caption}
    _written(rows, folder, caption)
    digest = hashlib.blake2b(repr((made, rows)).encode(), digest_size=8).hexdigest()
    tracker = Tracker(mode, folder, NAME, digest, warn, project=project, entity=entity, group=group)
    tracker.start(made)
    tracker.finish(0)
    return tracker.sync_line


def _written(rows: "Sequence[Row]", folder: Path, caption: str) -> None:
    """The files that are sent, under the names that those of a run have."""
    from gm_lab.analysis import caption_of, diagnosis_figure, finding_of, save

    figure = diagnosis_figure(rows, caption)
    make_folder(folder / "figures")
    save(figure, folder / "figures" / NAME)
    said: dict[str, Any] = {NAME: {"finding": finding_of(figure), "caption": caption_of(figure)}}
    write_atomically(folder / "figures" / "captions.json", encoded(json.dumps(said, ensure_ascii=False)))
    table = io.StringIO()
    lines = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
    lines.writeheader()
    lines.writerows({**row, "source": row["source"] or WHOLE} for row in rows)
    for name in ("results.csv", "summary.csv"):
        write_atomically(folder / name, encoded(table.getvalue()))
    write_atomically(folder / "claims.json", b"[]")
