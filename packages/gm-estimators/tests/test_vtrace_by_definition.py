"""V-trace's advantages as the sums of their definition, with bounds and λ that all count."""

from dataclasses import fields, replace

import pytest
import torch
from torch.testing import assert_close

from gm_estimators import Trajectories, load
from gm_estimators.off_policy import OffPolicyTrajectories, off_policy
from gm_estimators.off_policy.vtrace import vtrace
from gm_estimators.returns import discounts

F64 = torch.float64
GAMMA = 0.9


def read_of(make_trajectories):
    read = make_trajectories(3, 5, discount=GAMMA)
    noise = torch.rand(3, 5, generator=torch.Generator().manual_seed(1), dtype=F64) - 0.5
    seen = {field.name: getattr(read, field.name) for field in fields(Trajectories)}
    return OffPolicyTrajectories(**seen, behaviour_log_prob=read.log_prob.detach() + 2 * noise)


def by_definition(read, ratio_clip, trace_clip, decay):
    """γᵗ A_t with v_t = V(s_t) + Σ_{u≥t} γ^{u−t} (Π_{t≤i<u} c_i) ρ̄_u δ_u and A_t = ρ̄_t (r_t + γ v_{t+1} − V(s_t))."""
    ratio = (read.log_prob.detach() - read.behaviour_log_prob).exp()
    rho, c = ratio.clamp(max=ratio_clip), decay * ratio.clamp(max=trace_clip)
    size, horizon = ratio.shape
    found = torch.zeros(size, horizon, dtype=F64)
    for n in range(size):
        reward, value = read.reward[n], read.value[n]
        delta = [reward[u] + GAMMA * value[u + 1] - value[u] for u in range(horizon)]

        def target(t, n=n, value=value, delta=delta):
            return value[t] + sum(GAMMA ** (u - t) * c[n, t:u].prod() * rho[n, u] * delta[u] for u in range(t, horizon))

        for t in range(horizon):
            found[n, t] = GAMMA**t * rho[n, t] * (reward[t] + GAMMA * target(t + 1) - value[t])
    return found


@pytest.mark.parametrize(("ratio_clip", "trace_clip", "decay"), [(1.2, 0.7, 0.6), (0.8, 1.3, 1.0), (5.0, 5.0, 0.0)])
def test_the_advantages_are_their_definition(make_trajectories, ratio_clip, trace_clip, decay):
    read = read_of(make_trajectories)
    assert_close(read.discount, discounts(GAMMA, 6))
    estimator = vtrace(load("ad"), ratio_clip=ratio_clip, trace_clip=trace_clip, decay=decay)
    expected = by_definition(read, ratio_clip, trace_clip, decay)
    assert_close(estimator.derivatives(read).first, expected, rtol=1e-12, atol=1e-12)


def test_one_number_in_a_name_bounds_ratios_and_traces(make_trajectories):
    read = read_of(make_trajectories)
    found = off_policy(load("lvc+vtrace@0.8")).derivatives(read).first
    assert_close(found, by_definition(read, 0.8, 0.8, 1.0), rtol=1e-12, atol=1e-12)
    assert (found - by_definition(read, 0.8, 1.0, 1.0)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["lvc", "dice", "loaded_dice"])
def test_forms_of_other_weights_share_no_inner_steps(name):
    plain = load(name)
    forms = [plain, off_policy(plain), off_policy(replace(plain, self_normalise=True))]
    forms += [] if name == "dice" else [off_policy(replace(plain, ratio_clip=bound)) for bound in (0.5, 1.0)]
    assert len({form.gradient_family for form in forms}) == len(forms)
