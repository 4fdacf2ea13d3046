"""A notebook for a lecture: why estimated meta-gradients are biased, with every number exact, by enumeration."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Bias in five minutes")

with app.setup:
    import math
    from functools import cache
    from itertools import combinations_with_replacement

    import marimo as mo
    import numpy as np
    import torch

    from gm_estimators import Trajectories, load
    from gm_estimators.returns import discounts, gae
    from gm_exact import (
        TabularMDP,
        evaluate,
        expectation,
        gradient,
        hessian,
        maml_meta_gradient,
        state_values,
        trajectories,
    )
    from gm_lab.analysis import end_label, entitle, panels, style_of

    NAMES = {"ad": "AD", "lvc": "LVC", "dice": "DiCE"}


@app.function
def table(head, rows):
    """A table of texts, words at the left and numbers at the right."""
    lines = [head, [":--"] + ["--:"] * (len(head) - 1), *rows]
    return mo.md("\n".join("| " + " | ".join(line) + " |" for line in lines))


@app.cell
def _():
    mo.md(
        r"""
        # Bias in five minutes

        A *meta-gradient* says how to change where learning starts, so that it ends better. Learning here is one step of
        policy gradient, $\theta' = \theta + \alpha\,\nabla J(\theta)$, and the meta-gradient is the chain rule:

        $$\nabla_\theta\, J(\theta') = (I + \alpha H)\;\nabla J(\theta')$$

        with the Hessian $H = \nabla^2 J(\theta)$. In practice nobody knows $J$. Each of three places gets an estimate
        from sampled trajectories: **(I)** the inner gradient $\nabla J(\theta)$ that makes the step, **(II)** the
        Hessian $H$, **(III)** the outer gradient $\nabla J(\theta')$. Each of the estimates may be right on average.
        Is the meta-gradient then right on average?

        On a problem this small the average is a finite sum. No number on this page is sampled.
        """
    )
    return


@app.cell
def _():
    # states: at home, at the office; actions: 0 rests, at home, 1 works, at the office; entries by state and action
    transition = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    reward = torch.tensor([[0.5, 0.0], [2.0, 3.0]], dtype=torch.float64)
    horizon, discount = 2, 0.9
    mdp = TabularMDP(transition, reward, 0, discount)
    theta = torch.tensor([[1.5, 0.0], [0.0, 1.0]], dtype=torch.float64)  # who is at home would rather stay there
    every = trajectories(mdp, horizon)
    probability = every.probability(theta)
    returns = (discount ** torch.arange(horizon) * every.rewards).sum(-1)

    words = {0: "rest", 1: "work"}
    listed = [
        [", ".join(words[a] for a in actions), f"{p:.3f}", f"{r:.2f}"]
        for actions, p, r in zip(every.actions.tolist(), probability.tolist(), returns.tolist(), strict=True)
    ]
    mo.vstack(
        [
            mo.md(
                f"""
                ## 1. A problem with {len(listed)} trajectories

                An agent starts at home and makes {horizon} choices. To rest there pays 0.5. To go to work pays nothing,
                but who is at the office gets 2 for leaving and 3 for staying. The policy has a softmax in each state,
                and its parameters θ prefer rest at home. This is all that can happen, and how likely it is:
                """
            ),
            table(["actions", "probability", "return"], listed),
        ]
    )
    return discount, every, horizon, mdp, probability, returns, theta


@app.cell
def _(horizon, mdp, probability, returns, theta):
    alpha = 1.0
    value = float(probability @ returns)
    step = theta + alpha * gradient(mdp, theta, horizon)
    by_hand = gradient(mdp, step, horizon) + alpha * torch.einsum(
        "saxb,xb->sa", hessian(mdp, theta, horizon), gradient(mdp, step, horizon)
    )
    exact = maml_meta_gradient(mdp, theta, inner_lr=alpha, inner_steps=1, horizon=horizon)
    mo.md(
        f"""
        ## 2. The truth

        $J(\\theta) = {value:.3f}$ is the mean of the last column. `gm_exact` has the gradient and the Hessian. The
        chain rule above, written out with them, agrees with its `maml_meta_gradient` to
        {float((by_hand - exact).abs().max()):.0e}. With $\\alpha = {alpha:g}$ the meta-gradient is, by state (rows) and
        action,

        $$\\begin{{pmatrix}} {exact[0, 0]:.3f} & {exact[0, 1]:.3f} \\\\ {exact[1, 0]:.3f} & {exact[1, 1]:.3f}
        \\end{{pmatrix}}.$$
        """
    )
    return by_hand, exact, value


@app.cell
def _(discount, horizon, mdp, theta):
    # a perfect critic: what is still to come in each state, by how many choices are left
    to_come = [state_values(mdp, theta, horizon - t) for t in range(horizon)] + [torch.zeros_like(theta[:, 0])]
    critic = torch.stack(to_come)

    def read(log_prob, seen):
        """What an estimator reads of trajectories."""
        value = critic[torch.arange(horizon + 1), seen.states]
        advantage = gae(seen.rewards, value, discount)
        return Trajectories(log_prob, seen.rewards, value, advantage, discounts(discount, horizon + 1).double())

    def expected(name):
        """The mean over all trajectories of an estimator's derivatives."""
        return expectation(lambda log_prob, seen: load(name).surrogate(read(log_prob, seen)), mdp, theta, horizon)

    estimates = {name: expected(name) for name in NAMES}
    true_gradient, true_hessian = gradient(mdp, theta, horizon), hessian(mdp, theta, horizon)
    hessian_error = {
        name: float((found.hessian - true_hessian).norm() / true_hessian.norm()) for name, found in estimates.items()
    }
    gradient_error = {
        name: float((found.gradient - true_gradient).norm() / true_gradient.norm()) for name, found in estimates.items()
    }
    rows = [[label, f"{gradient_error[name]:.0%}", f"{hessian_error[name]:.0%}"] for name, label in NAMES.items()]
    mo.vstack(
        [
            mo.md(
                r"""
                ## 3. The Hessian: AD, LVC and DiCE

                An estimator is a *surrogate*: a function of a trajectory that is differentiated. $A_t$ is the advantage
                by a perfect critic, and $\bot$ stops derivatives. All three have the right gradient on average.
                Differentiate once more, and they part:

                - **AD**, the usual loss $\sum_t \gamma^t A_t \log\pi_t$, forgets that the sample would change with
                  $\theta$. With a softmax and a perfect critic nothing is left: its mean Hessian is zero.
                - **LVC** has the ratio $\pi_t / \bot\pi_t$ in place of $\log\pi_t$. It forgets what one step does to
                  later ones.
                - **DiCE** weighs each reward by the ratios of all steps that led to it, and forgets nothing.
                """
            ),
            table(["estimator", "error of the mean gradient", "error of the mean Hessian"], rows),
        ]
    )
    return critic, estimates, gradient_error, hessian_error, true_hessian


@app.cell
def _(probability):
    # sizes of which there are few enough samples to go through
    sizes = [n for n in (1, 2, 4, 8, 16, 32) if math.comb(n + len(probability) - 1, n) <= 10_000]
    alpha_slider = mo.ui.slider(0.25, 6.0, 0.25, value=2.0, label="step size α", show_value=True)
    n_slider = mo.ui.slider(steps=sizes, value=4, label="trajectories n", show_value=True)
    mo.vstack(
        [
            mo.md(
                r"""
                ## 4. Composition: the bias that no Hessian mends

                The step is made with a mean over $n$ trajectories, so that $\hat\theta'$ scatters around $\theta'$. The
                mean of $\nabla J$ over the places where it lands is not $\nabla J$ at their mean. Over all samples of
                size $n$ that mean is a finite sum, too: how often each trajectory comes up is multinomial.

                Move α and n. The Hessian has trajectories of its own, and the outer gradient is exact.
                """
            ),
            mo.hstack([alpha_slider, n_slider], justify="start", gap=2, wrap=True),
        ]
    )
    return alpha_slider, n_slider, sizes


@app.cell
def _(critic, estimates, every, horizon, mdp, probability, theta):
    @cache
    def samples(n):
        """How often each trajectory comes up in a sample of n, for every sample there is, and how likely that is."""
        kinds = len(probability)
        counts = np.zeros((math.comb(n + kinds - 1, n), kinds))
        for row, drawn in enumerate(combinations_with_replacement(range(kinds), n)):
            np.add.at(counts[row], list(drawn), 1)
        count = torch.tensor(counts)
        log_ways = math.lgamma(n + 1) - torch.lgamma(count + 1).sum(-1)
        return count / n, (log_ways + count @ probability.log()).exp()

    # what one trajectory says of the gradient: advantages times scores, where the state is
    advantage = gae(every.rewards, critic[torch.arange(horizon + 1), every.states], mdp.discount)
    scores = torch.eye(mdp.n_actions, dtype=torch.float64)[every.actions] - theta.softmax(-1)[every.states[:, :-1]]
    weighted = (mdp.discount ** torch.arange(horizon) * advantage).unsqueeze(-1) * scores
    at_state = torch.eye(mdp.n_states, dtype=torch.float64)[every.states[:, :-1]]
    per_trajectory = torch.einsum("nts,nta->nsa", at_state, weighted)

    def mean_outer(alpha, n):
        """The exact outer gradient, averaged over where n trajectories lead."""
        shares, weight = samples(n)
        reached = theta + alpha * torch.einsum("mk,ksa->msa", shares, per_trajectory)
        return torch.einsum("m,msa->sa", weight, evaluate(mdp, reached, horizon).gradient)

    def bias(alpha, n):
        """How far each estimator's mean is from the truth, as a part of the truth's length."""
        exact = maml_meta_gradient(mdp, theta, inner_lr=alpha, inner_steps=1, horizon=horizon)
        outer = mean_outer(alpha, n)
        means = {
            name: outer + alpha * torch.einsum("saxb,xb->sa", found.hessian, outer) for name, found in estimates.items()
        }
        return {name: float((mean - exact).norm() / exact.norm()) for name, mean in means.items()}

    return bias, mean_outer, per_trajectory, samples


@app.cell
def _(alpha_slider, bias, n_slider, sizes):
    alphas = [0.25 * step for step in range(1, 25)]
    over_alpha = [bias(alpha, n_slider.value) for alpha in alphas]
    over_n = [bias(alpha_slider.value, n) for n in sizes]
    here = bias(alpha_slider.value, n_slider.value)
    figure = panels([f"n = {n_slider.value} trajectories", f"α = {alpha_slider.value:g}"])
    chosen = (alpha_slider.value, n_slider.value)
    for axes, x, found, at in zip(figure.axes, (alphas, sizes), (over_alpha, over_n), chosen, strict=True):
        for name, label in NAMES.items():
            look, line = style_of(name), np.array([bias_there[name] for bias_there in found])
            axes.plot(x, line, color=look.colour, linestyle=look.dash)
            axes.plot(at, here[name], color=look.colour, marker=look.marker)
            end_label(axes, line, label, look.colour)
        axes.set_ylim(0, None)
    figure.axes[0].set(xlabel="step size α", ylabel="bias, as a part of\nthe exact meta-gradient")
    figure.axes[1].set(xlabel="trajectories n of the inner gradient")
    figure.axes[1].set_xscale("log", base=2)
    figure.axes[1].set_xticks(sizes, [str(n) for n in sizes])
    left = {name: over_n[-1][name] / over_n[0][name] for name in NAMES}
    entitle(
        figure,
        f"With {sizes[-1]} trajectories instead of one, AD keeps {left['ad']:.0%} of its bias, LVC {left['lvc']:.0%} "
        f"and DiCE {left['dice']:.0%}",
        "The length of the mean error over that of the exact meta-gradient, by enumeration: no number is sampled. "
        "Markers are where the sliders are.",
    )
    mo.vstack(
        [
            mo.md(
                f"With α = {alpha_slider.value:g} and n = {n_slider.value}: "
                + ", ".join(f"**{label}** is off by {here[name]:.1%}" for name, label in NAMES.items())
                + "."
            ),
            figure,
        ]
    )
    return figure, here, left, over_alpha, over_n


@app.cell
def _(bias, hessian_error, sizes):
    most = sizes[-1]
    one, many = bias(2.0, 4), bias(2.0, most)
    tiny, small, fine = bias(0.02, 4), bias(0.04, 4), bias(0.04, most)
    answers = {
        "Why has DiCE a bias in section 4, though its Hessian has none in section 3?": f"""
            The bias of composition is left, in which the Hessian has no part: the step itself is sampled. With α = 2 it
            is {one["dice"]:.1%} at n = 4 and {many["dice"]:.1%} at n = {most}.""",
        "What do more trajectories do for AD?": f"""
            Little. Its Hessian is off by {hessian_error["ad"]:.0%} on average, however many trajectories there are.
            With α = 2 its bias is {one["ad"]:.1%} at n = 4 and {many["ad"]:.1%} at n = {most}: only what is due to
            composition goes.""",
        "How does the bias of composition grow with α, and how does it fall with n?": f"""
            The step's variance is proportional to α²/n, and the mean of ∇J feels it through the curvature of ∇J. So
            small steps have a bias as α²/n: from α = 0.02 to 0.04 it grows by a factor of
            {small["dice"] / tiny["dice"]:.1f}, from n = 4 to {most} it falls by a factor of
            {small["dice"] / fine["dice"]:.1f}. With large steps higher orders take part: at α = 2 that factor is
            {one["dice"] / many["dice"]:.1f}.""",
        "LVC forgets the products of scores at different times. When would that do no harm?": f"""
            Where a step has no bearing on what later ones are worth. Here it has: whoever goes to the office gets more
            there, and LVC's Hessian is off by {hessian_error["lvc"]:.0%}. Set `horizon = 1` in section 1 and see that
            error go.""",
        "Whoever meta-learns can reduce the bias of composition. How, without more trajectories?": """
            A smaller α, or a lower variance of the inner gradient by a better critic. Or extrapolate: what is left out
            is almost c/n, so that two halves of the sample say what c is. `lvc+jackknife` does that in every app.""",
    }
    mo.vstack(
        [
            mo.md("## 5. Exercises"),
            mo.accordion({question: mo.md(" ".join(answer.split())) for question, answer in answers.items()}),
        ]
    )
    return fine, many, most, one, small, tiny


if __name__ == "__main__":
    app.run()
