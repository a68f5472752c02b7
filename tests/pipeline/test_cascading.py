"""A cascade planned on a real run: the engine has the predicted savings and loss."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno import backends
from ripieno.data import open_dataset, write_dataset
from ripieno.errors import EngineError, LibraryError
from ripieno.library import read_backend_report, read_bundle
from ripieno.pipeline import cascade, cascading
from ripieno.pipeline.backend_selection import Tolerances
from ripieno.pipeline.cascading import costs_of, warnings_of
from ripieno.tasks.calibration import apply_temperature
from ripieno.tasks.metrics import accuracy, cross_entropy
from ripieno.tasks.registry import TASKS
from ripieno.types import Cascade, CascadeEffect, Dataset, Device, Ensemble, classification
from tests.onnx_networks import write_network
from tests.pixel_members import make_masks, predict_masks
from tests.server.stand_in import write_small_bundle

NAMES = ("00000-e001", "00001-e001", "00002-e001")
CPU = Device("cpu:0", "cpu", 1 << 30)
TASK = classification(("a", "b"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three untrained networks and images, with labels drawn from their mean prediction."""
    folder = tmp_path_factory.mktemp("cascading")
    dice = np.random.default_rng(0)
    images = np.clip(dice.integers(0, 256, (600, 1, 1, 3)) + dice.normal(0, 30, (600, 8, 8, 3)), 0, 255).astype(
        np.uint8
    )
    members = [
        write_network(folder / f"{n}.onnx", name=n, layers=1 + i, seed=i, filters=4 + 8 * i)
        for i, n in enumerate(NAMES)
    ]
    answers = [backends.load("onnx", folder / f"{m.id}.onnx", m, CPU, 1).infer(images) for m in members]
    labels = np.array([dice.choice(4, p=row / row.sum()) for row in np.mean(answers, axis=0, dtype=np.float64)])
    labels[:4] = range(4)
    split = np.repeat(np.arange(3, dtype=np.uint8), (100, 300, 200))
    library = ripieno.Library(folder / "run")
    data = Dataset("colours", images, labels, split, members[0].task, (0.5,) * 3, (0.5,) * 3)
    rows = write_dataset(data, library.dataset_path).rows("valid")
    for member, own in zip(members, answers, strict=True):
        library.add(member, own[rows], labels[rows], (folder / f"{member.id}.onnx").read_bytes())
    library.write_ensemble(Ensemble("three", NAMES, (0.5, 0.25, 0.25), "hand", {"seconds": 1.0}, {}, {}, "weighted"))
    ripieno.allocate(library, "three", devices="cpu", max_benches=0, bundle=folder / "bundle")
    return folder


@pytest.mark.parametrize(("temperatures", "temperature"), [([], 1.0), ([1.5, 0.7, 1.0], 0.8)])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_engine_does_what_was_predicted(
    made: Path,
    tmp_path: Path,
    precision: str,
    temperatures: list[float],
    temperature: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(made / "bundle", tmp_path / "bundle")
    library = ripieno.Library(made / "run")
    if precision != "fp32":
        monkeypatch.setattr(
            "ripieno.pipeline.backend_selection.Tolerances",
            lambda: Tolerances(loss=9.0, rounds=1, turn=0.002, samples=150),
        )
        ripieno.allocate(
            library, "three", devices="cpu", max_benches=0, precision=precision, bundle=tmp_path / "bundle"
        )
    document = json.loads((tmp_path / "bundle" / "bundle.json").read_bytes())
    document["ensemble"] |= {"temperatures": temperatures, "temperature": temperature}
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(document))
    proof = read_backend_report(tmp_path / "bundle")
    whole = (tmp_path / "bundle" / "bundle.json").read_bytes()
    bundle, planned = cascade(library, tmp_path / "bundle", tolerance=0.05)
    assert bundle.path == tmp_path / "bundle-cascade"
    assert (tmp_path / "bundle" / "bundle.json").read_bytes() == whole, "the bundle given stays as it is"
    assert read_bundle(bundle.path).cascade == bundle.cascade == planned == library.cascade("three")
    assert read_backend_report(bundle.path) == proof
    valid, test = planned.effects["valid"], planned.effects["test"]
    assert valid.loss - valid.whole_loss <= 0.05
    assert 0 < valid.saved < 1
    data = open_dataset(library.dataset_path)
    images, labels = data.inputs[data.rows("test")], data.targets[data.rows("test")]
    shutil.rmtree(tmp_path / "bundle")  # the new bundle does not need it
    with ripieno.Engine(bundle.path) as engine:
        answer = engine.submit(images).result()
        work = engine.stats().members
        each = engine.submit(images, each=True).result().member_predictions
    assert answer.members_evaluated is not None
    assert each is not None
    # the prediction of each sample is the mean of exactly the members that ran on it
    order = [NAMES.index(m) for m in planned.order]
    weights = np.array([0.5, 0.25, 0.25])[order, None, None]
    means = apply_temperature(np.cumsum(weights * each[order], 0) / np.cumsum(weights, 0), temperature)
    np.testing.assert_allclose(
        answer.predictions, means[answer.members_evaluated - 1, np.arange(len(images))], atol=1e-5
    )
    # and the computed samples, the savings and the loss are those predicted
    costs = dict(zip(NAMES, costs_of(library, bundle), strict=True))
    spent = sum(work[m].samples * costs[m] for m in NAMES)
    assert sum(w.samples for w in work.values()) == answer.members_evaluated.sum()
    assert 1 - spent / (len(images) * sum(costs.values())) == pytest.approx(test.saved, abs=0.02)
    assert answer.members_evaluated.mean() == pytest.approx(test.asked, abs=0.02)
    assert cross_entropy(answer.predictions, labels) == pytest.approx(test.loss, abs=0.01)
    assert accuracy(answer.predictions, labels) == pytest.approx(test.score, abs=0.011)
    assert test.samples == len(images)


