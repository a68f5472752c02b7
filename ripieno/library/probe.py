"""Probes of a network that was trained elsewhere: which output holds its answers, and whether they can be believed.

Each raises LibraryError for what cannot be right, and appends to `notes` what a user should look at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.onnx import open_file
from ripieno.errors import LibraryError, error_summary
from ripieno.library.check import SUM_TOLERANCE
from ripieno.library.onnx_adapter import OnnxNetwork, Outputs

ROUNDING = 1e-3
"""How far a probability may move with the batch that its image is in: what kernels round differently."""
BROKEN = 0.05
"""From here on the batch decides, not rounding or quantisation."""
FLAT = (0.9, 1.001)
"""Between these lies the largest logarithm of two probabilities' ratio after a softmax of numbers in 0..1."""


def choose_output(
    network: OnnxNetwork,
    images: NDArray[np.generic],
    classes: int,
    tensor: str,
    outputs: Outputs,
    threads: int,
    notes: list[str],
) -> str:
    """Return the name of the output with the answers, (batch, classes), of the kind `outputs`; `tensor` asks for one.

    Runs one of `images`, and all of them. Raises LibraryError when none or several could be meant, when the network
    cannot answer batches of any size, and when its numbers are of another kind.
    """
    path, names = network.path, network.outputs
    if tensor and tensor not in names:
        raise LibraryError(f"{path} has no output {tensor!r}: its outputs are {', '.join(names)}")
    try:
        run = open_file(network.fed(), threads)
    except LibraryError as error:
        raise LibraryError(f"{path} {error}") from error
    alone = dict(zip(names, _run(network, run, images[:1]), strict=True))
    asked = [tensor] if tensor else names
    fitting = [name for name in asked if not _misfit(alone[name], classes)]
    if not fitting:
        seen = ", ".join(f"{name} is {_misfit(alone[name], classes)}" for name in asked)
        raise LibraryError(f"{path}: {seen}: an output must be numbers (batch, {classes}), one a class of the data set")
    if len(fitting) > 1:
        several = f"{len(fitting)} outputs that could be its answers ({', '.join(fitting)})"
        raise LibraryError(f"{path} has {several}: name the right one with --tensor (tensor=)")
    output = fitting[0]
    if len(asked) > 1:
        others = ", ".join(name for name in names if name != output)
        notes.append(f"{path}: of its outputs {output} was taken, not {others}: --tensor (tensor=) names another")
    together = _run(network, run, images)[names.index(output)]
    if together.shape != (len(images), classes):
        raise _bad_batch(network, len(images), f"{output} has the shape {together.shape}")
    check_kind(f"{path}: {output}", together, outputs)
    return output


def check_kind(what: str, values: NDArray[Any], outputs: Outputs) -> None:
    """Raise LibraryError when `values` (samples, classes) cannot be the `outputs` that they are said to be."""
    rows = values.astype(np.float64)
    if not np.isfinite(rows).all():
        return  # said later, with the sample's position
    low, high, sums = float(rows.min()), float(rows.max()), rows.sum(axis=1)
    sum_to_one = bool(np.abs(sums - 1).max() <= SUM_TOLERANCE)
    if outputs == "logits":
        if low >= 0 and sum_to_one:
            raise LibraryError(f"{what} holds probabilities, not logits: leave --outputs logits (outputs=) out")
        return
    if high <= SUM_TOLERANCE and np.abs(np.exp(rows).sum(axis=1) - 1).max() <= SUM_TOLERANCE:
        mend = "pass --outputs logits (outputs=), whose softmax makes them probabilities"
        raise LibraryError(f"{what} holds logarithms of probabilities: {mend}")
    if low < 0 or high > 1 + SUM_TOLERANCE:
        mend = "if they are logits, pass --outputs logits (outputs=)"
        raise LibraryError(f"{what} holds numbers from {low:.3g} to {high:.3g}, probabilities are in 0..1: {mend}")
    if not sum_to_one:
        mend = "if they come from a sigmoid for each class, export the network with a softmax"
        raise LibraryError(
            f"{what} holds numbers that sum to {sums.min():.3g} to {sums.max():.3g} for an image, "
            f"probabilities sum to 1: {mend}"
        )


def check_steady(
    name: str,
    infer: Callable[[NDArray[np.generic]], NDArray[Any]],
    images: NDArray[np.generic],
    notes: list[str],
) -> None:
    """Check that a network answers an image alone as in a batch of `images`, and twice the same.

    Raises LibraryError when a probability moves by more than `BROKEN`; from `ROUNDING` on a note says so.
    """
    mend = "export it in evaluation mode (model.eval())"
    together = infer(images)
    alone = np.concatenate([infer(images[i : i + 1]) for i in range(len(images))])
    again, apart = (float(np.abs(other - together).max()) for other in (infer(images), alone))
    manner = "answers an image differently with other images in its batch"
    if again > ROUNDING:
        manner = "answers the same batch differently each time"
    moved = float(np.max([again, apart]))
    if not moved <= BROKEN:  # so that no number is refused, too
        raise LibraryError(f"{name} {manner}, a probability by {moved:.2g}: {mend}")
    if moved > ROUNDING:
        notes.append(f"{name} {manner}, a probability by up to {moved:.2g}: if it is not quantised, {mend}")


def note_flat(name: str, values: NDArray[Any], notes: list[str]) -> None:
    """Note probabilities (samples, classes) that look like a softmax of numbers in 0..1, such as of probabilities."""
    logs = np.log(np.maximum(values.astype(np.float64), 1e-300))
    if FLAT[0] <= float((logs.max(axis=1) - logs.min(axis=1)).max()) <= FLAT[1]:
        notes.append(
            f"{name} is never surer than {values.max():.2f}, as if a softmax were applied to numbers in 0..1: "
            "a network that ends in a softmax or a sigmoid needs no second one"
        )


def _misfit(value: Any, classes: int) -> str:
    """Describe an output for one image that cannot be its answer; empty for one that can."""
    if not isinstance(value, np.ndarray):
        return "a sequence of maps (export it with zipmap=False)" if isinstance(value, list) else "no tensor"
    fits = value.dtype.kind == "f" and value.ndim == 2 and value.shape[1] == classes
    return "" if fits else f"{value.dtype} of shape {value.shape}"


def _run(network: OnnxNetwork, run: Callable[[NDArray[np.generic]], list[Any]], images: NDArray[np.generic]) -> Any:
    try:
        return run(images)
    except Exception as error:  # whatever a foreign graph makes its runtime raise
        raise _bad_batch(network, len(images), error_summary(error)[:200]) from error


def _bad_batch(network: OnnxNetwork, size: int, why: str) -> LibraryError:
    made = f", being made for batches of {network.batch}" if network.batch else ""
    mend = "a network that was exported for one batch size must be exported with a batch axis of any size"
    return LibraryError(f"{network.path} cannot answer a batch of {size}{made} ({why}): {mend}")
