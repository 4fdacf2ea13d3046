"""The claims of the paper's theory, as docs/claims.toml says they are decided."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from gm_experiments.common.claims import EXPONENT, Claim
from gm_experiments.common.labels import estimator
from gm_experiments.theory.figures import rows
from gm_experiments.theory.settings import ROUNDING
from gm_lab import analysis
from gm_lab.analysis import Comparison

if TYPE_CHECKING:
    import pandas as pd


def _slopes(frame: "pd.DataFrame") -> Iterator[Comparison]:
    import numpy as np
    import pandas as pd

    frame = frame[frame["figure"] == "theory_size"]
    for name in frame["estimator"].unique():
        chosen = frame[frame["estimator"] == name]
        # what is NaN or missing stays so, and decides nothing
        table = chosen.pivot_table(index="mdp", columns="sample_size", values="measured", dropna=False)
        if table.shape[1] < 2:
            continue
        sizes = np.log(table.columns.to_numpy(dtype=float))
        slopes = np.polyfit(sizes, np.log(table.to_numpy()).T, 1)[0]
        by_mdp = pd.Series(slopes, index=table.index)
        yield analysis.near(f"slope with {estimator(name)}", by_mdp, -0.5, EXPONENT)


def _under(quantity: str, frame: "pd.DataFrame") -> Iterator[Comparison]:
    """Whether a bound holds at every point, with local and with proved constants; unknown if one is not finite."""
    import numpy as np

    frame = frame[frame["quantity"] == quantity]
    for (study, algorithm), points in frame.groupby(["figure", "algorithm"]):
        for kind in ("local", "global"):
            limit = points[f"bound_{kind}"] * (1 + 1e-9) + ROUNDING
            under = int((points["measured"] <= limit).sum())
            tight = points[f"tightness_{kind}"]
            detail = f"{under} of {len(points)} points, bound / measured at least {tight.min():.3g}"
            # what is under no bound at all, or cannot be told, says nothing
            told = np.isfinite(limit).all() and np.isfinite(points["measured"]).all()
            holds = under == len(points) if told or (points["measured"] > limit).any() else None
            yield analysis.check(f"{study} {algorithm} {quantity}, {kind} constants", holds, detail)


def _degrees(frame: "pd.DataFrame") -> Iterator[Comparison]:
    """The exponent of the bias in δ between the two largest errors: it approaches the degree from below."""
    import numpy as np
    import pandas as pd

    chosen = frame[(frame["figure"] == "theory_hessian") & (frame["quantity"] == "bias")]
    for key, points in chosen.groupby(["algorithm", "inner_steps"]):
        algorithm, steps = str(key[0]), int(points["inner_steps"].iloc[0])
        degree = steps - (algorithm == "lirpg")
        table = points.pivot_table(index="mdp", columns="hessian_error", values="measured", dropna=False)
        label = f"{algorithm} K = {steps}: exponent"
        if degree == 0:
            largest = float(table.to_numpy().max())
            yield analysis.within(f"{algorithm} K = {steps}: no bias", largest, ROUNDING, f"at most {largest:.1e}")
        elif table.shape[1] > 1:
            errors, biases = np.log(table.columns.to_numpy(dtype=float)), np.log(table.to_numpy())
            exponent = pd.Series((biases[:, -1] - biases[:, -2]) / (errors[-1] - errors[-2]), index=table.index)
            yield analysis.at_most(f"{label}: at most {degree}", exponent, degree + 0.01, EXPONENT)
            yield analysis.at_least(f"{label}: above {degree - 1}", exponent, degree - 1, EXPONENT)


CLAIMS: "tuple[Claim[pd.DataFrame], ...]" = (
    Claim("THEORY-1", "E‖θ̂ᴷ − θᴷ‖ falls as |τ|^−½", (_slopes,)),
    Claim("THEORY-2", "it grows with α and K no faster than Lemma 4.4 says", (partial(_under, "distance"),)),
    Claim("THEORY-3", "the bias stays under Eq. 44 and is a polynomial of degree K − 1 in the Hessian's error",
        (partial(_under, "bias"), _degrees)),
    Claim("THEORY-4", "the variance stays under Eq. 57", (partial(_under, "variance"),)),
)  # fmt: skip


def claims(frame: "pd.DataFrame") -> list[analysis.Verdict]:
    """The verdicts on THEORY-1 to THEORY-4."""
    studies = rows(frame)
    return [claim.verdict(studies) for claim in CLAIMS]
