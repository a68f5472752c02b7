"""Probes of an externally trained network: which output has its predictions, and whether they are plausible.

Each raises LibraryError for an impossible value, and appends a warning to `notes` for a suspicious one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.onnx import open_file
from ripieno.errors import LibraryError, error_summary
from ripieno.library.onnx_adapter import ModelOutputs, OnnxNetwork, PredictionTensor
from ripieno.tasks.probabilities import HIGHEST, SUM_TOLERANCE
from ripieno.tasks.registry import kind_of
from ripieno.types import OutputActivation, Task

ROUNDING = 1e-3
"""Largest change of a probability with the batch of its sample that rounding in kernels explains."""
NOUNS: Mapping[OutputActivation, str] = {"softmax": "class", "sigmoid": "label", "identity": "target"}
"""Names of an output in messages, by activation."""
BROKEN = 0.05
"""Change above which the batch is the cause, not rounding or quantisation."""
FLAT = (0.9, 1.001)
"""Range of the largest logarithm of two probabilities' ratio after a softmax of numbers in 0..1."""


def choose_output(
    network: OnnxNetwork,
    images: NDArray[np.generic],
    task: Task,
    tensor: str,
    outputs: ModelOutputs,
    notes: list[str],
) -> PredictionTensor:
    """Return the output with the predictions, (batch, classes), of the kind `outputs`; `tensor` names one.

    Those of pixels are (batch, height, width, classes) or (batch, classes, height, width); logits may have smaller
    sides, by a whole factor. Runs one of `images`, and all of them. Raises LibraryError when none or several outputs
    are suitable, when the network does not accept batches of any size, and when its numbers are of another kind.
    """
    path, names = network.path, network.outputs
    kind = kind_of(task)
    if tensor and tensor not in names:
        raise LibraryError(f"{path} has no output {tensor!r}; its outputs are {', '.join(names)}")
    try:
        run = open_file(network.fed())
    except LibraryError as error:
        raise LibraryError(f"{path} {error}") from error
    alone = dict(zip(names, _run(network, run, images[:1]), strict=True))
    considered = [tensor] if tensor else names
    found = {name: _fit(name, alone[name], task, outputs) for name in considered}
    fitting = [tensor for tensor in found.values() if isinstance(tensor, PredictionTensor)]
    if not fitting:
        actual = ", ".join(f"{name} is {misfit}" for name, misfit in found.items())
        expected = f"(batch, {', '.join(map(str, task.output))})"
        if kind.is_pixelwise:
            height, width, classes = task.output
            expected += f" or (batch, {classes}, {height}, {width})"
        raise LibraryError(
            f"{path}: {actual}; an output must be numbers {expected}, one per {NOUNS[kind.activation]} of the data"
        )
    if len(fitting) > 1:
        several = (
            f"{len(fitting)} possible outputs for its predictions ({', '.join(tensor.name for tensor in fitting)})"
        )
        raise LibraryError(f"{path} has {several}; name the right one with --tensor (tensor=)")
    output = fitting[0]
    if len(considered) > 1:
        unused = ", ".join(name for name in names if name != output.name)
        notes.append(f"{path}: uses the output {output.name}, not {unused}; --tensor (tensor=) selects another")
    together = _run(network, run, images)[names.index(output.name)]
    if together.shape != (len(images), *alone[output.name].shape[1:]):
        raise _bad_batch(network, len(images), f"{output.name} has the shape {together.shape}")
    if output.channels_first:
        together = np.moveaxis(together, 1, -1)
    check_kind(f"{path}: {output.name}", together.reshape(-1, together.shape[-1]), outputs, kind.activation)
    return output


