"""The pipeline as a scikit-learn classifier: `fit` searches, selects and writes a bundle, `predict` runs the ensemble.

A fitted classifier holds a bundle in a folder: the user's `run`, or a temporary one that is removed with the
classifier. Copies and pickles hold the bundle's bytes, so that a fitted classifier needs no other files.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno import files
from ripieno.data.load import dataset_of
from ripieno.data.pixels import fit_array, laid_out
from ripieno.data.samples import Samples, SplitArrays, given_of, join
from ripieno.errors import DataError, require
from ripieno.library import read_bundle, write_bundle
from ripieno.notes import Notes
from ripieno.pipeline.costs import export_members
from ripieno.pipeline.execution import PoolName
from ripieno.pipeline.prediction import predict
from ripieno.pipeline.selection import select
from ripieno.pipeline.tuning import tune
from ripieno.types import Allocation, Dataset, Input, Metric, Placement, classification

require("sklearn")
from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data  # noqa: E402

BATCH = 64
"""Samples of a batch when predicting."""


class EnsembleClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier: an ensemble of networks under a budget.

    Samples are images (samples, height, width[, channels]), uint8 or float, or rows of a table (samples, features). A
    row becomes an image of one pixel with one channel per feature.

    - `budget`: bound of the cost of all members together: seconds for 2,000 samples, or a mapping of kinds of cost to
      bounds, see `ripieno.select`. None: eight times the cost of the best network.
    - `hours`, `trials`: length of the search; one hour when both are None. With `trials` alone, and a budget that is
      counted (`{"parameters": 1e6}`) and not measured, the same data and `random_state` give the same classifier.
    - `epochs`, `space`, `family`, `algorithm`, `metric`, `size`, `slots`, `pool`, `device`: those of `ripieno.tune`;
      `space` is by default `resnet-table` for tables.
    - `split`: shares of the samples for training, validation (choice of members) and test; each class needs a sample in
      each of the three.
    - `run`: folder of the run, which is kept and resumed; None: a temporary one.

    Attributes after `fit`: `classes_` (classes,), `n_features_in_` (values of a sample), `sample_shape_`, `ensemble_`,
    `bundle_` (for serving, benchmarks and export), `run_` (the run's folder).

    Raises ValueError, in one line, for samples or labels that cannot be used; RipienoError as `ripieno.tune`.
    """

    def __init__(
        self,
        budget: float | Mapping[str, float] | None = None,
        hours: float | None = None,
        *,
        trials: int | None = None,
        epochs: int = 27,
        space: str = "auto",
        family: str | None = None,
        algorithm: str = "hyperband",
        metric: Metric = "accuracy",
        size: int | None = None,
        split: tuple[float, float, float] = (0.80, 0.15, 0.05),
        slots: int | None = None,
        pool: PoolName = "local",
        device: str = "auto",
        run: str | Path | None = None,
        random_state: int | None = 0,
    ) -> None:
        self.budget = budget
        self.hours = hours
        self.trials = trials
        self.epochs = epochs
        self.space = space
        self.family = family
        self.algorithm = algorithm
        self.metric = metric
        self.size = size
        self.split = split
        self.slots = slots
        self.pool = pool
        self.device = device
        self.run = run
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> EnsembleClassifier:  # noqa: N803
        """Search, select an ensemble under the budget and write its bundle; `y` (samples,) holds numbers or names."""
        seed = int(self.random_state or 0)
        try:
            dataset = dataset_of(self._samples(X, y), self.size, self.split, seed, self.metric, Notes())
        except DataError as error:
            raise ValueError(str(error)) from error
        self._search(dataset, self._own_folder() if self.run is None else Path(self.run), seed)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:  # noqa: N803
        """Return probabilities (samples, classes), in the order of `classes_`."""
        check_is_fitted(self)
        images = self._images(X)
        if self.size is not None and images.shape[1:3] != (self.size, self.size):
            from ripieno.data.image_io import resize

            images = resize(images, self.size)
        return predict(self.bundle_, images)

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each sample, as it is in `y`."""
        check_is_fitted(self)
        answers: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return answers

    def _own_folder(self) -> Path:
        """Make a temporary folder; it is removed with this classifier, or when `fit` is called again."""
        if remove := getattr(self, "_remove_folder", None):
            remove()
        folder = Path(tempfile.mkdtemp(prefix="ripieno-"))
        self._remove_folder = weakref.finalize(self, files.remove_tree, folder)
        return folder

    def _search(self, dataset: Dataset, folder: Path, seed: int) -> None:
        from ripieno.profiles import local_devices

        table = dataset.inputs.shape[1:3] == (1, 1)
        library = tune(
            dataset,
            folder,
            hours=self.hours,
            trials=self.trials,
            epochs=self.epochs,
            space="resnet-table" if table and self.space == "auto" else self.space,
            family=self.family,
            algorithm=self.algorithm,
            seed=seed,
            slots=self.slots,
            pool=self.pool,
            device=self.device,
            metric=self.metric,
        )
        self.ensemble_ = select(library, self.budget)[-1]
        export_members(library, [library.member(m) for m in self.ensemble_.members])
        cpu = local_devices("cpu")[0]
        placements = tuple(Placement(m, cpu.name, BATCH) for m in self.ensemble_.members)
        allocation = Allocation(self.ensemble_.name, self.ensemble_.name, (cpu,), placements)
        self.run_ = folder
        self.bundle_ = write_bundle(library, self.ensemble_, allocation, "onnx", folder / "classifier")

    # samples

    def _samples(self, X: ArrayLike, y: ArrayLike) -> Samples:  # noqa: N803
        """Return the samples to fit as images, and keep their classes and shape."""
        are_images = getattr(X, "ndim", 2) > 2
        if are_images:
            rows, labels = np.asarray(X), column_or_1d(y, warn=True)
        else:
            # float32 here, so that this check rejects values that overflow it as infinite
            rows, labels = validate_data(self, X, y, dtype=np.float32)
            rows, labels = rows[:, None, None, :], column_or_1d(labels, warn=True)
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
        if len(rows) < 2:
            raise ValueError(f"n_samples={len(rows)} is too few: give samples of at least two classes")
        if len(classes) < 2:
            raise ValueError(f"y holds only the class {classes[0]!r}: there must be two classes or more")
        names = [str(c) for c in classes]
        if are_images:
            samples = join("X", [SplitArrays(rows, codes, "X")], names, Notes(), positions=True, kind="image")
            self.n_features_in_ = int(np.prod(samples.inputs.shape[1:]))
        else:
            samples = Samples("X", rows, codes.astype(np.int64), given_of("train", len(rows)), classification(names))
        self.classes_ = classes
        self.sample_shape_ = tuple(int(n) for n in (samples.inputs.shape[1:] if are_images else rows.shape[-1:]))
        return samples

    def _images(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the samples to predict as images."""
        are_images, fitted_on_images = getattr(X, "ndim", 2) > 2, len(self.sample_shape_) > 1
        if not are_images and not fitted_on_images:
            rows: NDArray[Any] = validate_data(self, X, dtype=np.float32, reset=False)
            return rows[:, None, None, :]
        if are_images and fitted_on_images and laid_out(np.asarray(X), self.sample_shape_) is not None:
            fitted = self.bundle_.input
            try:
                return fit_array(X, Input(self.sample_shape_, fitted.dtype, fitted.range))
            except DataError as error:
                raise ValueError(f"X: {error}") from error
        shape = np.shape(X)[1:]
        raise ValueError(
            f"X has samples of shape {shape}, the classifier was fitted on {self.sample_shape_}: reshape X"
        )

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
        kept = dict(state)
        content: dict[str, bytes] = kept.pop("_bytes", {})
        super().__setstate__(kept)
        if content:
            self.run_ = self._own_folder()
            for name, data in content.items():
                files.write_bytes(self.run_ / "classifier" / name, data)
            self.bundle_ = read_bundle(self.run_ / "classifier")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
