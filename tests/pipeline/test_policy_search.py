"""Search of a policy of augmentation: its parts of the data, its judgement, and a run that trains with it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno.cluster import InlinePool
from ripieno.data import open_dataset
from ripieno.data.augmentation_policy import LearntPolicy, PolicyStep, read_policy, write_policy
from ripieno.errors import DataError, RipienoError, SearchError
from ripieno.library import Library
from ripieno.pipeline import policy_search
from ripieno.pipeline.policy_search import (
    PolicyOptions,
    PolicyResult,
    best_policy,
    comparable_epochs,
    compare,
    divide,
    interval_of,
)
from ripieno.types import Dataset, Failure, Job, JobResult, classification

POLICY = LearntPolicy("table", (PolicyStep("noise", 0.5, 0.5),))


def made(train: int = 100, valid: int = 30, folds: int = 0) -> Dataset:
    split = np.repeat(np.array([0, 1, 2], np.uint8), [train, valid, 10])
    inputs = np.arange(len(split) * 2, dtype=np.float32).reshape(-1, 2)
    of = np.where(split == 0, np.arange(len(split)) % max(1, folds), 255).astype(np.uint8) if folds else None
    targets = np.arange(len(split)) % 2
    moments = (0.0, 0.0), (1.0, 1.0)
    return Dataset("made", inputs, targets, split, classification(("a", "b")), *moments, "table", folds=of)


@pytest.mark.parametrize(("valid", "folds"), [(30, 0), (0, 5), (0, 2)])
def test_networks_search_and_judgement_have_rows_of_their_own(valid: int, folds: int) -> None:
    data = made(valid=valid, folds=folds)
    parts = divide(data, 0)
    rows = np.concatenate(parts)
    assert len(np.unique(rows)) == len(rows) == 100 + valid
    assert [len(part) for part in parts] == ([80, 20, 30] if valid else [60, 20, 20])
    if valid:
        assert set(parts[2]) == set(data.rows("valid"))
    assert all(np.array_equal(a, b) for a, b in zip(parts, divide(data, 0), strict=True))
    assert not np.array_equal(parts[0], divide(data, 1)[0])
    with pytest.raises(SearchError, match="there are 15 training samples; a policy needs at least 20"):
        divide(made(train=15), 0)


def test_an_interval_is_that_of_student() -> None:
    low, high = interval_of([-0.2, -0.1, -0.3])
    assert (low + high) / 2 == pytest.approx(-0.2)
    assert high - low == pytest.approx(2 * 4.303 * 0.1 / 3**0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("interval", "is_better", "said"),
    [((-0.3, -0.1), True, "is better than"), ((-0.3, 0.1), False, "did not show"), ((0.1, 0.3), False, "is worse")],
)
def test_a_verdict_follows_from_the_interval(interval: tuple[float, float], is_better: bool, said: str) -> None:
    result = PolicyResult(POLICY, Path(), "cross_entropy", 0.5, 0.6, interval, 3, 30, 9)
    assert result.is_better == is_better
    assert said in result.verdict
    assert result.difference == pytest.approx(-0.1)


def test_the_best_policy_is_among_the_longest_trained() -> None:
    members: Any = [
        SimpleNamespace(id=f"{i}", epoch=e, loss=loss) for i, (e, loss) in enumerate([(1, 0.1), (9, 0.5), (9, 0.4)])
    ]
    assert best_policy(members) is members[2]
    assert best_policy([]) is None


def test_pairs_of_equal_trials_are_compared_and_failed_ones_left_out() -> None:
    def work(job: Job) -> JobResult:
        if job.trial == 1 and job.configuration.get("policy"):
            return JobResult(job, failure=Failure("diverged", "not finite"))
        loss = job.trial + (0.25 if job.configuration.get("policy") else 0.5)
        member: Any = SimpleNamespace(losses={"loss": loss}, epoch=2 if job.trial == 4 else 3)  # cut by the deadline
        return JobResult(job, member)

    losses = compare(POLICY, {"units": 8}, 3, "loss", InlinePool(work), None)
    assert losses == [(i + 0.25, i + 0.5) for i in range(policy_search.MOST_PAIRS) if i not in (1, 4)]
    assert compare(POLICY, {"units": 8}, 3, "loss", InlinePool(work), 0.0) == []  # the time is up


def test_a_comparison_is_as_long_as_its_time_allows() -> None:
    members: Any = [SimpleNamespace(epoch=e, seconds=s) for e, s in [(1, 2.0), (3, 3.0)]]
    # six networks in two slots: three rounds of 2 s an epoch, and the margin
    assert comparable_epochs(members, 9, 2, 30.0, 5) == 3
    assert comparable_epochs(members, 2, 2, 30.0, 5) == 2
    assert comparable_epochs(members, 9, 6, 30.0, 5) == 9
    with pytest.raises(SearchError, match=r"0.05 minutes are too few .*: give at least 0.7; what was trained is kept"):
        comparable_epochs(members, 9, 1, 1.0, 0.05)


@pytest.mark.parametrize("options", [{"minutes": 0}, {"minutes": float("nan")}, {"trials": 0}, {"epochs": 0}])
def test_a_wrong_bound_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match=f"{next(iter(options))} "):
        PolicyOptions(**options)


def test_a_learnt_policy_is_fixed_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_search, "MOST_PAIRS", 3)
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(160, 3)).astype(np.float32), np.arange(160) % 2
    rows[:, 0] += labels
    data, run = {"inputs": rows, "targets": labels}, tmp_path / "run"
    np.savez(tmp_path / "data.npz", **data)
    options = policy_search.DataOptions(kind="table", folds=0)
    bounds: dict[str, Any] = {"trials": 2, "epochs": 1, "pool": "inline", "device": "cpu"}
    result = ripieno.augment(tmp_path / "data.npz", run, options=options, **bounds)
    assert result.trials == 2
    assert result.pairs == 3
    assert result.interval[0] <= result.difference <= result.interval[1]
    assert read_policy(run / "augmentation.json", "table") == result.policy
    assert result.samples == len(open_dataset(run / "dataset").rows("valid"))
    assert len(Library(run).members()) == 0
    assert ripieno.augment(run=run, **bounds) == result  # from what is kept

    search: dict[str, Any] = {"epochs": 1, "pool": "inline", "device": "cpu", "free": "off"}
    library = ripieno.tune(run=run, trials=1, augmentation=result.path, **search)
    (member,) = library.members()
    assert member.configuration["policy"] == result.policy.text
    assert json.loads((run / "run.json").read_text())["space"]["fixed"]["policy"] == result.policy.text
    assert ripieno.show(run).policies == (result.policy.text,)
    write_policy(tmp_path / "other.json", POLICY)
    with pytest.raises(SearchError, match="leave augmentation out to resume"):
        ripieno.tune(run=run, trials=2, augmentation=tmp_path / "other.json", **search)
    ripieno.tune(run=run, trials=2, **search)
    # the same command again, with a space of the user's
    space = json.loads((run / "run.json").read_text())["space"]
    (tmp_path / "space.json").write_text(json.dumps({**space, "fixed": {}, "name": "own"}))
    own = {"space": str(tmp_path / "space.json"), "augmentation": result.path, **search}
    for trials in (1, 2):
        ripieno.tune(tmp_path / "data.npz", tmp_path / "own", kind="table", folds=0, trials=trials, **own)
    assert {m.configuration["policy"] for m in library.members()} == {result.policy.text}


def test_a_policy_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", inputs=np.ones((60, 3), np.float32), targets=np.arange(60) % 2)
    write_policy(tmp_path / "p.json", LearntPolicy("series", (PolicyStep("jitter", 0.5, 0.5),)))
    wrong: list[tuple[dict[str, Any], type[RipienoError], str]] = [
        (
            {"augmentation": tmp_path / "p.json"},
            DataError,
            "of kind series, the data are of kind table",
        ),
        ({"augmentation": tmp_path / "none.json"}, DataError, "cannot be read"),
        ({"augmentation": tmp_path / "p.json", "trainer": "trees:lightgbm"}, SearchError, "takes no augmentation"),
    ]
    for options, error, said in wrong:
        with pytest.raises(error, match=said) as raised:
            ripieno.tune(tmp_path / "data.npz", tmp_path / "run", kind="table", trials=1, pool="inline", **options)
        assert "\n" not in str(raised.value)
