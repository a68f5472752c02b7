"""A bundle of real small networks, and an engine that tests can block or break."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ripieno import files
from ripieno.engine.inference_result import Answer, InferenceStep, Stats
from ripieno.errors import EngineError
from ripieno.library.bundle import model_path
from ripieno.tasks.registry import kind_of
from ripieno.types import Allocation, Bundle, Column, Device, Ensemble, Member, Placement, Task
from tests.onnx_networks import write_mask_network, write_network, write_table_network

MEMBERS = ("00000-e003", "00001-e009")
CLASSES = ("cat", "dog", "owl", "fübär")
SHAPE = (8, 8, 3)
COLUMNS = (
    Column("age"),
    Column("plan", "category", ("gold", "12", "größer")),
    Column("since", "date", (), ("year", "month", "weekday", "hour", "age"), 20000.0),
    Column("paid"),
)
"""Columns of the tables of these tests, one of each kind and a truth value."""
ROWS: dict[str, list[Any]] = {
    "age": [31, None, 45.5, -2],
    "plan": ["gold", "12", "new", None],
    "since": ["2024-02-29T13:30", "1999-12-31", None, "1969-07-20"],
    "paid": [True, False, None, True],
}
"""Rows of these columns, with missing values and an unseen category."""
ROOT = Path(__file__).resolve().parents[2]


def write_small_bundle(
    path: Path,
    dtype: str = "uint8",
    members: Sequence[str] = MEMBERS,
    seed: int = 0,
    kind: str = "classification",
    thresholds: tuple[float, ...] = (),
) -> Bundle:
    """Write a bundle of real ONNX networks of 8x8x3 images and four classes, or labels, or targets."""
    made = []
    task = Task(kind, (len(CLASSES),), CLASSES)
    for number, name in enumerate(members):
        file = path / "members" / name / "model.onnx"
        member = write_network(file, name=name, shape=SHAPE, dtype=dtype, kind=kind, seed=seed + number)
        made.append(dataclasses.replace(member, task=task))
    return _write_bundle(path, made, thresholds)


def write_mask_bundle(path: Path, shape: tuple[int, int, int] = SHAPE, kernel: int = 3, **ensemble: Any) -> Bundle:
    """Write a bundle of two real ONNX networks for masks of four classes; `ensemble` changes fields of the ensemble."""
    made = []
    for number, name in enumerate(MEMBERS):
        file = path / "members" / name / "model.onnx"
        member = write_mask_network(file, name=name, shape=shape, kernel=kernel, seed=number)
        made.append(dataclasses.replace(member, task=Task("segmentation", (*shape[:2], len(CLASSES)), CLASSES)))
    bundle = _write_bundle(path, made)
    bundle = dataclasses.replace(bundle, ensemble=dataclasses.replace(bundle.ensemble, **ensemble))
    files.write_json(path / "bundle.json", dataclasses.replace(bundle, path=Path()))
    return bundle


def write_table_bundle(path: Path, columns: tuple[Column, ...] = COLUMNS, kind: str = "classification") -> Bundle:
    """Write a bundle of two linear models of a table with `columns` and four classes, labels or targets."""
    made = []
    for number, name in enumerate(MEMBERS):
        file = path / "members" / name / "model.onnx"
        member = write_table_network(file, columns, name=name, kind=kind, seed=number)
        made.append(dataclasses.replace(member, task=Task(kind, (len(CLASSES),), CLASSES)))
    return _write_bundle(path, made)


def _write_bundle(path: Path, members: Sequence[Member], thresholds: tuple[float, ...] = ()) -> Bundle:
    names = tuple(member.id for member in members)
    weights = (1 / len(members),) * len(members)
    ensemble = Ensemble("B1", names, weights, "smobf", {"seconds": 1.0}, {"seconds": 0.5}, {}, thresholds=thresholds)
    device = Device("cpu:0", "cpu", 1 << 30)
    allocation = Allocation("small", "B1", (device,), tuple(Placement(name, "cpu:0", 8, lane=0) for name in names))
    bundle = Bundle(ensemble, allocation, tuple(members), members[0].input, members[0].task, "onnx")
    files.write_json(path / "bundle.json", bundle)
    return dataclasses.replace(bundle, path=path)


def direct_answers(bundle: Bundle, images: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the expected predictions (members, samples, classes), computed with ONNX Runtime alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    answers = []
    for member in bundle.ensemble.members:
        session = onnxruntime.InferenceSession(str(model_path(bundle, member)), options)
        answers.append(session.run(None, {"images": images})[0])
    return np.stack(answers)


class StandIn:
    """An engine with a gate: it waits while `gate` is clear; `broken` makes it fail."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.gate = threading.Event()
        self.gate.set()
        self.broken = self.partial = self.closed = False
        self._pool = ThreadPoolExecutor(2)

    def submit(
        self,
        images: NDArray[np.generic],
        members: Sequence[str] | None = None,
        *,
        spread: bool = False,
        each: bool = False,
        disagreement: bool = False,
        timeout: float | None = None,
        deadline: float | None = None,
        partial: bool = False,
        steps: list[InferenceStep] | None = None,
        block: bool = True,
    ) -> Future[Answer]:
        return self._pool.submit(self._answer, np.array(images), members, spread, each, disagreement)

    def _answer(
        self,
        images: NDArray[np.generic],
        members: Sequence[str] | None,
        spread: bool,
        each: bool,
        disagreement: bool,
    ) -> Answer:
        self.gate.wait(20)
        if self.broken:
            raise EngineError("member 00000-e003 died three times:\nno memory")
        asked = tuple(members or self.bundle.ensemble.members)
        answers = direct_answers(self.bundle, images)[[self.bundle.ensemble.members.index(m) for m in asked]]
        mean = answers.mean(axis=0)
        spreads = answers.std(axis=0)[np.arange(len(images)), mean.argmax(axis=1)] if spread else None
        weights = np.full(len(asked), 1 / len(asked))
        apart = kind_of(self.bundle.task).member_disagreement(answers, weights) if disagreement else None
        return Answer(mean, asked, self.partial, spreads, answers if each else None, disagreement=apart)

    @property
    def waiting(self) -> int:
        return 0

    @property
    def ready(self) -> bool:
        return not self.closed

    def stats(self) -> Stats:
        return Stats(0, 0, 0, 0, 0, 0, 0.0, {}, ())

    def close(self) -> None:
        self.gate.set()
        self._pool.shutdown(cancel_futures=True)
        self.closed = True
