"""Preparation of rows of a table for trees: imputing and encoding, by scikit-learn, fitted to the training rows.

Numbers keep their unit, since a tree's thresholds are in single precision: a scaler would round them otherwise than
the exported graph does. A missing number becomes the median, and a flag says so where training rows lack it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import require
from ripieno.models.table_config import row_form
from ripieno.tasks.registry import kind_of
from ripieno.types import Dataset, Float32s

MISSING = -2.0
"""Code of a missing category; -1 is one that training did not see."""
ORDINAL, ONE_HOT = 2, 16
"""Most categories of a column that is one code, and of one that has a flag for each category."""
PARTS = 5
"""Parts of the training rows, each encoded by the targets of the others."""
_LOWEST = float(np.finfo(np.float32).min)
"""Number in the place of missing ones, of which flags are made."""


def needs_preparation(data: Dataset) -> bool:
    """Return whether trees need `data` prepared: rows of named columns, or with missing numbers."""
    if data.kind != "table":
        return False
    return bool(data.columns) or bool(np.isnan(np.asarray(data.inputs[data.rows("train")], np.float32)).any())


class TreePreparation:
    """Preparation for trees, fitted to the training rows of `data`.

    A column with many categories is their codes, which are in the order of frequency, and the mean target of each where
    the task has one target or two classes. A mean alone would lose what it has in common with other columns.
    """

    def __init__(self, data: Dataset, seed: int) -> None:
        """Fit it; `features` are the prepared training rows. Raises MissingExtraError without scikit-learn."""
        rows = data.rows("train")
        inputs, targets = np.asarray(data.inputs[rows], np.float32), _single_target(data, rows)
        form = row_form(data.input)
        counts = dict(zip(form.categories, form.counts, strict=True))
        gaps = [i for i in form.numbers if np.isnan(inputs[:, i]).any()]
        flagged = [i for i, count in counts.items() if ORDINAL < count <= ONE_HOT]
        many = [i for i, count in counts.items() if count > ONE_HOT]
        encoded = many if targets is not None else []
        coded = [i for i in counts if i not in flagged]
        self.width = inputs.shape[1]
        impute, preprocessing = require("sklearn.impute").SimpleImputer, require("sklearn.preprocessing")
        pipeline = require("sklearn.pipeline").make_pipeline

        def fill(value: float) -> Any:
            return impute(strategy="constant", fill_value=value, keep_empty_features=True)

        present = pipeline(fill(_LOWEST), preprocessing.Binarizer(threshold=_LOWEST / 2))
        one_hot = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
        kind = "continuous" if kind_of(data.task).activation == "identity" else "binary"
        parts = [
            ("numbers", impute(strategy="median", keep_empty_features=True), list(form.numbers)),
            ("present", present, gaps),
            ("codes", fill(MISSING), coded),
            ("flags", pipeline(fill(MISSING), one_hot), flagged),
            ("targets", pipeline(fill(MISSING), preprocessing.TargetEncoder(target_type=kind)), encoded),  # the last
        ]
        transformer = require("sklearn.compose").ColumnTransformer([part for part in parts if part[2]])
        self._transformer: Any = transformer.fit(inputs, targets)
        self.features = self.transform(inputs)
        """(samples, features): as `transform` gives them, but no row is encoded by its own target"""
        if encoded:
            assert targets is not None
            selection = require("sklearn.model_selection")
            divide = selection.KFold if kind == "continuous" else selection.StratifiedKFold
            encoder, codes = parts[-1][1], inputs[:, encoded]
            for others, own in divide(PARTS, shuffle=True, random_state=seed).split(codes, targets):
                found = encoder.fit(codes[others], targets[others]).transform(codes[own])
                self.features[own, -len(encoded) :] = found

    def transform(self, inputs: NDArray[Any]) -> Float32s:
        """Prepare rows (samples, values): (samples, features)."""
        found: Float32s = np.asarray(self._transformer.transform(inputs.astype(np.float32, copy=False)), np.float32)
        return found

    def to_onnx(self) -> Any:
        """Return it as an `onnx.ModelProto` from `rows` (batch, values), float32."""
        types = require("skl2onnx.common.data_types")
        form = [("rows", types.FloatTensorType([None, self.width]))]
        return require("skl2onnx").convert_sklearn(self._transformer, initial_types=form, target_opset=15)


def _single_target(data: Dataset, rows: NDArray[np.int64]) -> NDArray[Any] | None:
    """Return the target by which categories are encoded, (samples,); None where there are several, or too few rows."""
    targets = np.asarray(data.targets[rows])
    if kind_of(data.task).activation == "identity":
        single = targets.reshape(len(targets), -1)
        return single[:, 0] if single.shape[1] == 1 and len(targets) >= PARTS else None
    if targets.ndim > 1 or len(data.task.names) > 2:
        return None
    return targets if np.bincount(targets, minlength=2).min() >= PARTS else None
