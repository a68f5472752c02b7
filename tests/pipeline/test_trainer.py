"""A user's own trainer through a search: checkpointed, resumed, promoted, exported, refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import ripieno
from ripieno.cli.main import app
from ripieno.data.load import load_dataset
from ripieno.errors import ModelError, RipienoError, SearchError
from ripieno.library import Library
from ripieno.train import TrainingConfig, train_job
from ripieno.types import Dataset, Job


@pytest.fixture
def space(tmp_path: Path) -> str:
    path = tmp_path / "space.json"
    path.write_text(json.dumps({"ranges": {"rate": {"kind": "continuous", "low": 0.05, "high": 0.5, "log": True}}}))
    return str(path)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    source = load_digits()
    images = (source.images[:300, :, :, None] * 15).astype(np.uint8)
    return load_dataset((images, source.target[:300]))


def search(data: Dataset | str | None, run: Path, space: str, trainer: str, notes: list[str] | None = None) -> Library:
    return ripieno.tune(
        data, run, trials=5, epochs=3, seed=1, space=space, trainer=trainer, pool="inline", free="off", notes=notes
    )


def losses(library: Library) -> dict[str, float]:
    return {member.id: member.loss for member in library.members() if member.trial >= 0}


def test_a_users_trainer_is_promoted_exported_measured_and_served(digits: Dataset, tmp_path: Path, space: str) -> None:
    notes: list[str] = []
    library = search(digits, tmp_path / "run", space, "tests.own_trainer:Linear", notes)
    members = [m for m in library.members() if m.trial >= 0]
    assert {m.family for m in members} == {"tests.own_trainer:Linear"}
    assert {m.format for m in members} == {"onnx"}
    assert {m.epoch for m in members} == {1, 3}  # some were promoted, from their checkpoints
    assert all(0 < m.parameters < 700 for m in members)
    assert not [note for note in notes if "trainer" in note]
    profiles = ripieno.measure(library)
    (ensemble,) = ripieno.select(library, [4 * max(p.cost for p in profiles.values())], prune=1.0)
    assert ensemble.losses["test_accuracy"] > 0.5
    # where a person reads of its training, it says what the trainer counts
    assert {m.unit for m in members} == {"steps"}
    assert re.search(r"id +steps +", CliRunner().invoke(app, ["show", str(library.path)]).output)
    page = ripieno.report(library).read_text()
    assert "Loss by step" in page
    assert '<th scope="col">steps</th>' in page
    assert not re.search(r"[> ]epochs?\b", page.partition("<script")[0])
    card = (ripieno.allocate(library, ensemble, devices="cpu", max_benches=0).path / "README.md").read_text()
    assert "at most 3 steps per trial" in card
    assert "| steps |" in card


def test_a_search_of_a_users_trainer_resumes_to_the_same_members(digits: Dataset, tmp_path: Path, space: str) -> None:
    whole = search(digits, tmp_path / "run", space, "tests.own_trainer:Linear")
    config = TrainingConfig(
        tmp_path / "jobs", whole.dataset_path, "tests.own_trainer:Linear", 3, 1, trainer="tests.own_trainer:Linear"
    )
    member = max((m for m in whole.members() if m.trial >= 0), key=lambda m: m.epoch)
    for start, stop in ((0, 1), (1, 3)):
        outcome = train_job(config, Job(member.trial, member.configuration, start, stop))
        assert outcome.failure is None
    again = Library(config.run).member(member.id)
    assert again.loss == member.loss
    assert len(again.curve) == 3


def test_a_trainer_without_tensors_and_export_trains_again_and_is_selected(
    digits: Dataset, tmp_path: Path, space: str
) -> None:
    notes: list[str] = []
    library = search(digits, tmp_path / "run", space, "tests.own_trainer:Forgetful", notes)
    kept = search(digits, tmp_path / "kept", space, "tests.own_trainer:Linear")
    assert losses(library) == losses(kept)  # promoted trials trained again from their seed
    assert [note for note in notes if "no export" in note]
    assert [note for note in notes if "no tensors" in note]
    assert not library.checkpoint_path(0).exists()
    trained = [m for m in library.members() if m.trial >= 0]
    assert {m.format for m in trained} == {"predictions"}
    assert all(m.costs["seconds"] > 0 and library.has_predictions(m.id, "test") for m in trained)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Flat", r"predicted shape \(24,\) for 24 samples; expected \(24, 10\)"),
        ("Logits", "expected probabilities|sum to"),
        ("Objects", "returned a list at 'weights'; expected NumPy arrays"),
        ("Other", "differ from the trainer's"),
        ("Passes", "unit of the trainer is 'passes'; expected one of epochs, steps, rounds"),
        ("Broken", r"failed on \d+ samples \(ZeroDivisionError: no\)"),
        ("Nothing", "has no method predict"),
        ("number", "is not a class"),
        ("absent", "has no absent"),
    ],
)
def test_a_trainer_that_does_not_fit_is_refused_before_the_search(
    name: str, word: str, digits: Dataset, tmp_path: Path, space: str
) -> None:
    with pytest.raises(RipienoError, match=word) as caught:
        search(digits, tmp_path / "run", space, f"tests.own_trainer:{name}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.filterwarnings("ignore:Solver terminated early")
def test_the_trainer_of_the_documentation_is_searched_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skl2onnx")
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class SVRTrainer" in block)
    (space,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "documented_svr.py").write_text(code)
    (tmp_path / "space.json").write_text(space)
    monkeypatch.syspath_prepend(tmp_path)
    inputs = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    np.savez(tmp_path / "table.npz", inputs=inputs, targets=(inputs @ [3.0, 2.0, 1.0] + 0.5).astype(np.float32))
    library = search(
        str(tmp_path / "table.npz"), tmp_path / "run", str(tmp_path / "space.json"), "documented_svr:SVRTrainer"
    )
    members = library.members()
    assert {m.format for m in members} == {"onnx"}
    assert min(m.losses["valid_r2"] for m in members if m.epoch == 3) > 0.5


def test_a_users_trainer_needs_a_space_and_its_name(digits: Dataset, tmp_path: Path, space: str) -> None:
    with pytest.raises(SearchError, match="pass its hyperparameters with --space"):
        search(digits, tmp_path / "run", "auto", "tests.own_trainer:Linear")
    with pytest.raises(ModelError, match="unknown trainer 'forest'; expected one of network"):
        search(digits, tmp_path / "run", space, "forest")
    search(digits, tmp_path / "run", space, "tests.own_trainer:Linear")
    with pytest.raises(SearchError, match=r"--trainer tests\.own_trainer:Linear"):
        ripieno.tune(run=tmp_path / "run", trials=5)
    assert len(losses(search(None, tmp_path / "run", "auto", "tests.own_trainer:Linear"))) >= 5
