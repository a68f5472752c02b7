"""An algorithm as one record: its file, the options of schedulers and samplers, and what is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from ripieno.errors import MissingExtraError, SearchError
from ripieno.search import ALGORITHMS, SAMPLERS, SCHEDULERS, Algorithm, Settings, simulate
from ripieno.search.algorithms import (
    algorithm_from_plain,
    algorithm_to_plain,
    change_algorithm,
    check_algorithm,
    find_algorithm,
    make_sampler,
    make_scheduler,
)
from ripieno.search.asha import Asha
from ripieno.search.scheduler import TrialStep

CHANGED: dict[str, Any] = {
    "name": "mine",
    "scheduler": "halving",
    "brackets": "one",
    "rule": "stopping",
    "step": 2.5,
    "keep": 4,
    "sampler": "tpe",
    "random_share": 0.25,
    "candidates": 100,
}
"""A value of each option but `learner` that differs from its default."""


def write(path: Path, **options: object) -> Path:
    path.write_text(json.dumps(options))
    return path


def first_steps(algorithm: Algorithm, epochs: int) -> list[TrialStep]:
    return list(make_scheduler(algorithm, epochs, 1).candidates())


def test_a_file_says_the_whole_algorithm(tmp_path: Path) -> None:
    path = write(tmp_path / "file.json", **CHANGED)
    found = find_algorithm(path)
    assert algorithm_to_plain(found) == {**CHANGED, "learner": None}
    assert find_algorithm(str(path)) == found
    assert find_algorithm(found) is found
    defaults = algorithm_to_plain(Algorithm())
    assert [name for name, value in CHANGED.items() if value == defaults[name]] == ["scheduler"]


def test_a_file_names_its_algorithm_and_leaves_out_what_is_as_in_hyperband(tmp_path: Path) -> None:
    found = find_algorithm(write(tmp_path / "wide.json", keep=5))
    assert found == replace(ALGORITHMS["hyperband"], keep=5)
    assert found.name == "wide"


@pytest.mark.parametrize("name", [*ALGORITHMS, "asha-stopping+tpe"])
def test_a_named_algorithm_is_the_same_from_its_file(name: str, tmp_path: Path) -> None:
    found = find_algorithm(name)
    path = write(tmp_path / "copy.json", **algorithm_to_plain(found))
    again = find_algorithm(path)
    assert (again, again.name) == (found, name)
    assert algorithm_from_plain(algorithm_to_plain(found)) == found


def test_a_plain_step_is_a_whole_number_where_it_can_be() -> None:
    assert repr(algorithm_to_plain(Algorithm(step=3))["step"]) == "3"
    assert algorithm_to_plain(Algorithm(step=2.5))["step"] == 2.5


@pytest.mark.parametrize(
    ("name", "ladders"),
    [
        ("hyperband", {1, 3, 9}),
        ("hyperband-stopping+random", {1, 3, 9}),
        ("asha", {1}),
        ("asha-stopping+random", {1}),
        ("random", {9}),
        ("genetic", {9}),
    ],
)
def test_brackets_are_those_of_the_name(name: str, ladders: set[int]) -> None:
    algorithm = find_algorithm(name)
    assert {step.stop for step in first_steps(algorithm, 9)} == ladders
    scheduler = make_scheduler(algorithm, 9, None)
    assert getattr(scheduler, "stopping", False) == ("stopping" in name)


def test_step_makes_the_rungs_and_keep_the_survivors() -> None:
    scheduler = make_scheduler(Algorithm(brackets="one", step=2, keep=4), 8, 8)
    for trial in range(8):
        step = next(s for s in scheduler.candidates() if s.start == 0)
        scheduler.start(step)
        scheduler.tell(step, trial / 10)
    assert list(scheduler.candidates()) == [TrialStep(0, 1, 2), TrialStep(1, 1, 2)]  # two of eight, to twice the epochs
    assert {s.stop for s in first_steps(Algorithm(step=2, keep=4), 8)} == {1, 2, 4, 8}
    assert {s.stop for s in first_steps(Algorithm(step=4, keep=2), 8)} == {1, 4, 8}


def test_new_trials_go_to_the_brackets_by_both_ratios() -> None:
    scheduler = make_scheduler(Algorithm(step=4, keep=2), 16, 14)
    stops = []
    for _ in range(14):
        step = next(s for s in scheduler.candidates() if s.start == 0)
        scheduler.start(step)
        stops.append(step.stop)
    assert [stops.count(stop) for stop in (1, 4, 16)] == [7, 4, 3]  # see `shares` for how they are computed


def test_eta_sets_both_ratios_and_excludes_them() -> None:
    assert change_algorithm(Algorithm(step=2, keep=5), eta=4) == Algorithm(step=4, keep=4)
    assert change_algorithm(Algorithm(), step=1.5) == Algorithm(step=1.5, keep=3)
    assert change_algorithm(Algorithm(), keep=2) == Algorithm(step=3, keep=2)
    assert change_algorithm(Algorithm(keep=7)) == Algorithm(keep=7)
    for both in ({"keep": 3}, {"step": 3}):
        with pytest.raises(SearchError, match="give eta alone"):
            change_algorithm(Algorithm(), eta=3, **both)
    with pytest.raises(SearchError, match="eta 1: must be at least 2"):
        change_algorithm(Algorithm(), eta=1)


def test_the_algorithm_of_a_run_asked_for_by_its_name_stays_as_it_is(tmp_path: Path) -> None:
    changed = replace(ALGORITHMS["bohb"], step=2, keep=5)
    assert change_algorithm(changed, "bohb") == changed
    assert change_algorithm(changed) == changed
    assert change_algorithm(changed, "bohb", keep=4) == replace(changed, keep=4)
    assert change_algorithm(changed, "hyperband+multivariate-tpe") == ALGORITHMS["bohb"]
    assert change_algorithm(changed, "asha") == ALGORITHMS["asha"]
    assert change_algorithm(changed, ALGORITHMS["bohb"]) == ALGORITHMS["bohb"]  # a record says all
    path = write(tmp_path / "bohb.json", sampler="multivariate-tpe")
    assert change_algorithm(changed, path) == ALGORITHMS["bohb"]  # and so does a file
    assert change_algorithm(replace(changed, name=str(path)), str(path)) == ALGORITHMS["bohb"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": 1}, "keep 1: one in `keep` trials survives"),
        ({"keep": "two"}, "keep 'two' is not valid. Expected `int`"),
        ({"keep": 2.5}, "keep 2.5 is not valid. Expected `int`"),
        ({"keep": True}, "keep True is not valid. Expected `int`"),
        ({"step": 1}, "step 1: the ratio"),
        ({"step": "3"}, "step '3' is not valid. Expected `float`"),
        ({"step": float("nan")}, "step nan: the ratio"),
        ({"step": float("inf")}, "step inf: the ratio"),
        ({"brackets": "some"}, "brackets 'some' is not valid. Expected all, one, full"),
        ({"rule": None}, "rule None is not valid. Expected promotion, stopping"),
        ({"scheduler": "grid"}, "no scheduler 'grid'; there are: halving, generations"),
        ({"scheduler": "generations", "keep": 4}, "scheduler generations has no brackets, rule, or step"),
        ({"scheduler": "generations", "brackets": "one"}, "scheduler generations has no brackets, rule, or step"),
        ({"sampler": "grid"}, "no sampler 'grid'; there are: random, tpe"),
        ({"sampler": 3}, "sampler 3 is not valid. Expected `str`"),
        ({"random_share": 1.5}, "random_share 1.5 is not valid. Expected"),
        ({"sampler": "tpe", "candidates": 0}, "candidates 0 is not valid. Expected"),
        ({"candidates": 20}, "sampler random has no option candidates: leave it out"),
        ({"sampler": "tpe", "learner": "forest"}, "sampler tpe has no option learner: leave it out"),
        ({"epochs": 9}, "Unknown key epochs. Expected one of name, scheduler, brackets"),
    ],
)
def test_a_wrong_option_is_named_in_one_line_with_its_file(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.json", **options)
    with pytest.raises(SearchError) as error:
        find_algorithm(path)
    assert str(error.value).startswith(f"algorithm {path}: {words}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is not JSON"), ("[]", "expected an object"), ("\xff", "is not JSON"), (None, "no such")],
)
def test_an_unreadable_file_is_named_in_one_line(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SearchError) as error:
        find_algorithm(path)
    assert str(path) in str(error.value)
    assert words in str(error.value).lower().replace("json", "JSON")
    assert "\n" not in str(error.value)


def test_a_sampler_without_its_extra_is_named_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "smac", None)
    with pytest.raises(MissingExtraError, match="smac"):
        check_algorithm(Algorithm(sampler="smac", random_share=1.0))


def test_a_sampler_gets_the_options_that_its_factory_names(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def factory(seed: int, candidates: int = 350, learner: str = "trees") -> BaseSampler:
        made.append((seed, candidates, learner))
        return RandomSampler(seed)

    monkeypatch.setitem(SAMPLERS, "own", factory)
    default = Algorithm(sampler="own")
    assert (default.random_share, default.candidates, default.learner) == (0.0, 350, "trees")  # kept in the record
    make_sampler(default)(7)
    make_sampler(replace(default, candidates=9, learner="lines"))(8)
    assert made == [(7, 350, "trees"), (8, 9, "lines")]


def test_candidates_reach_the_samplers_of_optuna() -> None:
    for name, multivariate in (("tpe", False), ("multivariate-tpe", True)):
        assert Algorithm(sampler=name).candidates == 24 == TPESampler()._n_ei_candidates
        made = make_sampler(Algorithm(sampler=name, candidates=50))(0)
        assert isinstance(made, TPESampler)
        assert (made._n_ei_candidates, made._multivariate) == (50, multivariate)


def test_a_share_of_the_trials_is_random_whatever_the_sampler() -> None:
    make = make_sampler(Algorithm(sampler="tpe", random_share=0.25))
    kinds = [type(make(seed)) for seed in range(2000)]
    assert kinds.count(RandomSampler) / 2000 == pytest.approx(0.25, abs=0.03)
    assert kinds == [type(make(seed)) for seed in range(2000)]
    assert kinds.count(TPESampler) == 2000 - kinds.count(RandomSampler)


def test_a_sampler_that_draws_at_random_itself_gets_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []

    def factory(seed: int, random_share: float = 0.5) -> BaseSampler:
        shares.append(random_share)
        return TPESampler(seed=seed)

    monkeypatch.setitem(SAMPLERS, "own", factory)
    assert Algorithm(sampler="own").random_share == 0.5
    assert all(isinstance(make_sampler(Algorithm(sampler="own", random_share=0.9))(s), TPESampler) for s in range(20))
    assert shares == [0.9] * 20


def test_an_own_scheduler_gets_keep_as_its_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def factory(epochs: int, eta: int, trials: int | None) -> Asha:
        given.append((epochs, eta, trials))
        return Asha(((1, epochs),), eta, trials)

    monkeypatch.setitem(SCHEDULERS, "two-rungs", factory)
    settings = Settings(synthetic.SPACE, "two-rungs+random", trials=8, epochs=9, eta=4)
    assert settings.algorithm == Algorithm(scheduler="two-rungs", step=4, keep=4)
    found = simulate(settings, lambda _, epoch: (1 / epoch, float(epoch)), 2)
    assert set(given) == {(9, 4, 8)}  # more than once: the time of the first trials is predicted with it
    assert {o.job.stop for o in found.outcomes} == {1, 9}


def test_every_option_is_described() -> None:
    from ripieno.config import settings

    assert [s.key[0] for s in settings(Algorithm())] == [f.name for f in fields(Algorithm)]
    assert all(s.help for s in settings(Algorithm()))