def check_kind(what: str, values: NDArray[Any], outputs: ModelOutputs, activation: OutputActivation) -> None:
    """Raise LibraryError when `values` (samples, outputs) cannot be of the declared kind `outputs`.

    `activation` is that of the task. Values of a regression have no logits.
    """
    if activation == "identity":
        if outputs == "logits":
            raise LibraryError(f"{what} holds values of a regression; leave out --outputs logits (outputs=)")
        return
    rows = values.astype(np.float64)
    if not np.isfinite(rows).all():
        return  # reported later, with the sample's position
    low, high, sums = float(rows.min()), float(rows.max()), rows.sum(axis=1)
    classes = activation == "softmax"
    sum_to_one = classes and bool(np.abs(sums - 1).max() <= SUM_TOLERANCE)
    if outputs == "logits":
        if low >= 0 and sum_to_one:
            raise LibraryError(f"{what} holds probabilities, not logits; leave out --outputs logits (outputs=)")
        return
    if classes and high <= SUM_TOLERANCE and np.abs(np.exp(rows).sum(axis=1) - 1).max() <= SUM_TOLERANCE:
        remedy = "pass --outputs logits (outputs=), for which ripieno applies the softmax"
        raise LibraryError(f"{what} holds logarithms of probabilities; {remedy}")
    if low < 0 or high > HIGHEST:
        remedy = "if they are logits, pass --outputs logits (outputs=)"
        raise LibraryError(
            f"{what} holds numbers from {low:.3g} to {high:.3g}, expected probabilities in 0..1; {remedy}"
        )
    if classes and not sum_to_one:
        remedy = "if they come from a sigmoid for each class, export the network with a softmax"
        raise LibraryError(
            f"{what} holds numbers that sum to {sums.min():.3g} to {sums.max():.3g} for a sample, "
            f"expected probabilities with the sum 1; {remedy}"
        )


def check_steady(
    name: str,
    infer: Callable[[NDArray[np.generic]], NDArray[Any]],
    images: NDArray[np.generic],
    notes: list[str],
    unit: float = 1.0,
) -> None:
    """Check that a network predicts the same for a sample alone and in a batch of `images`, and in two runs.

    Raises LibraryError when a probability, or a value in `unit`, changes by more than `BROKEN`; above `ROUNDING` a note
    is added.
    """
    remedy = "export it in evaluation mode (model.eval())"
    together = infer(images)
    alone = np.concatenate([infer(images[i : i + 1]) for i in range(len(images))])
    again, apart = (float(np.abs(other - together).max()) / unit for other in (infer(images), alone))
    finding = "predicts a sample differently with other samples in its batch"
    if again > ROUNDING:
        finding = "predicts the same batch differently each time"
    moved = float(np.max([again, apart]))
    if not moved <= BROKEN:  # also rejects NaN
        raise LibraryError(f"{name} {finding}, a probability by {moved:.2g}; {remedy}")
    if moved > ROUNDING:
        notes.append(f"{name} {finding}, a probability by up to {moved:.2g}; if it is not quantised, {remedy}")


def note_flat(name: str, values: NDArray[Any], notes: list[str]) -> None:
    """Note probabilities (samples, ..., classes) that look like a softmax of numbers in 0..1, e.g. of probabilities."""
    logs = np.log(np.maximum(values.astype(np.float64), 1e-300))
    if FLAT[0] <= float((logs.max(axis=-1) - logs.min(axis=-1)).max()) <= FLAT[1]:
        notes.append(
            f"{name} has no probability above {values.max():.2f}, as if a softmax were applied to numbers in 0..1; "
            "a network that ends in a softmax or a sigmoid needs no second one"
        )


def _fit(name: str, value: Any, task: Task, outputs: ModelOutputs) -> PredictionTensor | str:
    """Return the output `name` for one sample as one with predictions, or a description of why it cannot be one."""
    if not isinstance(value, np.ndarray):
        return "a sequence of maps (export it with zipmap=False)" if isinstance(value, list) else "no tensor"
    misfit = f"{value.dtype} of shape {value.shape}"
    if value.dtype.kind != "f":
        return misfit
    if not kind_of(task).is_pixelwise:
        return PredictionTensor(name) if value.shape == (1, len(task.names)) else misfit
    height, width, classes = task.output
    if value.shape == (1, *task.output):
        return PredictionTensor(name)
    if value.ndim != 4 or value.shape[1] != classes:
        return misfit
    factor = max(1, height // max(1, value.shape[2]))
    whole = (value.shape[2] * factor, value.shape[3] * factor) == (height, width)
    # probabilities between places are no means of theirs
    return PredictionTensor(name, True, factor) if whole and (factor == 1 or outputs == "logits") else misfit


def _run(network: OnnxNetwork, run: Callable[[NDArray[np.generic]], list[Any]], images: NDArray[np.generic]) -> Any:
    try:
        return run(images)
    except Exception as error:  # a foreign graph may cause any exception
        raise _bad_batch(network, len(images), error_summary(error)[:200]) from error


def _bad_batch(network: OnnxNetwork, size: int, why: str) -> LibraryError:
    fixed = f", because it has the fixed batch size {network.batch}" if network.batch else ""
    remedy = "export it with a batch axis of any size"
    return LibraryError(f"{network.path} cannot predict a batch of {size}{fixed} ({why}); {remedy}")
