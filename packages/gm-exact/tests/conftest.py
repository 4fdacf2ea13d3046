from collections.abc import Callable

import jaxtyping
import pytest
import torch
from torch import Tensor

with jaxtyping.install_import_hook("gm_exact", "shapes.checked"):
    from gm_exact import TabularMDP

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=[f"{device}-{dtype}" for device in DEVICES for dtype in ("float32", "float64")])
def kind(request: pytest.FixtureRequest) -> tuple[str, torch.dtype]:
    """Device and dtype."""
    device, dtype = request.param.split("-")
    return device, getattr(torch, dtype)


@pytest.fixture(scope="session")
def make_mdp() -> Callable[..., TabularMDP]:
    """Random MDPs whose start is a distribution, the same on every call with the same arguments."""

    def make(*batch: int, n_states: int = 3, n_actions: int = 2, discount: float = 0.8, seed: int = 0) -> TabularMDP:
        draw = torch.Generator().manual_seed(seed)
        transition = torch.rand(*batch, n_states, n_actions, n_states, generator=draw, dtype=torch.float64) ** 3
        reward = torch.randn(*batch, n_states, n_actions, generator=draw, dtype=torch.float64)
        start = torch.rand(*batch, n_states, generator=draw, dtype=torch.float64)
        return TabularMDP(
            transition / transition.sum(-1, keepdim=True), reward, start / start.sum(-1, keepdim=True), discount
        )

    return make


@pytest.fixture(scope="session")
def normal() -> Callable[..., Tensor]:
    """Standard normal tensors in float64."""

    def draw(*shape: int, seed: int = 1) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return draw
