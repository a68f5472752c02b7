"""A resumed search keeps its settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from ripieno.errors import RipienoError, SearchError
from ripieno.search import Algorithm, Settings
from ripieno.search.algorithms import algorithm_to_plain, find_algorithm
from ripieno.search.settings import kept_settings, resolve_settings
from ripieno.search.space import Integer

ASKED = Settings(synthetic.SPACE, trials=10, epochs=9)


def test_a_first_start_fills_the_gaps_and_later_ones_keep_them(tmp_path: Path) -> None:
    first = resolve_settings(tmp_path / "run.json", ASKED, 2, None)
    assert (first.order, first.window) == ("virtual", 4)
    assert resolve_settings(tmp_path / "run.json", ASKED, 8, 1e12) == first


def test_a_deadline_makes_the_order_that_of_arrival(tmp_path: Path) -> None:
    assert resolve_settings(tmp_path / "run.json", ASKED, 2, 1e12).order == "arrival"


def test_more_trials_may_be_asked_for(tmp_path: Path) -> None:
    resolve_settings(tmp_path / "run.json", ASKED, 2, None)
    assert resolve_settings(tmp_path / "run.json", replace(ASKED, trials=20), 2, None).trials == 20
    assert resolve_settings(tmp_path / "run.json", replace(ASKED, trials=None), 2, None).trials is None


def test_a_contradiction_says_what_differs_and_what_to_do(tmp_path: Path) -> None:
    resolve_settings(tmp_path / "run.json", ASKED, 2, None)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(SearchError) as error:
        resolve_settings(tmp_path / "run.json", replace(ASKED, epochs=27, seed=1), 2, None)
    assert str(error.value) == (
        f"{tmp_path} contains a search with epochs 9 and seed 0, requested is epochs 27 and seed 1: "
        "pass the same values, omit epochs and seed to resume, or use another folder with --run"
    )
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_budget_is_kept_and_written_only_where_there_is_one(tmp_path: Path) -> None:
    resolve_settings(tmp_path / "run.json", ASKED, 2, None)
    assert "budget" not in json.loads((tmp_path / "run.json").read_text())
    with pytest.raises(SearchError, match="with budget none, requested is budget 5 seconds: pass the same values, om"):
        resolve_settings(tmp_path / "run.json", replace(ASKED, budget={"seconds": 5.0}), 2, None)
    bounded = replace(ASKED, budget={"seconds": 5.0, "bytes": 4e6})
    resolve_settings(tmp_path / "bounded" / "run.json", bounded, 2, None)
    found = kept_settings(tmp_path / "bounded" / "run.json")
    assert found is not None
    assert found.budget == {"seconds": 5.0, "bytes": 4e6}
    resolve_settings(tmp_path / "bounded" / "run.json", found, 2, None)
    with pytest.raises(SearchError, match=r"budget 5 seconds and 4e\+06 bytes, requested is budget 6 seconds"):
        resolve_settings(tmp_path / "bounded" / "run.json", replace(ASKED, budget={"seconds": 6.0}), 2, None)


def test_a_space_that_contradicts_shows_what_differs_of_both(tmp_path: Path) -> None:
    ranges = dict(synthetic.SPACE.ranges)
    name = next(iter(ranges))
    spaces = [replace(synthetic.SPACE, ranges={**ranges, name: Integer(1, high)}) for high in (4, 5)]
    resolve_settings(tmp_path / "run.json", replace(ASKED, space=spaces[0]), 2, None)
    with pytest.raises(SearchError, match=rf"space \({name} 1 to 4\), requested is space \({name} 1 to 5\)"):
        resolve_settings(tmp_path / "run.json", replace(ASKED, space=spaces[1]), 2, None)


@pytest.mark.parametrize(
    ("algorithm", "had", "wanted", "remedy"),
    [
        (Algorithm(keep=4), "keep 3", "keep 4", "keep"),
        (Algorithm(step=2.5), "step 3", "step 2.5", "step"),
        (Algorithm(step=4, keep=4), "step 3 and keep 3", "step 4 and keep 4", "step and keep"),
        ("bohb", "algorithm hyperband (sampler random, candidates absent)",
         "algorithm bohb (sampler multivariate-tpe, candidates 24)", "algorithm"),
        ("asha", "algorithm hyperband (brackets all)", "algorithm asha (brackets one)", "algorithm"),
        (Algorithm(random_share=0.5), "algorithm hyperband (random_share 0.0)",
         "algorithm (random_share 0.5)", "algorithm"),
        (Algorithm(rule="stopping", keep=2), "algorithm hyperband (rule promotion) and keep 3",
         "algorithm (rule stopping) and keep 2", "algorithm and keep"),
    ],
)  # fmt: skip
def test_a_contradicting_algorithm_shows_the_parts_that_differ(
    algorithm: str | Algorithm, had: str, wanted: str, remedy: str, tmp_path: Path
) -> None:
    resolve_settings(tmp_path / "run.json", ASKED, 2, None)
    with pytest.raises(SearchError) as error:
        resolve_settings(tmp_path / "run.json", replace(ASKED, algorithm=algorithm), 2, None)
    assert str(error.value) == (
        f"{tmp_path} contains a search with {had}, requested is {wanted}: "
        f"pass the same values, omit {remedy} to resume, or use another folder with --run"
    )


def test_the_same_algorithm_under_another_name_is_the_same(tmp_path: Path) -> None:
    resolve_settings(tmp_path / "run.json", ASKED, 2, None)
    for same in ("hyperband+random", Algorithm(name="mine")):
        resolve_settings(tmp_path / "run.json", replace(ASKED, algorithm=same), 2, None)


def test_a_run_keeps_the_whole_algorithm(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    algorithm = Algorithm(
        name="mine", brackets="one", rule="stopping", step=2.5, keep=4, sampler="tpe", random_share=0.3, candidates=50
    )
    resolve_settings(path, replace(ASKED, algorithm=algorithm), 2, None)
    kept = kept_settings(path)
    assert kept is not None
    assert kept.algorithm == algorithm
    assert find_algorithm(kept.algorithm).name == "mine"
    assert json.loads(path.read_text())["algorithm"] == algorithm_to_plain(algorithm)


def test_a_record_with_a_broken_algorithm_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    resolve_settings(path, ASKED, 2, None)
    plain = json.loads(path.read_text())
    for algorithm in ({"keep": 1}, {"sampler": "gone"}, {"speed": 3}, 7, None):
        path.write_text(json.dumps({**plain, "algorithm": algorithm}))
        with pytest.raises(SearchError, match=r"run\.json is not the record of a search"):
            kept_settings(path)


def test_eta_sets_step_and_keep() -> None:
    assert replace(ASKED, eta=4).algorithm == Algorithm(step=4, keep=4)
    assert replace(ASKED, algorithm=Algorithm(step=2, keep=5), eta=3).algorithm == Algorithm()
    assert replace(ASKED, eta=4).eta is None


def test_the_same_space_under_another_name_is_the_same(tmp_path: Path) -> None:
    resolve_settings(tmp_path / "run.json", ASKED, 2, None)
    other = replace(ASKED, space=replace(synthetic.SPACE, name="other"))
    assert resolve_settings(tmp_path / "run.json", other, 2, None).space == synthetic.SPACE


def test_the_settings_of_the_last_start_are_kept(tmp_path: Path) -> None:
    assert kept_settings(tmp_path / "run.json") is None
    resolve_settings(tmp_path / "run.json", replace(ASKED, hours=2.0), 2, 1e12)
    kept = kept_settings(tmp_path / "run.json")
    assert kept == replace(ASKED, hours=2.0, order="arrival", window=4)


@pytest.mark.parametrize("content", ["{", '{"version": 1, "seed": 0}', '{"version": 99}'])
def test_a_broken_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RipienoError, match=r"run\.json"):
        resolve_settings(tmp_path / "run.json", ASKED, 2, None)


def test_settings_that_no_search_can_have_are_refused() -> None:
    with pytest.raises(SearchError, match="no algorithm 'bohp'"):
        Settings(synthetic.SPACE, algorithm="bohp")
    with pytest.raises(SearchError, match="seed -1"):
        Settings(synthetic.SPACE, seed=-1)


def test_a_run_of_the_first_version_that_promoted_for_an_ensemble_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    resolve_settings(path, ASKED, 2, None)
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "promote": "loss", "budget": {}}))
    assert kept_settings(path) is not None
    path.write_text(json.dumps({**plain, "promote": "ensemble", "budget": {"flops": 4e7}}))
    with pytest.raises(SearchError, match=r"no longer supported\. Select from its library, or search"):
        resolve_settings(path, ASKED, 2, None)
