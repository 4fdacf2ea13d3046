"""Choices and how they compare: estimator, λ, split and jackknife, by the mean squared error at one place and point."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gm_experiments.common.labels import estimator as label_of

if TYPE_CHECKING:
    import pandas as pd

CHOICE = ["estimator", "gae_lambda", "split", "debias"]
PLACE = ["inner_steps", "inner_lr", "sample_size"]
USUAL = ("ad", 1.0, "1:1", "none")
"""What most code does: automatic differentiation, one batch for I and II, another as large, no remedy for bias."""
KINDS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    "usual": lambda choice: choice == USUAL,
    "best AD": lambda choice: choice[0] == "ad",
    "best shared batch": lambda choice: batches(choice[2]) == 2,
    "best separate batches": lambda choice: batches(choice[2]) == 3,
    "best without jackknife": lambda choice: choice[3] == "none",
    "best with jackknife": lambda choice: choice[3] != "none",
}
"""What a choice can be, by the name under which tables set the best of that kind beside the best of all."""

COMPARED = {"usual": "usual", "jackknife": "best with jackknife", "apart": "best separate batches"}
"""What the best choice is compared with: columns of the table, and kinds of choices."""
MAP = {"inner_steps": "K", "updates": "updates", "inner_lr": "α", "sample_size": "n"}


def batches(split: str) -> int:
    """How many batches a split has: three, or two if I and II share one."""
    return split.count(":") + 1


def name_of(choice: tuple[Any, ...]) -> str:
    """A choice in words."""
    estimator, gae_lambda, split, debias = choice
    if estimator == "exact":
        return "exact meta-gradient"
    parts = [label_of(estimator), f"λ {gae_lambda:g}", split + " shared" * (batches(split) == 2)]
    return ", ".join(parts + [debias] * (debias != "none"))


def scores(rows: "pd.DataFrame", metric: str = "mse") -> "pd.DataFrame":
    """A metric per choice (rows) and MDP (columns) at one place and point, in units of the mean ‖∇φ Jᴷ‖² of the MDPs.

    The mean over a row is E‖x − y‖² over E‖y‖²; with an MDP's own ‖y‖² those where training has ended would decide.
    """
    unit = rows.groupby("mdp")["truth_sq"].first().mean()
    table: pd.DataFrame = rows.pivot_table(index=CHOICE, columns="mdp", values=metric, sort=True) / unit
    return table


def ranked(rows: "pd.DataFrame") -> "pd.DataFrame":
    """`scores` with the smallest mean first."""
    table = scores(rows)
    return table.loc[list(table.mean(axis=1).sort_values(kind="stable").index)]


def held_out(table: "pd.DataFrame") -> "pd.Series[float]":
    """For each MDP the score of the choice that is the best on all the others: what following the advice gives."""
    total = table.sum(axis=1)
    unseen: pd.Series[float] = table.apply(lambda column: column[(total - column).idxmin()])
    return unseen


def beside(table: "pd.DataFrame") -> dict[str, Any]:
    """The best choice, the usual one, and the best of every kind that the best is not of."""
    order = list(table.index)
    best = order[0]
    of_kind = {label: next((choice for choice in order if is_one(choice)), None) for label, is_one in KINDS.items()}
    return {"best": best} | {label: choice for label, choice in of_kind.items() if choice not in (None, best)}


def best_choices(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The best choice at each place of `MAP`, its error, and how many times that those `COMPARED` and unseen have."""
    import pandas as pd

    lines = []
    for place, rows in frame.groupby(list(MAP), sort=True):
        table = ranked(rows)
        kinds, mean = beside(table), table.mean(axis=1)
        best = kinds["best"]
        line = dict(zip(MAP, place, strict=True)) | {"best": name_of(best), "mse": mean[best]}
        for column, kind in COMPARED.items():
            other = best if KINDS[kind](best) else kinds.get(kind)
            line[column] = float("nan") if other is None else mean[other] / mean[best]
        lines.append(line | {"unseen": held_out(table).mean() / mean[best]})
    return pd.DataFrame(lines)
