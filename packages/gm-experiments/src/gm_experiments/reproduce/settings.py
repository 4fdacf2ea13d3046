"""The flags of reproduce, and the stages that a budget consists of."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from gm_experiments.mgrl.settings import PAPER_GAMES
from gm_lab import BadInput, got

LEAST = {"seed": 0, "mdps": 1, "repeats": 2, "seeds": 1, "updates": 1}
PAPER = ("--games", *PAPER_GAMES, "--seeds", "5", "--env-steps", "40_000_000")


@dataclass(frozen=True)
class Stage:
    """One run of one experiment, stopped after `hours`, if any; `drawn_by` is whose `main` draws its figures then.

    `passed` names the settings of reproduce that it has, too; `weight` is about the seconds that it takes on two cores.
    """

    name: str
    module: str
    flags: tuple[str, ...]
    weight: float
    passed: tuple[str, ...] = ()
    hours: float | None = None
    drawn_by: str | None = None


TABULAR, IPD, ATARI = ("mdps", "repeats"), ("seeds", "updates"), ("device",)
STAGES = {
    "tabular": (
        Stage("maml", "gm_experiments.maml", ("--figure", "fig1", "fig4", "fig5", "fig6"), 12, TABULAR),
        Stage("lirpg", "gm_experiments.lirpg", (), 8, TABULAR),
        Stage("theory", "gm_experiments.maml", ("--figure", "theory"), 17, TABULAR),
    ),
    "ipd": (Stage("lola", "gm_experiments.lola", (), 110, IPD),),
    "atari": (Stage("atari", "gm_experiments.mgrl", (), 300, ATARI),),
}


@dataclass(frozen=True)
class Settings:
    """Reproduces the paper: tables, figures and verdicts of every app, and one page about all of them.

    Stop it at any time: the same command goes on where it was, and nothing that is finished is computed again.
    """

    GROUPED: ClassVar[Mapping[str, str]] = {
        "how much": "budget seed mdps repeats seeds updates",
        "where": "run_dir wandb",
        "machine": "device",
    }
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "--budget tabular,ipd": "What a laptop does in two minutes:",
        "--budget atari=12 --device cuda": "Twelve hours of the Atari runs:",
    }

    budget: str = "tabular,ipd,atari"
    """What to do, with commas between: tabular and ipd at the paper's full budget; atari for the demonstration of some
    minutes, atari=HOURS for as much of the paper's 8 games x 3 algorithms x 5 seeds as fits."""
    run_dir: Path = Path("runs/reproduce")
    """Holds one run directory for each app and the report; what is there is resumed."""
    device: str = "auto"
    """Of the Atari runs: auto, cpu, cuda or cuda:N; auto is the CPU."""
    seed: int = 0
    """Root of every random stream."""
    mdps: int | None = None
    """Instead of the paper's: random MDPs of the tabular apps."""
    repeats: int | None = None
    """Instead of the paper's: independent estimates in each MDP."""
    seeds: int | None = None
    """Instead of the paper's: independent runs of the IPD app."""
    updates: int | None = None
    """Instead of the paper's: updates of the IPD app."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases, as in the apps."""


def stages(settings: Settings) -> list[Stage]:
    """Returns a budget's stages in its order, but those on a GPU last; raises `BadInput` for what there is not."""
    for name, least in LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise BadInput(f"--{name}: expected an integer of at least {least}, got {value}")
    asked: list[Stage] = []
    for part in dict.fromkeys(settings.budget.split(",")):
        name, _, hours = part.strip().partition("=")
        if name not in STAGES or (
            hours and (name != "atari" or not re.fullmatch(r"\d*\.?\d+", hours) or not float(hours))
        ):
            raise BadInput(
                "--budget: expected some of tabular, ipd, atari and atari=HOURS, with commas between, "
                + got(part, () if name in STAGES else STAGES)
            )
        asked += [paper_stage(float(hours))] if hours else STAGES[name]
    # a process that has computed on a GPU can't be forked any more
    return sorted(asked, key=lambda stage: "device" in stage.passed and settings.device.startswith("cuda"))


def paper_stage(hours: float) -> Stage:
    """Returns the paper's Atari runs, as far as they get in so many hours."""
    module = "gm_experiments.mgrl"
    return Stage("atari-paper", module, PAPER, 3600 * hours, ATARI, hours, drawn_by=f"{module}.unfinished")


def arguments(stage: Stage, settings: Settings) -> list[str]:
    """Returns the app's own command line: the same results as if it were typed."""
    asked = {f"--{name}": getattr(settings, name) for name in stage.passed}
    flags = [text for flag, value in asked.items() if value is not None for text in (flag, str(value))]
    where = ["--run-dir", str(settings.run_dir / stage.name), "--seed", str(settings.seed), "--wandb", settings.wandb]
    return [*stage.flags, *flags, *where, "--svg"]
