"""Costs, ensembles and the front of a real run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno.backends.flops import onnx_flops
from ripieno.errors import SelectionError
from ripieno.models.resnet_config import megaflops
from ripieno.pipeline import static_costs
from ripieno.pipeline.costs import cost_table
from ripieno.profiles import local_devices
from ripieno.selection import front
from ripieno.tasks.metrics import cross_entropy
from ripieno.types import Ensemble, Split
from tests.reports.made_run import served


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> ripieno.Library:
    shutil.copytree(finished_run, tmp_path / "run")
    return ripieno.Library(tmp_path / "run")


def test_the_figures_of_an_ensemble_are_those_of_its_weights_and_temperatures(run: ripieno.Library) -> None:
    (ensemble,) = ripieno.select(run, 1e9, prune=1.0)
    assert (ensemble.name, ensemble.method, ensemble.calibration) == ("B1e+09", "smobf-r", "members")
    assert ensemble.combiner == "weighted"
    assert len(ensemble.temperatures) == len(ensemble.members) > 1
    assert ensemble.temperatures == tuple(run.member(m).temperature for m in ensemble.members)
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        combined, labels = served(run, ensemble, split), run.targets(split)
        truth = combined[np.arange(len(combined)), labels]
        assert ensemble.losses[f"{split}_cross_entropy"] == pytest.approx(-np.log(truth).mean(), abs=1e-5)
        assert ensemble.losses[f"{split}_accuracy"] == pytest.approx((combined.argmax(1) == labels).mean())
    assert run.ensemble(ensemble.name) == ensemble


def test_the_expected_loss_is_kept_and_is_not_the_one_that_chose(run: ripieno.Library) -> None:
    (ensemble,) = ripieno.select(run, 1e9, prune=1.0)
    assert ensemble.expected_loss is not None
    assert ensemble.expected_loss_error is not None
    assert ensemble.expected_loss > ensemble.losses["valid_cross_entropy"]
    assert 0 < ensemble.expected_loss_error < 0.5 * ensemble.expected_loss + 0.1
    (without,) = ripieno.select(run, 1e9, prune=1.0, cv=0)
    assert (without.expected_loss, without.expected_loss_error) == (None, None)
    (named,) = ripieno.select(run, 1e9, prune=1.0, method="smobf", calibrate="members", cv=3)
    assert named.name == "B1e+09-smobf-members"
    assert named.expected_loss is not None
    assert len(named.temperatures) == len(named.members)


def test_the_arguments_reach_the_selection(run: ripieno.Library) -> None:
    """The same call for arrays gives the same ensemble."""
    ids = run.ids()
    table = cost_table(run, ["seconds"], local_devices("cpu")[0].kind)
    ids = [m for m in ids if m in table.own]
    cube = [run.predictions(m) for m in ids]
    costs = [table.own[m]["seconds"] for m in ids]
    budget = sum(costs) / 3
    for options in ({}, {"starts": 0}, {"calibrate": "none"}, {"calibrate": "joint"}, {"cv": 4}, {"loss": "accuracy"}):
        (ensemble,) = ripieno.select(run, budget, prune=1.0, **options)
        choice = front(cube, run.targets(), costs, [budget], prune=1.0, **options)[0]
        assert ensemble.members == tuple(ids[m] for m in choice.members), options
        assert ensemble.weights == pytest.approx(choice.weights)
        assert ensemble.temperatures == pytest.approx(
            () if "none" in options.values() else choice.temperatures, rel=1e-6
        )
        assert ensemble.temperature == pytest.approx(choice.temperature, rel=1e-5)
        assert ensemble.expected_loss == pytest.approx(choice.expected_loss, rel=1e-4)


def test_a_named_method_takes_probabilities_as_they_are(run: ripieno.Library) -> None:
    for path in run.path.glob("library/*/calibrated.npy"):  # of selections before
        path.unlink()
    (ensemble,) = ripieno.select(run, 5.0, method="smobf")
    assert (ensemble.temperatures, ensemble.temperature, ensemble.calibration) == ((), 1.0, "none")
    assert ensemble.expected_loss is None
    assert not list(run.path.glob("library/*/calibrated.npy"))
    assert ensemble.cost["seconds"] <= 5.0
    mean = np.mean([run.predictions(m) for m in ensemble.members], axis=0)
    truth = mean[np.arange(len(mean)), run.targets()]
    assert ensemble.losses["valid_cross_entropy"] == pytest.approx(-np.log(truth).mean(), abs=1e-6)
    assert 0 <= ensemble.losses["test_accuracy"] <= 1


@pytest.mark.parametrize("kind", ["seconds", "memory", "latency", "parameters", "flops", "bytes"])
def test_every_kind_of_cost_can_bound_a_budget(run: ripieno.Library, kind: str) -> None:
    found = ripieno.front(run, cost=kind, prune=1.0)
    costs = [e.cost[kind] for e in found.ensembles]
    losses = [e.losses["valid_cross_entropy"] for e in found.ensembles]
    assert costs == sorted(costs)
    assert losses == sorted(losses, reverse=True)
    bounded = ripieno.select(run, {kind: costs[-1]})[0]
    assert bounded.cost[kind] <= costs[-1]


def test_a_budget_may_bound_several_costs_at_once(run: ripieno.Library) -> None:
    free = ripieno.select(run, {"seconds": 100.0, "parameters": 1e9}, prune=1.0)[0]
    tight = ripieno.select(run, {"seconds": 100.0, "parameters": free.cost["parameters"] - 1}, prune=1.0)[0]
    assert tight.cost["parameters"] < free.cost["parameters"]


@pytest.mark.parametrize("kind", ["parameters", "seconds"])
def test_the_figures_on_the_test_split_do_not_depend_on_the_files_that_a_cost_left(
    run: ripieno.Library, kind: str
) -> None:
    for member in run.ids():
        run.onnx_path(member).unlink(missing_ok=True)
        (run.path / "library" / member / "test.npy").unlink(missing_ok=True)
    notes: list[str] = []
    (chosen,) = ripieno.select(run, {kind: 1e12}, notes=notes)
    assert {"test_cross_entropy", "test_accuracy", "test_macro_f1"} < set(chosen.losses)
    assert not [note for note in notes if "test scores" in note]
    (again,) = ripieno.select(run, {kind: 1e12})
    assert again.losses == chosen.losses


def test_that_test_figures_are_lacking_is_noted_with_the_reason(run: ripieno.Library) -> None:
    for member in run.ids():
        for path in (run.onnx_path(member), run.weights_path(member), run.path / "library" / member / "test.npy"):
            path.unlink(missing_ok=True)
    notes: list[str] = []
    (chosen,) = ripieno.select(run, {"parameters": 1e12}, notes=notes)
    assert "test_accuracy" not in chosen.losses
    assert [note for note in notes if "no test scores for the ensembles with" in note and "neither a model" in note]


def test_an_unknown_cost_lists_the_known_ones(run: ripieno.Library) -> None:
    with pytest.raises(
        SelectionError, match="a budget may bound seconds, memory, latency, joules, parameters, flops, bytes"
    ):
        ripieno.select(run, {"watts": 3.0})


def test_the_best_of_a_front_is_the_last_one_within_the_budget(run: ripieno.Library) -> None:
    found = ripieno.front(run, prune=1.0)
    assert run.front() == found
    assert found.method == "smobf-r"
    assert all(e.expected_loss is not None and len(e.temperatures) == len(e.members) for e in found.ensembles)
    first, last = found.ensembles[0], found.ensembles[-1]
    assert found.best(first.cost["seconds"] * 0.99) is None
    assert found.best(last.cost["seconds"] * 2) == last


def test_operations_in_the_graph_are_twice_the_multiply_adds_of_the_formula(run: ripieno.Library) -> None:
    members = [m for m in run.members() if run.onnx_path(m.id).exists()]
    assert members
    for member in members:
        counted = onnx_flops(run.onnx_path(member.id)) / 2e6
        assert counted == pytest.approx(megaflops(member.configuration, member.input), rel=0.01)


def test_parameters_and_operations_are_counted_for_networks_at_hand(run: ripieno.Library) -> None:
    counts = static_costs(run, run.ids())
    for member in run.members():
        assert counts[member.id]["parameters"] == member.parameters
        assert ("flops" in counts[member.id]) == run.onnx_path(member.id).exists()


def test_predictions_alone_become_an_ensemble(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    sharp = np.eye(3)[labels] * 0.6 + rng.dirichlet(np.ones(3), 60) * 0.4
    models = {"good": sharp, "other": rng.dirichlet(np.ones(3), 60)}
    costs = {"good": {"seconds": 2.0}, "other": {"seconds": 1.0}}
    ripieno.import_(tmp_path / "run", models, labels=labels, costs=costs)
    assert ripieno.select(tmp_path / "run", 2.5)[0].members == ("good",)


def test_starts_calibration_and_folds_change_what_they_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 3, 60)
    truth = np.eye(3)[labels]
    cube = [rng.dirichlet(np.ones(3), 60) * 0.6 + truth * 0.4 * rng.uniform(0.5, 1.0, (60, 1)) for _ in range(12)]
    models = {f"m{i:02d}": rows / rows.sum(axis=1, keepdims=True) for i, rows in enumerate(cube)}
    costs = dict(zip(models, ({"seconds": c} for c in rng.lognormal(0, 1, 12)), strict=True))
    ripieno.import_(tmp_path / "run", models, labels=labels, costs=costs)

    def chosen(**options: Any) -> Ensemble:
        return ripieno.select(tmp_path / "run", 2.0, **options)[0]

    assert chosen().members != ("m01",)
    assert chosen(starts=0).members == ("m01",), "it takes the whole budget"
    assert ripieno.front(tmp_path / "run", starts=0).ensembles != ripieno.front(tmp_path / "run").ensembles
    assert chosen(calibrate="none").losses["valid_cross_entropy"] != chosen().losses["valid_cross_entropy"]
    assert chosen(cv=3).expected_loss != chosen().expected_loss


def test_budgets_by_default_fit_the_best_network_whatever_it_costs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    models = {"good": np.eye(3)[labels] * 0.6 + rng.dirichlet(np.ones(3), 60) * 0.4}
    ripieno.import_(tmp_path / "run", models, labels=labels, costs={"good": {"seconds": 0.0100105}})
    ensembles = ripieno.select(tmp_path / "run")
    assert [e.name for e in ensembles] == ["B0.011", "B0.021", "B0.041", "B0.081"]
    assert all(e.members == ("good",) for e in ensembles)


def test_the_best_networks_without_a_cost_are_measured_before_any_is_chosen(run: ripieno.Library) -> None:
    device = local_devices("cpu")[0].kind
    known = run.profiles(device)
    best = min(run.members(), key=lambda m: m.losses["valid_cross_entropy"]).id
    (run.path / "profiles" / f"{device}.json").unlink()
    run.write_profiles(device, [p for m, p in known.items() if m != best])
    steps: list[tuple[str, int]] = []
    notes: list[str] = []
    ensembles = ripieno.select(run, 1e9, method="best", progress=lambda w, _, of: steps.append((w, of)), notes=notes)
    assert ensembles[0].members == (best,)
    measured = [of for what, of in steps if what.startswith("measuring")]
    assert measured == [1], "the others were measured before"
    assert not any("cost" in note for note in notes)


def test_few_samples_and_absent_classes_are_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    models = {"a": rng.dirichlet(np.ones(3), 4), "b": rng.dirichlet(np.ones(3), 4)}
    costs = {"a": {"seconds": 1.0}, "b": {"seconds": 1.0}}
    ripieno.import_(tmp_path / "run", models, labels=np.array([0, 2, 2, 0]), costs=costs)
    notes: list[str] = []
    (ensemble,) = ripieno.select(tmp_path / "run", 3.0, notes=notes)
    assert ensemble.expected_loss is None
    assert len([n for n in notes if "4 validation samples are fewer than the 5 folds" in n]) == 1
    (absent,) = [n for n in notes if "no validation sample is of class" in n]
    assert absent.startswith("no validation sample is of class 1:")
    notes.clear()
    (ensemble,) = ripieno.select(tmp_path / "run", 3.0, notes=notes, cv=4)
    assert ensemble.expected_loss is not None
    assert not [n for n in notes if "folds" in n]
    ripieno.front(tmp_path / "run", notes=notes)
    assert len([n for n in notes if "fewer than the 5 folds" in n]) == 1


def test_new_validation_predictions_take_the_expected_loss_with_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    costs = {"a": {"seconds": 1.0}}
    for replace in (False, True):
        models = {"a": np.eye(3)[labels] * 0.5 + rng.dirichlet(np.ones(3), 60) * 0.5}
        ripieno.import_(tmp_path / "run", models, labels=labels, costs=costs, replace=replace)
        if not replace:
            assert ripieno.select(tmp_path / "run", 1.0)[0].expected_loss is not None
    library = ripieno.Library(tmp_path / "run")
    kept = library.ensemble("B1")
    assert (kept.expected_loss, kept.expected_loss_error) == (None, None)
    assert library.calibration("a") is None
    assert kept.losses["valid_cross_entropy"] == pytest.approx(cross_entropy(served(library, kept), labels), abs=1e-5)


def test_flops_are_counted_without_measuring(run: ripieno.Library) -> None:
    shutil.rmtree(run.path / "profiles")
    ripieno.front(run, cost="flops")
    ripieno.select(run, {"bytes": 4e6})
    assert run.profile_devices() == []


def unpriced(path: Path, priced: int, total: int) -> Path:
    """A run of predictions, of which the first `priced` have costs."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 30)
    models = {f"m{i:02d}": np.eye(3)[labels] * 0.2 + rng.dirichlet(np.ones(3), 30) * 0.8 for i in range(total)}
    costs = {name: {"seconds": 1.0} for name in [*models][:priced]}
    ripieno.import_(path, {n: models[n] for n in costs}, labels=labels, costs=costs)
    ripieno.import_(path, {n: v for n, v in models.items() if n not in costs})
    return path


