"""Former public names work for one version and warn with the new name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.allocation.explain import Explanation
from ripieno.engine import Answer
from ripieno.files import to_json
from ripieno.library import BackendReport, Library
from ripieno.search import SCHEDULERS, Settings, find_space, simulate
from ripieno.search.scheduler import TrialStep
from ripieno.types import CascadeEffect, Dataset, Job, classification
from tests.command_line import ripieno as command

RENAMED = [
    ("ripieno.allocation", "Options", "AllocationOptions"),
    ("ripieno.engine", "AllocationBench", "AllocationBenchmark"),
    ("ripieno.engine", "Patience", "RestartPolicy"),
    ("ripieno.errors", "first_line", "error_summary"),
    ("ripieno.errors", "need", "require"),
    ("ripieno.library", "read_proof", "read_backend_report"),
    ("ripieno.pipeline", "foresee", "plan_offline"),
    ("ripieno.search.callbacks", "MLflow", "MLflowCallback"),
    ("ripieno.search.callbacks", "TensorBoard", "TensorBoardCallback"),
    ("ripieno.search.callbacks", "together", "combine_callbacks"),
    ("ripieno.search.scheduler", "Decision", "TrialStep"),
    ("ripieno.server", "Running", "ServerHandle"),
    ("ripieno.server", "start", "start_in_thread"),
    ("ripieno.types", "ImageLayout", "InputLayout"),
    ("ripieno.types", "Outcome", "JobResult"),
    ("ripieno.types", "Point", "BatchProfile"),
    ("ripieno.types", "Range", "PixelRange"),
]


@pytest.mark.parametrize(("module", "old", "new"), RENAMED, ids=lambda value: value.rpartition(".")[2])
def test_a_former_name_is_the_new_object_and_warns_with_its_name(module: str, old: str, new: str) -> None:
    home = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is now {new}"):
        assert getattr(home, old) is getattr(home, new)
    with pytest.raises(AttributeError, match="absent"):
        home.absent  # noqa: B018


def test_a_former_module_warns_when_it_is_imported() -> None:
    sys.modules.pop("ripieno.backends.names", None)
    with pytest.warns(DeprecationWarning, match=r"ripieno\.backends\.backend_id"):
        names = importlib.import_module("ripieno.backends.names")
    assert names.split is importlib.import_module("ripieno.backends.backend_id").split


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("probabilities", "predictions"),
        ("spread", "std"),
        ("each", "member_predictions"),
        ("depth", "members_evaluated"),
    ],
)
def test_former_fields_of_an_answer_are_the_new_ones(old: str, new: str) -> None:
    array = np.zeros((1, 2), np.float32)
    answer = Answer(array, ("a",), std=array[0], member_predictions=array[None], members_evaluated=np.ones(1, np.int32))
    with pytest.warns(DeprecationWarning, match=f"Answer.{old} is now {new}"):
        assert getattr(answer, old) is getattr(answer, new)


def test_former_methods_of_a_library_call_the_new_ones(tmp_path: Path) -> None:
    library = Library(tmp_path)
    with pytest.warns(DeprecationWarning, match=r"Library\.made is now find_job_member"):
        assert library.made(Job(0, {}, 0, 1)) is None
    with pytest.warns(DeprecationWarning, match=r"Library\.mapped_truth is now true_class_mapped"):
        assert library.mapped_truth([]) == []
    rows, targets = np.full((2, 3), 1 / 3, np.float32), np.array([0, 2])
    ripieno.import_(library, {"a": rows}, targets=targets)
    with pytest.warns(DeprecationWarning, match=r"Library\.probabilities is now predictions"):
        assert np.array_equal(library.probabilities("a"), rows)
    with pytest.warns(DeprecationWarning, match=r"Library\.write_probabilities is now write_predictions"):
        library.write_probabilities("a", "test", rows, targets)
    with pytest.warns(DeprecationWarning, match=r"Library\.has_probabilities is now has_predictions"):
        assert library.has_probabilities("a", "test")
    with pytest.warns(DeprecationWarning, match=r"Library\.labels is now targets"):
        assert np.array_equal(library.labels(), targets)


def test_former_fields_of_a_data_set_are_the_new_ones() -> None:
    task = classification(("a", "b"), "macro-f1")
    dataset = Dataset("d", np.zeros((3, 2)), np.zeros(3), np.zeros(3, np.uint8), task, (0.0,), (1.0,))
    with pytest.warns(DeprecationWarning, match=r"Dataset\.images is now inputs"):
        assert dataset.images is dataset.inputs
    with pytest.warns(DeprecationWarning, match=r"Dataset\.labels is now targets"):
        assert dataset.labels is dataset.targets
    with pytest.warns(DeprecationWarning, match=r"Dataset\.metric is now task\.metric"):
        assert dataset.metric == "macro-f1"


def test_the_former_name_of_a_kind_of_cost_is_the_new_one(tmp_path: Path) -> None:
    rows = {name: np.full((20, 2), 0.5, np.float32) + shift for name, shift in (("a", 0.0), ("b", [0.1, -0.1]))}
    costs = {"a": {"euros": 1.0}, "b": {"euros": 2.0}}
    ripieno.import_(tmp_path, rows, targets=np.zeros(20, np.int64), costs=costs)
    with pytest.warns(DeprecationWarning, match=r"front\(kind=\) is now cost"):
        front = ripieno.front(tmp_path, kind="euros", cv=0)
    assert front.cost == "euros"
    with pytest.warns(DeprecationWarning, match=r"Front\.kind is now cost"):
        assert front.kind == "euros"
    done = command("front", tmp_path, "--kind", "euros", "--cv", "0")
    assert done.returncode == 0
    assert done.stderr.count("note: --kind is now --cost; the old name goes with the next version.") == 1
    assert Library(tmp_path).front() == front


@pytest.mark.parametrize(
    ("record", "old", "new"),
    [
        (Explanation((), (), 1.0, None, ""), "seats", "placements"),
        (BackendReport((), 1, 0.5, 0.5, 0.9, 0.9), "fits", "choices"),
    ],
    ids=["Explanation", "BackendReport"],
)
def test_a_former_field_is_the_new_one_and_stays_the_key_in_json(record: object, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        assert getattr(record, old) is getattr(record, new)
    assert f'"{old}"' in to_json(record).decode()


@pytest.mark.parametrize(
    ("record", "old", "new"),
    [
        (CascadeEffect(9, 0.5, 1.5, 0.1, 0.2, 0.3, 0.4), "cross_entropy", "loss"),
        (CascadeEffect(9, 0.5, 1.5, 0.1, 0.2, 0.3, 0.4), "whole_cross_entropy", "whole_loss"),
        (CascadeEffect(9, 0.5, 1.5, 0.1, 0.2, 0.3, 0.4), "accuracy", "score"),
        (CascadeEffect(9, 0.5, 1.5, 0.1, 0.2, 0.3, 0.4), "whole_accuracy", "whole_score"),
        (BackendReport((), 1, 0.5, 0.6, 0.8, 0.9), "accuracy", "score"),
        (BackendReport((), 1, 0.5, 0.6, 0.8, 0.9), "reference_accuracy", "reference_score"),
    ],
)
def test_former_figures_are_the_new_ones(record: object, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        assert getattr(record, old) == getattr(record, new)


def test_a_scheduler_with_the_former_methods_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Former:
        started = 0

        def options(self) -> Iterator[TrialStep]:
            if self.started < 3:
                yield TrialStep(self.started, 0, 1)

        def issue(self, step: TrialStep) -> None:
            self.started += 1

        def tell(self, step: TrialStep, loss: float | None) -> None:
            pass

    monkeypatch.setitem(SCHEDULERS, "former", lambda epochs, eta, trials: Former())
    settings = Settings(find_space("resnet-tiny"), "former+random", trials=3, epochs=1)
    with pytest.warns(DeprecationWarning, match=r"Scheduler\.(options is now candidates|issue is now start)"):
        found = simulate(settings, lambda configuration, epoch: (0.5, 1.0), 1)
    assert len(found.outcomes) == 3
