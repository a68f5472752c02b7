"""What a trial adds to the best ensemble under a budget, against the same written out; and a search that goes by it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ripieno
from ripieno.cluster import InlinePool
from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.pipeline.promotion import EnsemblePromotionScore, make_promotion_score
from ripieno.search import Continuous, Settings, Space, run_search
from ripieno.search.journal import JobSubmitted, Journal
from ripieno.selection import select_members
from ripieno.types import Configuration, Input, Job, JobResult, Member

LABELS = np.arange(40) % 2
SPACE = Space("made up", "made:up", {"skill": Continuous(0.0, 1.0), "price": Continuous(1.0, 5.0)}, {})
SETTINGS = Settings(SPACE, trials=24, epochs=9, window=3, promote="ensemble", budget={"price": 8.0})


def member_of(job: Job) -> tuple[Member, NDArray[np.float64]]:
    """A member that knows the better some samples, its trial's own, and the longer it trained; and its predictions."""
    rng = np.random.default_rng([job.trial, 1])
    know = 2 * float(job.configuration["skill"]) + 0.3 * math.log(job.stop) + rng.normal(0, 1.5, len(LABELS))
    right = 1 / (1 + np.exp(-know))
    valid = np.where(LABELS[:, None] == np.arange(2), right[:, None], 1 - right[:, None])
    losses = {"valid_cross_entropy": float(-np.log(right).mean())}
    price = {"price": float(job.configuration["price"])}
    made = Member(
        job.member,
        job.trial,
        job.stop,
        "made:up",
        job.configuration,
        Input((1,)),
        ("a", "b"),
        losses,
        1,
        0.1,
        costs=price,
    )
    return made, valid


def train(run: Path, job: Job) -> JobResult:
    member, valid = member_of(job)
    Library(run).add(member, valid, LABELS, b"")
    return JobResult(job, member)


def price(member: Member) -> list[float]:
    return [member.costs["price"]]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Thirty trials, a third of them with a second member."""
    library = Library(tmp_path_factory.mktemp("shelf"))
    rng = np.random.default_rng(0)
    for trial in range(30):
        configuration: Configuration = {"skill": float(rng.uniform()), "price": float(rng.uniform(1, 5))}
        for stop in (1, 3) if trial % 3 == 0 else (1,):
            train(library.path, Job(trial, configuration, 0, stop))
    return library


def reached(library: Library) -> list[tuple[int, int]]:
    return [(m.trial, m.epoch) for m in library.members()]


@pytest.mark.parametrize("budget", [4.0, 8.0, 1000.0])
def test_the_worth_is_the_loss_of_the_best_ensemble_with_the_member_added(shelf: Library, budget: float) -> None:
    told = reached(shelf)
    truth, costs = (
        shelf.true_class_probabilities(shelf.ids()).astype(np.float64),
        np.array([m.costs["price"] for m in shelf.members()]),
    )
    chosen = list(select_members(shelf.true_class_probabilities(shelf.ids()), None, costs, budget).members)
    found = EnsemblePromotionScore(shelf, price, {"price": budget})(told, told)
    room = 0
    for row, value in enumerate(found):
        kept = list(chosen)
        while kept and costs[list({*kept, row})].sum() > budget:
            kept.pop()  # the last chosen makes room
        if costs[row] > budget:
            assert value == math.inf
        else:
            mean = truth[[*kept, row]].mean(axis=0)
            assert value == pytest.approx(-np.log(mean).mean(), rel=1e-5)
            room += len(kept) < len(chosen)
    assert len(chosen) > 1
    assert (room > 0) == (budget < 1000)
    assert (math.inf in found) == (budget == 4.0)


def test_what_it_says_depends_on_what_was_told_and_on_nothing_asked_before(shelf: Library) -> None:
    told = reached(shelf)
    once, often = (EnsemblePromotionScore(shelf, price, {"price": 8.0}) for _ in range(2))
    for count in (1, 2, 7, 20):
        often(told[:count], told[:count:2])
    assert often(told, told[3:9]) == once(told, told[3:9])
    assert often(told, told[5:12])[:4] == once(told, told[3:9])[2:]
    assert (often.selections, once.selections) == (5, 1)


def test_while_nothing_fits_the_budget_nothing_is_promoted_and_a_member_removed_is_none(shelf: Library) -> None:
    told = reached(shelf)
    assert set(EnsemblePromotionScore(shelf, price, {"price": 0.5})(told, told)) == {math.inf}
    assert EnsemblePromotionScore(shelf, price, {"price": 8.0})([*told, (99, 1)], [(99, 1)]) == [math.inf]
    assert EnsemblePromotionScore(shelf, price, {"price": 8.0})([(99, 1)], [(99, 1)]) == [math.inf]


def search(run: Path, most: int = 10**9, settings: Settings = SETTINGS, worth: object = None) -> None:
    """Search `run`, killed after that many jobs."""
    left = iter(range(most))

    def work(job: Job) -> JobResult:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return train(run, job)

    library = Library(run)
    how = (
        {"worth": worth or EnsemblePromotionScore(library, price, settings.budget)}
        if settings.promote == "ensemble"
        else {}
    )
    run_search(library, settings, InlinePool(work), **how)  # type: ignore[arg-type]


def issued(run: Path) -> list[JobSubmitted]:
    return [e for e in Journal(Library(run).journal_path, SPACE, "random", 0).events() if isinstance(e, JobSubmitted)]


def test_a_killed_search_ends_as_one_left_alone_and_its_replay_asks_for_no_worth(tmp_path: Path) -> None:
    search(tmp_path / "quiet")
    for most in (0, 1, 9, 6):
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "killed", most)
    told = issued(tmp_path / "killed")[-1].told
    asked = []
    worth = EnsemblePromotionScore(Library(tmp_path / "killed"), price, SETTINGS.budget)

    def watched(now: list[tuple[int, int]], waiting: list[tuple[int, int]]) -> list[float]:
        asked.append(len(now))
        return worth(now, waiting)

    search(tmp_path / "killed", worth=watched)
    assert told > 4
    assert min(asked) >= told
    assert issued(tmp_path / "killed") == issued(tmp_path / "quiet")
    assert Library(tmp_path / "killed").ids() == Library(tmp_path / "quiet").ids()
    plain = Settings(SPACE, trials=24, epochs=9, window=3)
    search(tmp_path / "plain", settings=plain)
    assert Library(tmp_path / "plain").ids() != Library(tmp_path / "quiet").ids()  # else all this says nothing


def test_kinds_that_a_search_cannot_count_are_refused(tmp_path: Path) -> None:
    for family, kind in (("resnet", "seconds"), ("my_nets:build", "flops")):
        with pytest.raises(SearchError, match=f"cannot bound {kind}: while it trains it counts"):
            make_promotion_score(Library(tmp_path), family, {kind: 1.0})
    with pytest.raises(SearchError, match="budget flops=-1: it must be more than 0"):
        make_promotion_score(Library(tmp_path), "resnet", {"flops": -1.0})


def test_a_real_search_promotes_for_the_ensemble_and_says_what_it_took(digit_folder: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    library = ripieno.tune(
        digit_folder,
        tmp_path,
        trials=4,
        epochs=3,
        space="resnet-tiny",
        algorithm="asha",
        pool="inline",
        promote="ensemble",
        budget={"flops": 1e8, "parameters": 1e6},
        notes=notes,
    )
    assert {m.epoch for m in library.members()} == {1, 3}
    assert any(note.startswith("promoted for the ensemble: ") for note in notes)
