"""Figures of apps/mgrl_atari.py.

`uv run apps/mgrl_figures.py DIR...` draws those of one or more run directories at any time, from finished and
unfinished runs, and prints the verdicts.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import gm_lab
from gm_lab.claims import as_table
from gm_lab.figures import COLOURS, MARKERS, save
from gm_lab.live import Tail
from gm_lab.store import make_folder
from gm_mgrl_atari import NAMES, PARTS
from mgrl_report import COLUMNS, ENDS, KEY, SECONDS, claims, completed, games_of, tell, variants_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"a2c": "A2C", "mgrl": "MGRL", "mgrl-lvc": "MGRL + LVC"}
SYMBOLS = dict(zip(NAMES, ("discount γ", "GAE λ", "value coefficient", "entropy coefficient"), strict=True))

MOST_TICKS, MOST_DECADES = 4, 9
WHICH_RUNS = {"figure", "games", "algorithms", "seeds", "seed"}
"""Settings in which run directories that are drawn together may differ."""


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
    variants = variants_of(rows)
    points = sorted(rows["updates"].unique())
    titles = {
        "accuracy": "cosine to the reference's mean",
        "bias_sq": "squared bias",
        "variance": "variance",
        "change": "relative change from lvc",
    }
    measures = [measure for measure in titles if measure in rows]
    figure = gm_lab.panels([titles[name] for name in measures], width=2.9, height=1.1 + 0.36 * len(variants))
    for axes, measure in zip(figure.axes, measures, strict=True):
        columns = [f"{measure}{end}" for end in ENDS]
        # runs of older versions have no intervals, and those of two windows unbounded ones
        known = rows.reindex(columns=["updates", "variant", *columns]).replace([-np.inf, np.inf], np.nan)
        shown = known.groupby(["updates", "variant"]).mean()
        for k, at in enumerate(points):
            value, low, high = (shown.loc[at].reindex(variants)[name] for name in columns)
            offsets = [i + 0.22 * (k - (len(points) - 1) / 2) for i in range(len(variants))]
            axes.errorbar(
                value, offsets, xerr=[value - low, high - value], fmt=MARKERS[k % len(MARKERS)],
                color=COLOURS[k % len(COLOURS)], elinewidth=1.2, label=f"after {at:g} updates",
            )  # fmt: skip
        axes.set_yticks(range(len(variants)), variants)
        if measure != "accuracy":
            _magnitudes(axes, shown[measure])
    # all panels have one vertical axis
    figure.axes[0].invert_yaxis()
    gm_lab.shared_legend(figure)
    return figure


def _magnitudes(axes: "Axes", values: "pd.Series[float]") -> None:
    """A scale of magnitudes that begins at 0, with few enough ticks to be read: what is below 0 is not told from 0."""
    exponents = np.floor(np.log10(values[values > 0])) if (values > 0).any() else np.zeros(1)
    last = int(exponents.max()) + 1
    first = max(int(exponents.min()), last - MOST_DECADES)
    axes.set_xscale("symlog", linthresh=10.0**first)
    apart = -(-(last - first) // MOST_TICKS)
    axes.set_xticks([0.0, *(10.0**exponent for exponent in range(last, first, -apart))])
    axes.minorticks_off()
    axes.set_xlim(-0.2 * 10.0**first, 3 * 10.0**last)


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
    """What a run directory holds: results.csv, and what unfinished runs have logged.

    Their log.csv is what the finished run will have; the rows for those who watch may also have what was computed after
    the checkpoint from which a killed run went on.

    Raises:
        BadInput: it holds neither.
    """
    import pandas as pd

    live = [
        completed({"figure": "returns", **_run_of(path.parent.name), **row})
        for path in sorted(run_dir.glob("training/*/log.csv"))
        for row in Tail(path).rows()
    ]
    finished = run_dir / "results.csv"
    frames = [pd.read_csv(finished, keep_default_na=False, na_values=["nan"])] if finished.exists() else []
    frames += [pd.DataFrame(live, columns=list(COLUMNS))] if live else []
    if not frames:
        raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}, which has no rows")
    if not {*KEY} <= {*frames[0].columns}:
        raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}, which another app has written")
    return pd.concat(frames).drop_duplicates(list(KEY)).sort_values(list(KEY), ignore_index=True)


def _run_of(folder: str) -> dict[str, str | int]:
    """Game, algorithm and seed by the name of a run's folder, such as Qbert-mgrl-lvc-0."""
    game, _, rest = folder.partition("-")
    algorithm, _, seed = rest.rpartition("-")
    return {"game": game, "algorithm": algorithm, "seed": int(seed)}


def settings_of(run_dir: Path) -> dict[str, Any]:
    """The settings in a run directory's config.yaml.

    Raises:
        BadInput: there are none.
    """
    import yaml

    try:
        config = yaml.safe_load((run_dir / "config.yaml").read_bytes())
        if config["app"] != "mgrl_atari":
            raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}, a run of {config['app']}")
        return dict(config["settings"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}") from None


def together(run_dirs: Sequence[Path]) -> "tuple[pd.DataFrame, dict[str, Any]]":
    """The rows of several run directories, and the settings that they share.

    Runs with different roots of their random streams (--seed) are different runs: their seeds are numbered anew.

    Raises:
        BadInput: the settings differ in more than which runs there are.
    """
    import pandas as pd

    settings = [settings_of(run_dir) for run_dir in run_dirs]
    for run_dir, found in zip(run_dirs, settings, strict=True):
        for name in sorted({*settings[0], *found} - WHICH_RUNS):
            if found.get(name) != settings[0].get(name):
                raise gm_lab.BadInput(
                    f"expected runs of the same settings, got {name} {settings[0].get(name)} in {run_dirs[0]} "
                    f"and {found.get(name)} in {run_dir}"
                )
    frames = [rows_of(run_dir).assign(root=found["seed"]) for run_dir, found in zip(run_dirs, settings, strict=True)]
    frame = pd.concat(frames).drop_duplicates(["root", *KEY])
    if frame["root"].nunique() > 1:
        frame["seed"] = frame.groupby(["root", "seed"]).ngroup()
    return frame.drop(columns="root").sort_values(list(KEY), ignore_index=True), settings[0]


def run_dirs_in(folder: Path) -> list[Path]:
    """The folder itself if it is a run directory, else the run directories in it."""
    found = [folder] if (folder / "config.yaml").exists() else sorted(p.parent for p in folder.glob("*/config.yaml"))
    return found or [folder]


def main(argv: Sequence[str]) -> int:
    """Draws the figures of runs, finished or not, and prints the verdicts on the claims."""
    from rich.console import Console

    parser = argparse.ArgumentParser(prog="mgrl_figures", description=main.__doc__)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="run directories of mgrl_atari.py, or folders of such"
    )
    parser.add_argument("--to", type=Path, metavar="DIR", help="where figures go (default: figures in the first DIR)")
    asked = parser.parse_args(argv)
    folder = asked.to or asked.folders[0] / "figures"
    try:
        frame, settings = together([run_dir for given in asked.folders for run_dir in run_dirs_in(given)])
        drawn = figures(frame)
        make_folder(folder)
        Console().print(as_table(claims(frame, settings)))
        for name, figure in drawn.items():
            print(*save(figure, folder / name), sep="\n")
    except gm_lab.BadInput as error:
        tell(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
