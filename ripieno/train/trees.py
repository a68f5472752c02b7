"""Trainers of trees on flattened inputs: LightGBM, and scikit-learn's random forests and extremely random trees.

Rows of tables are prepared for them, which is part of the model: see `ripieno.train.table_preparation`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.errors import ModelError, require
from ripieno.tasks.registry import kind_of
from ripieno.train.table_preparation import TreePreparation, needs_preparation
from ripieno.train.training_config import TrainingConfig
from ripieno.train.tree_export import TreeModel, tree_graph
from ripieno.types import Configuration, Dataset, Float32s, Job, TrainingUnit


@dataclasses.dataclass(frozen=True)
class BoostingConfig:
    """Hyperparameters of LightGBM, with its names and defaults, and the rounds of an epoch."""

    learning_rate: float = 0.1
    num_leaves: int = 31
    min_child_samples: int = 20
    feature_fraction: float = 1.0
    bagging_fraction: float = 1.0
    lambda_l2: float = 0.0
    rounds: int = 10
    """boosting rounds of one epoch"""


@dataclasses.dataclass(frozen=True)
class ForestConfig:
    """Hyperparameters of scikit-learn's forests, and the trees of an epoch."""

    max_features: float = 0.0
    """share of the features that a split considers; 0: the square root of their number"""
    min_samples_leaf: int = 1
    trees: int = 10
    """trees that one epoch adds"""


class TreeTrainer(ABC):
    """Base of the trainers of trees: see `ripieno.train.trainer`."""

    unit: ClassVar[TrainingUnit] = "epochs"

    def __init__(self, config: TrainingConfig | None = None) -> None:
        self.threads = (config or TrainingConfig()).threads

    def start(self, job: Job, data: Dataset) -> None:
        """Read the training split. Raises ModelError for a bad configuration, MissingExtraError without `trees`."""
        self.job, self.task, self.input, self.finished = job, data.task, data.input, 0
        self.activation = kind_of(data.task).activation
        if kind_of(data.task).is_pixelwise:
            raise ModelError(f"trees predict whole samples, not the pixels of task {data.task.kind}: use networks")
        rows = data.rows("train")
        self.targets = np.asarray(data.targets[rows])
        self.preparation = TreePreparation(data, job.seed) if needs_preparation(data) else None
        if self.preparation is None:
            self.features = flatten(np.asarray(data.inputs[rows]))
        else:
            self.features = self.preparation.features
        self._prepare(job.configuration)

    @abstractmethod
    def _prepare(self, configuration: Configuration) -> None:
        """Make what training needs."""

    @abstractmethod
    def epoch(self) -> None:
        """Add trees; there is no training loss."""

    @abstractmethod
    def predict(self, inputs: NDArray[Any]) -> Float32s:
        """Predict `inputs` (samples, *shape): float32 (samples, *task.output)."""

    def tensors(self) -> Mapping[str, NDArray[Any]] | None:
        """Return the state; None where there is none to keep."""
        return None

    def load(self, tensors: Mapping[str, NDArray[Any]]) -> None:  # noqa: ARG002
        """Continue from `tensors`. Raises ModelError where no state is kept."""
        raise ModelError("a forest keeps no state: it trains again from its seed")

    @abstractmethod
    def models(self) -> list[TreeModel]:
        """Return the models whose predictions, side by side, are those of the trainer."""

    def read_features(self, inputs: NDArray[Any]) -> Float32s:
        """Return the features (samples, features) of `inputs` (samples, *shape): flattened, or prepared."""
        return flatten(inputs) if self.preparation is None else self.preparation.transform(inputs)

    def export(self, path: Path) -> None:
        """Write the model as ONNX; it takes inputs in the data set's form, and flattens or prepares them."""
        preparation = None if self.preparation is None else self.preparation.to_onnx()
        files.write_bytes(path, tree_graph(self.models(), self.input, prod(self.task.output), preparation))


