"""LCBench's 34 tasks as learning curves for simulated searches: a surrogate run by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ripieno.search import Continuous, Integer, Range, Space
from ripieno.types import Configuration

FOLDER = Path(__file__).resolve().parents[2] / "../shared/data/lcbench"
EPOCHS = 52
CONTINUOUS = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")
TIME, ACCURACY, CROSS_ENTROPY = 0, 1, 2  # columns of a prediction


class LCBench:
    """The surrogate: one session, predicts whole curves."""

    def __init__(self, folder: Path = FOLDER) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self._numbers: dict[str, int] = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"]
        parameters = json.loads((folder / "config_space.json").read_text())["hyperparameters"]
        known = {p["name"]: p for p in parameters}
        self.tasks: tuple[str, ...] = tuple(known["OpenML_task_id"]["choices"])
        self.space = Space("lcbench", "lcbench", {name: _range(known[name]) for name in CONTINUOUS})

    def curves(self, task: str, configuration: Configuration) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the curve of epochs 1 to 52, (epochs, columns)."""
        values = [float(configuration[name]) for name in CONTINUOUS]
        rows = np.array([[epoch, *values] for epoch in range(1, EPOCHS + 1)], np.float32)
        kinds = np.full((EPOCHS, 1), self._numbers[task], np.int32)
        names = [i.name for i in self._session.get_inputs()]
        feed = {name: kinds if "cat" in name else rows for name in names}
        found: np.ndarray[Any, np.dtype[np.float32]] = self._session.run(None, feed)[0]
        return found

    def curve(self, task: str, column: int = CROSS_ENTROPY) -> Callable[[Configuration, int], tuple[float, float]]:
        """Return a function for loss and seconds after an epoch; accuracy becomes error, in per cent."""
        kept: dict[tuple[object, ...], tuple[list[float], list[float]]] = {}

        def of(configuration: Configuration, epoch: int) -> tuple[float, float]:
            key = tuple(configuration[name] for name in CONTINUOUS)
            if key not in kept:
                found = self.curves(task, configuration)
                loss = 100 - found[:, column] if column == ACCURACY else found[:, column]
                seconds = np.maximum.accumulate(np.maximum(found[:, TIME], 0.0))
                kept[key] = loss.tolist(), seconds.tolist()
            losses, times = kept[key]
            return losses[epoch - 1], times[epoch - 1]

        return of


def _range(parameter: dict[str, Any]) -> Range:
    kind = {"uniform_int": Integer, "uniform_float": Continuous}[parameter["type"]]
    return kind(parameter["lower"], parameter["upper"], parameter["log"])
