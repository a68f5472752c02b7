"""The pipeline as a scikit-learn classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import require
from ripieno.pipeline.estimator import EnsembleEstimator
from ripieno.tasks.metrics import predicted_labels
from ripieno.types import Task, classification

require("sklearn")
from sklearn.base import ClassifierMixin  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets, type_of_target  # noqa: E402
from sklearn.utils.validation import check_is_fitted, column_or_1d  # noqa: E402


class EnsembleClassifier(ClassifierMixin, EnsembleEstimator):  # type: ignore[misc]
    """A scikit-learn classifier: an ensemble of networks under a budget.

    Samples are images (samples, height, width[, channels]), uint8 or float, time series (samples, length, channels), or
    a list of series of unequal lengths, or rows of a table: (samples, features), or a data frame, whose columns are
    numbers, categories or dates by their values. NaN is a missing value of a table. `y` (samples,) holds numbers or
    names of classes; `y` (samples, labels) of 0 and 1 makes it a multilabel classifier.

    - `budget`: bound of the cost of all members together: seconds for 2,000 samples, or a mapping of kinds of cost to
      bounds, see `ripieno.select`. The search trains no network that exceeds it alone, see `ripieno.tune`. None: eight
      times the cost of the best network.
    - `hours`, `trials`: length of the fit, and of its search; five minutes when both are None. A tenth of `hours` is
      kept for selection and export; `fit` overruns `hours` by seconds at most, but an empty library waits for its first
      member. With `trials` alone, and a budget that is counted (`{"parameters": 1e6}`) and not measured, the same data
      and `random_state` give the same estimator.
    - `epochs`, `space`, `family`, `algorithm`, `free`, `weights`, `metric`, `size`, `slots`, `pool`, `device`: those of
      `ripieno.tune`.
    - `split`: shares of the samples for training, validation (choice of members) and test;
      each class needs a sample in each of the three.
    - `folds`: 2 to 20 folds choose the members out of fold, and the share of validation is trained on, too; "auto":
      5 for few series or rows, see `ripieno.data.load_dataset`.
    - `kind`: `image`, `series` or `table`; None: rows of a table where `X` has two axes or named columns, else as
      `ripieno.data.load_dataset` reads arrays. Series (samples, length) of one channel need `kind="series"`.
    - `column`: kinds of named columns (number, category or date), by name, in place of those inferred.
    - `run`: folder of the run, which is kept and resumed; None: a temporary one.
    - `verbose`: above 0, notes on the data and the progress of the search are printed.

    Attributes after `fit`: `classes_` (classes,), of several labels their numbers; `n_features_in_` (values of a
    sample), `sample_shape_`, `ensemble_`, `bundle_` (for serving, benchmarks and export), `run_` (the run's folder).

    Raises ValueError, in one line, for samples or labels that cannot be used; RipienoError as `ripieno.tune`.
    """

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:  # noqa: N803
        """Return probabilities (samples, classes), in the order of `classes_`; of several labels that of each."""
        return self._outputs(X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each sample, as it is in `y`; of several labels 0 or 1 for each."""
        check_is_fitted(self)
        probabilities = self._outputs(X)
        if self.multilabel_:
            return predicted_labels(probabilities, self.ensemble_.thresholds).astype(np.int64)
        answers: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return answers

    def _read_targets(self, y: Any) -> tuple[NDArray[Any], Task]:
        self.multilabel_ = type_of_target(y) == "multilabel-indicator"
        if self.multilabel_:
            labels = y.shape[1]
            self.classes_ = np.arange(labels)
            return y.astype(np.uint8), Task("multilabel", (labels,), tuple(map(str, self.classes_)))
        values = column_or_1d(y, warn=True)
        check_classification_targets(values)
        classes, codes = np.unique(values, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y holds only the class {classes[0]!r}: there must be two classes or more")
        self.classes_ = classes
        return codes.astype(np.int64), classification([str(c) for c in classes])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
