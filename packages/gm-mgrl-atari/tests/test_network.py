import torch
from torch import nn
from torch.testing import assert_close

from gm_mgrl_atari import Network


def modules(network, params):
    """The same network from torch's modules."""
    layers, channels = [], network.frames
    for i, (out, kernel, stride) in enumerate(network.layers):
        layers += [nn.Conv2d(channels, out, kernel, stride), nn.ReLU()]
        layers[-2].load_state_dict({n: params[f"conv{i}.{n}"] for n in ("weight", "bias")})
        channels = out
    flat = params | {"hidden.weight": params["hidden.weight"].flatten(1)}
    heads = {
        "hidden": nn.Linear(flat["hidden.weight"].shape[1], network.hidden),
        "policy": nn.Linear(network.hidden, network.actions),
        "embedding": nn.Linear(1, network.embedding),
        "critic": nn.Linear(network.hidden + network.embedding, network.hidden),
        "value": nn.Linear(network.hidden, 1),
    }
    for name, head in heads.items():
        head.load_state_dict({n: flat[f"{name}.{n}"] for n in ("weight", "bias")})
    return nn.Sequential(*layers, nn.Flatten()), heads


def test_the_paper_s_network_is_what_torch_s_modules_compute():
    network = Network(actions=6)
    draw = torch.Generator().manual_seed(0)
    params = network.init(draw)
    params = {name: value + 0.01 * torch.randn(value.shape, generator=draw) for name, value in params.items()}
    convolutions, heads = modules(network, params)
    observation = torch.randint(0, 256, (2, 3, 4, 84, 84), generator=draw, dtype=torch.uint8)
    log_prob, value = network(params, observation, torch.tensor(0.9))
    features = heads["hidden"](convolutions(observation.flatten(0, 1) / 255)).relu()
    embedded = heads["embedding"](torch.full((6, 1), 0.9))
    critic = heads["critic"](torch.cat([features, embedded], dim=-1)).relu()
    assert_close(log_prob.flatten(0, 1), heads["policy"](features).log_softmax(-1), rtol=1e-4, atol=1e-5)
    assert_close(value.flatten(), heads["value"](critic).squeeze(-1), rtol=1e-4, atol=1e-5)
    assert_close(network.policy(params, observation), log_prob)


def test_the_discount_reaches_the_critic_only_if_it_is_told(params, network, random_batch):
    observation = random_batch(0).observation
    high, low = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.99, 0.5))
    (policy_high, value_high), (policy_low, value_low) = (network(params, observation, x) for x in (high, low))
    assert torch.equal(policy_high, policy_low)
    assert (value_high - value_low).abs().max() > 1e-3
    parameter = {name: value.requires_grad_() for name, value in params.items()}
    assert torch.autograd.grad(network(parameter, observation, high)[1].sum(), high, allow_unused=True) == (None,)
    plain = Network(3, 2, 6, ((3, 3, 2),), 4, conditioned=False)
    drawn = plain.init(torch.Generator().manual_seed(0), dtype=torch.float64)
    assert "critic.weight" not in drawn
    assert torch.equal(plain(drawn, observation, high)[1], plain(drawn, observation, low)[1])


def test_weights_start_orthogonal():
    params = Network(actions=6).init(torch.Generator().manual_seed(0))
    assert params["conv0.weight"].is_contiguous(memory_format=torch.channels_last)
    for name, gain in (("conv1", 2**0.5), ("hidden", 2**0.5), ("policy", 0.01), ("value", 1.0)):
        rows = params[f"{name}.weight"].flatten(1)
        assert_close(rows @ rows.T, gain**2 * torch.eye(len(rows)), rtol=0, atol=1e-4)
        assert not params[f"{name}.bias"].any()


def test_the_memory_format_changes_no_number(random_batch):
    network = Network(actions=6)
    observation = torch.randint(0, 256, (5, 4, 84, 84), dtype=torch.uint8)
    first, second = (
        network(network.init(torch.Generator().manual_seed(0), memory_format=order), observation, torch.tensor(0.9))
        for order in (torch.channels_last, torch.contiguous_format)
    )
    assert_close(first, second, rtol=1e-4, atol=1e-5)
