from __future__ import annotations

import pytest

from ripieno.train.ways import GOAL, INLINE, SECONDS, Speed, Trials, Way, best, ways

THREAD, LOADERS = Way("thread"), Way("loaders", 2)


def measured(trials: Trials, rates: dict[Way, float], waited: float) -> list[Way]:
    """The ways gone through until one is settled."""
    gone = [trials.way]
    while not trials.settled:
        for _ in range(2):
            trials.add(int(rates[trials.way]), 1.0, waited)
        gone.append(trials.way)
    return gone


def test_without_a_core_to_spare_the_trainer_prepares() -> None:
    assert ways(0) == (INLINE,)
    assert Trials(ways(0)).settled


def test_with_cores_to_spare_a_thread_and_loaders_are_tried() -> None:
    assert ways(1) == (INLINE, THREAD, Way("loaders", 1))
    assert ways(4) == (INLINE, THREAD, Way("loaders", 1), Way("loaders", 4))


def test_a_trainer_that_hardly_waits_tries_no_other_way() -> None:
    assert measured(Trials((INLINE, THREAD)), {INLINE: 100}, GOAL) == [INLINE, INLINE]


def test_the_quickest_way_is_taken_when_the_trainer_waits() -> None:
    rates = {INLINE: 100.0, THREAD: 150.0, LOADERS: 120.0}
    assert measured(Trials((INLINE, THREAD, LOADERS)), rates, 0.1) == [INLINE, THREAD, LOADERS, THREAD]


def test_a_way_as_good_as_a_simpler_one_is_not_taken() -> None:
    assert best([Speed(INLINE, 100, 0.1), Speed(THREAD, 101, 0), Speed(LOADERS, 101.9, 0)]) == INLINE


def test_the_first_block_of_a_way_and_short_measurements_decide_nothing() -> None:
    trials = Trials((INLINE, THREAD))
    trials.add(100, 100.0, 100.0)
    trials.add(100, SECONDS / 2, SECONDS / 2)
    assert (trials.way, trials.settled) == (INLINE, False)
    trials.add(100, SECONDS, SECONDS / 2)
    assert trials.way == THREAD


@pytest.mark.parametrize(("known", "settled"), [(LOADERS, True), (Way("loaders", 9), False), (None, False)])
def test_what_is_known_is_not_measured_again_where_it_can_be_had(known: Way | None, settled: bool) -> None:
    trials = Trials((INLINE, THREAD, LOADERS), known)
    assert trials.settled == settled
    assert trials.way == (known if settled else INLINE)