def test_networks_without_a_cost_are_skipped_with_a_note(tmp_path: Path) -> None:
    notes: list[str] = []
    (ensemble,) = ripieno.select(unpriced(tmp_path / "run", 2, 5), 3.0, notes=notes)
    assert set(ensemble.members) <= {"m00", "m01"}
    assert [n.partition(":")[0] for n in notes] == ["3 of the 5 best members have no cost in seconds and were skipped"]
    ripieno.front(tmp_path / "run", notes=notes)
    assert len(notes) == 2


def test_the_share_considered_is_one_of_the_library_and_not_of_those_with_a_cost(tmp_path: Path) -> None:
    (ensemble,) = ripieno.select(unpriced(tmp_path / "run", 22, 44), 1e9, prune=0.5, method="forward", size=22)
    assert len(ensemble.members) == 22


def test_external_onnx_files_are_measured_selected_and_deployed(
    run: ripieno.Library, digit_folder: Path, tmp_path: Path
) -> None:
    files = []
    for member in run.ids()[:8]:
        if run.onnx_path(member).exists():
            shutil.copy(run.onnx_path(member), tmp_path / f"net-{member}.onnx")
            files.append(tmp_path / f"net-{member}.onnx")
    added = ripieno.import_(tmp_path / "new", files, data=digit_folder)
    assert {m.id for m in added} == {f.stem for f in files}
    ensembles = ripieno.select(tmp_path / "new", 10.0, prune=1.0)
    bundle = ripieno.allocate(tmp_path / "new", ensembles[0], devices="cpu", max_benches=0)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    assert ripieno.predict(bundle, images).shape == (2, 10)
