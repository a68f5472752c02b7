"""The history of a search from its members and its journal."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ripieno.cluster import SimulatedPool
from ripieno.library import Library
from ripieno.reports.search import (
    best_trials_loss,
    busy,
    failures,
    promotions,
    rungs,
    search_terms,
    slot_intervals,
    trend,
    trials,
    utilisation,
    varying_hyperparameters,
)
from ripieno.search import Settings, run_search
from ripieno.search.built_in_spaces import find_space
from ripieno.search.settings import resolve_settings
from ripieno.types import Epoch, Input, Member, Value, classification


def member(trial: int, epoch: int, *, end: float, trained: float, loss: float = 1.0, **configuration: Value) -> Member:
    curve = (Epoch(epoch, 1.0, loss, 0.5, 1.0),)
    losses = {"valid_cross_entropy": loss}
    name = f"{trial:05d}-e{epoch:03d}"
    return Member(
        name,
        trial,
        epoch,
        "resnet",
        configuration,
        Input((1, 1, 1)),
        classification(("a", "b")),
        losses,
        1,
        trained,
        curve,
        end,
    )


HOUR = 3600.0
MEMBERS = (
    member(0, 1, end=1 * HOUR, trained=1 * HOUR, loss=2.0),
    member(1, 1, end=2 * HOUR, trained=2 * HOUR, loss=1.0),
    member(1, 3, end=4 * HOUR, trained=3.5 * HOUR, loss=0.5),
)


def test_a_trial_stopped_at_its_last_member() -> None:
    assert [(t.number, t.stopped, t.stops, t.loss) for t in trials(MEMBERS)] == [(0, 1, (1,), 2.0), (1, 3, (1, 3), 0.5)]


def test_a_rung_counts_who_came_and_who_stopped() -> None:
    assert rungs(trials(MEMBERS)) == ((1, 2, 1), (3, 1, 1))


def test_the_best_trials_count_once_each_at_its_best_rung() -> None:
    worse = member(2, 9, end=5 * HOUR, trained=1 * HOUR, loss=0.9)
    tried = trials([*MEMBERS, worse, member(2, 3, end=4.5 * HOUR, trained=0.5 * HOUR, loss=0.7)])
    assert best_trials_loss(tried, 2) == pytest.approx(0.6)  # not 0.5 and 0.7 and 0.9 and 1.0
    assert best_trials_loss(tried, 10) == pytest.approx((0.5 + 0.7 + 2.0) / 3)


def test_imported_members_are_no_trials() -> None:
    assert trials([dataclasses.replace(MEMBERS[0], curve=())]) == ()
    assert slot_intervals([dataclasses.replace(MEMBERS[0], curve=())]) == ()


def test_a_job_lasts_as_long_as_its_own_part_of_the_training() -> None:
    found = {s.member: (s.start, s.end) for s in slot_intervals(MEMBERS)}
    assert found == {"00000-e001": (0, 1), "00001-e001": (0, 2), "00001-e003": (2.5, 4)}


def test_jobs_at_the_same_time_sit_in_different_slots() -> None:
    found = slot_intervals(MEMBERS)
    for one in found:
        for other in found:
            together = one.start < other.end - 1e-9 and other.start < one.end - 1e-9
            assert one is other or not together or one.slot != other.slot
    assert {s.slot for s in found} == {0, 1}


def test_the_number_of_busy_slots_adds_up() -> None:
    hours, counts = busy(slot_intervals(MEMBERS))
    assert list(zip(hours, counts, strict=True)) == [(0, 2), (1, 1), (2, 0), (2.5, 1), (4, 0)]
    assert utilisation(slot_intervals(MEMBERS)) == pytest.approx(4.5 / 8)


def test_hyperparameters_that_never_vary_are_left_out() -> None:
    made = trials([member(i, 1, end=1.0, trained=1.0, loss=i, width=i, flip=True, kind="xy"[i % 2]) for i in range(4)])
    assert varying_hyperparameters(made) == ("width", "kind")


def test_a_trend_is_the_rank_correlation() -> None:
    made = trials([member(i, 1, end=1.0, trained=1.0, loss=10 - i, width=2**i) for i in range(5)])
    assert trend(made, "width") == pytest.approx(-1)
    assert trend(made, "absent") is None


def test_promotions_are_read_with_their_ranks(tmp_path: Path) -> None:
    settings = Settings(find_space("resnet-tiny"), "asha", trials=12, epochs=9)
    pool = SimulatedPool(lambda configuration, epoch: (float(configuration["learning_rate"]) + 1 / epoch, 1.0), 2)
    run_search(Library(tmp_path), settings, pool, clock=pool.clock)
    found = promotions(Library(tmp_path).journal_path)
    assert {(p.start, p.stop) for p in found} == {(1, 3), (3, 9)}
    assert all(1 <= p.rank <= p.ranked / 3 for p in found)
    assert promotions(tmp_path / "absent") == ()


def test_failures_are_read_from_the_journal_without_its_torn_last_line(tmp_path: Path) -> None:
    failure = {"reason": "diverged", "message": "the loss is not a number", "detail": "", "log": ""}
    event = {"event": "arrived", "trial": 4, "stop": 9, "loss": None, "seconds": 1.0, "failure": failure}
    line = json.dumps({"op_code": 2, "user_attr": {"event:000000": event}}, separators=(",", ":"))
    (tmp_path / "journal.log").write_text(f'{{"op_code":0}}\n{line}\n{line[:-9]}')
    found = failures(tmp_path / "journal.log")
    assert [(f.trial, f.epoch, f.reason) for f in found] == [(4, 9, "diverged")]
    assert failures(tmp_path / "absent") == ()


def test_what_bounded_a_search_is_a_sentence(tmp_path: Path) -> None:
    def terms(**options: Any) -> str:
        path = tmp_path / f"{len(options)}.json"
        settings = Settings(find_space("resnet-tiny"), "random", 3, 9, metric="valid_cross_entropy", **options)
        resolve_settings(path, settings, 1, None)
        return search_terms(path)

    assert search_terms(tmp_path / "absent.json") == terms() == ""
    assert terms(constraints=("bytes<=4MiB", "accuracy>=0.5")) == (
        "The search had constraints: bytes<=4194304, accuracy>=0.5."
    )
    assert terms(objective=("loss", "flops"), budget={"seconds": 20.0, "flops": 1e6}) == (
        "The search had several objectives: loss, flops; a budget: seconds=20, flops=1e+06."
    )
    (tmp_path / "broken.json").write_text("{")
    assert search_terms(tmp_path / "broken.json") == ""
