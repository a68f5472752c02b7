"""Trees on the features of a frozen pretrained backbone: a trainer whose model is one graph, of backbone and trees."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.backends.export import export_backbone
from ripieno.backends.merge_onnx import whole_onnx
from ripieno.backends.onnx import open_file
from ripieno.errors import ModelError
from ripieno.library.backbones import backbones_folder
from ripieno.models.build import Network
from ripieno.train.features import BATCH
from ripieno.train.frozen_backbone import FrozenBackbone
from ripieno.train.tree_export import tree_graph
from ripieno.train.trees import TreeTrainer
from ripieno.types import Dataset, Float32s, Input, Job


class FeatureTreeTrainer:
    """Trainer of `trees` on the features of the `backbone` of a network: see `ripieno.train.trainer`.

    It predicts by the graph that it exports, so that what is scored is what is served. A tree may decide otherwise for
    a feature that another runtime rounds otherwise.
    """

    def __init__(self, trees: TreeTrainer, network: Network, backbone: FrozenBackbone, run: Path) -> None:
        self.trees, self.network, self.backbone = trees, network, backbone
        self._shared = backbones_folder(run) / f"{backbone.id}.onnx"
        self._content = b""

    def start(self, job: Job, data: Dataset) -> None:
        """Read the features of the training split; the first time in a run they are computed."""
        self.job, self.input, self.task = job, data.input, data.task
        features = self.backbone.cached(self.network)
        self.trees.start(job, dataclasses.replace(data, inputs=features, kind="table"))

    def epoch(self) -> None:
        """Add trees; there is no training loss."""
        self.trees.epoch()
        self._content = b""

    def predict(self, inputs: NDArray[Any]) -> Float32s:
        """Predict `inputs` (samples, *shape): float32 (samples, *task.output)."""
        run = open_file(self._graph())
        parts = [run(inputs[first : first + BATCH])[0] for first in range(0, len(inputs), BATCH)]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def tensors(self) -> None:
        """Return None: the trees keep no state of their own here."""

    def load(self, tensors: Mapping[str, NDArray[Any]]) -> None:  # noqa: ARG002
        """Raise ModelError: there is no state to continue from."""
        raise ModelError("trees on features keep no state: they train again from their seed")

    def export(self, path: Path) -> None:
        """Write the model as ONNX, from inputs in the data set's form."""
        files.write_bytes(path, self._graph())

    def _graph(self) -> bytes:
        """Return the ONNX file of backbone and trees; members that share the backbone use its file too."""
        if not self._content:
            if not self._shared.exists():
                export_backbone(self.network.cpu(), self.input, str(self.backbone.id), self._shared)
            width = self.trees.features.shape[1]
            with tempfile.TemporaryDirectory() as folder:
                head = Path(folder) / "trees.onnx"
                trees = tree_graph(self.trees.models(), Input((width,), "float32"), prod(self.task.output))
                files.write_bytes(head, trees)
                self._content = whole_onnx(self._shared, head, self.input, self.task)
        return self._content
