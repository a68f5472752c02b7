from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno.errors import LibraryError
from ripieno.library import Library, enforce_quota, import_predictions
from ripieno.library.quota import bytes_of, dominated
from ripieno.types import Ensemble

LABELS = np.zeros(50, dtype=np.int64)


def fill(path: Path) -> Library:
    """a is good and dear, b is middling and cheap, c worse than a and dearer, d worse than b and as dear."""
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


def test_within_the_quota_nothing_happens(tmp_path: Path) -> None:
    library = fill(tmp_path)
    assert enforce_quota(library, 10**9)[0] == ()
    assert len(library) == 4


def test_a_quota_is_above_zero(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="must be above 0"):
        enforce_quota(fill(tmp_path), 0)
