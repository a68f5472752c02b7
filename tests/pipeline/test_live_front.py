"""The live front of a search: made in a thread beside it, kept in its journal, continued by the next start."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import ripieno
from ripieno.cli.main import app
from ripieno.cluster import InlinePool
from ripieno.library import Library
from ripieno.pipeline.live_front import FrontMembers, FrontThread, count_costs, sample_rows
from ripieno.reports.front_history import read_front_history
from ripieno.search import Continuous, Settings, Space, run_search
from ripieno.search.progress import Snapshot
from ripieno.selection.growing_front import FIRST
from ripieno.tasks.registry import kind_of
from ripieno.types import Input, Job, JobResult, Member, Task, classification
from tests.pixel_members import TASK, make_masks, predict_masks

SPACE = Space("synthetic", "none", {"rate": Continuous(0.1, 1.0)}, {})
LABELS = np.arange(40) % 2
CLASSES = classification(("a", "b"))


def member(name: str, task: Task, predictions: NDArray[Any], targets: NDArray[Any], parameters: int = 0) -> Member:
    losses = kind_of(task).losses(predictions, targets, task)
    return Member(name, 0, 1, "none", {}, Input((1,)), task, losses, parameters, 0.1)


def likelihoods(name: str, epoch: int) -> NDArray[np.float64]:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return np.clip(random.uniform(0.02, 0.9, len(LABELS)) + 0.01 * epoch, 0, 1)


def train(run: Path, parameters: bool, job: Job) -> JobResult:
    """Add a member whose predictions follow from its name, and whose size from its trial."""
    truth = likelihoods(job.member, job.stop)
    probabilities = np.where(np.eye(2)[LABELS] == 1, truth[:, None], 1 - truth[:, None]).astype(np.float32)
    losses = kind_of(CLASSES).losses(probabilities, LABELS, CLASSES)
    size = 100 * (1 + job.trial % 3) if parameters else 0
    made = Member(job.member, job.trial, job.stop, "none", job.configuration, Input((1,)), CLASSES, losses, size, 0.1)
    Library(run).add(made, probabilities, LABELS)
    return JobResult(job, made)


def search(
    run: Path, parameters: bool = True, stop: int | None = None, pause: float = 0.0, **options: Any
) -> list[Snapshot]:
    """Search a run with a live front; interrupt it once `stop` jobs have ended and there is a front.

    With a `pause`, each snapshot takes as many seconds.
    """
    seen: list[Snapshot] = []

    def watch(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        time.sleep(pause)
        if stop is not None and snapshot.jobs >= stop and snapshot.front is not None:
            raise KeyboardInterrupt

    fronts = FrontThread(Library(run), **{"share": 1.0, **options})
    settings = Settings(SPACE, trials=24, epochs=9)
    try:
        run_search(Library(run), settings, InlinePool(partial(train, run, parameters)), watch=watch, fronts=fronts)
    except KeyboardInterrupt:
        pass
    finally:
        fronts.close()
    assert fronts.problem == ""
    return seen


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Snapshot]]:
    """A run with a live front, not to be changed, and its snapshots."""
    run = tmp_path_factory.mktemp("searched")
    return run, search(run)


def test_the_front_begins_with_ten_members_grows_and_is_that_of_all_at_the_end(
    searched: tuple[Path, list[Snapshot]],
) -> None:
    run, seen = searched
    fronts = [(s.jobs, s.front) for s in seen if s.front is not None]
    assert all(s.front is None for s in seen if s.jobs < FIRST)
    assert all(FIRST <= front.members <= jobs for jobs, front in fronts)
    volumes = [front.hypervolume for _, front in fronts]
    assert volumes == sorted(volumes)
    last = fronts[-1][1]
    assert last.members == seen[-1].members == len(Library(run))
    assert last.cost == "parameters"
    for point in last.ensembles:
        truth = np.stack([likelihoods(name, int(name[-3:])) for name in point.members])
        assert point.loss == pytest.approx(float(-np.log(truth.mean(axis=0)).mean()), rel=1e-5)
        assert point.cost == sum(100 * (1 + int(name[:5]) % 3) for name in point.members)


def test_the_history_is_read_from_the_journal(searched: tuple[Path, list[Snapshot]]) -> None:
    run, seen = searched
    last, history = seen[-1].front, ripieno.front_history(run)
    assert len(history) >= 1
    assert history[-1] == last
    assert {front.reference for front in history} == {history[0].reference}
    assert [front.seconds for front in history] == sorted(front.seconds for front in history)
    assert ripieno.pipeline.show(run).live_front == last


def test_the_next_start_continues_the_curve_of_an_interrupted_search(tmp_path: Path) -> None:
    search(tmp_path, stop=14)
    before = ripieno.front_history(tmp_path)
    assert before
    assert before[-1].members < len(Library(tmp_path)) + 10
    seen = search(tmp_path)
    after = ripieno.front_history(tmp_path)
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert seen[0].front == before[-1]
    assert after[len(before)].seconds >= before[-1].seconds
    assert {front.reference for front in after} == {before[0].reference}
    assert [front.hypervolume for front in after] == sorted(front.hypervolume for front in after)


def test_a_search_that_is_killed_keeps_its_fronts_and_goes_on_with_them(
    searched: tuple[Path, list[Snapshot]], tmp_path: Path
) -> None:
    code = "import sys; from pathlib import Path; from tests.pipeline import test_live_front as t"
    command = [sys.executable, "-c", f"{code}; t.search(Path(sys.argv[1]), pause=0.02)", str(tmp_path)]
    journal = Library(tmp_path).journal_path
    driver = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    while driver.poll() is None and not read_front_history(journal):
        time.sleep(0.005)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL, "it ended before it was killed"
    before = read_front_history(journal)
    assert before
    assert len(Library(tmp_path)) < len(Library(searched[0]))
    last = search(tmp_path)[-1].front
    history = read_front_history(journal)
    assert history[: len(before)] == before
    assert history[-1] == last
    assert [front.hypervolume for front in history] == sorted(front.hypervolume for front in history)
    assert {front.reference for front in history} == {before[0].reference}
    assert Library(tmp_path).ids() == Library(searched[0]).ids()
    assert history[-1].members == len(Library(tmp_path))


def test_a_torn_last_line_loses_the_last_front_alone(searched: tuple[Path, list[Snapshot]], tmp_path: Path) -> None:
    shutil.copytree(searched[0], tmp_path, dirs_exist_ok=True)
    history, journal = ripieno.front_history(tmp_path), Library(tmp_path).journal_path
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b'"front:' in line)
    journal.write_bytes(b"".join(lines[:last]) + lines[last][:-20])
    assert ripieno.front_history(tmp_path) == history[:-1]
    search(tmp_path)
    assert ripieno.front_history(tmp_path)[-1].ensembles == history[-1].ensembles


def test_a_journal_without_fronts_gains_them_with_the_next_start(tmp_path: Path) -> None:
    settings = Settings(SPACE, trials=24, epochs=9)
    run_search(Library(tmp_path), settings, InlinePool(partial(train, tmp_path, True)))
    assert b"front" not in Library(tmp_path).journal_path.read_bytes()
    assert ripieno.front_history(tmp_path) == ()
    assert ripieno.pipeline.show(tmp_path).live_front is None
    seen = search(tmp_path)
    (front,) = ripieno.front_history(tmp_path)
    assert front == seen[-1].front
    assert front.members == len(Library(tmp_path))


def test_the_journal_keeps_each_ensemble_once_and_no_growth_that_none_would_see(
    searched: tuple[Path, list[Snapshot]],
) -> None:
    entries = [
        value
        for line in Library(searched[0]).journal_path.read_text().splitlines()
        for name, value in json.loads(line).get("user_attr", {}).items()
        if name.startswith("front:")
    ]
    ensembles = [tuple(point[2]) for entry in entries for point in entry["new"]]
    assert len(ensembles) == len(set(ensembles))
    volumes = [entry["hypervolume"] for entry in entries]
    assert all(later > 1.001 * volume for volume, later in pairwise(volumes[:-1]))  # the last is kept anyway


def test_without_counted_costs_an_ensemble_costs_its_members(tmp_path: Path) -> None:
    front = search(tmp_path, parameters=False)[-1].front
    assert front is not None
    assert front.cost == "members"
    assert [point.cost for point in front.ensembles] == [len(point.members) for point in front.ensembles]
    assert front.reference[0] == pytest.approx(1.1 * FIRST)


def test_a_budget_of_the_search_is_in_its_fronts(tmp_path: Path) -> None:
    front = search(tmp_path, budget={"members": 3.0})[-1].front
    assert front is not None
    assert (front.cost, front.budget) == ("members", 3.0)
    best = front.best(3.0)
    assert best is not None
    assert len(best.members) <= 3
    assert front.best(0.5) is None


def test_a_front_in_another_kind_of_cost_begins_anew(tmp_path: Path) -> None:
    first = search(tmp_path, stop=14)
    assert {s.front.cost for s in first if s.front} == {"parameters"}
    last = search(tmp_path, budget={"seconds": 40.0}, costs=lambda _: {"seconds": 9.0})[-1].front
    assert last is not None
    assert (last.cost, last.budget) == ("seconds", 40.0)
    assert last.reference[0] == pytest.approx(1.1 * 9.0 * FIRST)
    assert [e.cost for e in last.ensembles] == [9.0 * len(e.members) for e in last.ensembles]
    assert ripieno.front_history(tmp_path)[-1] == replace(last, budget=None)
    # no member costs any memory: the front is as without a budget
    unknown = search(tmp_path / "new", budget={"memory": 1e9})[-1].front
    assert unknown is not None
    assert (unknown.cost, unknown.budget) == ("parameters", None)


def add_all(library: Library, task: Task, predictions: NDArray[Any], targets: NDArray[Any]) -> list[str]:
    names = [f"m{number:02d}" for number in range(len(predictions))]
    for name, own in zip(names, predictions, strict=True):
        library.add(member(name, task, own, targets), own, targets)
    return names


def grown(library: Library) -> Any:
    members = FrontMembers(library)
    members.read_all()
    kind = members.choose_kind()
    return members.grow(kind)


def test_labels_are_judged_by_their_binary_cross_entropy(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, (30, 3)).astype(np.uint8)
    right = random.uniform(0.1, 0.95, (12, 30, 3)).astype(np.float32)
    predictions = np.where(targets == 1, right, 1 - right)
    task = Task("multilabel", (3,), ("x", "y", "z"))
    names = add_all(Library(tmp_path), task, predictions, targets)
    best = grown(Library(tmp_path)).ensembles[-1]
    mean = np.mean([predictions[names.index(name)] for name in best.members], axis=0)
    losses = kind_of(task).losses(mean, targets, task)
    assert best.loss == pytest.approx(losses["valid_binary_cross_entropy"], rel=1e-5)


def test_values_are_judged_by_their_squared_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    targets = random.normal(size=(30, 2)).astype(np.float32) * np.float32([1, 100])
    predictions = targets + random.normal(size=(12, 30, 2)).astype(np.float32) * np.float32([1, 100])
    task = Task("regression", (2,), ("x", "y"))
    names = add_all(Library(tmp_path), task, predictions, targets)
    best = grown(Library(tmp_path)).ensembles[-1]
    mean = np.mean([predictions[names.index(name)] for name in best.members], axis=0)
    losses = kind_of(task).losses(mean, targets, task)
    assert best.loss == pytest.approx(losses["valid_squared_error"], rel=1e-4)


def test_masks_are_judged_by_the_cross_entropy_of_their_pixels(tmp_path: Path) -> None:
    masks = make_masks(20)
    predictions = predict_masks(masks, 12).astype(np.float16)
    names = add_all(Library(tmp_path), TASK, predictions, masks)
    best = grown(Library(tmp_path)).ensembles[-1]
    mean = np.mean([predictions[names.index(name)].astype(np.float64) for name in best.members], axis=0)
    losses = kind_of(TASK).losses(mean, masks, TASK)
    assert best.loss == pytest.approx(losses["valid_cross_entropy"], rel=1e-3)


def test_networks_cost_the_flops_that_follow_from_their_configuration(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 30)
    library = Library(tmp_path)
    for number in range(12):
        right = random.uniform(0.1, 0.95, 30).astype(np.float32)
        own = np.where(np.eye(2)[targets] == 1, right[:, None], 1 - right[:, None]).astype(np.float32)
        made = member(f"m{number:02d}", CLASSES, own, targets, parameters=7)
        configuration = {"units": 8 * (1 + number % 2)}
        library.add(replace(made, family="mlp", input=Input((5,)), configuration=configuration), own, targets)
    front = grown(library)
    assert front.cost == "flops"
    counted = {m.id: count_costs(m)["flops"] for m in library.members()}
    assert len(set(counted.values())) == 2
    for ensemble in front.ensembles:
        assert ensemble.cost == sum(counted[name] for name in ensemble.members)


def test_of_many_rows_the_same_sample_is_read_of_each_member() -> None:
    assert sample_rows(100, 100) is None
    rows = sample_rows(1000, 100)
    assert rows is not None
    assert len(set(rows.tolist())) == 100
    assert rows.tolist() == sorted(rows.tolist())
    assert np.array_equal(rows, sample_rows(1000, 100))


def test_an_error_ends_the_fronts_and_not_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no memory")

    monkeypatch.setattr(FrontMembers, "grow", fail)
    fronts = FrontThread(Library(tmp_path))
    settings = Settings(SPACE, trials=12, epochs=1)
    last = run_search(Library(tmp_path), settings, InlinePool(partial(train, tmp_path, True)), fronts=fronts)
    assert last.members == 12
    assert last.front is None
    assert fronts.problem == "ValueError: no memory"


def test_a_search_shows_its_front_and_the_next_start_continues_it(tmp_path: Path) -> None:
    source = load_digits()
    images = (source.images[:120, :, :, None] * 15).astype(np.uint8)
    (tmp_path / "space.json").write_text(
        json.dumps({"ranges": {"rate": {"kind": "continuous", "low": 0.1, "high": 1}}})
    )

    def interrupt(snapshot: Snapshot) -> None:
        if snapshot.front is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ripieno.tune(
            (images, source.target[:120]), tmp_path / "run", trials=16, epochs=1, space=str(tmp_path / "space.json"),
            trainer="tests.own_trainer:Linear", pool="inline", free="off", watch=interrupt, budget={"parameters": 2000},
        )  # fmt: skip
    (before,) = ripieno.front_history(tmp_path / "run")
    assert FIRST <= before.members <= 16
    options = ["--trainer", "tests.own_trainer:Linear", "--pool", "inline"]
    result = CliRunner().invoke(app, ["tune", "--run", str(tmp_path / "run"), *options])
    assert result.exit_code == 0, result.output
    history = ripieno.front_history(tmp_path / "run")
    assert history[0] == before
    assert history[-1].members == 16
    assert history[-1].reference == before.reference
    assert f"hypervolume {history[-1].hypervolume:.3f}" in result.output
    assert re.search(r"^\W*2k +\d", result.output, re.MULTILINE)  # the budget of the search
    assert "ripieno select" in result.output
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "run")]).output
    assert f"front of the search: hypervolume {history[-1].hypervolume:.3f}" in shown
