"""Budgets: parsing, checks and names; a budget that no member fits does not affect the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno.errors import LibraryError, SelectionError
from ripieno.pipeline.budgets import affordable, kinds_of, name_of, same_ensembles
from ripieno.pipeline.costs import selection_candidates
from ripieno.types import Ensemble


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of three models that cost 1, 2 and 4 euros; the more expensive, the better."""
    path = tmp_path_factory.mktemp("budgets") / "run"
    dice = np.random.default_rng(0)
    labels = np.arange(90) % 3
    truth = np.eye(3)[labels]
    models = {
        name: (1 - s) * dice.dirichlet(np.ones(3), 90) + s * truth for name, s in (("a", 0.3), ("b", 0.5), ("c", 0.7))
    }
    ripieno.import_(path, models, labels=labels, costs={"a": {"euros": 1}, "b": {"euros": 2}, "c": {"euros": 4}})
    return path


def test_a_budget_that_no_member_fits_does_not_affect_the_rest(run: Path) -> None:
    notes: list[str] = []
    found = ripieno.select(run, [0.5, 2, 0.25, 5], notes=notes)
    assert [e.name for e in found] == ["B2", "B5"]
    (note,) = [n for n in notes if "no member fits" in n]
    assert "0.5 euros or 0.25 euros" in note
    assert "costs 1 euros" in note


def test_it_is_an_error_only_when_no_member_fits_any_budget(run: Path) -> None:
    with pytest.raises(SelectionError, match="no member fits"):
        ripieno.select(run, [0.5, 0.25])


def test_several_bounds_must_be_kept_by_one_member() -> None:
    notes: list[str] = []
    costs = {"seconds": [1.0, 4.0], "memory": [8.0, 2.0]}
    one, none = {"seconds": 1.0, "memory": 8.0}, {"seconds": 1.0, "memory": 2.0}
    assert affordable([one, none], "seconds", costs, notes) == [one]
    assert len(notes) == 1


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (0, {}, "budget 0 euros is not valid"),
    (-1, {}, "budget -1"),
    (float("nan"), {}, "budget nan"),
    (float("inf"), {}, "budget inf"),
    ([], {}, "budgets is empty"),
    ([5, {"seconds": 1}], {}, "different kinds"),
    ({}, {}, "budget of nothing"),
    (["much"], {}, "must be a number"),
    ({"dollars": 5}, {}, "no cost of kind 'dollars'"),
    (5, {"method": "best-of"}, "unknown method 'best-of'"),
    (5, {"loss": "hinge"}, "unknown loss 'hinge'"),
    (5, {"combiner": "max"}, "unknown combiner 'max'"),
    (5, {"combiner": "weighted", "method": "smobf"}, "gives no weights"),
    (5, {"combiner": "median", "method": "replacement"}, "a median has no weights"),
    (5, {"combiner": "median", "method": "smobf-r"}, "a median has no weights, and smobf-r gives some"),
    (5, {"calibrate": "all"}, "unknown calibration 'all'"),
    (5, {"calibrate": "joint", "combiner": "vote"}, "calibrate joint needs the cross-entropy of a mean"),
    (5, {"starts": -1}, "starts -1"),
    (5, {"cv": 1}, "cv 1 is invalid"),
    (5, {"prune": 0}, "prune 0"),
    (5, {"prune": 1.5}, "prune 1.5"),
    (5, {"size": 0}, "size 0"),
    (5, {"size": 4}, "size 4 is larger than the library"),
]


