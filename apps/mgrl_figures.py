"""Figures of apps/mgrl_atari.py.

`uv run apps/mgrl_figures.py DIR` draws those of a run directory at any time, from finished and unfinished runs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gm_lab
from gm_lab.figures import save
from gm_lab.live import Tail
from gm_lab.store import make_folder
from gm_mgrl_atari import NAMES, PARTS
from mgrl_report import COLUMNS, KEY, SECONDS, completed, games_of, tell

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LABELS = {"a2c": "A2C", "mgrl": "MGRL", "mgrl-lvc": "MGRL + LVC"}
SYMBOLS = dict(zip(NAMES, ("discount γ", "GAE λ", "value coefficient", "entropy coefficient"), strict=True))


def figures(frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Returns (Figures 3 and 9), meta-parameters (Figure 10), and what the meta-gradient is like, where measured."""
    found = {}
    log = frame[frame["figure"] == "returns"]
    if not log.empty:
        found["returns"] = _returns(log)
    learnt = log[log["algorithm"] != "a2c"]
    if not learnt.empty:
        found["meta_parameters"] = _meta_parameters(learnt)
    measured = frame[frame["figure"] == "gradient"]
    if not measured.empty:
        found["gradient"] = _gradient(measured)
    timed = frame[frame["figure"] == "throughput"] if SECONDS[0] in frame else frame[:0]
    if not timed.empty:
        found["time"] = _time(timed)
    return found


def _in_millions(log: "pd.DataFrame") -> "pd.DataFrame":
    return log.assign(millions=log["env_steps"] / 1e6)


def _returns(log: "pd.DataFrame") -> "Figure":
    games = games_of(log)
    columns = min(len(games), 4)
    rows = -(-len(games) // columns)
    figure = gm_lab.panels(games[:columns], width=3.4, height=2.9, rows=rows, share_y=False)
    for axes, game in zip(figure.axes, games, strict=False):
        axes.set_title(game, fontsize=10, loc="left")
        rows_of = _in_millions(log[(log["game"] == game) & log["episode_return"].notna()])
        gm_lab.lines(
            axes,
            rows_of,
            "millions",
            "episode_return",
            by="algorithm",
            over="seed",
            labels=LABELS,
            x_label="environment steps, millions",
            y_label="return of finished games",
            marks=False,
        )
    for axes in figure.axes[len(games) :]:
        axes.set_axis_off()
    gm_lab.shared_legend(figure)
    return figure


def _meta_parameters(log: "pd.DataFrame") -> "Figure":
    games = games_of(log)
    figure = gm_lab.panels(list(SYMBOLS.values()), width=2.7, height=2.4, rows=len(games), share_y=False)
    for i, axes in enumerate(figure.axes):
        game, name = games[i // len(NAMES)], NAMES[i % len(NAMES)]
        gm_lab.lines(
            axes,
            _in_millions(log[log["game"] == game]),
            "millions",
            name,
            by="algorithm",
            over="seed",
            labels=LABELS,
            x_label="environment steps, millions",
            y_label=game,
            marks=False,
        )
    gm_lab.shared_legend(figure)
    return figure


def _gradient(rows: "pd.DataFrame") -> "Figure":
    variants = list(dict.fromkeys(rows["variant"]))
    points = sorted(rows["updates"].unique())
    measures = {
        "accuracy": "cosine to the many-window mean",
        "bias_sq": "squared bias",
        "variance": "variance",
    }
    figure = gm_lab.panels(list(measures.values()), width=3.4, height=0.9 + 0.32 * len(variants))
    for axes, measure in zip(figure.axes, measures, strict=True):
        for k, at in enumerate(points):
            values = rows[rows["updates"] == at].groupby("variant")[measure].mean().reindex(variants)
            look = gm_lab.style_of(f"{at:g} updates")
            offsets = [i + 0.16 * (k - (len(points) - 1) / 2) for i in range(len(variants))]
            axes.plot(values, offsets, look.marker, color=f"C{k}", label=f"after {at:g} updates")
        axes.set_yticks(range(len(variants)), variants)
        axes.invert_yaxis()
        if measure != "accuracy":
            axes.set_xscale("symlog", linthresh=1e-12)
    gm_lab.shared_legend(figure)
    return figure


def _time(rows: "pd.DataFrame") -> "Figure":
    """Parts of the wall time, means over games and seeds."""
    parts = rows[list(SECONDS)].groupby(rows["algorithm"]).sum()
    shares = parts.div(parts.sum(axis=1), axis=0).mul(100)
    figure = gm_lab.panels([""], width=7.2, height=1.3 + 0.4 * len(shares))
    (axes,) = figure.axes
    done = 0 * shares[SECONDS[0]]
    for k, (part, column) in enumerate(zip(PARTS, SECONDS, strict=True)):
        axes.barh(
            [LABELS[name] for name in shares.index],
            shares[column],
            left=done,
            color=f"C{k}",
            edgecolor="white",
            hatch=("", "//")[k % 2],
            label=part,
        )
        done = done + shares[column]
    axes.invert_yaxis()
    axes.set_xlabel("share of the wall time, per cent")
    gm_lab.shared_legend(figure, columns=3)
    return figure


def rows_of(run_dir: Path) -> "pd.DataFrame":
    """What a run directory holds: results.csv, and the rows that unfinished runs have written so far.

    Raises:
        BadInput: it holds neither.
    """
    import pandas as pd

    live = [completed(row) for path in sorted(run_dir.glob("live/*.csv")) for row in Tail(path).rows()]
    finished = run_dir / "results.csv"
    frames = [pd.read_csv(finished, keep_default_na=False, na_values=["nan"])] if finished.exists() else []
    frames += [pd.DataFrame(live, columns=list(COLUMNS))] if live else []
    if not frames:
        raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}, which has no rows")
    if not {*KEY} <= {*frames[0].columns}:
        raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}, which another app has written")
    return pd.concat(frames).drop_duplicates(list(KEY)).sort_values(list(KEY), ignore_index=True)


def main(argv: Sequence[str]) -> int:
    """Draws the figures of run directories whose runs need not be finished: mgrl_figures.py DIR..."""
    parser = argparse.ArgumentParser(prog="mgrl_figures", description=(main.__doc__ or "").partition(":")[0] + ".")
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="DIR", help="a run directory of mgrl_atari.py")
    try:
        for run_dir in parser.parse_args(argv).run_dirs:
            drawn = figures(rows_of(run_dir))
            make_folder(run_dir / "figures")
            for name, figure in drawn.items():
                print(*save(figure, run_dir / "figures" / name), sep="\n")
    except gm_lab.BadInput as error:
        tell(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
