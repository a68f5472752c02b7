"""Policy: an action for each observation of an environment, judged by the returns of episodes.

A policy moves the states that it is asked about, so that its predictions cannot be kept. What a library keeps are its
returns: a sample is an episode, its target the seed that the environment is reset with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.tasks.action_rules import BOX_RULES, DISCRETE_RULES, combine_actions
from ripieno.tasks.labels import check_names
from ripieno.tasks.numbers import check_finite, check_form, read_numbers
from ripieno.tasks.spread import deviation
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Combiner, CoverageScore, Float32s, Floats, Ints, OutputActivation, Task

LARGEST_SEED = 1 << 24
"""Seeds of validation and test are at most this, exact in float32 as targets are. Those of training are larger."""


@final
class PolicyTask(TaskKind):
    """See `TaskKind`. Targets are seeds (episodes, 1) float32, predictions of the library returns (episodes, 1).

    What a model predicts is (observations, *task.output): see `Member.policy`.
    """

    name: ClassVar[str] = "policy"
    metrics: ClassVar[tuple[str, ...]] = ("negative_return", "return")
    default_metric: ClassVar[str] = "return"
    activation: ClassVar[OutputActivation] = "identity"
    training_losses: ClassVar[tuple[str, ...]] = ()
    training_options: ClassVar[tuple[str, ...]] = ()
    combiners: ClassVar[tuple[Combiner, ...]] = (*BOX_RULES, *DISCRETE_RULES)
    targets_name: ClassVar[str] = "seeds"
    outputs: ClassVar[tuple[str, ...]] = ("values", "action")
    coverage_scores: ClassVar[tuple[CoverageScore, ...]] = ()
    names_title: ClassVar[str] = "actions"
    calibrates: ClassVar[bool] = False
    keeps_likelihood: ClassVar[bool] = False
    has_returns: ClassVar[bool] = True
    diversity_title: ClassVar[str] = "mean difference of returns"
    diversity_is_share: ClassVar[bool] = False

    def check_task(self, task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless actions are named, and a box has finite bounds for each dimension, the lower one first.

        A single discrete action is refused: there is nothing to decide.
        """
        check_form(task, "actions", where, error)
        check_names(task.names, f"actions of {where}", error)
        if len(task.low) != len(task.high):
            raise error(f"{where}: actions have {len(task.low)} lower and {len(task.high)} upper bounds")
        if not task.low:
            if len(task.names) < 2:
                raise error(f"{where}: there is one action, so that nothing is to be decided; expected two or more")
            return
        if len(task.low) != len(task.names):
            raise error(f"{where}: actions have {len(task.names)} dimensions and bounds of {len(task.low)}")
        for name, low, high in zip(task.names, task.low, task.high, strict=True):
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise error(
                    f"{where}: action {name!r} is bounded by {low:g} and {high:g}; expected finite, rising ones"
                )

    def read_targets(self, values: Any, task: Task, where: str, error: type[RipienoError]) -> NDArray[Any]:
        """Return seeds, float32 (episodes, 1), from whole numbers of 0 to `LARGEST_SEED`."""
        numbers = read_numbers(values, (1,), where, error)
        if ((numbers < 0) | (numbers > LARGEST_SEED) | (numbers != np.floor(numbers))).any():
            raise error(f"{where} must be seeds: whole numbers of 0 to {LARGEST_SEED}")
        return numbers.astype(np.float32)

    def check_targets(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless these are different seeds, float32 (episodes, 1)."""
        if targets.ndim != 2 or targets.shape[1] != 1 or targets.dtype != np.float32:
            raise error(f"{where}: seeds are {targets.dtype} {targets.shape}, expected float32 (episodes, 1)")
        self.read_targets(targets, task, f"{where}: targets", error)
        values, counts = np.unique(targets, return_counts=True)
        if counts.max(initial=1) > 1:
            raise error(f"{where}: seed {values[counts.argmax()]:g} stands twice; expected different ones")

    def check_training(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Accept any seeds: a policy is trained on episodes of its own."""

    def balance_notes(self, targets: NDArray[Any], split: NDArray[np.uint8], task: Task) -> list[str]:
        """Return no notes: seeds have no balance."""
        return []

    def match_targets(
        self, targets: NDArray[Any], names: Sequence[str], task: Task, error: type[RipienoError]
    ) -> NDArray[Any]:
        """Return the seeds. Raises `error` where the actions have other names."""
        if tuple(names) != task.names:
            raise error(f"the actions are {', '.join(names)}, expected {', '.join(task.names)}")
        return targets

    def strata(self, targets: NDArray[Any]) -> Ints | None:
        """Return None: seeds have no strata."""
        return None

    def read_predictions(self, name: str, values: NDArray[Any], task: Task, error: type[RipienoError]) -> NDArray[Any]:
        """Return returns (episodes, 1) as floats. Raises `error` unless they are finite numbers of that shape."""
        if values.dtype.kind not in "fiub":
            raise error(f"{name}: returns are of type {values.dtype}, must be numbers")
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2 or values.shape[1] != 1:
            raise error(f"{name}: returns have shape {values.shape}, must be (episodes, 1)")
        values = values if values.dtype.kind == "f" else values.astype(np.float64)
        check_finite(values, f"{name}: returns", error)
        return values

    def kept_shape(self, task: Task) -> tuple[int, ...]:
        """Return (1,): of each episode its return."""
        return (1,)

    def likelihood(self, predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any] | None:
        """Return None: the return of an ensemble does not follow from those of its members."""
        return None

    def confidence(self, mean: NDArray[Any]) -> NDArray[Any] | None:
        """Return None: an action has no confidence."""
        return None

    def spread(self, predictions: NDArray[Any], mean: NDArray[Any], weights: Floats) -> Float32s:
        """Return the deviation of the members' outputs, (observations, *task.output)."""
        return deviation(predictions, weights)

    def errors(self, predictions: NDArray[Any], targets: NDArray[Any], thresholds: Sequence[float] = ()) -> Floats:
        """Return minus the return of each episode."""
        return np.asarray(-predictions.astype(np.float64).reshape(-1))

    def labels(self, predictions: NDArray[Any], task: Task, thresholds: Sequence[float] = ()) -> list[str] | None:
        """Return the name of the discrete action of the largest value (ties: the lowest); None for boxes."""
        return None if task.low else [task.names[action] for action in predictions.argmax(axis=-1)]

    def disagreement(self, predictions: Sequence[NDArray[Any]], targets: NDArray[Any]) -> list[float]:
        """Return the mean absolute difference of a member's returns from those of another one."""
        values = np.stack([np.asarray(p, np.float64).reshape(-1) for p in predictions])
        others = len(values) - 1
        return [float(np.abs(own - values).sum(axis=0).mean() / others) for own in values]

    def apply_combiner(
        self, predictions: NDArray[Any], weights: Sequence[float] | NDArray[Any] | None, combiner: Combiner
    ) -> Float32s:
        """Combine what policies return, (members, observations, *task.output), by a rule of `action_rules`."""
        return combine_actions(combiner, predictions, weights)
