"""The explorer's data against direct computations."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ripieno import pipeline
from ripieno.library import Library
from ripieno.profiles import local_devices
from ripieno.reports import explorer
from ripieno.reports.explorer import Explorer, explore, load_front
from ripieno.reports.run_data import RunData, load_run
from ripieno.tasks.metrics import losses
from ripieno.types import Ensemble, Front
from tests.reports.made_run import make_run, served

CLASSES = tuple(f"class {i}" for i in range(20))


def silent(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return load_run(make_run(tmp_path_factory.mktemp("explorer") / "run", CLASSES))


@pytest.fixture(scope="module")
def explored(reading: RunData) -> Explorer:
    found = explore(reading, load_front(reading, silent), silent)
    assert found is not None
    return found


def test_more_budget_never_gives_a_higher_validation_loss(explored: Explorer) -> None:
    assert len(explored.spots) > 3
    for cheap, dear in itertools.pairwise(s.ensemble for s in explored.spots):
        assert cheap.cost["seconds"] < dear.cost["seconds"]
        assert cheap.losses["valid_cross_entropy"] > dear.losses["valid_cross_entropy"]


def test_the_figures_are_those_of_what_is_served(explored: Explorer, reading: RunData) -> None:
    library = reading.library
    for spot in explored.spots:
        expected = losses(served(library, spot.ensemble, "test"), library.targets("test"), "test")
        assert {k: spot.ensemble.losses[k] for k in expected} == pytest.approx(expected, rel=1e-5)


def test_the_front_is_that_of_the_command_without_options(reading: RunData, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(reading.library.path, run)
    library = Library(run)
    kind = local_devices("cpu")[0].kind
    profiles = (library.path / "profiles" / "made-cpu.json").read_text()
    (library.path / "profiles" / f"{kind}.json").write_text(profiles.replace("made-cpu", kind))
    kept = pipeline.front(library, test=False)
    shown = load_front(reading, silent)
    assert [dataclasses.replace(e, losses={}, unusual=()) for e in kept.ensembles] == list(shown)
    assert all(e.expected_loss is not None and e.calibration == "members" for e in shown)


def test_the_hardest_images_have_the_least_probability_of_the_truth(explored: Explorer, reading: RunData) -> None:
    library, spot = reading.library, explored.spots[-1]
    labels = library.targets("test")
    mean = served(library, spot.ensemble, "test")
    truth = mean[np.arange(len(labels)), labels]
    assert [s.row for s in spot.hardest] == list(np.argsort(truth, kind="stable")[: len(spot.hardest)])
    for sample in spot.hardest:
        assert sample.truth == labels[sample.row]
        assert sample.answer == mean[sample.row].argmax()


def test_disputed_images_are_those_that_members_answer_differently(explored: Explorer) -> None:
    for spot in explored.spots:
        members = len(spot.ensemble.members)
        assert members > 1 or not spot.disputed
        for sample in spot.disputed:
            assert max(count for _, count in sample.votes) < members or sample.votes[0][0] != sample.answer


def test_disagreement_is_the_share_of_differing_answers(explored: Explorer, reading: RunData) -> None:
    (one, other), share = next(iter(explored.disagreement.items()))
    votes = [reading.library.predictions(m, "test").argmax(axis=1) for m in (one, other)]
    assert share == pytest.approx((votes[0] != votes[1]).mean())


def test_a_confusion_counts_every_sample_and_has_no_more_classes_than_can_be_seen(explored: Explorer) -> None:
    assert len(explored.shown) == explorer.CLASSES
    assert explored.rest
    for judged in [*(s.judged for s in explored.spots), *explored.faces.values()]:
        assert len(judged.confusion) == explorer.CLASSES + 1
        assert sum(map(sum, judged.confusion)) == explored.samples == 120


def test_a_front_that_the_run_keeps_is_the_one_shown(reading: RunData, tmp_path: Path) -> None:
    kept = load_run(make_run(tmp_path / "run", CLASSES[:3], members=6))
    ids = tuple(sorted(kept.costs))
    chosen = Ensemble("front-00", ids[:2], (0.5, 0.5), "smobf", {"seconds": 9.0}, {"seconds": 9.0}, {})
    kept.library.write_front(Front("seconds", "smobf", (chosen,)))
    assert load_front(kept, silent) == (chosen,)
    kept.library.remove(ids[0])
    assert chosen not in load_front(load_run(kept.library), silent), "one of its members is gone"


def test_the_validation_samples_are_shown_without_test_predictions(tmp_path: Path) -> None:
    library = make_run(tmp_path / "run", CLASSES[:3], members=6)
    for member in library.ids():
        (library.member_path(member) / "test.npy").unlink()
    reading = load_run(library)
    found = explore(reading, load_front(reading, silent), silent)
    assert found is not None
    assert (found.split, found.samples) == ("valid", 80)


def test_imported_costs_are_explored_in_their_own_unit(tmp_path: Path, imported: Callable[[Path], RunData]) -> None:
    reading = imported(tmp_path / "run")
    assert (reading.kind, reading.unit) == ("euros", "euros")
    front = load_front(reading, silent)
    assert front
    assert all(set(e.cost) == {"euros"} for e in front)


@pytest.fixture
def imported() -> Callable[[Path], RunData]:
    """Return a function that makes a library of predictions with a cost in euros only."""
    from ripieno.files import remove_tree

    def make(path: Path) -> RunData:
        library = make_run(path, CLASSES[:3], members=6)
        remove_tree(path / "profiles")
        remove_tree(path / "dataset")
        for number, member in enumerate(library.members()):
            costs = {"euros": 1.0 + number}
            library.update(dataclasses.replace(member, costs=costs, format="predictions", curve=()))
        return load_run(library)

    return make
