"""The flow as a scikit-learn classifier: `fit` searches, selects and packs, `predict` asks the ensemble.

What is fitted is a bundle in a folder. Without a folder of the user's it lies in a temporary one that goes with the
classifier; copies and pickles carry the bundle's bytes with them, so that a fitted classifier is whole by itself.
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
from ripieno.pipeline.deployment import predict
from ripieno.pipeline.ensembles import select
from ripieno.pipeline.execution import PoolName
from ripieno.pipeline.tuning import tune
from ripieno.types import Allocation, Dataset, Input, Metric, Placement

require("sklearn")
from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data  # noqa: E402

BATCH = 64
"""Samples of a batch when predicting."""


class EnsembleClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An ensemble of networks that fits a budget, as a scikit-learn classifier.

    Samples are images (samples, height, width[, channels]), uint8 or float, or rows of a table (samples, features),
    which become images of one pixel with a channel a feature.

    - `budget`: what all members together may cost: seconds for 2,000 samples, or a mapping of kinds of cost to bounds,
      see `ripieno.select`. None: eight times the cost of the best network.
    - `hours`, `trials`: how long to search; one hour when both are None. By trials alone, and with a budget that is
      counted (`{"parameters": 1e6}`) and not measured, the same data and `random_state` give the same classifier.
    - `epochs`, `space`, `family`, `algorithm`, `metric`, `size`, `slots`, `pool`, `device`: those of `ripieno.tune`;
      `space` is by default `resnet-table` for tables.
    - `split`: shares of the samples that train, that members are chosen by, and that test; each class needs a sample in
      each of the three.
    - `run`: folder of the run, kept and gone on with; None: a temporary one.

    After `fit`: `classes_` (classes,), `n_features_in_` (values of a sample), `sample_shape_`, `ensemble_`, `bundle_`
    (to be served, benched, exported), `run_` (the run's folder).

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
        """Search, choose an ensemble under the budget, and pack it; `y` (samples,) may hold numbers or names."""
        samples = self._samples(X, fitting=True, y=y)
        seed = int(self.random_state or 0)
        try:
            dataset = dataset_of(samples, self.size, self.split, seed, self.metric, Notes())
        except DataError as error:
            raise ValueError(str(error)) from error
        self._search(dataset, self._own_folder() if self.run is None else Path(self.run), seed)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:  # noqa: N803
        """Probabilities (samples, classes), in the order of `classes_`."""
        check_is_fitted(self)
        images = self._samples(X, fitting=False).images
        if self.size is not None and images.shape[1:3] != (self.size, self.size):
            from ripieno.data.image_io import resize

            images = resize(images, self.size)
        return predict(self.bundle_, images)

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """The likeliest class of each sample, as `y` had it."""
        check_is_fitted(self)
        answers: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return answers

    def _own_folder(self) -> Path:
        """A folder that goes with this classifier, or when it is fitted again."""
        if forget := getattr(self, "_forget", None):
            forget()
        folder = Path(tempfile.mkdtemp(prefix="ripieno-"))
        self._forget = weakref.finalize(self, files.remove_tree, folder)
        return folder

    def _search(self, dataset: Dataset, folder: Path, seed: int) -> None:
        from ripieno.profiles import local_devices

        table = dataset.images.shape[1:3] == (1, 1)
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
        trusted = (self.family,) if self.family else ()
        self.ensemble_ = select(library, self.budget, trusted=trusted)[-1]
        export_members(library, [library.member(m) for m in self.ensemble_.members], trusted)
        cpu = local_devices("cpu")[0]
        placements = tuple(Placement(m, cpu.name, BATCH) for m in self.ensemble_.members)
        allocation = Allocation(self.ensemble_.name, self.ensemble_.name, (cpu,), placements)
        self.run_ = folder
        self.bundle_ = write_bundle(library, self.ensemble_, allocation, "onnx", folder / "classifier")

    # samples

    def _samples(self, X: ArrayLike, fitting: bool, y: ArrayLike | None = None) -> Samples:  # noqa: N803
        """What is fitted or predicted, as images; while predicting every label is 0."""
        pictures = getattr(X, "ndim", 2) > 2
        if not fitting:
            return self._more(X, pictures)
        if pictures:
            rows, labels = np.asarray(X), column_or_1d(y, warn=True)
        else:
            # float32 now: what overflows it must be told to be infinite here
            rows, labels = validate_data(self, X, y, dtype=np.float32)
            rows, labels = rows[:, None, None, :], column_or_1d(labels, warn=True)
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
        if len(rows) < 2:
            raise ValueError(f"n_samples={len(rows)}: there must be some of each of two classes or more")
        if len(classes) < 2:
            raise ValueError(f"y holds only the class {classes[0]!r}: there must be two classes or more")
        names = [str(c) for c in classes]
        if pictures:
            found = _joined(rows, codes, names)
            self.n_features_in_ = int(np.prod(found.images.shape[1:]))
        else:
            found = Samples("X", rows, codes.astype(np.int64), given_of("train", len(rows)), tuple(names))
        self.classes_ = classes
        self.sample_shape_ = tuple(int(n) for n in (found.images.shape[1:] if pictures else rows.shape[-1:]))
        return found

    def _more(self, X: ArrayLike, pictures: bool) -> Samples:  # noqa: N803
        fitted_pictures = len(self.sample_shape_) > 1
        if not fitted_pictures and not pictures:
            rows = validate_data(self, X, dtype=np.float32, reset=False)
            labels = np.zeros(len(rows), np.int64)
            return Samples("X", rows[:, None, None, :], labels, given_of("test", len(rows)), ("0", "1"))
        shape = np.shape(X)[1:]
        if fitted_pictures and pictures and laid_out(np.asarray(X), self.sample_shape_) is not None:
            fitted = self.bundle_.input
            try:
                images = fit_array(X, Input(self.sample_shape_, fitted.dtype, fitted.range))
            except DataError as error:
                raise ValueError(f"X: {error}") from error
            return Samples("X", images, np.zeros(len(images), np.int64), given_of("test", len(images)), ("0", "1"))
        raise ValueError(
            f"X has samples of shape {shape}, the classifier was fitted on {self.sample_shape_}: reshape X"
        )

    # copies

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_forget", None)
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


def _joined(images: NDArray[Any], codes: NDArray[Any], names: list[str]) -> Samples:
    """Images of any shape that people keep them in, as `ripieno.tune` takes them."""
    try:
        return join("X", [SplitArrays(images, codes, "X")], names, Notes(), positions=True)
    except DataError as error:
        raise ValueError(str(error)) from error
