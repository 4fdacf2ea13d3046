"""Experience: a policy acts in environments, T steps at a time."""

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor

from gm_mgrl_atari.actor_critic import ActorCritic, KeepsActivations
from gm_mgrl_atari.checks import integer
from gm_mgrl_atari.distributions import Categorical, Distribution
from gm_mgrl_atari.games import Games, Step
from gm_mgrl_atari.learner import Laps, NotFiniteError
from gm_mgrl_atari.network import Activations, Network, Params
from gm_mgrl_atari.objectives import Batch, Final, fixed_coefficients


class Collector:
    """Draws batches on policy and keeps the returns of finished games.

    With several groups of environments the network decides for one while the others emulate; that pays where the
    network has a device of its own. The memory format of frames is best that of the network's filters.
    """

    def __init__(
        self, groups: Sequence[Games], network: ActorCritic, steps: SupportsIndex, generator: torch.Generator,
        device: torch.device | str = "cpu", memory_format: torch.memory_format = torch.channels_last,
        lap: Laps | None = None, keep_activations: bool = True, distribution: Distribution | None = None,
    ) -> None:  # fmt: skip
        self._groups, self._network, self._steps = groups, network, integer("steps", steps)
        self._generator, self._device = generator, torch.device(device)
        self._lap = lap or Laps()
        self.distribution = distribution or distribution_of(network, groups[0])
        self._actor = network if isinstance(network, KeepsActivations) else None
        self._keep_activations = keep_activations and self._actor is not None
        stacked = isinstance(network, Network) and not network.frames_last
        self._channels_last = stacked and memory_format == torch.channels_last
        self._discount = fixed_coefficients().discount.to(self._device)
        self.observation = [self._frames(group.reset()) for group in groups]
        self.emulated = 0
        self.returns: list[float] = []
        self.lengths: list[int] = []

    def _to_device(self, array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Tensor:
        return torch.from_numpy(array).to(self._device, non_blocking=True)

    def _frames(self, array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Tensor:
        """Frames in their memory format, put there once for acting and learning."""
        frames = self._to_device(array)
        images = self._channels_last and frames.dim() == 4
        return frames.contiguous(memory_format=torch.channels_last) if images else frames

    def _stacked(self, seen: Sequence[Tensor]) -> Tensor:
        """Images, or features, of successive steps; the memory format is kept."""
        first = seen[0]
        if first.dim() < 4 or first.is_contiguous() or not first.is_contiguous(memory_format=torch.channels_last):
            return torch.stack(list(seen), dim=1)
        return torch.stack([frames.permute(0, 2, 3, 1) for frames in seen], dim=1).movedim(-1, -3)

    def collect(self, params: Params) -> Batch:
        """T steps of every environment with π_θ."""
        observations = [[observation] for observation in self.observation]
        actions: list[list[Tensor]] = [[] for _ in self._groups]
        steps: list[list[Step]] = [[] for _ in self._groups]
        layers: list[list[list[Tensor]]] = [[] for _ in self._groups]
        for group, observation, taken, computed in zip(self._groups, self.observation, actions, layers, strict=True):
            self._act(group, params, observation, taken, computed)
        for t in range(self._steps):
            everything = zip(self._groups, observations, actions, steps, layers, strict=True)
            for group, seen, taken, answers, computed in everything:
                self._lap("policy inference")
                answers.append(group.receive())
                self._lap("emulation")
                seen.append(self._frames(answers[-1].observation))
                if t < self._steps - 1:
                    self._act(group, params, seen[-1], taken, computed)
        self.observation = [seen[-1] for seen in observations]
        self._count(steps)
        batches = [
            Batch(
                observation=self._stacked(seen), action=torch.stack(taken, dim=1),
                reward=self._to_device(self._rewards(answers)),
                **{name: self._to_device(np.stack([getattr(answer, name) for answer in answers], axis=1))
                   for name in ("terminated", "truncated", "valid")},
                activations=self._activations(params, computed), final=self._final(answers),
                distribution=self.distribution,
            )
            for seen, taken, answers, computed in zip(observations, actions, steps, layers, strict=True)
        ]  # fmt: skip
        self._lap("policy inference")
        return batches[0] if len(batches) == 1 else joined(batches)

    def _rewards(self, answers: Sequence[Step]) -> "np.ndarray[tuple[int, ...], np.dtype[np.floating]]":
        """The rewards `[env, time]`, if they are numbers."""
        reward = np.stack([answer.reward for answer in answers], axis=1)
        if not np.isfinite(reward).all():
            env, _ = np.argwhere(~np.isfinite(reward))[0]
            raise NotFiniteError(f"expected finite numbers, got NaN or infinity in a reward of environment {env}")
        return reward

    def _final(self, answers: Sequence[Step]) -> Final | None:
        """The last states of truncated episodes, where the observations don't have them."""
        ended = [(t, answer) for t, answer in enumerate(answers) if answer.final is not None and len(answer.final)]
        if not ended:
            return None
        envs = [np.flatnonzero(answer.truncated) for _, answer in ended]
        times = [np.full(len(env), t) for env, (t, _) in zip(envs, ended, strict=True)]
        states = [self._frames(answer.final) for _, answer in ended if answer.final is not None]
        env, time = (self._to_device(np.concatenate(index)) for index in (envs, times))
        return Final(env, time, torch.cat(states))

    def _activations(self, params: Params, computed: Sequence[Sequence[Tensor]]) -> Activations | None:
        if not self._keep_activations or not computed[0]:
            return None
        return Activations(params, tuple(self._stacked(layer) for layer in zip(*computed, strict=True)))

    def _act(
        self, group: Games, params: Params, observation: Tensor, taken: list[Tensor], computed: list[list[Tensor]]
    ) -> None:
        outputs: list[Tensor] = []
        with torch.no_grad():
            if self._actor is None:
                numbers, _ = self._network(params, observation, self._discount)
            else:
                numbers = self._actor.policy(params, observation, outputs)
            action = self.distribution.sample(numbers, self._generator)
        taken.append(action)
        computed.append(outputs)
        chosen = action.cpu().numpy()
        if (np.isnan(chosen) if chosen.dtype.kind == "f" else chosen < 0).any():
            where = "the policy's probabilities" if _finite(observation) else "an observation"
            raise NotFiniteError(f"expected finite numbers, got NaN or infinity in {where}")
        self._lap("policy inference")
        group.send(chosen)
        self._lap("emulation")

    def _count(self, steps: Sequence[Sequence[Step]]) -> None:
        for answers in steps:
            self.emulated += sum(answer.valid.size for answer in answers)
            for answer in answers:
                self.returns.extend(answer.returns.tolist())
                self.lengths.extend(answer.lengths.tolist())

    def finished(self) -> tuple[list[float], list[int]]:
        """Returns and lengths of the games that ended since the last call."""
        ended = self.returns, self.lengths
        self.returns, self.lengths = [], []
        return ended


def distribution_of(network: ActorCritic, games: Games) -> Distribution:
    """The network's distribution of actions, if it has one, or the environments', or a categorical one."""
    for who in (network, games):
        found = getattr(who, "distribution", None)
        if isinstance(found, Distribution):
            return found
    return Categorical()


def _finite(observation: Tensor) -> bool:
    return not observation.is_floating_point() or bool(observation.isfinite().all())


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of all environments."""
    parts = [batch.activations for batch in batches]
    kept = [part for part in parts if part is not None]
    activations = None
    if len(kept) == len(parts):
        layers = zip(*(part.layers for part in kept), strict=True)
        activations = Activations(kept[0].params, tuple(torch.cat(layer) for layer in layers))
    names = ("observation", "action", "reward", "terminated", "truncated", "valid")
    tensors = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}
    return Batch(
        **tensors, activations=activations, final=_joined_finals(batches), distribution=batches[0].distribution
    )


def _joined_finals(batches: Sequence[Batch]) -> Final | None:
    """Each batch's, with environments counted on."""
    finals, before = [], 0
    for batch in batches:
        if batch.final is not None:
            finals.append(batch.final._replace(env=batch.final.env + before))
        before += len(batch.action)
    return Final(*(torch.cat(part) for part in zip(*finals, strict=True))) if finals else None
