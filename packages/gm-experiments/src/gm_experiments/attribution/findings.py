"""Which source of an error is the largest, in words that are true for the results they are computed from."""

from typing import TYPE_CHECKING

from gm_experiments.common.findings import capital, joined
from gm_experiments.common.labels import estimator
from gm_lab.analysis import mean_interval, paired_difference

if TYPE_CHECKING:
    import pandas as pd

UNITS = {"mdp": "MDPs", "seed": "runs"}
WORDS = {
    "composition": "the inner gradient (I)", "hessian": "the Hessian (II)", "outer": "the outer gradient (III)",
    "shared_batch": "the shared batch", "critic": "the critic", "clipping": "clipping", "adam": "Adam",
}  # fmt: skip
MEASURES = {"bias_sq": "squared bias", "variance": "variance"}


def unit_of(frame: "pd.DataFrame") -> str:
    """The column of the independent units."""
    return next(unit for unit in UNITS if unit in frame.columns)


def parts(rows: "pd.DataFrame", measure: str) -> "pd.DataFrame":
    """Each source's share (rows) of all that adds to a unit's error or hides some of it (columns), in per cent."""
    table: pd.DataFrame = rows.pivot_table(index="source", columns=unit_of(rows), values=measure).drop("all")
    whole = table.abs().sum()
    return 100 * table / whole.where(whole > 0, 1.0)


def finding(rows: "pd.DataFrame") -> str:
    """What adds most to each estimator's squared bias at the first point, and what hides error at the last one."""
    first, last = rows["updates"].min(), rows["updates"].max()
    leading: dict[str, list[str]] = {}
    for name, of_name in rows[rows["updates"] == first].groupby("estimator", sort=False):
        if source := _largest(parts(of_name, "bias_sq")):
            leading.setdefault(source, []).append(estimator(str(name)))
    at = "At the start" if first == 0 else f"After {first:g} updates"
    said = [f"{WORDS[source]} {'to that' if place else 'adds most to the squared bias'} of {joined(names)}"
            for place, (source, names) in enumerate(leading.items())]  # fmt: skip
    hiding = _hiding(rows[rows["updates"] == last])
    hidden = f"{joined([WORDS[source] for source in hiding])} {'hides' if len(hiding) == 1 else 'hide'} error"
    late = [f"after {last:g} updates {hidden}" if last > first else hidden] if hiding else []
    if said:
        return "; ".join([f"{at} {joined(said)}", *late])
    return capital(late[0]) if late else "No source of the error is told apart from the others"


def _largest(shares: "pd.DataFrame") -> str | None:
    """The source with the largest share, if it is told apart from each other one."""
    order = list(shares.mean(axis=1).sort_values(ascending=False, kind="stable").index)
    if len(order) < 2:
        return None
    apart = all(paired_difference(shares.loc[order[0]], shares.loc[other]).low > 0 for other in order[1:])
    return str(order[0]) if apart else None


def _hiding(rows: "pd.DataFrame") -> list[str]:
    """The sources whose shares of bias and of variance are below zero for every estimator."""
    tables = [parts(of_name, measure) for _, of_name in rows.groupby("estimator") for measure in MEASURES]
    sources = [source for source in WORDS if all(source in table.index for table in tables)]
    return [source for source in sources if all(mean_interval(table.loc[source]).high < 0 for table in tables)]
