"""Choice of the number of trials that share a machine."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ripieno import files
from ripieno.data import load_dataset, write_dataset
from ripieno.errors import SearchError
from ripieno.pipeline import trial_packing_benchmark as benchmark_module
from ripieno.pipeline.execution import ExecutionConfig
from ripieno.pipeline.trial_packing import (
    TURNS,
    PackingConfig,
    PackingRate,
    best_alternative,
    choose_packing,
    cpu_packs,
    describe,
    gpu_packs,
    is_worth_profiling,
    predicted,
    representative_configurations,
)
from ripieno.pipeline.trial_packing_benchmark import (
    PackingRecord,
    find_packing,
    measure_alternately,
    profile,
    sample_configurations,
)
from ripieno.search.built_in_spaces import find_space
from ripieno.train import TrainingConfig

TINY = {"stem_filters": 4, "width": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1, "batch_size": 24}
EQUAL, OTHER = PackingConfig(2, 1), PackingConfig(1, 2)

packs_of = st.one_of(
    st.integers(1, 70).map(cpu_packs), st.tuples(st.integers(1, 70), st.integers(1, 8)).map(lambda c: gpu_packs(*c))
)


SPEED = st.one_of(st.just(0.0), st.floats(0.01, 1e6))


def rates_of(packs: tuple[PackingConfig, ...], *speeds: float) -> tuple[PackingRate, ...]:
    return tuple(PackingRate(pack, "small", speed) for pack, speed in zip(packs, speeds, strict=True))


@given(packs_of, st.data())
def test_what_is_chosen_was_in_every_turn_faster_than_the_equal_split_ever_was(
    packs: tuple[PackingConfig, ...], data: st.DataObject
) -> None:
    rates = rates_of(packs, *(data.draw(SPEED) for _ in packs))
    other = best_alternative(packs, rates) or packs[0]
    close = st.floats(0.9, 1.2)
    turns = [rates_of((packs[0], other), data.draw(close), data.draw(close)) for _ in range(TURNS)]
    chosen = choose_packing(packs, rates, turns)
    if chosen != packs[0]:
        assert chosen == other
        assert all(a[1].images > b[0].images for a in turns for b in turns)
    assert choose_packing(packs, rates, turns[1:]) == packs[0], "a turn is missing"


def test_an_advantage_within_the_spread_or_not_worth_it_is_none() -> None:
    packs, rates = (EQUAL, OTHER), rates_of((EQUAL, OTHER), 100.0, 120.0)

    def chosen(*turns: tuple[float, float]) -> PackingConfig:
        return choose_packing(packs, rates, [rates_of(packs, *turn) for turn in turns])

    assert chosen((100, 110), (101, 109), (99, 108)) == OTHER
    assert chosen((100, 104), (101, 104), (99, 104)) == EQUAL, "less than GAIN"
    assert chosen((100, 130), (112, 125), (99, 110)) == EQUAL, "the equal split was as fast once"
    assert chosen((100, 130), (100, 130), (100, 0)) == EQUAL, "it failed once"


def test_two_packs_that_are_alike_are_not_separated_by_noise() -> None:
    chance, packs = random.Random(0), (EQUAL, OTHER)
    others = 0
    for _ in range(1000):  # a spread of a tenth, as on a busy machine
        looks, *turns = (rates_of(packs, chance.gauss(100, 10), chance.gauss(100, 10)) for _ in range(1 + TURNS))
        others += choose_packing(packs, looks, turns) == OTHER
    assert others < 60


@given(st.integers(1, 300))
def test_no_pack_has_more_threads_than_there_are_cores_and_the_equal_split_comes_first(cores: int) -> None:
    packs = cpu_packs(cores)
    assert packs[0] == PackingConfig(cores, 1)
    assert len(set(packs)) == len(packs)
    assert all(p.slots >= 1 and p.slots * (p.threads + p.spare) <= cores for p in packs)


def test_packs_of_two_cores() -> None:
    assert cpu_packs(2) == (PackingConfig(2, 1), PackingConfig(1, 2), PackingConfig(1, 1, 1))
    assert cpu_packs(1) == (PackingConfig(1, 1),)


def test_packs_of_a_gpu_leave_cores_to_prepare_data() -> None:
    assert gpu_packs(16, 2) == (
        PackingConfig(1, 1, 4),
        PackingConfig(2, 1, 3),
        PackingConfig(4, 1, 1),
        PackingConfig(8, 1, 0),
    )
    assert gpu_packs(1, 4) == (PackingConfig(1, 1, 0),)


def test_seconds_an_image_are_averaged_over_the_sizes() -> None:
    rates = [PackingRate(EQUAL, "small", 100.0), PackingRate(EQUAL, "large", 10.0), PackingRate(OTHER, "small", 60.0)]
    rates.append(PackingRate(OTHER, "large", 20.0))
    assert predicted(EQUAL, rates) == pytest.approx(2 / (1 / 100 + 1 / 10))
    assert best_alternative((EQUAL, OTHER), rates) == OTHER


def test_a_pack_that_failed_is_not_chosen_and_an_equal_split_that_was_not_measured_stays() -> None:
    rates = [PackingRate(EQUAL, "small", 100.0), PackingRate(OTHER, "small", 0.0)]
    assert best_alternative((EQUAL, OTHER), rates) is None
    assert best_alternative((OTHER, EQUAL), rates) is None
    assert choose_packing((EQUAL, OTHER), [], []) == EQUAL
    assert "failed" in describe(EQUAL, (EQUAL, OTHER), [], [])


def test_the_decision_is_one_line() -> None:
    rates = [PackingRate(EQUAL, "small", 100.0), PackingRate(OTHER, "small", 120.0)]
    turns = [rates_of((EQUAL, OTHER), 100.0, 110.0 + n) for n in range(TURNS)]
    line = describe(OTHER, (EQUAL, OTHER), rates, turns)
    assert line == (
        "packing: 1 trial of 2 threads at a time "
        "(samples/s relative to the equal split: 2 trials of 1 thread: 1.00, 1 trial of 2 threads: 1.20; "
        "1 trial of 2 threads in 3 turns: 1.10 to 1.12)"
    )


def test_a_profile_is_made_for_searches_of_hours_only() -> None:
    assert is_worth_profiling(cpu_packs(2), 3600)
    assert not is_worth_profiling(cpu_packs(2), 600)
    assert not is_worth_profiling(cpu_packs(1), 1e9)
    assert not is_worth_profiling(cpu_packs(2), None), "a search bounded by trials must not depend on the machine"


@pytest.mark.parametrize(
    ("packs", "hours"),
    [
        (cpu_packs(2), 1.0),
        (cpu_packs(4), 1.5),
        (cpu_packs(8), 2.0),
        (cpu_packs(16), 2.5),
        (gpu_packs(16, 1), 1.25),
        (gpu_packs(16, 2), 1.25),
    ],
)
def test_searches_as_long_as_the_documentation_says_begin_with_a_profile(
    packs: tuple[PackingConfig, ...], hours: float
) -> None:
    assert is_worth_profiling(packs, 3600 * hours)
    assert not is_worth_profiling(packs, 3600 * (hours - 0.25))


def test_sizes_are_the_middles_of_three_thirds() -> None:
    configurations = [{"width": n} for n in (9, 1, 5, 2, 8, 3, 7, 4, 6)]
    assert representative_configurations(configurations, lambda c: float(c["width"])) == {
        "small": {"width": 2},
        "middling": {"width": 5},
        "large": {"width": 8},
    }


def test_configurations_are_drawn_from_the_seed() -> None:
    space = find_space("resnet-tiny")
    assert (
        sample_configurations(space, 3, 5) == sample_configurations(space, 3, 5) != sample_configurations(space, 4, 5)
    )


@pytest.mark.parametrize(
    ("execution", "auto_packing"),
    [
        (ExecutionConfig(), True),
        (ExecutionConfig(slots=2), False),
        (ExecutionConfig(per_device=2), False),
        (ExecutionConfig(pool="inline"), False),
    ],
)
def test_options_of_the_user_are_not_profiled(execution: ExecutionConfig, auto_packing: bool) -> None:
    assert execution.auto_packing == auto_packing


def test_slots_are_those_of_the_pack() -> None:
    execution = ExecutionConfig(device="cpu", pack=PackingConfig(3, 2, 1))
    assert len(execution._local()) == 3
    assert (execution.threads(), execution.spare()) == (2, 1)
    assert ExecutionConfig(device="cpu").spare() == 0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    source = load_digits()
    images = (source.images[:300, :, :, None] * 15).astype("uint8")
    folder = tmp_path_factory.mktemp("packing")
    write_dataset(load_dataset((images, source.target[:300])), folder / "dataset")
    return TrainingConfig(run=folder / "run", dataset=folder / "dataset", family="resnet", epochs=9, seed=7)


def test_all_trials_of_a_pack_are_measured_together_and_a_failed_one_is_no_speed(config: TrainingConfig) -> None:
    middles = {"small": TINY, "broken": {**TINY, "batch_size": 1}}
    rates = profile(config, [PackingConfig(2, 1), PackingConfig(1, 1, 1)], middles, seconds=0.05)
    assert [(r.pack, r.size, r.images > 0) for r in rates] == [
        (PackingConfig(2, 1), "small", True),
        (PackingConfig(2, 1), "broken", False),
        (PackingConfig(1, 1, 1), "small", True),
        (PackingConfig(1, 1, 1), "broken", False),
    ]
    assert not config.run.exists(), "a profile keeps nothing of what it trained"
    assert profile(config, [PackingConfig(2, 1)], middles, until=-1.0) == (), "its time was up before it began"


def test_the_equal_split_and_its_rival_are_measured_in_turn_by_the_same_workers(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[PackingConfig] = []

    @contextmanager
    def workers(
        _config: TrainingConfig, pack: PackingConfig, *_: object
    ) -> Iterator[Callable[[dict[str, object]], list[PackingRate]]]:
        made.append(pack)
        yield lambda middles: [PackingRate(pack, size, 1.0) for size in middles]

    monkeypatch.setattr(benchmark_module, "_workers", workers)
    packs = PackingConfig(2, 1), PackingConfig(1, 2)
    turns = measure_alternately(config, packs, {"small": TINY}, turns=3)
    assert [[rate.pack for rate in turn] for turn in turns] == [[*packs], [*reversed(packs)], [*packs]]
    assert made == [*packs]
    assert measure_alternately(config, packs, {"small": TINY}, until=-1.0) == (), "its time was up before it began"


def test_the_first_start_decides_and_later_ones_follow(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    config = dataclasses.replace(config, run=tmp_path)
    made: list[int] = []

    def measured(
        _config: TrainingConfig, packs: tuple[PackingConfig, ...], *_: object, **__: object
    ) -> tuple[PackingRate, ...]:
        made.append(1)
        return tuple(PackingRate(pack, "small", float(n + 1)) for n, pack in enumerate(packs))

    def in_turn(
        _config: TrainingConfig, packs: tuple[PackingConfig, PackingConfig], *_: object
    ) -> tuple[tuple[PackingRate, ...], ...]:
        return (rates_of(packs, 1.0, 3.0),) * TURNS

    monkeypatch.setattr(benchmark_module, "profile", measured)
    monkeypatch.setattr(benchmark_module, "measure_alternately", in_turn)
    monkeypatch.setattr(benchmark_module, "usable_cores", lambda: (0, 1))
    space = find_space("resnet-tiny")

    def find(seconds: float | None) -> PackingConfig | None:
        found = find_packing(config, space, lambda _: 1.0, (), seconds)
        return found[0] if found else None

    assert find(60.0) is None
    assert find(None) is None
    assert find(3600.0) == PackingConfig(1, 1, 1)
    files.write_json(tmp_path / "run.json", {"any": 1})
    assert (find(60.0), find(None), len(made)) == (PackingConfig(1, 1, 1), PackingConfig(1, 1, 1), 1)
    assert files.read_json(tmp_path / "packing.json", PackingRecord).chosen == PackingConfig(1, 1, 1)
    (tmp_path / "packing.json").unlink()
    assert find(3600.0) is None, "it began with an equal split"


def test_bad_slots_are_rejected() -> None:
    with pytest.raises(SearchError, match="slots 0"):
        ExecutionConfig(slots=0)
