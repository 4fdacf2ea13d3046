from collections.abc import Callable

import jaxtyping
import pytest
import torch

with jaxtyping.install_import_hook("gm_estimators", "shapes.checked"):
    from gm_estimators import Trajectories
    from gm_estimators.returns import discounts, gae

DISCOUNT = 0.9


@pytest.fixture(scope="session")
def make_trajectories() -> Callable[..., Trajectories]:
    """Random trajectories of shape `[*batch, n, T]`."""

    def make(
        *shape: int, dtype: torch.dtype = torch.float64, critic: bool = True, discount: float = DISCOUNT, seed: int = 0
    ) -> Trajectories:
        draw = torch.Generator().manual_seed(seed)
        *batch, horizon = shape
        log_prob = torch.rand(shape, generator=draw, dtype=dtype).mul(-2).requires_grad_()
        reward = torch.randn(shape, generator=draw, dtype=dtype)
        value = torch.randn(*batch, horizon + 1, generator=draw, dtype=dtype) * critic
        powers = discounts(discount, horizon + 1).to(dtype)
        return Trajectories(log_prob, reward, value, gae(reward, value, discount, 0.8), powers)

    return make
