"""Augmentation of a trial by a policy, after that of its kind of data: which samples get which operation.

Theory of operation. A sample has a row of random numbers for each operation of a random policy, or each step of a
learnt one: which operation (or whether), magnitude, sign, and what the operations of its kind of data draw besides. For
each, the batch is ordered by operation, so that an operation changes its samples in one call; then it is put back in
its order. The order is found on the CPU, where random numbers are drawn: a GPU is not waited for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ripieno.data.augment import Augmentation
from ripieno.data.augmentation_policy import OPERATIONS, RANDOM, LearntPolicy, Policy
from ripieno.data.image_operations import Groups
from ripieno.data.series_augment import SeriesAugmentation
from ripieno.train.device_copy import to_device


class Operations(Protocol):
    """Operations of a kind of data. `inputs` are (samples, channels, ...), of tables (samples, columns)."""

    @property
    def numbers(self) -> int:
        """Random numbers of a sample for an operation, besides its magnitude and sign."""

    def apply(self, inputs: Tensor, groups: Groups, magnitudes: Tensor, signs: Tensor, numbers: Tensor) -> Tensor:
        """Change the `groups` of `inputs` in place; return them.

        `magnitudes` and `signs` (samples,) and `numbers` (samples, `self.numbers`), 0 to 1, are on their device.
        """

    def apply_to_masks(self, masks: Tensor, groups: Groups, magnitudes: Tensor, signs: Tensor) -> Tensor:
        """Move the `groups` of `masks` (samples, height, width) in place, as `apply` moves their images."""


@dataclass(frozen=True)
class _Slot:
    """Samples of a batch that one operation of the policy changes, ordered by operation."""

    order: Tensor
    """(changed,) positions in the batch, on its device"""
    groups: Groups
    """of these samples"""
    magnitudes: Tensor
    signs: Tensor
    numbers: Tensor


@dataclass(frozen=True)
class PolicyAugmentation:
    """Changes by `base`, then by `policy`."""

    base: Augmentation | SeriesAugmentation
    policy: Policy
    operations: Operations

    is_identity = False
    warps = True

    @property
    def slots(self) -> int:
        """Number of operations on a sample, at most."""
        return len(self.policy.steps) if isinstance(self.policy, LearntPolicy) else self.policy.operations

    @property
    def _columns(self) -> int:
        """Random numbers of a sample for the policy."""
        return self.slots * (3 + self.operations.numbers)

    def draw(self, samples: int, channels: int, generator: torch.Generator) -> Tensor:
        """Draw the random numbers of `apply`, on `generator`'s device: those of the policy, then those of `base`."""
        draws = torch.rand(samples, self._columns, generator=generator, device=generator.device)
        if self.base.is_identity:
            return draws
        return torch.cat([draws, self.base.draw(samples, channels, generator)], 1)

    def apply(self, inputs: Tensor, draws: Tensor) -> Tensor:
        """Return `inputs` (samples, channels, ...), floating point, changed by `draws`, which are best on the CPU.

        Each sample depends on its own row of draws alone. Shape, type and device stay the same.
        """
        if not self.base.is_identity:
            inputs = self.base.apply(inputs, to_device(draws[:, self._columns :], inputs.device))
        inputs = inputs.clone(memory_format=torch.contiguous_format)
        for slot in self._slots(draws, inputs.device):
            arguments = slot.groups, slot.magnitudes, slot.signs
            inputs[slot.order] = self.operations.apply(inputs[slot.order], *arguments, slot.numbers)
        return inputs

    def apply_to_masks(self, masks: Tensor, draws: Tensor, channels: int) -> Tensor:
        """Return `masks` (samples, height, width) of the images that `apply` changes by the same `draws`, as uint8."""
        if isinstance(self.base, Augmentation) and not self.base.is_identity:
            masks = self.base.apply_to_masks(masks, to_device(draws[:, self._columns :], masks.device), channels)
        masks = masks.clone()
        for slot in self._slots(draws, masks.device):
            moved = self.operations.apply_to_masks(masks[slot.order], slot.groups, slot.magnitudes, slot.signs)
            masks[slot.order] = moved
        return masks

    def _slots(self, draws: Tensor, device: torch.device) -> Iterator[_Slot]:
        """Yield the operations on the samples that `draws` stand for, one slot after the other."""
        names: Sequence[str] = OPERATIONS[self.policy.kind]
        width = 3 + self.operations.numbers
        for number in range(self.slots):
            own = draws[:, number * width : (number + 1) * width]
            chosen, magnitudes = self._choose(number, own.cpu(), names)
            order = chosen.argsort(stable=True)
            counts = torch.bincount(chosen, minlength=len(names) + 1).tolist()
            order = order[: len(order) - counts[-1]]  # the last are not changed
            if len(order) == 0:
                continue
            starts = [sum(counts[:place]) for place in range(len(names))]
            groups = [
                (name, slice(start, start + count))
                for name, start, count in zip(names, starts, counts, strict=False)
                if count
            ]
            numbers = to_device(torch.cat([magnitudes[:, None], own.cpu()[:, 2:]], 1)[order], device)
            signs = torch.where(numbers[:, 1] < 0.5, -1.0, 1.0)
            yield _Slot(to_device(order, device), groups, numbers[:, 0], signs, numbers[:, 2:])

    def _choose(self, number: int, draws: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return each sample's operation, by its place in `names` (their number: none), and its magnitude."""
        none = len(names)
        if isinstance(self.policy, LearntPolicy):
            step = self.policy.steps[number]
            chosen = torch.where(draws[:, 0] < step.probability, names.index(step.operation), none)
            return chosen, torch.full((len(draws),), step.magnitude, dtype=draws.dtype)
        drawn = torch.tensor([names.index(name) for name in self.policy.drawn])
        chosen = drawn[(draws[:, 0] * len(drawn)).long().clamp(max=len(drawn) - 1)]
        if "identity" in names:
            chosen = torch.where(chosen == names.index("identity"), none, chosen)
        magnitudes = draws[:, 1].clone()
        return chosen, magnitudes if self.policy.magnitude == RANDOM else magnitudes.fill_(self.policy.magnitude)
