"""Games of another shape or type are refused, and not spread over players."""

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from gm_exact import Constants, Errors, eq44_bias, evaluate_game, game_value, lola_meta_gradient

PAYOFFS, PARAMS = torch.zeros(2, 2, 2).double(), torch.zeros(2, 5).double()


@pytest.mark.parametrize(
    ("payoffs", "params"),
    [
        (PAYOFFS, PARAMS[0]),
        (PAYOFFS, PARAMS[:1]),
        (PAYOFFS, PARAMS.T),
        (PAYOFFS, PARAMS[:, :4]),
        (PAYOFFS[0], PARAMS),
        (PAYOFFS[:1], PARAMS),
        (PAYOFFS[:, :1], PARAMS),
        (PAYOFFS.float(), PARAMS),
        (PAYOFFS, PARAMS.long()),
        (PAYOFFS, PARAMS.to("meta")),
        (PAYOFFS.numpy(), PARAMS),
    ],
)
def test_what_is_no_game_is_refused(payoffs: Tensor, params: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # outside of tests nothing else checks
    for call in (game_value, evaluate_game):
        with pytest.raises((TypeError, ValueError), match=r"^(payoffs|params): expected"):
            call(payoffs, params, discount=0.9)
    with pytest.raises((TypeError, ValueError), match=r"^(payoffs|params): expected"):
        lola_meta_gradient(payoffs, params, discount=0.9, inner_lr=0.1)


def test_bounds_take_numbers_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    bounds = [
        eq44_bias(Constants(kind(1), kind(1), kind(1), kind(1)), Errors(kind(0.5)), inner_lr=kind(0.25), inner_steps=2,
                  meta_is_params=True)
        for kind in (float, np.float32, np.float64)
    ]  # fmt: skip
    assert bounds[0] == bounds[1] == bounds[2]
