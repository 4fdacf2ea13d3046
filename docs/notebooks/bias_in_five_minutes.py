"""A notebook for a lecture: why estimated meta-gradients are biased, with every number exact, by enumeration."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Bias in five minutes")

with app.setup:
    import math
    from itertools import combinations_with_replacement

    import marimo as mo
    import numpy as np
    import torch
    from gm_estimators import Trajectories, load
    from gm_estimators.returns import discounts, gae
    from gm_exact import TabularMDP, evaluate, expectation, gradient, hessian, maml_meta_gradient, trajectories

    from gm_lab.analysis import panels, style_of

    NAMES = {"ad": "AD", "lvc": "LVC", "dice": "DiCE"}


@app.cell
def _():
    mo.md(
        r"""
        # Bias in five minutes

        A *meta-gradient* says how to change where learning starts, so that it ends better. Learning here is one step of
        policy gradient, $\theta' = \theta + \alpha\,\nabla J(\theta)$, and the meta-gradient is the chain rule:

        $$\nabla_\theta\, J(\theta') = (I + \alpha H)\;\nabla J(\theta'), \qquad H = \nabla^2 J(\theta).$$

        In practice nobody knows $J$. Each of three places gets an estimate from sampled trajectories: **(I)** the inner
        gradient $\nabla J(\theta)$ that makes the step, **(II)** the Hessian $H$, **(III)** the outer gradient
        $\nabla J(\theta')$. Each of the estimates may be right on average. Is the meta-gradient then right on average?

        On a problem this small the average is a finite sum. No number on this page is sampled.
        """
    )
    return


@app.cell
def _():
    # two states, two actions: 0 rests, 1 works; work leads to the second state, where work pays
    transition = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    reward = torch.tensor([[0.4, 0.0], [0.0, 2.0]], dtype=torch.float64)
    horizon, discount = 2, 0.9
    mdp = TabularMDP(transition, reward, 0, discount)
    theta = torch.tensor([[0.5, 0.0], [0.0, -0.5]], dtype=torch.float64)  # it would rather rest
    every = trajectories(mdp, horizon)
    probability = every.probability(theta)
    returns = (discount ** torch.arange(horizon) * every.rewards).sum(-1)

    words = {0: "rest", 1: "work"}
    listed = [
        {"actions": ", ".join(words[a] for a in actions), "probability": round(p, 3), "return": round(r, 2)}
        for actions, p, r in zip(every.actions.tolist(), probability.tolist(), returns.tolist(), strict=True)
    ]
    mo.vstack(
        [
            mo.md(
                f"""
                ## 1. A problem with {len(listed)} trajectories

                An agent lives for {horizon} steps. To *rest* pays 0.4 at home; to *work* pays nothing at first and 2 from
                the second time on. This is all that can happen, and how likely it is:
                """
            ),
            mo.ui.table(listed, selection=None, show_column_summaries=False),
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

        $J(\\theta) = {value:.3f}$ is the mean of the last column. `gm_exact` has its gradient and Hessian, and the
        chain rule above written out agrees with `maml_meta_gradient` to {float((by_hand - exact).abs().max()):.0e}. With
        $\\alpha = {alpha:g}$ the meta-gradient is, by state (rows) and action,

        $$\\begin{{pmatrix}} {exact[0, 0]:.3f} & {exact[0, 1]:.3f} \\\\ {exact[1, 0]:.3f} & {exact[1, 1]:.3f}
        \\end{{pmatrix}}.$$
        """
    )
    return by_hand, exact, value


@app.cell
def _(discount, horizon, mdp, theta):
    def read(log_prob, seen):
        """What an estimator reads of trajectories: here it has no critic."""
        zeros = torch.zeros(*seen.rewards.shape[:-1], horizon + 1, dtype=torch.float64)
        advantage = gae(seen.rewards, zeros, discount)
        return Trajectories(log_prob, seen.rewards, zeros, advantage, discounts(discount, horizon + 1).double())

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
    rows = [
        {
            "estimator": label,
            "error of the mean gradient": f"{gradient_error[name]:.0%}",
            "error of the mean Hessian": f"{hessian_error[name]:.0%}",
        }
        for name, label in NAMES.items()
    ]
    mo.vstack(
        [
            mo.md(
                r"""
                ## 3. The Hessian: AD, LVC and DiCE

                An estimator is a *surrogate*: a function of a trajectory whose derivatives are averaged. All three have
                the right gradient. Differentiate once more, and they part:

                - **AD**, the usual loss $\sum_t \gamma^t A_t \log\pi_t$, forgets that the sample would change with
                  $\theta$;
                - **LVC** puts the ratio $\pi_t / \bot\pi_t$ for $\log\pi_t$, and forgets what one step does to later
                  ones;
                - **DiCE** weighs each reward by the ratio of all steps that led to it, and forgets nothing.
                """
            ),
            mo.ui.table(rows, selection=None, show_column_summaries=False),
        ]
    )
    return estimates, gradient_error, hessian_error, true_hessian


@app.cell
def _():
    alpha_slider = mo.ui.slider(0.25, 6.0, 0.25, value=2.0, label="step size α", show_value=True)
    n_slider = mo.ui.slider(steps=[1, 2, 4, 8, 16, 32], value=4, label="trajectories n", show_value=True)
    mo.vstack(
        [
            mo.md(
                r"""
                ## 4. Composition: the bias that no Hessian mends

                The step is made with a mean over $n$ trajectories, so $\hat\theta'$ scatters around $\theta'$. And the
                mean of $\nabla J$ at scattered places is not $\nabla J$ at their mean. Over all samples of size $n$ that
                mean is a finite sum, too: how often each trajectory came up is multinomial.

                Move α and n. The Hessian is estimated from trajectories of its own, the outer gradient is exact.
                """
            ),
            mo.hstack([alpha_slider, n_slider], justify="start", gap=3),
        ]
    )
    return alpha_slider, n_slider


