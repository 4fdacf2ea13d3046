"""What clipping and Adam make of estimates."""

import pytest
import torch
from torch.testing import assert_close

from gm_estimators.attribution import AdamDistortion, clipped


def test_clipping_shortens_what_is_too_long_and_nothing_else():
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)
    assert_close(clipped(x, torch.tensor(1.0, dtype=torch.float64)), torch.tensor([[0.6, 0.8], [0.3, 0.4]]).double())


def test_adam_leaves_the_exact_gradient_and_is_torchs_adam():
    torch.manual_seed(0)
    past, truth = torch.randn(4, 2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    first = second = torch.zeros(2, 3, dtype=torch.float64)
    for y in past:
        first, second = 0.9 * first + 0.1 * y, 0.999 * second + 0.001 * y**2
    adam = AdamDistortion(first, second, 5, truth)
    assert_close(adam(truth.unsqueeze(-2)), truth.unsqueeze(-2))

    def step(last):
        params = torch.zeros(3, dtype=torch.float64)
        optimiser = torch.optim.Adam([params], lr=1.0, maximize=True)
        for gradient in (*past[:, 0], last):
            before, params.grad = params.clone(), gradient
            optimiser.step()
        return params - before

    exact = step(truth[0])
    for repeat in range(5):
        expected = truth[0] + (step(x[0, repeat]) - exact) * truth[0].norm() / exact.norm()
        assert_close(adam(x)[0, repeat], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("truth", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_adam_has_no_unit_without_an_exact_gradient(truth):
    with pytest.raises(ValueError, match="truth: expected finite vectors other than zero, got lengths"):
        AdamDistortion.after([], torch.tensor([truth]))
