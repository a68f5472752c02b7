"""The pipeline as scikit-learn estimators: `fit` searches, selects and writes a bundle, `predict` runs the ensemble.

A fitted estimator holds a bundle in a folder: the user's `run`, or a temporary one that is removed with the estimator.
Copies and pickles hold the bundle's bytes, so that a fitted estimator needs no other files.
"""

from __future__ import annotations

import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno import clock, files
from ripieno.data.data_frame import data_frame_columns, is_data_frame
from ripieno.data.feature_table import open_table, read_features
from ripieno.data.load import dataset_of
from ripieno.data.pixels import fit_array, laid_out
from ripieno.data.raw_columns import take_columns
from ripieno.data.samples import Samples, SplitArrays, given_of, join
from ripieno.data.series import fit_series, unequal_series
from ripieno.errors import DataError, require
from ripieno.library import read_bundle, write_bundle
from ripieno.notes import Notes
from ripieno.pipeline.costs import export_members
from ripieno.pipeline.execution import PoolName
from ripieno.pipeline.prediction import predict
from ripieno.pipeline.search_options import FreeMembers, SearchOptions
from ripieno.pipeline.selection import select
from ripieno.pipeline.tuning import tune
from ripieno.tasks.display import loss_title
from ripieno.tasks.registry import kind_of
from ripieno.types import Allocation, ColumnKind, DataKind, Dataset, Folds, Input, Placement, Task

if TYPE_CHECKING:
    from ripieno.search.algorithms import Algorithm
    from ripieno.search.progress import Snapshot

require("sklearn")
from sklearn.base import BaseEstimator  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402

BATCH = 64
"""Samples of a batch when predicting."""
BUNDLE = "estimator"
"""Folder of the bundle within the run."""
MINUTES = 5.0
"""Length of a fit without `hours` and `trials`."""
SELECTION_SHARE, SELECTION_SECONDS = 0.1, 300.0
"""Share of the time of a fit that is kept for selection and export, and the most seconds of it."""


def search_hours(hours: float, kept: float, spent: float) -> float:
    """Return the hours of the search of a fit of `hours`, of which `spent` seconds are over and `kept` are kept.

    A search has a tenth of the hours at least.
    """
    return max(0.1 * hours, hours - (kept + spent) / 3600)


class EnsembleEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of `EnsembleClassifier` and `EnsembleRegressor`: parameters, search, samples and copies."""

    def __init__(
        self,
        budget: float | Mapping[str, float] | None = None,
        hours: float | None = None,
        *,
        trials: int | None = None,
        epochs: int | None = None,
        space: str = "auto",
        family: str | None = None,
        algorithm: str | Path | Algorithm = "hyperband",
        free: FreeMembers = SearchOptions.free,
        weights: str | Path | None = None,
        metric: str | None = None,
        size: int | None = None,
        split: tuple[float, float, float] = (0.80, 0.15, 0.05),
        folds: Folds = "auto",
        kind: DataKind | None = None,
        column: Mapping[str, ColumnKind] | None = None,
        slots: int | None = None,
        pool: PoolName = "local",
        device: str = "auto",
        run: str | Path | None = None,
        random_state: int | None = 0,
        verbose: int = 0,
    ) -> None:
        self.budget = budget
        self.hours = hours
        self.trials = trials
        self.epochs = epochs
        self.space = space
        self.family = family
        self.algorithm = algorithm
        self.free = free
        self.weights = weights
        self.metric = metric
        self.size = size
        self.split = split
        self.folds = folds
        self.kind = kind
        self.column = column
        self.slots = slots
        self.pool = pool
        self.device = device
        self.run = run
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Search, select an ensemble under the budget and write its bundle; the class describes `X` and `y`."""
        started = clock.now()
        seed = int(self.random_state or 0)
        notes = self._notes()
        try:
            samples = self._samples(X, y, notes)
            dataset = dataset_of(samples, self.size, self.split, seed, self.metric, notes, folds=self.folds)
            kind_of(dataset.task).check_training(dataset.targets[dataset.rows("train")], dataset.task, "y", DataError)
        except DataError as error:
            raise ValueError(str(error)) from error
        self._search(dataset, self._own_folder() if self.run is None else Path(self.run), seed, started)
        return self

    @abstractmethod
    def _read_targets(self, y: Any) -> tuple[NDArray[Any], Task]:
        """Return checked targets as in `Dataset`, with their task; keep what `predict` needs. Raises ValueError."""

    def _outputs(self, X: ArrayLike) -> NDArray[np.float32]:  # noqa: N803
        """Return predictions (samples, *task.output)."""
        check_is_fitted(self)
        inputs = self._inputs(X)
        if self.size is not None and inputs.shape[1:3] != (self.size, self.size):
            from ripieno.data.image_io import resize

            inputs = resize(inputs, self.size)
        return predict(self.bundle_, inputs)

    def _notes(self) -> Notes:
        return Notes(self._say) if self.verbose else Notes()

    def _say(self, text: str) -> None:
        print(f"[{type(self).__name__}] {text}", flush=True)  # noqa: T201

    def _own_folder(self) -> Path:
        """Make a temporary folder; it is removed with this estimator, or when `fit` is called again."""
        if remove := getattr(self, "_remove_folder", None):
            remove()
        folder = Path(tempfile.mkdtemp(prefix="ripieno-"))
        self._remove_folder = weakref.finalize(self, files.remove_tree, folder)
        return folder

    def _search(self, dataset: Dataset, folder: Path, seed: int, started: float) -> None:
        from ripieno.profiles import local_devices

        def watch(snapshot: Snapshot) -> None:
            if snapshot.finished and snapshot.best_loss is not None:
                best = f"best {loss_title(dataset.task)} {snapshot.best_loss:.4g}"
                self._say(f"{snapshot.seconds:.0f} s: {snapshot.trials} trials, {snapshot.members} members, {best}")

        hours = MINUTES / 60 if self.hours is None and self.trials is None else self.hours
        kept = None  # seconds of the selection
        if isinstance(hours, int | float) and hours > 0:  # another value is refused by the search
            kept = min(SELECTION_SECONDS, SELECTION_SHARE * 3600 * hours)
            hours = search_hours(hours, kept, clock.now() - started)
        library = tune(
            dataset,
            folder,
            hours=hours,
            trials=self.trials,
            epochs=self.epochs,
            space=self.space,
            family=self.family,
            algorithm=self.algorithm,
            free=self.free,
            weights=self.weights,
            budget=self.budget,
            seed=seed,
            slots=self.slots,
            pool=self.pool,
            device=self.device,
            metric=self.metric,
            watch=watch if self.verbose else None,
        )
        # half of what is kept: the other half is for selection and export
        self.ensemble_ = select(library, self.budget, measuring=None if kept is None else kept / 2)[-1]
        export_members(library, [library.member(m) for m in self.ensemble_.members])
        cpu = local_devices("cpu")[0]
        placements = tuple(Placement(m, cpu.name, BATCH) for m in self.ensemble_.members)
        allocation = Allocation(self.ensemble_.name, self.ensemble_.name, (cpu,), placements)
        self.run_ = folder
        self.bundle_ = write_bundle(library, self.ensemble_, allocation, "onnx", folder / BUNDLE)
        if self.verbose:
            self._say(f"{len(self.ensemble_.members)} of {len(library.ids())} members are in the ensemble")

    # samples

    def _samples(self, X: Any, y: ArrayLike, notes: list[str]) -> Samples:  # noqa: N803
        """Return the samples to fit, and keep their shape: (columns,), (length, channels) or that of images."""
        kind = self._data_kind(X)
        if kind == "table":
            return self._rows(X, y)
        inputs = X if unequal_series(X) is not None else np.asarray(X)
        targets, task = self._targets(y, len(inputs))
        part = SplitArrays(inputs, targets, "X")
        samples = join("X", [part], list(task.names), notes, positions=True, task=task.kind, kind=kind)
        self.n_features_in_ = int(np.prod(samples.inputs.shape[1:]))
        self.sample_shape_: tuple[int, ...] = tuple(int(n) for n in samples.inputs.shape[1:])
        return samples

    def _rows(self, X: Any, y: ArrayLike) -> Samples:  # noqa: N803
        """Return the rows of a table to fit: numbers, or the named columns of a data frame."""
        raw = None
        if is_data_frame(X):
            columns = data_frame_columns(X, "X")
            raw = take_columns(columns, "X", self.column or {}, left_out={})
            self.feature_names_in_ = np.array(list(columns), dtype=object)
            self.n_features_in_ = len(columns)
            inputs, values = np.empty((len(next(iter(columns.values()))), 0), np.float32), np.asarray(y)
        elif self.column:
            raise ValueError(f"column names {next(iter(self.column))!r}, but X has no named columns: pass a data frame")
        else:
            # float32 here, so that this check rejects values that overflow it as infinite
            options: dict[str, Any] = {"dtype": np.float32, "ensure_all_finite": "allow-nan"}
            inputs, values = validate_data(self, X, y, multi_output=True, **options)
        targets, task = self._targets(values, len(inputs))
        self.sample_shape_ = (self.n_features_in_,)
        return Samples("X", inputs, targets, given_of("train", len(inputs)), task, "table", raw)

    def _targets(self, y: ArrayLike, samples: int) -> tuple[NDArray[Any], Task]:
        """Return the targets of `samples` samples, with their task."""
        values = np.asarray(y)
        if samples < 2:
            raise ValueError(f"n_samples={samples} is too few: give at least two samples")
        if len(values) != samples:
            raise ValueError(f"X has {samples:,} samples, but y has {len(values):,} targets: give one for each")
        return self._read_targets(values)

    def _data_kind(self, X: Any) -> DataKind | None:  # noqa: N803
        """Return the kind of data of `X`; None for arrays of three axes or more, whose shape and type decide."""
        if self.kind not in (None, *get_args(DataKind)):
            raise ValueError(f"kind is {self.kind!r}: it must be {', '.join(get_args(DataKind))}")
        if self.kind is None and is_data_frame(X):
            return "table"
        if self.kind is None and unequal_series(X) is not None:
            return "series"
        return "table" if self.kind is None and getattr(X, "ndim", 2) <= 2 else self.kind

    def _inputs(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the samples to predict as the bundle takes them. Raises ValueError for others than those fitted on."""
        axes, fitted = getattr(X, "ndim", 2), self.bundle_.input
        try:
            if fitted.columns:
                return read_features(open_table(self._named(X)), fitted.columns, self._notes())
            if len(self.sample_shape_) == 1 and axes <= 2:
                options: dict[str, Any] = {"dtype": np.float32, "ensure_all_finite": "allow-nan"}
                rows: NDArray[Any] = validate_data(self, X, reset=False, **options)
                return rows.reshape(len(rows), *fitted.shape)  # version 1 took rows as images of one pixel
            if len(self.sample_shape_) == 2:
                return fit_series(X, fitted, "series of X", self._notes())
            if axes > 2 and laid_out(np.asarray(X), self.sample_shape_) is not None:
                return fit_array(X, Input(self.sample_shape_, fitted.dtype, fitted.range))
        except DataError as error:
            raise ValueError(f"X: {error}") from error
        shape = np.shape(X)[1:]
        raise ValueError(f"X has samples of shape {shape}, the estimator was fitted on {self.sample_shape_}: reshape X")

    def _named(self, X: Any) -> Any:  # noqa: N803
        """Return a table with the names of its columns: those of fitting, in their order, where it has none."""
        if is_data_frame(X):
            return X
        values = np.asarray(X)
        if values.ndim != 2 or values.shape[1] != self.n_features_in_:
            expected = f"(samples, {self.n_features_in_}), or a data frame"
            raise ValueError(f"X has shape {values.shape}, the estimator was fitted on {expected}")
        return dict(zip(self.feature_names_in_, values.T, strict=True))

    # copies

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_remove_folder", None)
        if "bundle_" in state:
            root = self.bundle_.path
            paths = [p for p in sorted(root.rglob("*")) if p.is_file()]
            state["_bytes"] = {str(p.relative_to(root)): p.read_bytes() for p in paths}
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        kept = {"kind": None, "column": None, **state}  # version 1 had neither
        content: dict[str, bytes] = kept.pop("_bytes", {})
        super().__setstate__(kept)
        if content:
            self.run_ = self._own_folder()
            for name, data in content.items():
                files.write_bytes(self.run_ / BUNDLE / name, data)
            self.bundle_ = read_bundle(self.run_ / BUNDLE)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        return tags
