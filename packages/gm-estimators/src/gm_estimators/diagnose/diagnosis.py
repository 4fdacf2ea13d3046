"""How biased the meta-gradient of any loop is, from which source, with intervals."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gm_estimators.checks import integer
from gm_estimators.decomposition.sizes import Size, sizes_of
from gm_estimators.diagnose.advice import LAMBDAS, SPLITS, Advice, advise
from gm_estimators.diagnose.checked import checked, limit
from gm_estimators.diagnose.first_order import named
from gm_estimators.diagnose.keep import Done, Keep
from gm_estimators.diagnose.loop import Draw, Loop, Rates, See, kept, origins, seed_of
from gm_estimators.diagnose.measured import Sampled, Verdict, verdict
from gm_estimators.diagnose.plan import Plan
from gm_estimators.diagnose.repeat import Repeat
from gm_estimators.diagnose.sources import IDEAL, by_config, config_of, extrapolated, gains, with_ideals
from gm_estimators.diagnose.table import estimand_of, meanings_of, notes_of, text_of
from gm_estimators.estimator import Estimator
from gm_estimators.inner_loop import LearningRate
from gm_estimators.optimisers import Update, ascent
from gm_estimators.parameters import Params, ParamsLike, read_params

Progress = Callable[[int, int], None]
"""It is told repeats and environment steps so far."""
FEWEST = 64
"""Trajectories of an ideal inner gradient that there are at least."""
PLOT = "gm_estimators.plot"
"""What a package registers a function of (rows, caption) as, which draws them."""
LEAST = 8
"""Repeats that there are at least, so that intervals mean something."""


@dataclass(frozen=True)
class Report:
    """What a diagnosis found; `print` shows it as a table.

    Attributes:
        plan: what was diagnosed.
        done: what was measured.
        file: where that is kept, if it is.
    """

    plan: Plan
    done: Done
    file: Keep | None = field(default=None, repr=False)

    @property
    def rounds(self) -> int:
        """How often every lane had a repeat."""
        return self.done.rounds

    @property
    def env_steps(self) -> int:
        """Environment steps of all."""
        return self.done.env_steps

    @property
    def sampled(self) -> Sampled:
        """The meta-gradients of every repeat."""
        return self.done.sampled

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """What is found of each estimator, by its name."""
        return {each.name: verdict(self.sampled, self.plan.loop, each) for each in self.plan.estimators}

    @property
    def repeats(self) -> int:
        """How many independent repeats there are."""
        return len(self.sampled.reference)

    @property
    def estimand(self) -> str:
        """What g is, in a sentence."""
        return estimand_of(self.plan)

    @property
    def meanings(self) -> dict[str, str]:
        """What each source is in practice, by its name."""
        return meanings_of(self.plan, self.verdicts)

    @property
    def notes(self) -> list[str]:
        """What is to be known of the numbers: how good the reference is, and what is not told yet."""
        return notes_of(self.plan, self.sampled, self.verdicts, self.env_steps)

    def __str__(self) -> str:
        return text_of(self.plan, self.sampled, self.verdicts, self.env_steps)

    def more(
        self,
        *,
        budget: int | None = None,
        seconds: float | None = None,
        progress: Progress | None = None,
    ) -> "Report":
        """The diagnosis goes on from where it stood, for so many environment steps or seconds more.

        If it has a file, it goes on from that where that is ahead, and keeps it.
        """
        before = self.done
        found = None if self.file is None else self.file.read()
        if found is not None and found.rounds > before.rounds:
            before = found
        return Report(self.plan, _gone_on(self.plan, before, before, budget, seconds, progress, self.file), self.file)

    def advise(
        self, *, trajectories: int, lambdas: Iterable[float] = LAMBDAS, splits: Iterable[float] = SPLITS,
        inner_steps: Iterable[int] | None = None, budget: int | None = None, seconds: float | None = None,
    ) -> Advice:  # fmt: skip
        """The best ways to spend so many trajectories of each task, as `advice.advise` finds them.

        K is tried where `inner_steps` says which, such as (1, 2, 3). Each has a meta-gradient of its own, in units of
        whose length errors are.
        """
        return advise(
            self.plan, self.sampled.reference, trajectories=trajectories, lambdas=lambdas, splits=splits,
            inner_steps=inner_steps, budget=budget, seconds=seconds,
        )  # fmt: skip

    def plot(self, path: str | Path | None = None, caption: str = "") -> Any:
        """Bars show where each estimator's squared bias comes from: a figure of matplotlib, which gm-lab draws.

        Args:
            path: where to save it, if anywhere; the name's end says as what, such as "bias.png".
            caption: what the loop is, in a sentence or two.

        Raises:
            ModuleNotFoundError: if gm-lab isn't installed, or no other that registers itself as "gm_estimators.plot".
        """
        found = next(iter(entry_points(group=PLOT)), None)
        if found is None:
            raise ModuleNotFoundError("plot: expected gm-lab, which draws the picture; pip install gm-lab")
        figure = found.load()(self.rows(), caption)
        if path is not None:
            figure.savefig(path)
        return figure

    def rows(self) -> list[dict[str, str | float]]:
        """Every number as a row: estimator, measure, source (empty for the whole), value, low and high."""
        found: list[dict[str, str | float]] = []
        for name, each in self.verdicts.items():
            whole = {m: {"": getattr(each, m)} for m in ("bias_sq", "along", "variance", "mse")}
            for measure, values in (*whole.items(), ("bias_sq", each.shares), ("along", each.along_shares)):
                found += [
                    {"estimator": name, "measure": measure, "source": source, **estimate._asdict()}
                    for source, estimate in values.items()
                ]
        return found


def diagnose(
    *,
    draw: Draw,
    see: See,
    params: ParamsLike | Callable[[Params], Params],
    sizes: Size,
    surrogate: str | Estimator | Iterable[str | Estimator] = ("ad", "lvc", "loaded_dice"),
    inner_steps: int = 1,
    inner_lr: LearningRate | None = None,
    optimiser: Update | None = None,
    state: object = None,
    gae_lambda: float | None = None,
    tasks: int | None = None,
    meta_params: ParamsLike | None = None,
    batch_of: Sequence[int | tuple[int, int]] | None = None,
    ideals: Mapping[str, Mapping[str, Any]] | None = None,
    estimand: Literal["exact", "adapted"] = "exact",
    lanes: int | None = None,
    blocks: int | None = None,
    budget: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    keep: str | Path | None = None,
) -> Report:
    """A loop's meta-gradient has this bias and variance, and its bias these sources, all with 95% intervals.

    The estimand is g = ∇φ J_Out(θᴷ(φ)) with inner gradients of infinitely many trajectories (paper, Eq. 3): estimated
    from Loaded-DiCE with λ = 1, from B n trajectories at each step, extrapolated by half as many. Estimates d of the
    loop take n of the same trajectories.

    Args:
        draw: (role, step, θ, n, seed) ↦ a batch of n trajectories; the same for the same arguments. Roles are "inner",
            "hessian" (for the step's Jacobian, if that has trajectories of its own) and "outer".
        see: (batch, θ, λ) ↦ `Trajectories`, log-probabilities differentiable in θ; with `meta_params` (batch, θ, λ, φ).
        params: θ⁰, which is φ unless `meta_params` are given; with these also a function of φ that gives it.
        sizes: how many trajectories each role has at each step, for each task.
        surrogate: one or more estimators by name, as `names.load` has them; "first_order" is a loop that leaves
            Jacobians out (first-order MAML), by AD's gradients, "dice+first_order" one by DiCE's.
        inner_steps: K.
        inner_lr: α of gradient ascent, or a function of φ that gives it, or one for each of θ's tensors by name
            (Meta-SGD); leave it out if `optimiser` is given.
        optimiser: another rule, such as `optimisers.adam(1e-2)`.
        state: that rule's state at θ⁰; Adam begins with moments of zero without one.
        gae_lambda: λ of the loop's advantages, with which `see` is called, or 1; `None` if there is none.
        tasks: how many tasks share θ⁰; θ then has them as an axis, and the objective is their mean.
        meta_params: φ, if it isn't θ⁰; rewards and advantages of outer batches may not depend on it.
        batch_of: for each inner step the one at whose parameters its batch was drawn, as [0, 0, 2, 2], or (that step,
            number of minibatch); `None` for each its own. What an importance weight needs, `draw` keeps in the batch.
        ideals: further sources, by name: what to replace in the `Loop` to have it ideal, such as another `see`.
        estimand: the truth: "exact", or "adapted" for ∇φ E[J_Out(θᴷ)] over inner gradients of n trajectories (E-MAML:
            Al-Shedivat et al. 2018, Stadie et al. 2018), which has the loop's λ, optimiser and clipping in it.
        lanes: how many repeats to compute at once, along a first axis of θ; `None` for one after the other, without it.
        blocks: B, a multiple of 8; by default 8, or as many as make n B at least 64.
        budget: environment steps after which it stops.
        seconds: time after which it stops; a minute if neither is given.
        seed: the root of all seeds.
        progress: called with (repeats so far, environment steps so far); on a terminal a line says so without it.
        keep: a file that holds what is finished, such as "navigation.pt", so that a kill loses none of it. The same
            call goes on from there: `budget` and `seconds` count what is in the file, so that with a small one it
            returns at once what there is, and with the same one what it would have without a kill.

    Raises:
        ValueError: if what is drawn depends on more than the arguments, or does not fit; in one line, with what was
            expected; likewise if the file is damaged or of another loop.
        TypeError: likewise, if something is of another kind.
        OSError: if the file can't be read or written.

    Examples:
        >>> import torch
        >>> from gm_estimators import Sizes, Trajectories
        >>> from gm_estimators.diagnose import diagnose
        >>> def draw(role, step, params, n, seed):
        ...     return params + torch.randn(n, generator=torch.Generator().manual_seed(seed))
        >>> def see(action, params, gae_lambda):
        ...     log_prob, reward = -0.5 * (action - params).square(), -0.5 * (action - 1).square()
        ...     value = torch.zeros(len(action), 2)
        ...     return Trajectories(log_prob[:, None], reward[:, None], value, reward[:, None], torch.ones(2))
        >>> loop = {"draw": draw, "see": see, "params": torch.zeros(1), "sizes": Sizes(8, 8, 8), "inner_lr": 0.3}
        >>> report = diagnose(**loop, surrogate="lvc", budget=1)
        >>> report.repeats, list(report.verdicts["lvc"].shares)
        (8, ['composition', 'hessian'])
    """
    of_phi = callable(params) and not isinstance(params, torch.nn.Module)
    if of_phi and meta_params is None:
        raise ValueError("params: expected parameters, or beside a function of φ the meta_params that it is of")
    theta: Any = params if of_phi else read_params(params)
    if (inner_lr is None) == (optimiser is None):
        raise ValueError("inner_lr, optimiser: expected exactly one of the two")
    update = optimiser if optimiser is not None else _ascending(inner_lr)
    steps, seed = integer("inner_steps", inner_steps, 1), integer("seed", seed)
    tasks, lanes = (x if x is None else integer(name, x, 1) for name, x in (("tasks", tasks), ("lanes", lanes)))
    if ideals is not None and not isinstance(ideals, Mapping):
        raise TypeError(f"ideals: expected a dictionary by name, got {ideals!r}")
    phi = None if meta_params is None else read_params(meta_params, "meta_params")
    loop = with_ideals(Loop(
        draw, see, theta, sizes_of(sizes), steps, update, state, gae_lambda, tasks, lanes, phi,
        dict(ideals or {}), estimand == "adapted", origins(batch_of, steps),
    ))  # fmt: skip
    given = [surrogate] if isinstance(surrogate, str | Estimator) else list(surrogate)
    estimators = tuple(named(each) if isinstance(each, str) else each for each in given)
    count = integer("blocks", blocks) if blocks is not None else -(-FEWEST // loop.sizes.inner // 8) * 8
    if count < 8 or count % 8:
        raise ValueError(f"blocks: expected a multiple of 8, got {count}")
    plan = Plan(checked(loop, estimators, seed), estimators, seed, count)
    file = None if keep is None else Keep(keep, plan)
    before = None if file is None else file.read()
    return Report(plan, _gone_on(plan, before, None, budget, seconds, progress, file), file)


def _ascending(inner_lr: LearningRate | None) -> Update | Rates:
    """Gradient ascent with that α, or with what makes it of φ."""
    if callable(inner_lr):
        return Rates(inner_lr)
    if not isinstance(inner_lr, int | float | Tensor):
        came = type(inner_lr).__name__
        raise TypeError(f"inner_lr: expected a number, a tensor, or a function of φ that gives one, got a {came}")
    if not bool(torch.as_tensor(inner_lr).isfinite().all()):
        raise ValueError(f"inner_lr: expected a finite number, got {inner_lr!r}")
    return ascent(inner_lr)


def _gone_on(
    plan: Plan, done: Done | None, since: Done | None, budget: int | None, seconds: float | None,
    progress: Progress | None, file: Keep | None,
) -> Done:  # fmt: skip
    """More rounds, until the next one would exceed what is given since then; at least `LEAST` repeats in all."""
    limit("budget", budget)
    limit("seconds", seconds)
    seconds = 60.0 if budget is None and seconds is None else seconds
    progress = on_a_terminal() if progress is None else progress
    begin, before = time.monotonic(), done.seconds if done else 0.0
    if done is not None and _enough(done, since, budget, seconds):
        return done
    if file is not None:
        file.require_writable()
    try:
        while done is None or not _enough(done, since, budget, seconds):
            found, took = _round(plan, seed_of(plan.seed, "repeat", done.rounds if done else 0))
            passed = before + time.monotonic() - begin
            if done is None:
                done = Done(1, took, took, passed, found)
            else:
                done = Done(done.rounds + 1, done.env_steps + took, took, passed, done.sampled.joined(found))
            progress(len(done.sampled.reference), done.env_steps)
            if file is not None:
                file.write(done)
    finally:
        if file is not None and done is not None:
            file.write(done, now=True)
    return done


def _enough(done: Done, since: Done | None, budget: int | None, seconds: float | None) -> bool:
    """Whether the next round would exceed what is given since then, if it is like those before."""
    rounds, steps, passed = done.rounds, done.env_steps, done.seconds
    if since is not None:
        rounds, steps, passed = rounds - since.rounds, steps - since.env_steps, passed - since.seconds
    if rounds == 0 or len(done.sampled.reference) < LEAST:
        return False
    if budget is not None and steps + done.latest > budget:
        return True
    return seconds is not None and passed * (rounds + 1) / rounds > seconds


def on_a_terminal() -> Progress:
    """One line that is written over on a terminal, and nothing elsewhere."""
    begin, shown = time.monotonic(), sys.stderr.isatty()

    def told(repeats: int, env_steps: int) -> None:
        if shown:
            line = f"diagnose: {repeats} repeats, {env_steps:,} environment steps, {time.monotonic() - begin:.0f} s"
            print(f"\r{line:79}\r", end="", file=sys.stderr, flush=True)

    return told


def _references(repeat: Repeat, estimator: Estimator, blocks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The truth by all blocks and by half of them; that of adapting with n trajectories has no bias by any."""
    if repeat.loop.adapted:
        whole = gains(repeat, config_of(repeat.loop, estimator, ()), blocks).mean(0)
        return whole, whole
    ideal, half = config_of(repeat.loop, IDEAL, ()), len(blocks) // 2
    coarser = [extrapolated(repeat, ideal, part) for part in (blocks[:half], blocks[half:])]
    return extrapolated(repeat, ideal, blocks), torch.stack(coarser).mean(0)


def _round(plan: Plan, seed: int) -> tuple[Sampled, int]:
    """One repeat in every lane, and how many environment steps it took."""
    loop, blocks = plan.loop, tuple(range(plan.blocks))
    repeat = Repeat(loop, seed)
    reference, coarser = _references(repeat, plan.estimators[0], blocks)
    found = by_config(repeat, plan.configs, blocks)
    estimates = {config: x.mean(0) for config, x in found.items()}
    variances = {config: x.var(0).sum(-1) for config, x in found.items() if config.composition}
    return Sampled(kept(reference), kept(coarser), estimates, variances), repeat.env_steps
