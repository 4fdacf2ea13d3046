"""How often the intervals of `gm_estimators.diagnose` hold the truth, where enumeration knows it.

MAML, a learnt reward and LOLA in tables, each handed over as `draw` and `see` alone; a row is a loop of K steps with an
estimator. The last column is the control: the interval of the squared bias if the mean of the reference is taken for
exact.

    uv run benchmarks/diagnosis_coverage.py             # the intervals: the table of docs/diagnose.md
    uv run benchmarks/diagnosis_coverage.py --problems maml --diagnoses 1000
    uv run benchmarks/diagnosis_coverage.py --needed    # whether the number of steps that is said to be needed is right
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from statistics import median

import torch
from known_loops import PROBLEMS, Enumerated, Known, numbers, part, truths

from gm_estimators.diagnose import Estimate, Report
from gm_estimators.diagnose.loop import seed_of
from gm_estimators.diagnose.measured import Sampled, repeats_to_tell, verdict
from gm_estimators.diagnose.sources import config_of, sources_of
from gm_estimators.estimator import Estimator
from gm_estimators.metrics import bias_sq_interval

LANES = 1600
"""Repeats that are computed at once."""
LEAST, MOST = 0.92, 0.99
CONTROL = "control"
MANY = 512
"""Repeats whose intervals `needed` lets fewer foretell."""
NOTHING = 1e-9
"""A share that small, with an interval as narrow, is that of a source which the loop has not."""


def reports(
    known: Known, steps: int, diagnoses: int, repeats: int, seed: int
) -> Iterator[tuple[Report, list[Sampled]]]:
    """Diagnoses, as many at once as fit."""
    at_once = max(1, LANES // repeats)
    for begin in range(0, diagnoses, at_once):
        count = min(at_once, diagnoses - begin)
        report = known.diagnosis(steps, count * repeats, seed=seed_of(seed, known.name, steps, begin))
        yield report, [part(report.sampled, slice(i * repeats, (i + 1) * repeats)) for i in range(count)]


def coverage(known: Known, steps: int, diagnoses: int, repeats: int, seed: int) -> dict[str, dict[str, float]]:
    """The part of the intervals that hold the truth, by estimator and number."""
    inside: dict[str, Counter[str]] = {}
    truth: dict[str, dict[str, float]] = {}
    enumerated: Enumerated | None = None
    for report, found in reports(known, steps, diagnoses, repeats, seed):
        loop = report.plan.loop
        enumerated = enumerated or Enumerated(known, loop.sizes)
        for estimator in report.plan.estimators:
            name = estimator.name
            if name not in truth:
                truth[name] = truths(enumerated, loop, estimator)
                inside[name] = Counter(dict.fromkeys([*truth[name], CONTROL], 0))
            for sampled in found:
                said = numbers(verdict(sampled, loop, estimator)) | {CONTROL: as_if_exact(report, sampled, estimator)}
                for number, interval in said.items():
                    true = truth[name]["squared bias" if number == CONTROL else number]
                    inside[name][number] += holds(interval, true)
    return {name: {number: held / diagnoses for number, held in counts.items()} for name, counts in inside.items()}


def holds(interval: Estimate, true: float) -> bool:
    """Whether it is inside, but for rounding."""
    return interval.low - NOTHING <= true <= interval.high + NOTHING


def as_if_exact(report: Report, sampled: Sampled, estimator: Estimator) -> Estimate:
    """The interval of the squared bias that takes the mean of the reference for the truth."""
    g, loop = sampled.reference.mean(0), report.plan.loop
    found = bias_sq_interval(sampled.estimates[config_of(loop, estimator, sources_of(loop, estimator))], g)
    return Estimate(*(float(x / (g @ g)) for x in found))


def needed(known: Known, steps: int, seed: int) -> Iterator[str]:
    """How often what a few repeats foretell is right: the repeats that make half an interval as wide as `MANY` do."""
    drawn = list(reports(known, steps, 16, MANY, seed))
    whole = reduce(Sampled.joined, (report.sampled for report, _ in drawn))
    loop, estimators = drawn[0][0].plan.loop, drawn[0][0].plan.estimators
    for estimator in estimators:
        found = [verdict(each, loop, estimator).bias_sq for _, parts in drawn for each in parts]
        half = median((interval.high - interval.low) / 2 for interval in found)
        for few in (32, 128):
            parts = [part(whole, slice(i * few, (i + 1) * few)) for i in range(min(100, len(whole.reference) // few))]
            foretold = [repeats_to_tell(each, loop, estimator, half) for each in parts]
            right = sum(MANY / 2 <= about <= 2 * MANY for about, _, _ in foretold) / len(foretold)
            held = sum(least <= MANY <= most for _, least, most in foretold) / len(foretold)
            wide = median(most / least for _, least, most in foretold)
            yield (
                f"{known.name:6} {steps} {estimator.name:12} from {few:3}: within a factor of 2 {100 * right:3.0f}%,"
                f" the range holds it {100 * held:3.0f}%, a factor of {wide:.0f} wide"
            )


def row(known: Known, steps: int, estimator: str, found: dict[str, float]) -> str:
    """One line of the table."""
    whole = "".join(f" {100 * found[name]:6.0f}%" for name in ("squared bias", "bias along g", "variance"))
    shares = [value for name, value in found.items() if name.startswith("share")]
    return (
        f"{known.name:6} {steps} {estimator:12}{whole}   {100 * min(shares):3.0f}% to {100 * max(shares):3.0f}%"
        f"   {100 * found[CONTROL]:5.0f}%"
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="which loops")
    parser.add_argument("--steps", nargs="+", type=int, choices=(1, 3), default=[1, 3], help="K")
    parser.add_argument("--diagnoses", type=int, default=300, help="of each loop and K")
    parser.add_argument("--repeats", type=int, default=32, help="of each diagnosis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--needed", action="store_true", help="how many repeats would do, instead of intervals")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if not chosen.needed:
        intervals(chosen)
        return
    for name in chosen.problems:
        for steps in chosen.steps:
            for line in needed(PROBLEMS[name](), steps, chosen.seed):
                print(line, flush=True)


def intervals(chosen: argparse.Namespace) -> None:
    """Prints how often intervals hold the truth, and which do so too rarely or too often."""
    print(f"{'loop':6} K {'estimator':12} {'bias²':>7} {'along g':>7} {'variance':>7}  {'shares':>12}   {'control':>8}")
    outside, count = [], 0
    for name in chosen.problems:
        known = PROBLEMS[name]()
        for steps in chosen.steps:
            found = coverage(known, steps, chosen.diagnoses, chosen.repeats, chosen.seed)
            for estimator, held in found.items():
                print(row(known, steps, estimator, held), flush=True)
                of = {number: part for number, part in held.items() if number != CONTROL}
                count += len(of)
                outside += [
                    f"{known.name} {steps} {estimator}, {number}: {100 * part:.1f}%"
                    for number, part in of.items() if not LEAST <= part <= MOST
                ]  # fmt: skip
    print(
        f"\n{count - len(outside)} of {count} coverages are from {LEAST:.0%} to {MOST:.0%}; the others:",
        *outside,
        sep="\n",
    )


if __name__ == "__main__":
    main()
