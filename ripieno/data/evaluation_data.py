"""Samples with targets to evaluate predictions on: every source that `tune` accepts, in the form of a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ripieno.data.cifar import is_cifar
from ripieno.data.dataset import batches, open_dataset
from ripieno.data.idx import is_idx
from ripieno.data.image_folder import find_pictures
from ripieno.data.load import read_samples
from ripieno.data.pixels import fit_array
from ripieno.data.prediction_inputs import BATCH, stream_inputs
from ripieno.data.samples import UNASSIGNED
from ripieno.errors import DataError
from ripieno.tasks.labels import label_indices
from ripieno.types import SPLITS, Dataset, Input, Task

EvaluationSplit = Literal["auto", "train", "valid", "test", "all"]
"""Samples to evaluate on; `auto`: the test split where the data has one, else all samples."""


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """Samples of one split, with their targets in the order and form of a task."""

    split: str
    """`train`, `valid`, `test` or `all`"""
    inputs: Sequence[Path] | NDArray[Any]
    """pictures, or an array (samples, ...), of all splits"""
    rows: NDArray[np.int64]
    """(samples,): indices into `inputs`"""
    targets: NDArray[Any]
    """of the samples at `rows`, as in `Dataset.targets`"""

    def batches(self, wanted: Input) -> Iterator[tuple[list[str], NDArray[Any]]]:
        """Yield names and inputs (samples, *wanted.shape), a batch at a time. Raises DataError for other inputs."""
        if not isinstance(self.inputs, np.ndarray):
            yield from stream_inputs([self.inputs[row] for row in self.rows], wanted)
            return
        for number, block in enumerate(batches(self.inputs, self.rows, BATCH)):
            names = [f"[{row}]" for row in self.rows[number * BATCH : number * BATCH + len(block)]]
            yield names, fit_array(block, wanted)


def read_evaluation_data(
    source: Any, wanted: Input, task: Task, split: EvaluationSplit = "auto", notes: list[str] | None = None
) -> EvaluationData:
    """Read the targets of `source`, and where its inputs are; pictures are not read yet.

    `source` is what `ripieno.data.load_dataset` takes. Its classes are matched with those of `task` by name. Raises
    DataError, in one line, for other classes, inputs of another shape, and a split that the source does not have.
    """
    if split not in get_args(EvaluationSplit):
        raise DataError(f"split {split!r} is unknown: expected {', '.join(get_args(EvaluationSplit))}")
    notes = [] if notes is None else notes
    if isinstance(source, str | Path) and _is_picture_folder(Path(source)):
        pictures, _ = find_pictures(Path(source), notes)
        inputs: Sequence[Path] | NDArray[Any] = [picture.path for picture in pictures]
        given = np.array([-1 if p.split == "train" else SPLITS.index(p.split) for p in pictures])
        names, targets = None, np.array([picture.label for picture in pictures])
    elif isinstance(source, Dataset) or (isinstance(source, str | Path) and (Path(source) / "dataset.json").is_file()):
        dataset = source if isinstance(source, Dataset) else open_dataset(source)
        inputs, given, names, targets = dataset.inputs, dataset.split, dataset.task.names, dataset.targets
    else:
        samples = read_samples(source, wanted.shape[0] if len(wanted.shape) == 3 else None, notes)
        inputs, given, names, targets = samples.images, samples.fixed_split, samples.classes, samples.labels
    if isinstance(inputs, np.ndarray):
        fit_array(np.asarray(inputs[:1]), wanted, "inputs")
    chosen, rows = _rows(given, split)
    found = targets[rows] if names is None else np.array(names)[targets[rows]]
    return EvaluationData(chosen, inputs, rows, label_indices(found, task.names, "the data's labels", DataError))


def _is_picture_folder(path: Path) -> bool:
    return path.is_dir() and not ((path / "dataset.json").is_file() or is_cifar(path) or is_idx(path))


def _rows(given: NDArray[Any], split: EvaluationSplit) -> tuple[str, NDArray[np.int64]]:
    """Return the split evaluated and its rows; `given` (samples,) is an index into `SPLITS`, or `UNASSIGNED`."""
    if split == "auto":
        split = "test" if (given == SPLITS.index("test")).any() else "all"
    if split == "all":
        return split, np.arange(len(given))
    number = SPLITS.index(split)
    rows = np.flatnonzero((given == number) | ((given == UNASSIGNED) & (number == 0)))
    if not len(rows):
        raise DataError(f"the data has no {split} split: pass --split all to evaluate on all samples")
    return split, rows
