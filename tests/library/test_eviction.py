from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno.errors import LibraryError
from ripieno.library import Library, enforce_quota, import_predictions
from ripieno.library.eviction import bytes_of, dominated
from ripieno.pipeline import evict
from ripieno.types import BatchProfile, Ensemble, Front, Input, Member, Profile, classification

LABELS = np.zeros(50, dtype=np.int64)


def fill(path: Path) -> Library:
    """Members: a is good and costly, b is average and cheap, c is dominated by a, d by b at equal cost."""
    library = Library(path)
    rng = np.random.default_rng(0)
    truth = {"a": 0.9, "b": 0.7, "c": 0.6, "d": 0.5}
    rows = {n: np.full((50, 1), t) + rng.uniform(0, 0.01, (50, 1)) for n, t in truth.items()}
    costs = {"a": 5.0, "b": 1.0, "c": 6.0, "d": 1.0}
    answers = {n: np.hstack([t, 1 - t]) for n, t in rows.items()}
    import_predictions(library, answers, LABELS, {n: {"seconds": c} for n, c in costs.items()})
    return library


def test_the_dominated_are_worse_and_no_cheaper(tmp_path: Path) -> None:
    assert dominated(fill(tmp_path)) == {"c": "a", "d": "b"}


def test_a_member_without_a_cost_is_not_dominated(tmp_path: Path) -> None:
    assert dominated(fill(tmp_path), {"a": 5.0, "c": 6.0, "b": 1.0}) == {"c": "a"}


def test_equals_do_not_dominate_each_other(tmp_path: Path) -> None:
    library = fill(tmp_path)
    assert set(dominated(library, dict.fromkeys("abcd", 1.0))) == {"b", "c", "d"}
    same = Library(tmp_path / "same")
    half = np.full((50, 2), 0.5)
    other = half.copy()
    other[:2] = [[0.4, 0.6], [0.6, 0.4]]
    swapped = half.copy()
    swapped[:2] = [[0.6, 0.4], [0.4, 0.6]]
    import_predictions(same, {"x": other, "y": swapped}, LABELS, {n: {"seconds": 1.0} for n in "xy"})
    assert dominated(same) == {}


def test_the_worst_dominated_member_goes_first_and_only_as_many_as_needed(tmp_path: Path) -> None:
    library = fill(tmp_path)
    total = sum(bytes_of(library, m) for m in library.ids())
    evicted, left = enforce_quota(library, total - 1)
    assert [(e.member, e.by) for e in evicted] == [("d", "b")]
    assert library.ids() == ["a", "b", "c"]
    assert left == sum(bytes_of(library, m) for m in library.ids())


def test_a_library_of_just_its_quota_keeps_what_it_has(tmp_path: Path) -> None:
    library = fill(tmp_path)
    quota = sum(bytes_of(library, m) for m in "abc")
    evicted, left = enforce_quota(library, quota)
    assert [(e.member, e.bytes > 0) for e in evicted] == [("d", True)]
    assert left == quota
    assert enforce_quota(library, quota) == ((), quota)


def test_what_an_ensemble_may_need_stays_though_the_quota_is_passed(tmp_path: Path) -> None:
    library = fill(tmp_path)
    evicted, left = enforce_quota(library, 1)
    assert [e.member for e in evicted] == ["d", "c"]
    assert library.ids() == ["a", "b"]
    assert left > 1


def test_members_of_an_ensemble_stay(tmp_path: Path) -> None:
    library = fill(tmp_path)
    library.write_ensemble(Ensemble("B9", ("d",), (1.0,), "smobf", {}, {}, {}))
    assert [e.member for e in enforce_quota(library, 1)[0]] == ["c"]


def add_trained(library: Library, name: str, truth: float, parameters: int) -> None:
    """Create a member that has parameters and no measured cost."""
    rows = np.full((50, 1), truth) + np.random.default_rng(parameters).uniform(0, 0.01, (50, 1))
    answers = np.hstack([rows, 1 - rows])
    losses = {"valid_cross_entropy": -float(np.log(rows).mean())}
    library.add(
        Member(name, 0, 1, "resnet", {}, Input(()), classification(("0", "1")), losses, parameters, 0.0),
        answers,
        LABELS,
    )


def test_when_only_the_best_are_measured_parameters_are_compared_and_the_worst_goes_first(tmp_path: Path) -> None:
    library = Library(tmp_path)
    for name, truth, parameters in (("a", 0.9, 100), ("b", 0.7, 10), ("c", 0.6, 200), ("d", 0.5, 300)):
        add_trained(library, name, truth, parameters)
    library.write_profiles(
        "cpu", [Profile(m, "cpu", "onnx", (BatchProfile(1, s, 0.0, 1),)) for m, s in (("a", 2), ("b", 5))]
    )
    assert dominated(library) == {"c": "a", "d": "a"}
    total = sum(bytes_of(library, m) for m in library.ids())
    assert [e.member for e in evict(library, total - 1)[0]] == ["d"]


def test_seconds_are_compared_when_each_member_has_them_imported_or_measured(tmp_path: Path) -> None:
    library = fill(tmp_path)
    add_trained(library, "e", 0.8, 1000)
    library.write_profiles("cpu", [Profile("e", "cpu", "onnx", (BatchProfile(1, 0.001, 0.0, 1),))])
    assert dominated(library) == {"c": "a", "d": "b"}, "2 seconds for 2,000 samples are on the front"


def test_predictions_without_costs_are_not_for_free_beside_networks_and_the_loss_alone_decides(tmp_path: Path) -> None:
    library = Library(tmp_path)
    add_trained(library, "network", 0.9, 10)
    rows = np.full((50, 2), 0.5) + np.array([0.2, -0.2])
    import_predictions(library, {"answers": rows, "worse": rows - [0.1, -0.1]})
    assert dominated(library) == {"answers": "network", "worse": "network"}
    evicted, _ = enforce_quota(library, 1)
    assert [e.member for e in evicted] == ["worse", "answers"]


def test_a_kind_of_cost_that_all_imported_is_the_one_compared(tmp_path: Path) -> None:
    library = Library(tmp_path)
    rows = np.full((50, 2), 0.5) + np.array([0.4, -0.4])
    costs = {"dear": {"euros": 4.0}, "cheap": {"euros": 1.0}}
    import_predictions(library, {"dear": rows, "cheap": rows - [0.3, -0.3]}, LABELS, costs)
    assert dominated(library) == {}


def test_members_of_the_kept_front_stay(tmp_path: Path) -> None:
    library = fill(tmp_path)
    cost = {"seconds": 1.0}
    library.write_front(Front("seconds", "smobf", (Ensemble("front-00", ("d",), (1.0,), "smobf", cost, cost, {}),)))
    assert [e.member for e in enforce_quota(library, 1)[0]] == ["c"]


def test_within_the_quota_nothing_happens(tmp_path: Path) -> None:
    library = fill(tmp_path)
    assert enforce_quota(library, 10**9)[0] == ()
    assert len(library) == 4


def test_a_quota_is_above_zero(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="must be above 0"):
        enforce_quota(fill(tmp_path), 0)
