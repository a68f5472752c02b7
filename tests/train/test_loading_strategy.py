from __future__ import annotations

from pathlib import Path

import pytest

from ripieno.train.data_pipeline import _read_record
from ripieno.train.loading_strategy import (
    GOAL,
    INLINE,
    SECONDS,
    THREAD,
    LoadingStrategy,
    StrategySelector,
    StrategyTiming,
    best,
    strategies,
)


def measured(selector: StrategySelector, rates: dict[LoadingStrategy, float], waited: float) -> list[LoadingStrategy]:
    """The strategies measured until one is settled."""
    found = [selector.strategy]
    while not selector.settled:
        for _ in range(2):
            selector.add(int(rates[selector.strategy]), 1.0, waited)
        found.append(selector.strategy)
    return found


def test_without_a_spare_core_the_trainer_prepares() -> None:
    assert strategies(0) == (INLINE,)
    assert StrategySelector(strategies(0)).settled


def test_with_a_spare_core_a_thread_is_measured_too() -> None:
    assert strategies(1) == strategies(4) == (INLINE, THREAD)


def test_a_trainer_that_hardly_waits_measures_no_thread() -> None:
    assert measured(StrategySelector((INLINE, THREAD)), {INLINE: 100}, GOAL) == [INLINE, INLINE]


@pytest.mark.parametrize(("rate", "chosen"), [(150.0, THREAD), (101.0, INLINE), (50.0, INLINE)])
def test_the_faster_strategy_is_chosen_when_the_trainer_waits(rate: float, chosen: LoadingStrategy) -> None:
    assert measured(StrategySelector((INLINE, THREAD)), {INLINE: 100.0, THREAD: rate}, 0.1) == [INLINE, THREAD, chosen]


def test_of_equally_fast_strategies_the_simpler_one_is_best() -> None:
    assert best([StrategyTiming(INLINE, 100, 0.1), StrategyTiming(THREAD, 101.9, 0)]) == INLINE


def test_the_first_block_and_short_measurements_decide_nothing() -> None:
    selector = StrategySelector((INLINE, THREAD))
    selector.add(100, 100.0, 100.0)
    selector.add(100, SECONDS / 2, SECONDS / 2)
    assert (selector.strategy, selector.settled) == (INLINE, False)
    selector.add(100, SECONDS, SECONDS / 2)
    assert selector.strategy == THREAD


@pytest.mark.parametrize(("known", "settled"), [(THREAD, True), (None, False)])
def test_a_known_strategy_is_not_measured_again(known: LoadingStrategy | None, settled: bool) -> None:
    selector = StrategySelector((INLINE, THREAD), known)
    assert selector.settled == settled
    assert selector.strategy == (known or INLINE)


@pytest.mark.parametrize(("name", "read"), [("thread", THREAD), ("loaders", None)])
def test_records_of_the_first_version_are_read_and_loader_processes_forgotten(
    name: str, read: LoadingStrategy | None, tmp_path: Path
) -> None:
    record = tmp_path / "feed.json"
    record.write_text(f'{{"version": 1, "way": {{"name": "{name}", "loaders": 0}}, "speeds": []}}')
    assert _read_record(record) == read
