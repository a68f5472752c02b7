"""Free members: trees with which a search begins, and which change nothing of the search."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

pytest.importorskip("lightgbm")
pytest.importorskip("skl2onnx")
pytest.importorskip("onnxmltools")

import ripieno
from ripieno.data import open_dataset, write_dataset
from ripieno.data.load import load_dataset
from ripieno.errors import SearchError, SelectionError
from ripieno.library import Library
from ripieno.pipeline import free_members
from ripieno.pipeline.free_members import MODELS, add_free_members
from ripieno.pipeline.runs import no_progress
from ripieno.pipeline.search_execution import report_result
from ripieno.search.constraints import parse_constraint
from ripieno.train import TrainingConfig
from ripieno.types import Dataset


@pytest.fixture(scope="module")
def digits() -> Dataset:
    source = load_digits()
    images = (source.images[:300, :, :, None] * 15).astype(np.uint8)
    return load_dataset((images, source.target[:300]))


def search(data: Dataset | None, run: Path, free: str, trials: int = 3, notes: list[str] | None = None) -> Library:
    return ripieno.tune(
        data,
        run,
        trials=trials,
        epochs=3,
        seed=2,
        space="resnet-tiny",
        pool="inline",
        free=free,
        notes=notes,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def runs(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, Library]:
    folder = tmp_path_factory.mktemp("runs")
    return search(digits, folder / "with", "on"), search(digits, folder / "without", "off")


def weights(library: Library) -> dict[str, bytes]:
    return {m.id: library.weights_path(m.id).read_bytes() for m in library.members() if m.trial >= 0}


def test_the_search_is_the_same_with_and_without_them(runs: tuple[Library, Library]) -> None:
    with_trees, without = runs
    assert weights(with_trees) == weights(without) != {}
    assert set(with_trees.ids()) - set(without.ids()) == set(MODELS)


def test_a_search_that_goes_on_trains_no_others(runs: tuple[Library, Library]) -> None:
    with_trees, without = runs
    made = {m.id: m.created for m in with_trees.members() if m.id in MODELS}
    with_trees.remove("trees-lightgbm")
    search(None, with_trees.path, "on", trials=4)
    search(None, without.path, "on", trials=4)
    assert weights(with_trees) == weights(without)
    assert not [name for name in without.ids() if name in MODELS]
    left = {m.id: m.created for m in with_trees.members() if m.id in MODELS}
    assert left == {name: time for name, time in made.items() if name != "trees-lightgbm"}


def test_they_are_measured_selected_and_evaluated_like_others(runs: tuple[Library, Library]) -> None:
    library = runs[0]
    member = library.member("trees-extra-trees")
    assert (member.trial, member.format, member.family) == (-1, "onnx", "trees:extra-trees")
    profiles = ripieno.measure(library)
    assert member.id in profiles
    (ensemble,) = ripieno.select(library, [2 * max(p.cost for p in profiles.values())], prune=1.0)
    assert set(ensemble.members) & set(MODELS)

    assert ensemble.losses["test_accuracy"] > 0.7
    bundle = library.path.parent / "bundle"
    ripieno.allocate(library, ensemble, devices="cpu", bundle=bundle, max_benches=1)
    dataset = load_digits().images[:5, :, :, None] * 15
    with ripieno.Engine(bundle) as engine:
        answer = engine.predict(dataset.astype(np.uint8))
    assert answer.shape == (5, 10)


def test_a_budget_of_operations_leaves_trees_out_and_says_so(runs: tuple[Library, Library], tmp_path: Path) -> None:
    library, notes = runs[0], list[str]()
    front = ripieno.front(library, cost="flops", prune=1.0, notes=notes)
    assert front.ensembles
    assert not {m for e in front.ensembles for m in e.members} & set(MODELS)
    (note,) = [n for n in notes if "flops" in n]
    assert note.startswith(f"{len(set(library.ids()) & set(MODELS))} of the ")
    assert note.endswith("were skipped: the operations in their models, such as those of trees, cannot be counted")
    front = ripieno.front(library, cost="parameters", prune=1.0)
    assert {m for e in front.ensembles for m in e.members}
    shutil.copytree(library.path, tmp_path / "trees")
    trees = Library(tmp_path / "trees")
    for name in set(trees.ids()) - set(MODELS):
        trees.remove(name)
    with pytest.raises(SelectionError, match=r"no member of .* has costs in flops: .* cannot be counted; a budget may"):
        ripieno.select(trees, {"flops": 1e9})


def test_large_images_and_a_missing_extra_leave_them_out(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_members, "SIDE", 7)
    assert not [name for name in search(digits, tmp_path / "large", "on", 1).ids() if name in MODELS]
    monkeypatch.setattr(free_members, "SIDE", 8)
    monkeypatch.setattr(free_members, "_MODULES", ("lightgbm_absent",))
    notes: list[str] = []
    assert not [name for name in search(digits, tmp_path / "missing", "on", 1, notes).ids() if name in MODELS]
    assert len([note for note in notes if "without free members" in note]) == 1


def test_large_training_splits_are_sampled_with_every_class(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_members, "NUMBERS", 64 * 20)
    rows = free_members._bounded(digits, 64).rows("train")
    assert 20 <= len(rows) <= 30
    assert set(digits.targets[rows]) == set(range(10))


def test_a_wrong_word_is_refused(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="free is 'no': it must be on or off"):
        search(digits, tmp_path / "run", "no")


def test_a_free_member_that_cannot_be_made_is_left_out_with_a_note(digits: Dataset, tmp_path: Path) -> None:
    split = digits.split.copy()
    split[(digits.targets == 9) & (split == 0)] = 1  # forests cannot be exported without training samples of a class
    library, notes = Library(tmp_path / "run"), list[str]()
    write_dataset(dataclasses.replace(digits, split=split), library.dataset_path)
    config = TrainingConfig(library.path, library.dataset_path, "resnet", 1, 1)
    add_free_members(library, config, open_dataset(library.dataset_path), notes=notes)
    assert set(library.ids()) == {"trees-lightgbm", "trees-lightgbm-small"}
    assert [note.partition(" was left out: ")[0] for note in notes] == [
        "free member trees-random-forest",
        "free member trees-extra-trees",
    ]
    assert all("a class has no training samples" in note for note in notes)


def test_one_that_exceeds_the_budget_alone_is_not_kept(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("trees-random-forest", "trees-lightgbm-small")
    monkeypatch.setattr(free_members, "MODELS", {name: MODELS[name] for name in few})
    library = Library(tmp_path / "run")
    write_dataset(digits, library.dataset_path)
    data = open_dataset(library.dataset_path)
    config = TrainingConfig(run=library.path, dataset=library.dataset_path, family="resnet")
    notes: list[str] = []
    add_free_members(library, config, data, notes=notes, constraints=[parse_constraint("flops<=1e12")])
    assert library.ids() == []
    assert [note.startswith("the search begins without free members: the operations in") for note in notes] == [True]
    bounds = [*map(parse_constraint, ("parameters<=20000", "accuracy>=0.1", "unknown<=1"))]
    add_free_members(library, config, data, notes=notes, constraints=bounds)
    assert library.ids() == ["trees-lightgbm-small"]
    assert len(notes) == 2
    assert notes[-1].startswith("free member trees-random-forest was left out: its parameters ")
    assert notes[-1].endswith(" breaks parameters<=20000")
    library.remove("trees-lightgbm-small")
    add_free_members(library, config, data, notes=notes, constraints=[parse_constraint("accuracy>=1")])
    assert library.ids() == []
    assert notes[-1].endswith(" breaks accuracy>=1")


def test_one_is_made_in_no_time_and_is_all_that_a_search_without_a_network_needs(
    digits: Dataset, tmp_path: Path
) -> None:
    library, notes = Library(tmp_path), list[str]()
    config = TrainingConfig(run=tmp_path)
    add_free_members(library, config, digits, seconds=1e-9)
    assert library.ids() == [next(iter(MODELS))]
    last = dataclasses.make_dataclass("Last", ["ended", "jobs"])("deadline", 0)
    report_result(library, last, no_progress, notes)
    assert notes[0].startswith("no trial finished an epoch in the time given")
    library.remove(library.ids()[0])
    with pytest.raises(SearchError, match="no member was trained in the time given"):
        report_result(library, last, no_progress, notes)
