"""Experience: a policy acts in environments, T steps at a time."""

from collections.abc import Sequence
from dataclasses import fields
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor

from gm_mgrl_atari.checks import integer
from gm_mgrl_atari.games import Games, Step
from gm_mgrl_atari.learner import Laps, NotFiniteError
from gm_mgrl_atari.network import Activations, Network, Params
from gm_mgrl_atari.objectives import Batch


class Collector:
    """Draws batches on policy and keeps the returns of finished games.

    With several groups of environments the network decides for one while the others emulate; that pays where the
    network has a device of its own. The memory format of frames is best that of the network's filters.
    """

    def __init__(
        self, groups: Sequence[Games], network: Network, steps: SupportsIndex, generator: torch.Generator,
        device: torch.device | str = "cpu", memory_format: torch.memory_format = torch.channels_last,
        lap: Laps | None = None, keep_activations: bool = True,
    ) -> None:  # fmt: skip
        self._groups, self._network, self._steps = groups, network, integer("steps", steps)
        self._generator, self._device = generator, torch.device(device)
        self._lap = lap or Laps()
        self._keep_activations = keep_activations
        self._channels_last = memory_format == torch.channels_last
        self._observation = [self._frames(group.reset()) for group in groups]
        self.emulated = 0
        self.returns: list[float] = []
        self.lengths: list[int] = []

    def _to_device(self, array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Tensor:
        return torch.from_numpy(array).to(self._device, non_blocking=True)

    def _frames(self, array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Tensor:
        """Frames in their memory format, put there once for acting and learning."""
        frames = self._to_device(array)
        return frames.contiguous(memory_format=torch.channels_last) if self._channels_last else frames

    def _stacked(self, seen: Sequence[Tensor]) -> Tensor:
        """Images, or features, of successive steps; the memory format is kept."""
        if not self._channels_last or seen[0].dim() < 4:
            return torch.stack(list(seen), dim=1)
        return torch.stack([frames.permute(0, 2, 3, 1) for frames in seen], dim=1).movedim(-1, -3)

    def collect(self, params: Params) -> Batch:
        """T steps of every environment with π_θ."""
        observations = [[observation] for observation in self._observation]
        actions: list[list[Tensor]] = [[] for _ in self._groups]
        steps: list[list[Step]] = [[] for _ in self._groups]
        layers: list[list[list[Tensor]]] = [[] for _ in self._groups]
        for group, observation, taken, computed in zip(self._groups, self._observation, actions, layers, strict=True):
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
        self._observation = [seen[-1] for seen in observations]
        self._count(steps)
        batches = [
            Batch(
                observation=self._stacked(seen), action=torch.stack(taken, dim=1),
                **{name: self._to_device(np.stack([getattr(answer, name) for answer in answers], axis=1))
                   for name in ("reward", "terminated", "truncated", "valid")},
                activations=self._activations(params, computed),
            )
            for seen, taken, answers, computed in zip(observations, actions, steps, layers, strict=True)
        ]  # fmt: skip
        self._lap("policy inference")
        return batches[0] if len(batches) == 1 else joined(batches)

    def _activations(self, params: Params, computed: Sequence[Sequence[Tensor]]) -> Activations | None:
        if not self._keep_activations:
            return None
        return Activations(params, tuple(self._stacked(layer) for layer in zip(*computed, strict=True)))

    def _act(
        self, group: Games, params: Params, observation: Tensor, taken: list[Tensor], computed: list[list[Tensor]]
    ) -> None:
        with torch.no_grad():
            outputs: list[Tensor] = []
            probability = self._network.policy(params, observation, outputs).exp()
            # on a GPU `multinomial` would end the process; marked, NaN is told by the one transfer that there is
            finite = probability.isfinite().all(-1)
            drawn = torch.multinomial(probability.where(finite.unsqueeze(-1), 1), 1, generator=self._generator)
            action = drawn.squeeze(-1).where(finite, -1)
        taken.append(action)
        computed.append(outputs)
        chosen = action.cpu().numpy()
        if (chosen < 0).any():
            raise NotFiniteError("expected finite numbers, got NaN or infinity in the policy's probabilities")
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


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of all environments."""
    parts = [batch.activations for batch in batches]
    kept = [part for part in parts if part is not None]
    activations = None
    if len(kept) == len(parts):
        layers = zip(*(part.layers for part in kept), strict=True)
        activations = Activations(kept[0].params, tuple(torch.cat(layer) for layer in layers))
    names = [field.name for field in fields(Batch) if field.name != "activations"]
    tensors = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}
    return Batch(**tensors, activations=activations)
