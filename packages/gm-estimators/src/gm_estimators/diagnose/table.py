"""A diagnosis in words and numbers, for a terminal of 80 columns."""

import math
from collections.abc import Mapping

from gm_estimators.diagnose.first_order import FirstOrder
from gm_estimators.diagnose.jackknife import Estimate
from gm_estimators.diagnose.measured import Sampled, Verdict, length, remaining, repeats_to_see, repeats_to_tell
from gm_estimators.diagnose.plan import Plan
from gm_estimators.diagnose.sources import ADAPTED, LEFT_OUT, MEANING

RESOLUTION = 0.1
"""The half width of an interval of the squared bias, as a share of ‖g‖², that is fine enough."""


def text_of(plan: Plan, sampled: Sampled, verdicts: Mapping[str, Verdict], env_steps: int) -> str:
    """The whole report."""
    scale = length(sampled)
    lines = [
        f"Meta-gradient of {plan.loop.inner_steps} inner step{'s'[: plan.loop.inner_steps > 1]}: "
        f"{len(sampled.reference)} repeats, {env_steps:,} environment steps",
        estimand_of(plan),
        "",
    ]
    if scale.low <= 0:
        return "\n".join([*lines, *notes_of(plan, sampled, verdicts, env_steps)])
    lines += [f"{'of ‖g‖²':16} {'squared bias':>20} {'bias along g':>20} {'variance':>20}"]
    for name, found in verdicts.items():
        cells = "".join(f" {said(value):>20}" for value in (found.bias_sq, found.along, found.variance))
        lines.append(f"{fitted(name, 16):16}{cells}")
    lines += ["", "Where the squared bias comes from (shares that sum to it):"]
    meanings, names = meanings_of(plan, verdicts), list(verdicts)
    for start in range(0, len(names), 3):
        some = names[start : start + 3]
        lines.append(f"{'':16}" + "".join(f" {fitted(name, 20):>20}" for name in some))
        for source in meanings:
            shares = [verdicts[name].shares.get(source) for name in some]
            lines.append(f"{fitted(source, 16):16}" + "".join(f" {said(cell) if cell else '':>20}" for cell in shares))
    lines += ["", *(f"{source}: {meaning}" for source, meaning in meanings.items()), ""]
    return "\n".join([*lines, *notes_of(plan, sampled, verdicts, env_steps)])


def estimand_of(plan: Plan) -> str:
    """What g is, in a sentence."""
    if plan.loop.adapted:
        return f"g is that of adapting with {plan.loop.sizes.inner} trajectories a step."
    return "g is the meta-gradient with inner gradients of infinitely many trajectories."


def meanings_of(plan: Plan, verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """What each source is in practice, by its name."""
    left_out = any(isinstance(each, FirstOrder) for each in plan.estimators)
    meaning = MEANING | (LEFT_OUT if left_out else {}) | (ADAPTED if plan.loop.adapted else {})
    sources = dict.fromkeys(name for found in verdicts.values() for name in found.shares)
    return {source: meaning.get(source, "a source of your own") for source in sources}


def notes_of(plan: Plan, sampled: Sampled, verdicts: Mapping[str, Verdict], env_steps: int) -> list[str]:
    """What is to be known of the numbers: how good the reference is, and what is not told yet."""
    scale = length(sampled)
    if scale.low <= 0:
        return _hidden(scale, sampled, env_steps / len(sampled.reference))
    off = f"The reference itself is off by {said(remaining(sampled))} of ‖g‖², about; not taken off."
    return [*([] if plan.loop.adapted else [off]), *_undecided(plan, sampled, verdicts, env_steps)]


def fitted(name: str, width: int) -> str:
    """A name that is no longer than that, its end left out."""
    return name if len(name) <= width else f"{name[: width - 1]}…"


def said(estimate: Estimate) -> str:
    """A number in units of ‖g‖² with its interval: in per cent, or in times from ten on."""
    value, low, high = estimate
    if not math.isfinite(value):
        return "unknown"
    if not math.isfinite(high - low):
        return "not told"
    if abs(value) >= 10:
        return f"{value:.0f}× [{low:.0f}, {high:.0f}]"
    digits = 1 if abs(value) < 0.1 else 0
    return f"{100 * value:.{digits}f}% [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def _hidden(scale: Estimate, sampled: Sampled, each: float) -> list[str]:
    """Nothing can be said in units of ‖g‖², and how many environment steps would change that; `each` is of a repeat."""
    value, low, high = scale
    lines = [
        f"‖g‖² is {value:.3g} [{low:.3g}, {high:.3g}]: not told apart from 0,",
        "so that nothing can be said in units of it.",
    ]
    about, least = (each * repeats for repeats in repeats_to_see(sampled))
    if math.isfinite(least):
        lines.append(f"It cannot be told with fewer than {least:,.0f} steps, if ‖g‖² is {high:.3g} at most;")
        lines.append(f"about {about:,.0f} would do if it is {value:.3g}." if math.isfinite(about) else "it may be 0.")
    return lines


def _undecided(
    plan: Plan, sampled: Sampled, verdicts: Mapping[str, Verdict], env_steps: int
) -> list[str]:  # fmt: skip
    """How many steps would have the intervals narrow, where they are not."""
    lines = []
    each = env_steps / len(sampled.reference)
    for estimator in plan.estimators:
        found = verdicts[estimator.name].bias_sq
        if found.high - found.low > 2 * RESOLUTION:
            needed = repeats_to_tell(sampled, plan.loop, estimator, RESOLUTION)
            about, least, most = (f"{each * repeats:,.0f}" for repeats in needed)
            lines.append(f"{estimator.name}: about {about} steps would tell its squared bias to ±{RESOLUTION} of ‖g‖²,")
            lines.append(f"from {least} to {most} by the intervals of it and of ‖g‖².")
    return lines
