"""Draws panels of the W&B Report about a run from what W&B is sent: their specification, and the keys of the history.

    uv run docs/wandb_picture.py runs/maml docs/images/wandb_report.png "fig4: accuracy maml SEE"

It takes the figures and titles of up to four panels.
"""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from gm_lab.analysis import end_label, entitle, panels, read_results, save
from gm_lab.analysis.report import load
from gm_lab.track.curves import Curves, curves_of, history, keyed
from gm_lab.track.wandb_report import panels as specifications

DOTS = {"solid": "-", "dotted": ":"}
CAPTION = (
    "Drawn by our own code from the specification that is sent to W&B and from the logged keys. "
    "Solid: means; dotted: the ends of their 95% intervals."
)


def main(arguments: Sequence[str]) -> int:
    """Writes the picture; exit status 2 if a panel is asked for that there is not."""
    path, out, *titles = arguments
    run = load(Path(path))
    curves = keyed(curves_of(map(Curves.of, run.begun["curves"]), read_results(run.path / "results.csv")))
    found = {f"{of}: {spec.title}": spec for of, spec in specifications(run.run_id, curves)}
    titles = titles or list(islice(found, 4))
    if unknown := [title for title in titles if title not in found]:
        print(f"wandb_picture: expected panels, as {next(iter(found))}; got {', '.join(unknown)}", file=sys.stderr)
        return 2
    specs = [found[title] for title in titles]
    figure = panels(titles, rows=1 if len(specs) < 4 else 2, height=2.1, share_y=False)
    rows = list(history(curves))
    for axes, spec in zip(figure.axes, specs, strict=True):
        for key in spec.y:
            points = [(row[spec.x], row[key]) for row in rows if key in row]
            series = f"{run.run_id}:{key}"
            mark = spec.line_marks[series]
            (line,) = axes.plot(*zip(*points, strict=True), linewidth=spec.line_widths[series], linestyle=DOTS[mark])
            line.set_color(spec.line_colors[series])
            if mark == "solid":
                end_label(axes, np.array([y for _, y in points]), spec.line_titles[series], spec.line_colors[series])
        axes.set(xlabel=spec.title_x, ylabel=spec.title_y)
        axes.set_xscale("log" if spec.log_x else "linear")
        axes.set_yscale("log" if spec.log_y else "linear")
    entitle(figure, f"{len(specs)} panels of the W&B Report about {run.app}: the lines are estimators", CAPTION)
    save(figure, Path(out).with_suffix(""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
