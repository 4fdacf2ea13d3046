"""Random tabular MDPs."""

from typing import NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gm_envs_tabular.checks import integer, require_memory


class MDP(NamedTuple):
    """A tabular Markov decision process with deterministic rewards: p(s′ | s, a), rows sum to one, and r(s, a)."""

    transition: Float[Tensor, "*batch state action next_state"]
    reward: Float[Tensor, "*batch state action"]


def sparse_dirichlet(rng: np.random.Generator, concentration: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Dirichlet(c, …, c) probabilities over the last axis of a shape, safe for any concentration c > 0 and any size.

    A Gamma(c) variable is Gamma(c + 1) · U^{1/c} (Marsaglia and Tsang 2000, "A simple method for generating gamma
    variables", section 6). At c = 0.001 its value underflows, its logarithm does not:

        log x_k = log g_k + log(U_k) / c,   g_k ~ Gamma(c + 1),   p = softmax(log x)

    Examples:
        >>> import numpy as np
        >>> from gm_envs_tabular import sparse_dirichlet
        >>> rows = sparse_dirichlet(np.random.default_rng(0), 0.001, (4, 3))
        >>> rows.sum(-1).round(6).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if not (concentration > 0 and np.isfinite(concentration)):
        raise ValueError(f"concentration: expected a positive finite number, got {concentration!r}")
    if not shape or min(shape) < 1:
        raise ValueError(f"shape: expected sizes of at least 1, got {shape}")
    concentration = min(concentration, 1e300)  # beyond it c log x overflows, and rows are uniform to the last digit
    scaled = concentration * np.log(rng.gamma(concentration + 1, size=shape)) + np.log1p(-rng.random(shape))  # c log x
    with np.errstate(over="ignore"):  # a quotient of −∞ is a probability of zero
        x = np.exp((scaled - scaled.max(axis=-1, keepdims=True)) / concentration)
    return np.asarray(x / x.sum(axis=-1, keepdims=True))


def random_mdp(
    rng: np.random.Generator, *, states: SupportsIndex = 20, actions: SupportsIndex = 5, concentration: float = 0.001
) -> MDP:
    """A random MDP as in the paper's tabular experiments (Section 5.1, G.1.1): float64, on the CPU, without batch axes.

        p(· | s, a) ~ Dirichlet(c, …, c),   r(s, a) ~ U[0, 1]

    At the paper's concentration c = 0.001 most transitions are almost deterministic.

    Examples:
        >>> import numpy as np
        >>> from gm_envs_tabular import random_mdp
        >>> mdp = random_mdp(np.random.default_rng(0), states=3, actions=2)
        >>> mdp.transition.shape, mdp.reward.shape
        (torch.Size([3, 2, 3]), torch.Size([3, 2]))
    """
    states, actions = integer("states", states), integer("actions", actions)
    require_memory("states, actions", 3 * states * actions * states)
    transition = sparse_dirichlet(rng, concentration, (states, actions, states))
    reward = rng.random((states, actions))
    return MDP(torch.from_numpy(transition), torch.from_numpy(reward))
