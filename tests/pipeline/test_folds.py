"""A run with folds through all verbs: members are judged out of fold, and what is served is the refit."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import ripieno
from ripieno import EnsembleClassifier
from ripieno.backends.onnx import open_file
from ripieno.cli.main import app
from ripieno.data import open_dataset
from ripieno.errors import LibraryError, SearchError
from ripieno.library import Library, write_bundle
from ripieno.library.import_models import import_onnx
from ripieno.pipeline import free_members
from ripieno.pipeline.cascading import _answers
from ripieno.pipeline.runs import no_progress
from ripieno.reports import html
from ripieno.reports.run_data import load_run
from ripieno.reports.sections import Sections
from ripieno.train.evaluate import losses_of
from ripieno.types import Allocation, Device, Placement

SPACE = {"ranges": {"rate": {"kind": "continuous", "low": 0.05, "high": 0.5, "log": True}}}
FORESTS = {"family": "trees:extra-trees", "ranges": {"trees": {"kind": "integer", "low": 5, "high": 9}}}


def written(folder: Path, space: object) -> str:
    path = folder / "space.json"
    path.write_text(json.dumps(space))
    return str(path)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    source = load_digits()
    return (source.images[:120, :, :, None] * 15).astype(np.uint8), source.target[:120]


@pytest.fixture(scope="module")
def run(digits: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    np.savez(folder / "digits.npz", images=digits[0], labels=digits[1])
    words = ["tune", str(folder / "digits.npz"), "--run", str(folder / "run"), "--folds", "3", "--pool", "inline"]
    words += ["--trainer", "tests.own_trainer:Linear", "--space", written(folder, SPACE), "--trials", "3"]
    few = {"trees-extra-trees": ("trees:extra-trees", {"trees": 5, "min_samples_leaf": 2})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free_members, "MODELS", few)
        result = CliRunner().invoke(app, [*words, "--epochs", "3"])
    assert result.exit_code == 0, result.output
    assert "validation is out-of-fold: 3 folds of" in " ".join(result.output.split())
    return folder / "run"


def test_members_and_free_members_are_judged_by_predictions_of_others(run: Path) -> None:
    library, dataset = Library(run), open_dataset(run / "dataset")
    rows = dataset.rows("valid")
    assert np.array_equal(rows, dataset.rows("train"))
    assert any(m.trial < 0 for m in library.members())
    for member in library.members():
        stored = library.predictions(member.id)
        assert member.losses == pytest.approx(losses_of(stored, dataset, rows))
        served = np.asarray(open_file(library.onnx_path(member.id).read_bytes())(dataset.inputs[rows])[0])
        assert losses_of(served, dataset, rows)["valid_cross_entropy"] < member.losses["valid_cross_entropy"]


def test_what_is_scored_on_the_test_split_is_what_is_served(run: Path, tmp_path: Path) -> None:
    library = Library(run)
    (ensemble,) = ripieno.select(library, [{"parameters": 1e9}])
    placements = tuple(Placement(m, "cpu:0", 16) for m in ensemble.members)
    allocation = Allocation(ensemble.name, ensemble.name, (Device("cpu:0", "cpu", 0),), placements)
    bundle = write_bundle(library, ensemble, allocation, "onnx", tmp_path / "bundle")
    found = ripieno.evaluate(bundle.path, run / "dataset")
    assert found.split == "test"
    assert found.scores["accuracy"].value == pytest.approx(ensemble.losses["test_accuracy"])
    card = (bundle.path / "README.md").read_text()
    assert "validation (out-of-fold, 3 folds; used for selection)" in card
    assert "test; validation: out-of-fold, 3 folds." in card
    # a cascade of a lower precision is set by predictions out of fold, not by members that know the samples
    lower = dataclasses.replace(bundle, backend="onnx:int8")
    answers, targets = _answers(library, lower, "valid", no_progress)
    assert len(targets) == len(open_dataset(run / "dataset").rows("train"))
    temperatures = ensemble.temperatures or (1.0,) * len(ensemble.members)
    exact = [p for p, t in zip(answers, temperatures, strict=True) if t == 1.0]
    stored = [library.predictions(m) for m, t in zip(ensemble.members, temperatures, strict=True) if t == 1.0]
    assert all(np.array_equal(a, b) for a, b in zip(exact, stored, strict=True))


def test_the_validation_is_named_where_a_run_is_shown(run: Path) -> None:
    shown = CliRunner().invoke(app, ["show", str(run)]).output
    assert "validation: out-of-fold, 3 folds" in shown
    assert json.loads(CliRunner().invoke(app, ["show", str(run), "--json"]).stdout)["folds"] == 3
    empty = Sections(trials=0, slots=0)
    page = html._render(load_run(Library(run)), None, empty, None)
    assert re.search(r"samples: \d+ training,\s+\d+ test; validation: out-of-fold, 3 folds", page)


def test_a_run_keeps_its_folds(run: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    library = ripieno.tune(None, run, trials=3, trainer="tests.own_trainer:Linear", folds="auto", pool="inline")
    assert open_dataset(library.dataset_path).fold_count == 3
    with pytest.raises(SearchError, match="made with folds 3, not with folds 5"):
        ripieno.tune(None, run, trials=3, trainer="tests.own_trainer:Linear", folds=5)


def test_networks_of_others_are_imported_with_a_warning(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    library = Library(copy)
    file = tmp_path / "theirs.onnx"
    member = next(m for m in library.members() if m.trial >= 0)
    shutil.copy(library.onnx_path(member.id), file)
    notes: list[str] = []
    import_onnx(library, [file], notes=notes)
    assert any("models that were trained on these samples look too good" in note for note in notes)


def test_averages_of_weights_are_refused(run: Path) -> None:
    with pytest.raises(LibraryError, match="validates by folds, whose models are not kept"):
        ripieno.soup(run)


def test_the_estimators_take_folds(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    flat = digits[0].reshape(len(digits[0]), -1).astype(np.float32)
    estimator = EnsembleClassifier(
        {"parameters": 1e9},
        trials=1,
        epochs=1,
        space=written(tmp_path, FORESTS),
        algorithm="random",
        free="off",
        pool="inline",
        folds=3,
        run=tmp_path / "run",
    )
    estimator.fit(flat, digits[1])
    dataset = open_dataset(tmp_path / "run" / "dataset")
    assert dataset.fold_count == 3
    assert estimator.score(flat[dataset.rows("train")], digits[1][dataset.rows("train")]) == 1
    with pytest.raises(ValueError, match="folds is 1: it must be auto"):
        estimator.set_params(folds=1).fit(flat, digits[1])
