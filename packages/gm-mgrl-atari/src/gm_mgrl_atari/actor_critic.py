"""What a network is to training: a function of a dictionary of parameters, and how a plain module becomes one."""

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from gm_mgrl_atari.distributions import Distribution
from gm_mgrl_atari.network import Params

Apply = Callable[[Params, Tensor, Tensor], tuple[Tensor, Tensor]]


@runtime_checkable
class ActorCritic(Protocol):
    """Policy and critic as a function of θ.

    It may have more, of which nothing is required: `distribution`, a `Distribution` instead of the environment's;
    `policy(params, observation, keep)`, the actor alone, which appends what a call with `known` need not compute again;
    `unmoved()`, the same network for a θ that φ doesn't move, which saves work in second derivatives.
    """

    def init(self, generator: torch.Generator, *, device: torch.device | str = "cpu") -> Params:
        """θ⁰, in tensors of its own."""

    def __call__(
        self, params: Params, observation: Shaped[Tensor, "batch *observation"], discount: Tensor, /
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "batch"]]:
        """The numbers that the policy is made of, and V(s); γ is a constant that the critic may be told."""


@runtime_checkable
class KeepsActivations(Protocol):
    """A network with an actor of its own, whose outputs of shared layers learning at the same θ needn't compute."""

    def policy(self, params: Params, observation: Tensor, keep: list[Tensor] | None = None) -> Tensor:
        """The policy's numbers; appends the outputs of the shared layers to `keep`."""


@runtime_checkable
class HasUnmoved(Protocol):
    """A network that saves work where θ depends on nothing that is differentiated by."""

    def unmoved(self) -> Any:
        """The same network for a θ that φ doesn't move."""


@dataclass(frozen=True, eq=False)
class Functional:
    """An `ActorCritic` made of a function and its initial parameters; see `functional`."""

    apply: Apply = field(repr=False)
    params: Params = field(repr=False)
    name: str
    distribution: Distribution | None = None

    def init(self, _generator: torch.Generator, *, device: torch.device | str = "cpu") -> Params:
        """Copies of the parameters that it was made with."""
        return {name: value.detach().clone().to(device) for name, value in self.params.items()}

    def __call__(
        self, params: Params, observation: Shaped[Tensor, "batch *observation"], discount: Tensor
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "batch"]]:
        """The policy's numbers and V(s), whose last axis of 1 goes where there is one."""
        outputs, value = self.apply(params, observation, discount)
        return outputs, value.squeeze(-1) if value.dim() == outputs.dim() else value


def functional(
    network: torch.nn.Module | Apply, params: Params | None = None, *, distribution: Distribution | None = None
) -> Functional:
    """A module is a function of its parameters, through `torch.func.functional_call`; so is a function with `params`.

    The module's `forward(observation)`, which may also have an argument `discount`, gives the policy's outputs,
    `[batch, n]` (logits, or means and logarithms of standard deviations), and V(s), `[batch]` or `[batch, 1]`.
    Observations come in the parameters' type, unscaled. The present weights are θ⁰. The module is copied and put into
    evaluation mode, since dropout and the statistics of a batch aren't functions of θ and s.

    Raises:
        TypeError: if it is no module, and no function with its parameters.
        ValueError: if nothing of it can be learnt.

    Examples:
        >>> import torch
        >>> from gm_mgrl_atari import functional
        >>> class Policy(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.actor, self.critic = torch.nn.Linear(4, 2), torch.nn.Linear(4, 1)
        ...
        ...     def forward(self, observation):
        ...         return self.actor(observation), self.critic(observation)
        >>> network = functional(Policy())
        >>> params = network.init(torch.Generator())
        >>> logits, value = network(params, torch.zeros(8, 4), torch.tensor(0.99))
        >>> logits.shape, value.shape
        (torch.Size([8, 2]), torch.Size([8]))
    """
    if isinstance(network, torch.nn.Module):
        if params is not None:
            raise TypeError("params: expected none beside a module, which has its own")
        if not (own := {name: value.detach() for name, value in network.named_parameters()}):
            raise ValueError("network: expected a module with parameters, got one without any")
        return Functional(_applied(network), own, described(network), distribution)
    if not callable(network) or params is None:
        came = f"a {type(network).__name__}" + ("" if params is not None else " without params")
        raise TypeError(f"network: expected a torch.nn.Module, or a function and its params, got {came}")
    if not params:
        raise ValueError("params: expected at least one tensor, got none")
    return Functional(network, dict(params), getattr(network, "__qualname__", type(network).__name__), distribution)


def _applied(module: torch.nn.Module) -> Apply:
    """The call of a copy of the module in evaluation mode, with buffers where the parameters are."""
    module = copy.deepcopy(module).eval().requires_grad_(False)
    told = "discount" in inspect.signature(module.forward).parameters
    call = _called(module)
    on = next(module.parameters()).device

    def apply(params: Params, observation: Tensor, discount: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal on
        one = next(iter(params.values()))
        if one.device != on:
            module.to(one.device)
            on = one.device
        more = {"discount": discount.detach().to(one)} if told else {}
        return call(params, observation.to(one.dtype), more)

    return apply


def _called(module: torch.nn.Module) -> Callable[[Params, Tensor, dict[str, Tensor]], tuple[Tensor, Tensor]]:
    """What `torch.func.functional_call` gives, without its search for every parameter in every call.

    That search takes longer than a small network. Modules that keep their parameters elsewhere as well are left to it.
    """
    elsewhere = torch.nn.RNNBase, torch.jit.ScriptModule
    if any(isinstance(part, elsewhere) for part in module.modules()):
        return lambda params, observation, more: torch.func.functional_call(module, params, (observation,), more)
    first: dict[Tensor, str] = {}
    places = [
        (part._parameters, key, value, first.setdefault(value, f"{prefix}.{key}" if prefix else key))
        for prefix, part in module.named_modules()
        for key, value in part._parameters.items()
        if value is not None
    ]

    def call(params: Params, observation: Tensor, more: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        try:
            for held, key, _, name in places:
                held[key] = params[name]
            outputs, value = module(observation, **more)
        finally:  # so that no graph is kept
            for held, key, own, _ in places:
                held[key] = own
        return outputs, value

    return call


def described(network: object) -> str:
    """What a network is in words that are the same in another process, on one line."""
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(network).split()))


def require_fitting(
    network: ActorCritic, params: Params, distribution: Distribution, observation: Tensor, actions: int,
    *, continuous: bool,
) -> None:  # fmt: skip
    """Refuses, with a `ValueError` of one line, a network or distribution that isn't one for these environments."""
    wanted = (len(observation), distribution.outputs(actions))
    drawn = distribution.sample(torch.zeros(wanted, device=observation.device), torch.Generator(observation.device))
    if drawn.is_floating_point() != continuous:
        expected = "continuous actions, such as Normal()" if continuous else "numbered actions, such as Categorical()"
        raise ValueError(f"distribution: expected one of {expected}, as the environment has, got {distribution}")
    kind = f"shape {tuple(observation.shape[1:])} and type {observation.dtype}"
    try:
        with torch.no_grad():
            outputs, value = network(params, observation, torch.tensor(0.99, device=observation.device))
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"network: expected one that takes observations of {kind}, got {reason}") from error
    if tuple(outputs.shape) != wanted:
        raise ValueError(
            f"network: expected outputs of shape {wanted} for {distribution} of {wanted[0]} states, got "
            f"{tuple(outputs.shape)}"
        )
    if tuple(value.shape) != wanted[:1]:
        raise ValueError(f"network: expected values of shape {wanted[:1]}, one of each state, got {tuple(value.shape)}")
