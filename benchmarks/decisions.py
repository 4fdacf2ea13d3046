"""How often claims are decided wrongly, and how often at all, by the rule of gm_lab.analysis.decisions.

Claims are made of units whose means are known: MDPs drawn from a pool of 2,000 with their paired differences recentred,
and heavy-tailed and bimodal numbers. Each comparison's mean is 0, δ or 2δ; half of the comparisons say "above", half
"alike". All looks up to the largest number of units are taken, whether or not the claim is decided before.

    uv run benchmarks/decisions.py --pool runs/pool

computes the pool if it isn't there (12 minutes on two cores) and prints the table of docs/decisions.md; `--claims` says
how many claims are simulated of each kind. A rule that doesn't spend its error over the looks, and one that trusts what
few units have in common, are shown beside it.
"""

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gm_experiments.common.claims import ACCURACY, VARIANCE
from gm_lab.analysis import Metric, at_least, decisions, mean_interval, near, read_results
from gm_lab.analysis.comparisons import Comparison

Numbers = Any
MOST = 640
POWERS = (2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Kind:
    """Where the units of a claim come from: `draw(rng, units)` gives numbers `[unit, comparison]` with mean 0."""

    name: str
    metric: Metric
    draw: Callable[[np.random.Generator, int], Numbers]


def of_pool(frame: pd.DataFrame) -> Iterator[Kind]:
    """Differences and log ratios of fig4, recentred: few comparisons, and very many."""
    value = {name: frame.pivot_table(index="mdp", columns=["estimator", "permutation", "sample_size"], values=name)
             for name in ("accuracy", "variance")}  # fmt: skip
    few = [
        (("lvc", a, n), ("lvc", b, n)) for n in POWERS[:4] for a, b in (("SEE", "ESE"), ("SEE", "SSE"), ("ESE", "SSE"))
    ]
    sampled, exact = ("SSS", "SES", "ESS"), ("SSE", "SEE", "ESE")
    many = [((e, a, n), (e, b, n)) for e, a, b, n in product(("lvc", "loaded_dice", "ad"), exact, sampled, POWERS)]
    pairs = [(("ad", "ESE", n), ("lvc", "ESE", n)) for n in POWERS]
    accuracy, logarithm = value["accuracy"], np.log(value["variance"])
    for name, metric, table, chosen in (
        ("MDPs, accuracy", ACCURACY, accuracy, few), ("MDPs, accuracy", ACCURACY, accuracy, many),
        ("MDPs, log variance", VARIANCE, logarithm, pairs),
    ):  # fmt: skip
        numbers = np.stack([(table[a] - table[b]).to_numpy() for a, b in chosen], -1)
        numbers = numbers - numbers.mean(0)

        def draw(rng: np.random.Generator, units: int, numbers: Numbers = numbers) -> Numbers:
            return numbers[rng.integers(0, len(numbers), units)]

        yield Kind(f"{name}, {len(chosen)} comparisons", metric, draw)


def made_up(count: int = 8) -> Iterator[Kind]:
    """Heavy tails, and two kinds of units one apart, of which one in 2, 5 or 20 is of the rarer, in all comparisons."""

    def student(rng: np.random.Generator, units: int) -> Numbers:
        return 0.2 * rng.standard_t(3, (units, count))

    def lognormal(rng: np.random.Generator, units: int) -> Numbers:
        return 0.15 * (np.exp(rng.standard_normal((units, count))) - math.exp(0.5))

    def of_two_kinds(share: float) -> Callable[[np.random.Generator, int], Numbers]:
        def draw(rng: np.random.Generator, units: int) -> Numbers:
            return (rng.random((units, 1)) < share) - share + 0.05 * rng.standard_normal((units, count))

        return draw

    yield Kind("Student's t with 3 degrees of freedom", ACCURACY, student)
    yield Kind("lognormal, σ = 1", ACCURACY, lognormal)
    for one_in in (2, 5, 20):
        yield Kind(f"two kinds, one in {one_in}", ACCURACY, of_two_kinds(1 / one_in))


def is_wrong(comparison: Comparison, mean: float, outcome: str) -> bool:
    """Whether a decision is wrong: a mean that is exactly at the edge may be decided neither way."""
    delta = comparison.metric.delta
    if comparison.relation == "alike":
        return abs(mean) >= delta if outcome == "supported" else abs(mean) < delta
    return mean <= 0 if outcome == "supported" else mean >= delta


def simulate(kind: Kind, rng: np.random.Generator) -> tuple[bool, float, float]:
    """Whether a claim has a wrong decision at any look, the share of comparisons decided, and with how many units."""
    numbers = kind.draw(rng, MOST)
    delta = kind.metric.delta
    means = delta * rng.integers(0, 3, numbers.shape[1])
    comparisons = []
    for place, (column, mean) in enumerate(zip(numbers.T, means, strict=True)):
        values = pd.Series(column + mean)
        above = replace(at_least("", values, 0.0, kind.metric), relation="above")
        comparisons.append(near("", values, 0.0, kind.metric) if place % 2 else above)
    decided: dict[int, tuple[int, bool]] = {}
    for look, units in enumerate(decisions.looks(MOST), start=1):
        intervals = decisions.simultaneous(comparisons, range(units), decisions.spent(look))
        for place, (item, interval) in enumerate(zip(comparisons, intervals, strict=True)):
            outcome = item.outcome(interval)
            if place not in decided and outcome in ("supported", "contradicted"):
                decided[place] = units, is_wrong(item, means[place], outcome)
    units = float(np.median([units for units, _ in decided.values()])) if decided else math.nan
    return any(wrong for _, wrong in decided.values()), len(decided) / len(comparisons), units


@contextmanager
def without_spending() -> Iterator[None]:
    """Every look at the full error."""
    kept = decisions.spent
    decisions.spent = lambda _look: decisions.ERROR
    try:
        yield
    finally:
        decisions.spent = kept


def row(kind: Kind, claims: int) -> str:
    """A line of the table: wrong claims with an exact 95% interval, comparisons decided, and the median of units."""
    rng = np.random.default_rng(0)
    results = [simulate(kind, rng) for _ in range(claims)]
    wrong = sum(result[0] for result in results)
    low, high = decisions.clopper_pearson(wrong, claims, 0.05)
    power = mean_interval([result[1] for result in results]).mean
    units = np.nanmedian([result[2] for result in results])
    rate = f"{100 * wrong / claims:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"
    return f"| {kind.name} | {rate} | {100 * power:.0f}% | {units:.0f} |"


def pool(folder: Path, mdps: int) -> pd.DataFrame:
    """The rows of fig4 in so many MDPs."""
    if not (folder / "claims.json").exists():
        flags = ["--figure", "fig4", "--mdps", str(mdps), "--wandb", "disabled", "--run-dir", str(folder)]
        subprocess.run([sys.executable, "-m", "gm_experiments.maml", *flags], check=True, stdout=subprocess.DEVNULL)
    return read_results(folder / "results.csv")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, default=Path("runs/pool"), help="a run of maml_tabular, made if absent")
    parser.add_argument("--mdps", type=int, default=2000, help="MDPs in the pool")
    parser.add_argument("--claims", type=int, default=400, help="claims simulated of each kind")
    chosen = parser.parse_args()
    kinds = [*of_pool(pool(chosen.pool, chosen.mdps)), *made_up()]
    print("| units | claims with a wrong decision | comparisons decided | median units |\n|---|---|---|---|")
    for kind in kinds:
        print(row(kind, chosen.claims), flush=True)
    rare = next(kind for kind in kinds if "one in 5" in kind.name)
    print(
        row(
            replace(rare, name=f"{rare.name}, trusting few units", metric=replace(rare.metric, reach=0.0)),
            chosen.claims,
        )
    )
    with without_spending():
        many = replace(kinds[0], metric=replace(kinds[0].metric, reach=0.0))
        print(row(replace(many, name=f"{many.name}, every look at 5%"), chosen.claims))


if __name__ == "__main__":
    main()
