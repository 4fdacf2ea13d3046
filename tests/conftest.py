"""What the tests that cross packages share: MDPs, and MAML problems wired from all three packages."""

from collections.abc import Callable
from dataclasses import dataclass

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

import gm_lab

with jaxtyping.install_import_hook(
    ["gm_envs_tabular", "gm_estimators", "gm_exact", "gm_experiments"], "shapes.checked"
):
    from gm_envs_tabular import Rollout, Successors, random_mdp, rollout, successors, uniforms
    from gm_exact import PolicyEvaluation, TabularMDP, evaluate
    from gm_experiments.common.problem import TabularProblem

LONG = (
    "test_docs.py", "test_mgrl_atari.py", "test_interruption_apps.py", "test_ray.py", "test_debias.py",
    "test_diagnose_validity.py", "test_contributing.py",
)  # fmt: skip
ROLES = ("inner", "hessian", "outer")
Critic = Callable[[str, int, Tensor], Tensor]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: of two processes that share the files none should wait for the other's last."""
    items.sort(key=lambda item: item.path.name not in LONG)


@dataclass(frozen=True)
class Wiring:
    """A MAML problem whose every role and step has random numbers of its own, up to `size` trajectories.

    Without a critic of its own it gets the paper's: the infinite-horizon V plus noise of std ‖V‖ / S per state.
    """

    mdp: TabularMDP
    params: Tensor
    next_states: Successors
    horizon: int
    size: int
    seed: int
    exact_horizon: int | None = None
    terminal_value: Tensor | None = None
    own_critic: Critic | None = None

    def _rng(self, role: str, step: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, ROLES.index(role), step, purpose])

    def evaluation(self, params: Tensor) -> PolicyEvaluation:
        return evaluate(self.mdp, params, self.exact_horizon, self.terminal_value)

    def rollout(self, role: str, step: int, policy: Tensor, rows: slice | Tensor) -> Rollout:
        return rollout(policy, self.next_states, self.uniforms(role, step)[..., rows, :])

    def critic(self, role: str, step: int, params: Tensor) -> Tensor:
        if self.own_critic is not None:
            return self.own_critic(role, step, params)
        value = evaluate(self.mdp, params).state_values
        return value + self.critic_error(role, step, value)

    def critic_error(self, role: str, step: int, value: Tensor) -> Tensor:
        return value.norm(dim=-1, keepdim=True) / value.shape[-1] * self.critic_noise(role, step)

    def critic_noise(self, role: str, step: int) -> Tensor:
        """A standard normal number for each state."""
        return torch.from_numpy(self._rng(role, step, 1).standard_normal(self.params.shape[:-1]))

    def uniforms(self, role: str, step: int) -> Tensor:
        """A uniform number for each step of each trajectory."""
        return uniforms(self._rng(role, step, 0), tuple(self.params.shape[:-2]), self.size, self.horizon)

    @property
    def problem(self) -> "WiredProblem":
        return WiredProblem(self)


class WiredProblem(TabularProblem):
    """MAML as a `Wiring` has it."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__(wiring.mdp, wiring.params, wiring)
        self.wiring = wiring

    def evaluate(self, _role: str, params: Tensor) -> PolicyEvaluation:
        return self.wiring.evaluation(params)

    def critic(self, role: str, step: int, params: Tensor, _evaluation: PolicyEvaluation) -> Tensor:
        return self.wiring.critic(role, step, params)


@pytest.fixture
def run_app(capsys, tmp_path, monkeypatch) -> Callable[..., tuple[int, str]]:
    """Runs an app in this process, in an empty folder, with one worker: exit status, and what it wrote to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(experiment: gm_lab.Experiment, *arguments: object) -> tuple[int, str]:
        status = gm_lab.main(experiment, ["--workers", "1", *map(str, arguments)])
        return status, capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def make_mdp() -> Callable[..., TabularMDP]:
    """Random MDPs on the given batch axes, start state 0."""

    def make(*batch: int, states: int, actions: int, concentration: float, discount: float, seed: int) -> TabularMDP:
        rng = np.random.default_rng(seed)
        drawn = [
            random_mdp(rng, states=states, actions=actions, concentration=concentration)
            for _ in range(int(np.prod(batch)))
        ]
        transition, reward = (torch.stack(tables) for tables in zip(*drawn, strict=True))
        return TabularMDP(transition.unflatten(0, batch or (1,)), reward.unflatten(0, batch or (1,)), 0, discount)

    return make


@pytest.fixture(scope="session")
def wire() -> Callable[..., Wiring]:
    """A `Wiring` with the successors of its MDP spread over the batch axes of the parameters."""

    def make(mdp: TabularMDP, params: Tensor, **settings: object) -> Wiring:
        found = successors(mdp.transition)
        shape = (*params.shape, found.state.shape[-1])
        return Wiring(mdp, params, Successors(*(table.expand(shape) for table in found)), **settings)

    return make
