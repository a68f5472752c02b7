"""The pipeline as a scikit-learn regressor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import require
from ripieno.pipeline.estimator import EnsembleEstimator
from ripieno.types import Task

require("sklearn")
from sklearn.base import RegressorMixin  # noqa: E402
from sklearn.utils.validation import check_array  # noqa: E402


class EnsembleRegressor(RegressorMixin, EnsembleEstimator):  # type: ignore[misc]
    """A scikit-learn regressor: an ensemble of networks under a budget.

    Samples are images (samples, height, width[, channels]), uint8 or float, time series (samples, length, channels), or
    a list of series of unequal lengths, or rows of a table: (samples, features), or a data frame, whose columns are
    numbers, categories or dates by their values. NaN is a missing value of a table. `y` is (samples,) or, with several
    targets, (samples, targets).

    - `budget`: bound of the cost of all members together: seconds for 2,000 samples, or a mapping of kinds of cost to
      bounds, see `ripieno.select`. The search trains no network that exceeds it alone, see `ripieno.tune`. None: eight
      times the cost of the best network.
    - `hours`, `trials`: length of the fit, and of its search; five minutes when both are None. A tenth of `hours` is
      kept for selection and export; `fit` overruns `hours` by seconds at most, but an empty library waits for its first
      member. With `trials` alone, and a budget that is counted (`{"parameters": 1e6}`) and not measured, the same data
      and `random_state` give the same estimator.
    - `epochs`, `space`, `family`, `algorithm`, `free`, `weights`, `metric`, `size`, `slots`, `pool`, `device`: those of
      `ripieno.tune`.
    - `split`: shares of the samples for training, validation (choice of members) and test.
    - `folds`: 2 to 20 folds choose the members out of fold, and the share of validation is trained on, too; "auto":
      5 for few series or rows, see `ripieno.data.load_dataset`.
    - `kind`: `image`, `series` or `table`; None: rows of a table where `X` has two axes or named columns, else as
      `ripieno.data.load_dataset` reads arrays. Series (samples, length) of one channel need `kind="series"`.
    - `column`: kinds of named columns (number, category or date), by name, in place of those inferred.
    - `run`: folder of the run, which is kept and resumed; None: a temporary one.
    - `verbose`: above 0, notes on the data and the progress of the search are printed.

    Attributes after `fit`: `n_features_in_` (values of a sample), `sample_shape_`, `ensemble_`, `bundle_` (for serving,
    benchmarks and export), `run_` (the run's folder).

    Raises ValueError, in one line, for samples or targets that cannot be used; RipienoError as `ripieno.tune`.
    """

    def predict(self, X: ArrayLike) -> NDArray[np.float32]:  # noqa: N803
        """Return the values in the unit of `y`, of its shape: (samples,) or (samples, targets)."""
        values = self._outputs(X)
        return values if self.several_targets_ else values[:, 0]

    def _read_targets(self, y: Any) -> tuple[NDArray[Any], Task]:
        values = check_array(y, ensure_2d=False, dtype=np.float32, input_name="y")
        self.several_targets_ = values.ndim > 1
        values = values.reshape(len(values), -1)
        names = ("y",) if values.shape[1] == 1 else tuple(f"y{i}" for i in range(values.shape[1]))
        return values, Task("regression", (len(names),), names)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