@app.cell
def _(estimates, every, horizon, mdp, probability, theta):
    def samples(n):
        """How often each trajectory comes up in a sample of n, for every sample there is, and how likely that is."""
        kinds = len(probability)
        counts = np.zeros((math.comb(n + kinds - 1, n), kinds))
        for row, drawn in enumerate(combinations_with_replacement(range(kinds), n)):
            np.add.at(counts[row], list(drawn), 1)
        count = torch.tensor(counts)
        log_ways = math.lgamma(n + 1) - torch.lgamma(count + 1).sum(-1)
        return count / n, (log_ways + count @ probability.log()).exp()

    # what one trajectory says of the gradient: the score function times what follows
    scores = torch.eye(mdp.n_actions, dtype=torch.float64)[every.actions] - theta.softmax(-1)[every.states[:, :-1]]
    to_go = gae(every.rewards, torch.zeros(len(every.rewards), horizon + 1, dtype=torch.float64), mdp.discount)
    per_step = (mdp.discount ** torch.arange(horizon) * to_go).unsqueeze(-1) * scores
    at_state = torch.eye(mdp.n_states, dtype=torch.float64)[every.states[:, :-1]]
    per_trajectory = torch.einsum("nts,nta->nsa", at_state, per_step)

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
def _(alpha_slider, bias, n_slider):
    alphas, sizes = [0.25 * step for step in range(1, 25)], [1, 2, 4, 8, 16, 32]
    over_alpha = [bias(alpha, n_slider.value) for alpha in alphas]
    over_n = [bias(alpha_slider.value, n) for n in sizes]
    here = bias(alpha_slider.value, n_slider.value)
    figure = panels([f"n = {n_slider.value} trajectories", f"α = {alpha_slider.value:g}"])
    for axes, x, found in zip(figure.axes, (alphas, sizes), (over_alpha, over_n), strict=True):
        for name, label in NAMES.items():
            look = style_of(name)
            axes.plot(x, [at[name] for at in found], color=look.colour, linestyle=look.dash, label=label)
    for axes, at in zip(figure.axes, (alpha_slider.value, n_slider.value), strict=True):
        for name in NAMES:
            axes.plot(at, here[name], marker=style_of(name).marker, color=style_of(name).colour)
    figure.axes[0].set_xlabel("step size α")
    figure.axes[1].set_xlabel("trajectories n of the inner gradient")
    figure.axes[1].set_xscale("log", base=2)
    figure.axes[1].set_xticks(sizes, [str(n) for n in sizes])
    figure.axes[0].set_ylabel("bias, as a part of\nthe exact meta-gradient")
    figure.axes[0].set_ylim(0, None)
    figure.axes[0].legend()
    mo.vstack(
        [
            mo.md(
                f"With α = {alpha_slider.value:g} and n = {n_slider.value}: "
                + ", ".join(f"**{label}** is off by {here[name]:.0%}" for name, label in NAMES.items())
                + "."
            ),
            figure,
        ]
    )
    return (figure, here, over_alpha, over_n)


@app.cell
def _(bias, hessian_error):
    one, many = bias(2.0, 4), bias(2.0, 32)
    small, large = bias(0.5, 4), bias(4.0, 4)
    mo.vstack(
        [
            mo.md("## 5. Exercises"),
            mo.accordion(
                {
                    "Why has DiCE a bias in section 4, though its Hessian has none in section 3?": mo.md(
                        f"""
                        The bias of composition is left, in which no Hessian has a part: the step itself is sampled. With α = 2
                        it is {one["dice"]:.1%} at n = 4 and {many["dice"]:.1%} at n = 32.
                        """
                    ),
                    "What do more trajectories do for AD?": mo.md(
                        f"""
                        Little. Its Hessian is off by {hessian_error["ad"]:.0%} on average, however many trajectories there
                        are: with α = 2 its bias is {one["ad"]:.0%} at n = 4 and {many["ad"]:.0%} at n = 32. Only the part
                        that is due to composition goes.
                        """
                    ),
                    "How does the bias of composition grow with α, and how does it fall with n?": mo.md(
                        f"""
                        The scatter of the step is α²/n in variance, and a gradient's mean feels its curvature times that:
                        for small α the bias grows as α² and falls as 1/n. Here from α = 0.5 to α = 4 at n = 4 it goes from
                        {small["dice"]:.2%} to {large["dice"]:.0%}; the softmax saturates, so that it grows more slowly at last.
                        From n = 4 to n = 32, eight times as many, it falls by a factor of {one["dice"] / many["dice"]:.1f}.
                        """
                    ),
                    "LVC forgets the products of scores at different times. When would that do no harm?": mo.md(
                        f"""
                        Where there is one step only, and where what one step does has no bearing on what later ones are
                        worth. Here it has, and LVC's Hessian is off by {hessian_error["lvc"]:.0%}. Set `horizon = 1` in
                        section 1 and see the error go.
                        """
                    ),
                }
            ),
        ]
    )
    return large, many, one, small


if __name__ == "__main__":
    app.run()