@final
class LightGBMTrainer(TreeTrainer):
    """Gradient boosting; several labels or targets have a model each.

    Each epoch continues from the text of the models, so that a trial that was resumed ends with the same trees.
    """

    def _prepare(self, configuration: Configuration) -> None:
        lightgbm = require("lightgbm")
        self.config: BoostingConfig = read_config(BoostingConfig, configuration, "LightGBM")
        objective = {"softmax": "multiclass", "sigmoid": "binary", "identity": "regression"}[self.activation]
        classes = len(self.task.names) if self.activation == "softmax" else 1
        self.parameters_: dict[str, Any] = {
            **{f.name: getattr(self.config, f.name) for f in dataclasses.fields(self.config) if f.name != "rounds"},
            "objective": objective,
            "num_class": classes,
            "bagging_freq": 1,
            "num_threads": self.threads,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        columns = [self.targets] if self.targets.ndim == 1 else list(self.targets.reshape(len(self.targets), -1).T)
        self._data = [
            lightgbm.Dataset(self.features, column.astype(np.float32), free_raw_data=False) for column in columns
        ]
        self._texts: list[str] = []

    def epoch(self) -> None:
        """Add `rounds` trees for each class, label or target."""
        lightgbm = require("lightgbm")
        seed = int(np.random.SeedSequence((self.job.seed, self.finished)).generate_state(1)[0] >> 1)
        before = [lightgbm.Booster(model_str=text) for text in self._texts] or [None] * len(self._data)
        self._texts = [
            lightgbm.train(
                {**self.parameters_, "seed": seed}, data, num_boost_round=self.config.rounds, init_model=model
            ).model_to_string()
            for data, model in zip(self._data, before, strict=True)
        ]
        self.finished += 1

    def predict(self, inputs: NDArray[Any]) -> Float32s:
        """Predict `inputs` (samples, *shape): float32 (samples, *task.output)."""
        lightgbm = require("lightgbm")
        features = self.read_features(inputs)
        boosters = [lightgbm.Booster(model_str=text) for text in self._texts]
        parts = [booster.predict(features, num_threads=self.threads) for booster in boosters]
        return np.concatenate([np.reshape(part, (len(inputs), -1)) for part in parts], axis=1).astype(np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the text of each model as bytes, and the number of finished epochs."""
        texts = {f"model{i}": np.frombuffer(text.encode(), np.uint8) for i, text in enumerate(self._texts)}
        return {"finished": np.array(self.finished), **texts}

    def load(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `tensors`."""
        self.finished = int(tensors["finished"])
        self._texts = [tensors[f"model{i}"].tobytes().decode() for i in range(len(self._data))]

    def models(self) -> list[TreeModel]:
        """Return one model for classes, or one for each label or target."""
        lightgbm, types = require("lightgbm"), require("onnxmltools.convert.common.data_types")
        convert = require("onnxmltools").convert_lightgbm
        found = []
        for text in self._texts:
            form = [("features", types.FloatTensorType([None, self.features.shape[1]]))]
            booster = lightgbm.Booster(model_str=single_thresholds(text))
            model = convert(booster, initial_types=form, zipmap=False, target_opset=15)
            found.append(TreeModel(model, -1, 1 if self.activation == "sigmoid" else None))
        return found


class ForestTrainer(TreeTrainer):
    """A forest of scikit-learn, which grows by `trees` an epoch.

    Labels are regressed: the mean of 0 and 1 in a leaf is a probability. It keeps no tensors, and trains again.
    """

    classifier: ClassVar[str]
    regressor: ClassVar[str]

    def _prepare(self, configuration: Configuration) -> None:
        ensemble = require("sklearn.ensemble")
        self.config: ForestConfig = read_config(ForestConfig, configuration, "a forest")
        name = self.classifier if self.activation == "softmax" else self.regressor
        self._forest: Any = getattr(ensemble, name)(
            n_estimators=0,
            max_features=self.config.max_features or "sqrt",
            min_samples_leaf=self.config.min_samples_leaf,
            n_jobs=self.threads,
            random_state=self.job.seed,
            warm_start=True,
        )
        if self.targets.ndim > 1:
            self.targets = self.targets.reshape(len(self.targets), -1).astype(np.float64)
            self.targets = self.targets[:, 0] if self.targets.shape[1] == 1 else self.targets

    def epoch(self) -> None:
        """Add `trees` trees."""
        self._forest.n_estimators += self.config.trees
        self._forest.fit(self.features, self.targets)
        self.finished += 1

    def predict(self, inputs: NDArray[Any]) -> Float32s:
        """Predict `inputs` (samples, *shape): float32 (samples, *task.output)."""
        features = self.read_features(inputs)
        if self.activation != "softmax":
            return np.reshape(self._forest.predict(features), (len(inputs), -1)).astype(np.float32)
        predictions = np.zeros((len(inputs), len(self.task.names)), np.float32)
        predictions[:, self._forest.classes_] = self._forest.predict_proba(features)
        return predictions

    def models(self) -> list[TreeModel]:
        """Return the forest. Raises ModelError when a class has no training samples."""
        types = require("skl2onnx.common.data_types")
        options: dict[str, Any] = {}
        if self.activation == "softmax":
            if len(self._forest.classes_) < len(self.task.names):
                raise ModelError("a forest cannot be exported: a class has no training samples")
            options = {"options": {id(self._forest): {"zipmap": False}}}
        form = [("features", types.FloatTensorType([None, self.features.shape[1]]))]
        model = require("skl2onnx").convert_sklearn(self._forest, initial_types=form, target_opset=15, **options)
        return [TreeModel(model, -1, None)]


@final
class RandomForestTrainer(ForestTrainer):
    """Random forest (Breiman 2001)."""

    classifier = "RandomForestClassifier"
    regressor = "RandomForestRegressor"


@final
class ExtraTreesTrainer(ForestTrainer):
    """Extremely random trees (Geurts et al. 2006)."""

    classifier = "ExtraTreesClassifier"
    regressor = "ExtraTreesRegressor"


def single_thresholds(text: str) -> str:
    """Return a model's text of LightGBM with thresholds in single precision, as ONNX keeps them.

    Each is rounded down, so that every number in single precision takes the same branch as before.
    """
    lines = []
    for line in text.splitlines():
        name, _, values = line.partition("=")
        if name == "tree_sizes":  # in bytes, and optional
            continue
        if name == "threshold":
            exact = np.array(values.split(), np.float64)
            single = exact.astype(np.float32)
            single = np.where(single > exact, np.nextafter(single, np.float32(-np.inf)), single)
            line = f"threshold={' '.join(repr(float(value)) for value in single)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def flatten(inputs: NDArray[Any]) -> Float32s:
    """Return `inputs` (samples, *shape) as float32 (samples, features); the padding of series becomes 0."""
    features = inputs.reshape(len(inputs), -1).astype(np.float32)
    if inputs.ndim == 3 and inputs.dtype.kind == "f":
        features[np.isnan(features)] = 0
    return features


def read_config(kind: type[Any], configuration: Configuration, name: str) -> Any:
    """Read a configuration of trees with defaults for absent names. Raises ModelError for an unknown name or value."""
    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    for key, value in configuration.items():
        if key not in defaults:
            raise ModelError(f"{key!r} is not a hyperparameter of {name}: it must be one of {', '.join(defaults)}")
        whole = isinstance(defaults[key], int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value < int(whole):
            expected = "a whole number of at least 1" if whole else "a number of at least 0"
            raise ModelError(f"{key} is {value!r}: it must be {expected}")
    return kind(**configuration)
