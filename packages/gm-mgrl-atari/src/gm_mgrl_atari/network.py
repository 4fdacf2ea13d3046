"""Actor and critic on stacked frames, as a function of a dictionary of tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import linear

from gm_mgrl_atari.convolution import convolution, dense, rectified
from gm_mgrl_atari.distributions import Categorical, Distribution

Params = dict[str, Tensor]
ATARI_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
GAIN = math.sqrt(2)


@dataclass(frozen=True)
class Activations:
    """The outputs `[env, time, …]` of the shared layers in acting, which learning at the same θ needs again."""

    params: Params
    layers: tuple[Tensor, ...]
    _versions: list[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_versions", [tensor._version for tensor in self.params.values()])

    def at(self, params: Params) -> tuple[Tensor, ...] | None:
        """The layers with one axis for all states, or `None` if these aren't the very tensors of acting, unwritten."""
        if self._versions != [tensor._version for tensor in self.params.values()]:
            return None
        if any(params[name].data_ptr() != tensor.data_ptr() for name, tensor in self.params.items()):
            return None
        return tuple(layer.flatten(0, 1) for layer in self.layers)


@dataclass(frozen=True)
class Network:
    """π_θ and V_θ: convolutions and one hidden layer shared, a critic that is told the discount (paper, G.3.4).

        f = relu(W relu(conv(s / 255)))
        log π(·|s) = log softmax(W_π f),   V(s; γ) = w_V · relu(W_c [f, e(⊥γ)]),   e(γ) = u γ + b

    Without `conditioned` the critic is V(s) = w_V · f. Layers are (channels out, side of the filter, stride), in
    `channels_last` order, which is faster; for `first_order` see `convolution`. Observations are numbers of any type up
    to `scale`, as grey levels or truths; with `frames_last` their last axis is that of frames, or channels.
    """

    actions: int
    frames: int = 4
    size: int = 84
    layers: tuple[tuple[int, int, int], ...] = ATARI_LAYERS
    hidden: int = 512
    embedding: int = 16
    conditioned: bool = True
    first_order: bool = False
    scale: float = 255.0
    frames_last: bool = False

    @property
    def distribution(self) -> Distribution:
        """Of its log-probabilities."""
        return Categorical(normalised=True)

    def unmoved(self) -> "Network":
        """The same network for a θ that φ doesn't move."""
        return replace(self, first_order=True)

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.channels_last,
    ) -> Params:  # fmt: skip
        """θ, drawn on the CPU: orthogonal weights of gain √2 (policy 0.01, value 1; Saxe et al. 2014), zero biases."""
        shapes: dict[str, tuple[tuple[int, ...], float]] = {}
        channels, side = self.frames, self.size
        for i, (out, kernel, stride) in enumerate(self.layers):
            shapes[f"conv{i}"] = ((out, channels, kernel, kernel), GAIN)
            channels, side = out, (side - kernel) // stride + 1
        shapes["hidden"] = ((self.hidden, channels, side, side), GAIN)
        shapes["policy"] = ((self.actions, self.hidden), 0.01)
        shapes["value"] = ((1, self.hidden), 1.0)
        if self.conditioned:
            shapes["critic"] = ((self.hidden, self.hidden + self.embedding), GAIN)
            shapes["embedding"] = ((self.embedding, 1), GAIN)
        params: Params = {}
        for name, (shape, gain) in shapes.items():
            weight = torch.nn.init.orthogonal_(torch.empty(shape), gain, generator=generator)
            layout = memory_format if weight.dim() == 4 else torch.contiguous_format
            params[f"{name}.weight"] = weight.to(device, dtype).contiguous(memory_format=layout)
            params[f"{name}.bias"] = torch.zeros(shape[0], dtype=dtype, device=device)
        return params

    def __call__(
        self, params: Params, observation: Shaped[Tensor, "*batch _ _ _"], discount: Tensor,
        known: Sequence[Tensor] | None = None,
    ) -> tuple[Float[Tensor, "*batch actions"], Float[Tensor, "*batch"]]:  # fmt: skip
        """(log π(·|s), V(s; ⊥γ)) of observations s, with outputs of the shared layers `known` from before."""
        features = self._features(params, observation, known)
        log_prob = _linear(params, "policy", features).log_softmax(-1)
        if self.conditioned:
            features = self._critic_features(params, features, discount.detach())
        return log_prob, _linear(params, "value", features).squeeze(-1)

    def policy(
        self, params: Params, observation: Shaped[Tensor, "*batch _ _ _"], keep: list[Tensor] | None = None
    ) -> Float[Tensor, "*batch actions"]:
        """The actor alone, log π(·|s); the outputs of the shared layers are appended to `keep`."""
        return _linear(params, "policy", self._features(params, observation, None, keep)).log_softmax(-1)

    def _features(
        self, params: Params, observation: Tensor, known: Sequence[Tensor] | None = None,
        keep: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        given = [None] * (len(self.layers) + 1) if known is None else known
        outputs = [] if keep is None else keep
        last = _channels_last(params["conv0.weight"])
        if self.frames_last:
            observation = observation.movedim(-1, -3)
        x = _scaled(observation, params["conv0.weight"].dtype, last, self.scale)
        for i, (_, _, stride) in enumerate(self.layers):
            weight, bias = params[f"conv{i}.weight"], params[f"conv{i}.bias"]
            x = convolution(x, weight, bias, stride, first_order=self.first_order, known=given[i])
            x = rectified(x, known=known is not None)
            outputs.append(x)
        # in the order of memory, so that neither images nor weights are moved
        flat, weight = (
            t.permute(0, 2, 3, 1).flatten(1) if last else t.flatten(1) for t in (x, params["hidden.weight"])
        )
        f = rectified(dense(flat, weight, params["hidden.bias"], given[-1]), known=known is not None)
        outputs.append(f)
        return f.reshape(*observation.shape[:-3], self.hidden)

    def _critic_features(self, params: Params, features: Tensor, discount: Tensor) -> Tensor:
        """relu(W_c [f, e]); the part of e is the same for every state, so it joins the bias."""
        weight = params["critic.weight"]
        by_features, by_embedding = weight[:, : self.hidden], weight[:, self.hidden :]
        embedded = _linear(params, "embedding", discount.to(features).reshape(1))
        return linear(features, by_features, params["critic.bias"] + by_embedding @ embedded).relu()


def _linear(params: Params, name: str, x: Tensor) -> Tensor:
    return linear(x, params[f"{name}.weight"], params[f"{name}.bias"])


def _channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last)


def _scaled(observation: Tensor, dtype: torch.dtype, channels_last: bool, scale: float) -> Tensor:
    """Numbers in [0, 1], in the memory order of the filters, images along one axis."""
    by = 1 / scale
    if not channels_last:
        levels = observation.to(dtype, copy=True)
        return (levels if by == 1 else levels.mul_(by)).flatten(0, -4)
    levels = observation.movedim(-3, -1).to(dtype, copy=True, memory_format=torch.contiguous_format)
    return (levels if by == 1 else levels.mul_(by)).flatten(0, -4).permute(0, 3, 1, 2)
