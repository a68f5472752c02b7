"""Interface of a kind of task: checks of targets, checks and metrics of predictions, combiners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.types import Combiner, Float32s, Floats, Ints, Task

OutputActivation = Literal["softmax", "sigmoid", "identity"]


class TaskKind(Protocol):
    """One kind of task. `targets` are as in `Dataset`, `predictions` (samples, *task.output), activated."""

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    """keys of `metrics.METRICS`: the ranking metric first, then the scores"""
    activation: ClassVar[OutputActivation]
    """from a network's outputs to predictions"""
    combiners: ClassVar[tuple[Combiner, ...]]
    outputs: ClassVar[tuple[str, ...]]
    """names of a server's output tensors: the predictions, then the labels where the kind has any"""

    def check_task(self, task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error`, naming `where`, unless names and shape of the output fit the kind."""
        ...

    def check_targets(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error`, naming `where`, unless `targets` have type, shape and values of the task."""
        ...

    def check_training(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless a model can be trained on `targets`, those of the training split."""
        ...

    def strata(self, targets: NDArray[Any]) -> Ints | None:
        """Return a stratum (samples,) for each sample, by which splits are stratified; None: splits are random."""
        ...

    def read_predictions(self, name: str, values: NDArray[Any], task: Task, error: type[RipienoError]) -> NDArray[Any]:
        """Return `values` as floats. Raises `error` unless they are predictions of the task."""
        ...

    def likelihood(self, predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any] | None:
        """Return the row of likelihoods that the loss of a mean needs; None where it needs the predictions."""
        ...

    def confidence(self, mean: NDArray[Any]) -> NDArray[Any] | None:
        """Return how certain the combined predictions `mean` are (samples,), 0..1; None where that is unknown."""
        ...

    def spread(self, predictions: NDArray[Any], mean: NDArray[Any], weights: Floats) -> Float32s:
        """Return the disagreement of the members, (samples,) or (samples, *task.output), as a standard deviation.

        `predictions` are (members, samples, *task.output), `mean` their combination, `weights` (members,) of sum 1.
        """
        ...

    def labels(self, predictions: NDArray[Any], task: Task, thresholds: Sequence[float] = ()) -> list[str] | None:
        """Return the label of each sample as text; None for values. `thresholds`: as in `Ensemble`."""
        ...