def test_what_saves_nothing_is_left_out_and_a_cascade_can_be_taken_back(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "bundle", tmp_path / "bundle")
    before = (tmp_path / "bundle" / "bundle.json").read_bytes()
    quick, _ = cascade(made / "run", tmp_path / "bundle", tolerance=0.05, output=tmp_path / "quick")
    assert quick.path == tmp_path / "quick"
    assert (quick.path / "bundle.json").read_bytes() != before
    again, _ = cascade(made / "run", quick.path, tolerance=0.1)
    assert again.path == quick.path, "a bundle with a cascade gets another one"
    assert again.cascade is not None
    assert again.cascade.tolerance == 0.1
    bundle, _ = cascade(made / "run", quick.path, tolerance=None)
    assert bundle.cascade is None
    assert bundle.path == quick.path
    assert (quick.path / "bundle.json").read_bytes() == before


def test_what_a_cascade_costs_is_noted_and_stands_in_the_card(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "bundle", tmp_path / "bundle")
    notes: list[str] = []
    bundle, planned = cascade(made / "run", tmp_path / "bundle", tolerance=2.0, notes=notes)
    assert any("tolerance of 2" in note for note in notes)
    card = (bundle.path / "README.md").read_text()
    assert "## Cascade" in card
    assert "by 2 (tolerance)" in card
    for effect in planned.effects.values():
        assert f"{effect.loss:.4f} (all: {effect.whole_loss:.4f})" in card
        assert f"{effect.score:.4f} (all: {effect.whole_score:.4f})" in card
    assert "## Cascade" not in (tmp_path / "bundle" / "README.md").read_text()
    whole, _ = cascade(made / "run", bundle.path, tolerance=None)
    assert "## Cascade" not in (whole.path / "README.md").read_text()


def test_warnings_say_what_is_large_what_is_lost_and_what_is_broken() -> None:
    good = CascadeEffect(100, 0.5, 1.5, 0.301, 0.3, 0.9, 0.9)
    worse = CascadeEffect(100, 0.5, 1.5, 0.32, 0.3, 0.87, 0.9)
    assert warnings_of(Cascade(("a", "b"), 0.9, 0.002, {"valid": good, "test": good}), TASK) == []
    large, grown, lost = (
        warnings_of(Cascade(("a", "b"), 0.9, 0.04, {"valid": good, "test": worse}), TASK)
        + warnings_of(Cascade(("a", "b"), 0.9, 0.002, {"valid": good, "test": worse}), TASK)[:1]
    )
    assert "from 0.3000 to 0.3400" in large
    assert "3.00 points of accuracy" in grown
    assert "grows by 0.0200, more than the tolerance" in lost
    assert warnings_of(Cascade(("a", "b"), 2.0, 9.0, {"valid": worse}), TASK) == [], "it stops no sample"


def test_values_have_no_cascade(made: Path, tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle", kind="regression")
    with pytest.raises(
        EngineError, match=r"^A cascade needs a confidence, which a regression task does not have\. Run all"
    ):
        cascade(made / "run", tmp_path / "bundle", output=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_can_have_no_cascade_is_refused(made: Path, tmp_path: Path) -> None:
    library, bundle = ripieno.Library(made / "run"), tmp_path / "bundle"
    with pytest.raises(EngineError, match="tolerance -1 must be"):
        cascade(library, made / "bundle", tolerance=-1.0)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(EngineError, match="must be nats"):
            cascade(library, made / "bundle", tolerance=wrong)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(LibraryError, match="holds no bundle"):
        cascade(library, made / "bundle", output=tmp_path / "full")
    with pytest.raises(LibraryError, match="not a run"):
        cascade(tmp_path, made / "bundle")
    voting = dataclasses.replace(library.ensemble("three"), name="votes", combiner="vote")
    ripieno.allocate(library, voting, devices="cpu", max_benches=0, bundle=bundle)
    with pytest.raises(EngineError, match="needs a mean"):
        cascade(library, bundle)


def test_masks_at_a_temperature_are_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All predictions of a split of masks are never in memory."""
    monkeypatch.setattr("ripieno.tasks.pixels.BLOCK", 2 * 48 * 3)
    predictions = predict_masks(make_masks(5), 1)[0].astype(np.float16)
    kind = TASKS["segmentation"]
    found = cascading._at(predictions, 1.7, kind, tmp_path / "own.npy")
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, apply_temperature(predictions, 1.7, kind).astype(np.float16))
    assert cascading._at(predictions, 1.0, kind, tmp_path / "other.npy") is predictions
