from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ripieno.allocation.refine import CachedBench, Measurement, Placements, algorithm_1_neighbours, refine
from ripieno.errors import EngineError
from ripieno.types import Device, Placement

DEVICES = (Device("cuda:0", "gpu", 100), Device("cuda:1", "gpu", 100), Device("cpu:0", "cpu", 100))
SIZES = (1, 8, 32)
START = (Placement("a", "cuda:0", 8), Placement("b", "cuda:0", 8))


def key(placements: Placements) -> tuple[tuple[str, str, int], ...]:
    return tuple((p.member, p.device, p.batch_size) for p in placements)


def spread_out(placements: Placements) -> float:
    """More devices and larger batches are faster; there is one local optimum."""
    return 100 * len({p.device for p in placements}) + sum(p.batch_size for p in placements)


def test_every_member_changes_its_batch_or_its_device_one_at_a_time() -> None:
    found = {key(p) for p in algorithm_1_neighbours(START, DEVICES, SIZES)}
    assert found == {
        (("a", "cuda:0", 1), ("b", "cuda:0", 8)),
        (("a", "cuda:0", 32), ("b", "cuda:0", 8)),
        (("a", "cuda:1", 8), ("b", "cuda:0", 8)),
        (("a", "cpu:0", 8), ("b", "cuda:0", 8)),
        (("a", "cuda:0", 8), ("b", "cuda:0", 1)),
        (("a", "cuda:0", 8), ("b", "cuda:0", 32)),
        (("a", "cuda:0", 8), ("b", "cuda:1", 8)),
        (("a", "cuda:0", 8), ("b", "cpu:0", 8)),
    }


def test_a_moved_member_runs_on_the_first_worker_there() -> None:
    start = (Placement("a", "cuda:0", 8, 2),)
    assert {p[0].lane for p in algorithm_1_neighbours(start, DEVICES, (8,))} == {0}


def test_the_order_of_placements_makes_no_other_bench() -> None:
    bench = CachedBench(spread_out, 10)
    assert bench(START) == bench(START[::-1])
    assert (bench.benches, START[::-1] in bench) == (1, True)


def test_it_ascends_to_the_optimum_by_the_steepest_steps() -> None:
    visited: list[float] = []

    def bench(placements: Placements) -> float:
        visited.append(spread_out(placements))
        return visited[-1]

    refined = refine(START, DEVICES, SIZES, bench, 1000)
    assert {p.batch_size for p in refined.placements} == {32}
    assert len({p.device for p in refined.placements}) == 2
    assert refined.measurement.throughput == 264
    assert refined.start.throughput == 116
    # the first step is a device, worth 100; never a batch, worth 24
    assert visited[9] > 200


def test_it_stops_when_no_neighbour_is_better() -> None:
    refined = refine(START, DEVICES, SIZES, lambda _: 1.0, 1000)
    assert (refined.placements, refined.benches) == (START, 9)


def test_placements_are_benched_once_in_whatever_order() -> None:
    seen: list[frozenset[Placement]] = []

    def bench(placements: Placements) -> float:
        seen.append(frozenset(placements))
        return spread_out(placements)

    refined = refine(START, DEVICES, SIZES, bench, 1000)
    assert len(seen) == len(set(seen)) == refined.benches


def test_an_improvement_within_the_noise_is_none() -> None:
    def bench(placements: Placements) -> Measurement:
        return Measurement(1.04 if placements != START else 1.0, 0.05)

    assert refine(START, DEVICES, SIZES, bench, 1000).placements == START


def test_an_improvement_beyond_the_noise_is_one() -> None:
    def bench(placements: Placements) -> Measurement:
        return Measurement(1.06 if placements != START else 1.0, 0.05)

    assert refine(START, DEVICES, SIZES, bench, 1000).placements != START


def test_the_best_of_a_neighbourhood_cut_short_is_kept() -> None:
    refined = refine(START, DEVICES, SIZES, spread_out, 4)
    assert refined.benches == 4
    assert refined.placements[0].device == "cuda:1"


def test_what_does_not_fit_is_not_benched() -> None:
    def bench(placements: Placements) -> float:
        assert all(p.device != "cuda:1" for p in placements)
        return spread_out(placements)

    refine(START, DEVICES, SIZES, bench, 1000, fits=lambda ps: all(p.device != "cuda:1" for p in ps))


def test_a_neighbour_that_cannot_run_loses_and_the_search_continues() -> None:
    def bench(placements: Placements) -> float:
        if any(p.device == "cuda:1" for p in placements):
            raise EngineError("out of memory")
        return spread_out(placements)

    assert refine(START, DEVICES, SIZES, bench, 1000).measurement.throughput == 264


@given(st.dictionaries(st.integers(0, 63), st.floats(0.1, 10)), st.integers(0, 30), st.floats(0, 0.3))
def test_it_never_ends_below_its_start_nor_runs_more_than_its_bound(
    table: dict[int, float], bound: int, spread: float
) -> None:
    runs = 0

    def bench(placements: Placements) -> Measurement:
        nonlocal runs
        runs += 1
        return Measurement(table.get(sum(map(ord, repr(placements))) % 64, 1.0), spread)

    refined = refine(START, DEVICES, SIZES, bench, bound)
    assert refined.benches == runs <= max(1, bound)
    assert refined.measurement.throughput >= refined.start.throughput
    assert sorted(p.member for p in refined.placements) == ["a", "b"]


def test_progress_reports_the_benchmarks_and_the_best_so_far() -> None:
    told: list[tuple[int, int, float]] = []
    refine(START, DEVICES, SIZES, spread_out, 20, progress=lambda *step: told.append(step))
    assert told[0] == (1, 20, 116)
    assert [step[2] for step in told] == sorted(step[2] for step in told)
