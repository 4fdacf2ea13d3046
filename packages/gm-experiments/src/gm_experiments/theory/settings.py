"""The studies of theory: what each varies, and the columns and curves that they add."""

import math
from dataclasses import replace

import gm_lab
from gm_experiments.common.settings import BLOCK, KEY, Grid, TabularSettings

# two families of first-order gradients: LVC stands for AD and Loaded-DiCE, too
COMPOSITION = Grid(("lvc", "dice"), ("SEE",), sample_sizes=(32,), inner_steps=(2,), inner_lrs=(3.0,))
GRIDS = {
    "theory_size": replace(COMPOSITION, sample_sizes=(2, 4, 8, 16, 32, 64, 128, 256)),
    "theory_steps": replace(COMPOSITION, inner_steps=(1, 2, 3, 4, 5, 6)),
    "theory_rate": replace(COMPOSITION, inner_steps=(6,), inner_lrs=(1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0)),
    "theory_split": Grid(permutations=("SSE", "SEE", "ESE"), inner_steps=(2,), inner_lrs=(3.0,)),
    # errors are added to an exact Hessian: neither estimators nor sizes matter
    "theory_hessian": Grid(estimators=("lvc",), inner_steps=(1, 2, 3, 4, 5), inner_lrs=(3.0,)),
}
HESSIAN_ERRORS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
HESSIAN_NOISE = 0.3
ROUNDING = 1e-12
"""What is smaller is as good as zero."""
BOUNDS = ("local", "global", "other")
"""Constants of the same samples, with which bounds hold by arithmetic; proved ones; those of other samples."""
COLUMNS = (
    *("quantity", "hessian_error", "measured", "measured_low", "measured_high"),
    *(f"bound_{kind}" for kind in BOUNDS), *(f"tightness_{kind}" for kind in BOUNDS),
)  # fmt: skip
"""What results.csv has for these studies behind the columns of all tabular apps; empty for other figures."""
AXES = {
    "theory_size": "sample_size", "theory_steps": "inner_steps", "theory_rate": "inner_lr",
    "theory_split": "sample_size", "theory_hessian": "hessian_error",
}  # fmt: skip
CURVES = tuple(
    gm_lab.Curves(
        by=(*(column for column in KEY if column not in (x, "mdp")), "quantity"), x=x,
        y=("measured", "bound_local", "bound_global"), over="mdp", figures=(study,),
    )
    for study, x in AXES.items()
)  # fmt: skip


def need(settings: TabularSettings) -> gm_lab.Need:
    """What the errors of Hessians take, which have a column for each state and action, beside what all figures take."""
    steps = sum(settings.inner_steps or GRIDS["theory_split"].inner_steps)
    entries = min(BLOCK, settings.mdps) * settings.repeats * float(settings.states * settings.actions) ** 2
    # twice: of the samples, and of others
    return gm_lab.Need(0.0, 0.0, 8 * 30 * entries, math.ceil(settings.mdps / BLOCK) * entries * steps * 2 * 1.5e-6)
