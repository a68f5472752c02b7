"""The benchmark that optimises the settings of a search: it looks at its own half of the tasks only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ripieno.search import Algorithm, find_algorithm
from ripieno.search.samplers import sample, trial_seed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TASKS = [f"seen-{number}" for number in range(9)]


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    before = list(sys.path)
    sys.path[:0] = [str(BENCHMARKS / "search"), str(BENCHMARKS / "engine")]
    try:
        import algorithm_settings

        yield algorithm_settings
    finally:
        sys.path[:] = before


class Known:
    """Scores that are known: best with keep 4 and a step of 3, and on later tasks more so."""

    def __init__(self) -> None:
        self.asked: set[tuple[Algorithm, str, int]] = set()

    def relative(self, algorithm: Algorithm, task: str, seed: int) -> float:
        self.asked.add((algorithm, task, seed))
        return (abs(algorithm.keep - 4) + abs(algorithm.step - 3)) * (1 + int(task[-1])) / 10 - 1


def test_it_looks_at_its_half_and_finds_the_best_that_saw_all_of_it(script: Any) -> None:
    known = Known()
    best, loss, whole = script.optimise(known, TASKS, 40)
    assert {(task, seed) for _, task, seed in known.asked} == {(task, 0) for task in TASKS}
    saw_all = {a for a, _, _ in known.asked if all((a, task, 0) in known.asked for task in TASKS)}
    assert len(saw_all) == whole > 1
    assert len({a for a, _, _ in known.asked}) > 2 * whole  # most saw a few tasks only
    means = {a: sum(known.relative(a, task, 0) for task in TASKS) / len(TASKS) for a in saw_all}
    assert means[best] == min(means.values()) == pytest.approx(loss)


def test_every_configuration_is_an_algorithm_of_options_that_its_sampler_has(script: Any) -> None:
    from ripieno.search.in_memory_study import InMemoryStudy
    from ripieno.search.samplers import find_sampler
    from ripieno.search.space import distributions

    drawn = [
        sample(find_sampler("random"), InMemoryStudy(distributions(script.space())), trial_seed(0, seed))
        for seed in range(60)
    ]
    algorithms = [script.algorithm_of(values) for values in drawn]
    assert {a.sampler for a in algorithms} == {"random", "multivariate-tpe", "forest"}
    assert all((a.candidates is None) == (a.sampler == "random") for a in algorithms)
    assert all(a.random_share == 0 for a in algorithms if a.sampler == "random")
    assert all(find_algorithm(name) for name in script.NAMED)