@pytest.mark.parametrize(("budgets", "more", "message"), BAD)
def test_bad_arguments_of_select_are_refused_before_costs_are_read(
    run: Path, budgets: Any, more: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ripieno.pipeline.selection.ensure_profiles", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SelectionError, match=message):
        ripieno.select(run, budgets, **more)


@pytest.mark.parametrize(
    ("more", "message"),
    [({"points": 0}, "points 0"), ({"cost": "dollars"}, "no cost of kind"), ({"cost": ""}, "no cost of kind"),
     ({"prune": -1}, "prune -1"), ({"method": "x"}, "unknown method"), ({"calibrate": "x"}, "unknown calibration"),
     ({"starts": 1.5}, "starts 1.5"), ({"cv": -1}, "cv -1")],
)  # fmt: skip
def test_bad_arguments_of_front_are_refused_before_costs_are_read(
    run: Path, more: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ripieno.pipeline.selection.ensure_profiles", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SelectionError, match=message):
        ripieno.front(run, **more)


def test_what_is_not_the_default_is_part_of_the_name() -> None:
    assert name_of(20, None, "cross-entropy", "mean") == "B20"
    assert name_of(20, "smobf", "cross-entropy", "mean") == "B20-smobf"
    assert name_of(20, "smobf-r", "cross-entropy", "mean") == "B20-smobf-r", "members keep their probabilities"
    assert name_of(20, "swap", "macro-f1", "vote") == "B20-swap-macro-f1-vote"
    assert name_of({"seconds": 20.0}, None, "accuracy", "mean") == "B-seconds20-accuracy"


def test_a_calibration_that_is_not_the_default_is_part_of_the_name() -> None:
    names = {
        (method, calibrate): name_of(20, method, "cross-entropy", "mean", calibrate)
        for method in (None, "smobf")
        for calibrate in (None, "members", "joint", "none")
    }
    assert names[None, None] == names[None, "members"] == "B20"
    assert names["smobf", None] == names["smobf", "none"] == "B20-smobf"
    assert names[None, "none"] == "B20-uncalibrated"
    assert (names[None, "joint"], names["smobf", "members"]) == ("B20-joint", "B20-smobf-members")
    assert name_of(20, None, "cross-entropy", "vote", "none") == "B20-vote"


def test_ensembles_of_other_options_have_other_names(run: Path) -> None:
    ripieno.select(run, [4])
    ripieno.select(run, [4], loss="macro-f1")
    ripieno.select(run, [4], combiner="vote")
    ripieno.select(run, [4], method="best")
    ripieno.select(run, [4], method="smobf")
    ripieno.select(run, [4], calibrate="none")
    library = ripieno.Library(run)
    names = {e.name: e for e in library.ensembles()}
    assert {"B4", "B4-macro-f1", "B4-vote", "B4-best", "B4-smobf", "B4-uncalibrated"} <= set(names)
    assert (names["B4"].method, names["B4"].calibration) == ("smobf-r", "members")
    assert (names["B4-smobf"].method, names["B4-smobf"].calibration) == ("smobf", "none")
    assert names["B4-macro-f1"].loss == "macro-f1"
    assert names["B4"].loss == "cross-entropy"


def test_ensembles_of_the_same_members_are_said_to_be_the_same(run: Path) -> None:
    notes: list[str] = []
    ripieno.select(run, [100, 200, 1], notes=notes)
    (note,) = [n for n in notes if "same ensemble" in n and "B100" in n]
    assert "B200" in note
    assert "B1," not in note


def test_members_in_another_order_or_combined_otherwise() -> None:
    def made(name: str, members: tuple[str, ...], combiner: Any = "mean") -> Ensemble:
        return Ensemble(name, members, (1 / len(members),) * len(members), "smobf", {}, {}, {}, combiner)

    three = [made("x", ("a", "b")), made("y", ("b", "a")), made("z", ("a", "b"), "vote")]
    assert len(same_ensembles(three)) == 1
    assert "x and y" in same_ensembles(three)[0]
    assert same_ensembles(three, {"z"}) == []


def test_what_measure_measures_is_what_select_looks_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.eye(2)[np.arange(40) % 2] * 0.6 + 0.2
    models = {f"m{i:03d}": np.clip(rows + 0.001 * i * (1 - 2 * rows), 0, 1) for i in range(60)}
    models = {name: values / values.sum(1, keepdims=True) for name, values in models.items()}
    ripieno.import_(tmp_path / "run", models, labels=np.arange(40) % 2)
    library = ripieno.Library(tmp_path / "run")
    for member in library.members():
        library.update(dataclasses.replace(member, format="onnx"))
    assert len(selection_candidates(library, 0.2)) == 24
    assert len(selection_candidates(library, 0.01)) == 20
    assert len(selection_candidates(library, 1.0)) == 60
    measured: list[str] = []
    monkeypatch.setattr(
        "ripieno.pipeline.costs.profile_members", lambda _, members, *__, **___: measured.extend(members)
    )
    ripieno.measure(library, prune=0.2)
    assert measured == [m.id for m in selection_candidates(library, 0.2)]


def test_what_cannot_be_measured_is_not_measured(run: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="holds only predictions, which cannot be measured"):
        ripieno.measure(run)
    (tmp_path / "run" / "library").mkdir(parents=True)
    with pytest.raises(LibraryError, match="has no members to measure"):
        ripieno.measure(tmp_path / "run")
    with pytest.raises(SelectionError, match="tune DATA"):
        ripieno.select(tmp_path / "run", 1.0)


def test_kinds_are_those_of_the_budgets() -> None:
    assert kinds_of(None, "euros") == ("euros",)
    assert kinds_of([1, 2], "seconds") == ("seconds",)
    assert kinds_of([{"seconds": 1, "memory": 2}], "euros") == ("seconds", "memory")
