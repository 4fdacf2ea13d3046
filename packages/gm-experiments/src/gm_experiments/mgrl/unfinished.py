"""Runs of the Atari experiment are drawn and judged together, whether they are finished or not."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import gm_lab
from gm_experiments.mgrl.settings import COLUMNS, KEY, Settings, completed, require_atari
from gm_experiments.mgrl.training import NAMES
from gm_lab.run import Tail, allowed_to, make_folder, output, parsed_line, reading

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["main", "rows_of", "together"]

NAME = "mgrl_figures"
LARGEST_CONFIG = 1_000_000
TEXT = ("figure", "game", "algorithm", "variant")
PAPER = ("estimator", "inner_steps", "schedule")
"""Settings that verdicts read."""
WHICH_RUNS = {"figure", "games", "algorithms", "seeds", "seed"}
"""Settings in which run directories that are drawn together may differ."""
TEXTS = {"figure", "game", "algorithm", "variant"}
NEEDED = ("env_steps", "episode_return", "distance", *NAMES)


def rows_of(run_dir: Path) -> "pd.DataFrame":
    """Reads results.csv and what unfinished runs have logged; raises `BadInput` if there is neither.

    Their log.csv is what the finished run will have; the rows for those who watch may also have what was computed after
    the checkpoint from which a killed run went on.
    """
    import pandas as pd

    from gm_lab.analysis import read_results

    output.refuse_links_out(run_dir)
    live = []
    for path in sorted(run_dir.glob("training/*/log.csv")):
        with _as_written(path):
            live += [completed({"figure": "returns", **_run_of(path.parent.name), **row}) for row in Tail(path).rows()]
    finished = run_dir / "results.csv"
    with _as_written(finished):
        frames = [read_results(finished)] if finished.exists() else []
    frames += [pd.DataFrame(live, columns=list(COLUMNS))] if live else []
    if not frames:
        raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}, which has no rows")
    for frame in frames:
        if not {*KEY, *NEEDED} <= {*frame.columns}:
            other = "which another app has written"
            raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}, {other}")
        frame["variant"] = frame["variant"].astype(object).fillna("")  # an empty text is none in a table
        for column in frame.columns:
            if (column in TEXTS) == (frame[column].dtype.kind in "iuf") and frame[column].notna().any():
                kind = "text" if column in TEXTS else "numbers"
                raise gm_lab.BadInput(f"expected {kind} in the column {column}, got others in {run_dir}")
    return pd.concat(frames).drop_duplicates(list(KEY)).sort_values(list(KEY), ignore_index=True)


@contextlib.contextmanager
def _as_written(file: Path) -> "Iterator[None]":
    """Turns what is wrong with a file that the block reads into a line that names it."""
    try:
        with allowed_to("read", file):
            yield
    except (ValueError, TypeError, KeyError, OverflowError):
        raise gm_lab.BadInput(f"expected {file} as mgrl_atari writes it, got another or a damaged file") from None


def _run_of(folder: str) -> dict[str, str | int]:
    """Takes game, algorithm and seed from the name of a run's folder, such as Qbert-mgrl-lvc-0."""
    game, _, rest = folder.partition("-")
    algorithm, _, seed = rest.rpartition("-")
    return {"game": game, "algorithm": algorithm, "seed": int(seed)}


def settings_of(run_dir: Path) -> dict[str, Any]:
    """Reads the settings in a run directory's config.yaml; raises `BadInput` if there are none."""
    try:
        config = reading.read_yaml(run_dir / "config.yaml")
        if config["app"] != "mgrl_atari":
            raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}, a run of {config['app']}")
        return {"seed": config["settings"]["seed"], **config["settings"]}
    except (OSError, KeyError, TypeError, ValueError):
        raise gm_lab.BadInput(f"expected a run directory of mgrl_atari, got {run_dir}") from None


def together(run_dirs: Sequence[Path]) -> "tuple[pd.DataFrame, dict[str, Any]]":
    """Joins run directories' rows, and returns their settings; `BadInput` if these differ in more than `WHICH_RUNS`.

    Runs with different roots of their random streams (--seed) are different runs: their seeds are numbered anew.
    """
    import pandas as pd

    settings = [settings_of(run_dir) for run_dir in run_dirs]
    for run_dir, other in zip(run_dirs, settings, strict=True):
        for name in sorted({*settings[0], *other} - WHICH_RUNS):
            if other.get(name) != settings[0].get(name):
                raise gm_lab.BadInput(
                    f"expected runs of the same settings, got {name} {settings[0].get(name)} in {run_dirs[0]} "
                    f"and {other.get(name)} in {run_dir}"
                )
    frames = [rows_of(run_dir).assign(root=own["seed"]) for run_dir, own in zip(run_dirs, settings, strict=True)]
    frame = pd.concat(frames).drop_duplicates(["root", *KEY])
    if frame["root"].nunique() > 1:
        frame["seed"] = frame.groupby(["root", "seed"]).ngroup()
    return frame.drop(columns="root").sort_values(list(KEY), ignore_index=True), settings[0]


def run_dirs_in(folder: Path) -> list[Path]:
    """Returns the folder itself if it is a run directory, else the run directories in it."""
    if (folder / "config.yaml").exists():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/config.yaml")) or [folder]


@dataclass(frozen=True)
class Flags:
    """Draws the figures of runs of mgrl_atari, finished or not, and prints the verdicts on the claims."""

    GROUPED: ClassVar[Mapping[str, str]] = {"where": "to svg"}
    EXAMPLES: ClassVar[Mapping[str, str]] = {"runs/mgrl_atari --to runs/drawn": "All runs in a folder, together:"}

    run_dirs: tuple[Path, ...]
    """Run directories, or folders of such."""
    to: Path | None = None
    """Where figures go (default: figures in the first of them)."""
    svg: bool = False
    """Writes the figures as SVG, too."""


def main(argv: Sequence[str] | None = None) -> int:
    """Draws and judges; exit status 0, or 2 with one line on stderr."""
    from rich.console import Console

    output.open_streams()
    try:
        asked = parsed_line(Flags, NAME, argv)
        if not asked.run_dirs:
            raise gm_lab.BadInput("expected at least one run directory, got none")
        folder = asked.to or asked.run_dirs[0] / "figures"
        require_atari()
        from gm_experiments.mgrl import claims, figures
        from gm_lab.analysis import as_list, save

        frame, settings = together([run_dir for given in asked.run_dirs for run_dir in run_dirs_in(given)])
        if missing := sorted(claims.PAPER.keys() - settings.keys()):
            raise gm_lab.BadInput(f"expected runs with the settings {', '.join(missing)}, got {asked.run_dirs[0]}")
        drawn = figures.figures(Settings(), frame)
        make_folder(folder)
        Console().print(as_list(claims.verdicts(settings, frame)))
        for name, figure in drawn.items():
            print(*save(figure, folder / name, asked.svg), sep="\n")
    except gm_lab.BadInput as error:
        output.say(f"{NAME}: {error}")
        return 2
    return 0
