"""The live view of a search on recorded terminals of several sizes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from ripieno.cli import progress
from ripieno.cli.progress import ProgressCallback, end_of, progress_of, start_of, summary
from ripieno.library import Library
from ripieno.library.trial_progress import ProgressWriter, TrialProgress
from ripieno.search.predictions import StepCorrelation
from ripieno.search.progress import RunningJob, SkippedStep, Snapshot
from ripieno.types import Failure, FrontEnsemble, Input, Job, JobResult, LiveFront, Member, classification

NOW = 1000.0


def job(trial: int, start: int = 0, stop: int = 3) -> Job:
    rate = {"learning_rate": 0.001 * (trial + 1), "batch_size": 64, "optimizer": "adam" if trial % 2 else "sgd"}
    return Job(trial, {**rate, "width": 16, "max_rotation": 1.5 * trial}, start, stop)


def snapshot(running: int = 2, slots: int = 2, **changed: object) -> Snapshot:
    jobs = tuple(
        RunningJob(job(n, 3 if n % 2 else 0, 9 if n % 2 else 3), NOW - 7 - n, 0.5 if n % 2 else None)
        for n in range(running)
    )
    made = Snapshot(
        running=jobs,
        queued=4,
        slots=slots,
        trials=12,
        most_trials=30,
        jobs=17,
        members=15,
        failures=2,
        best="00007-e009",
        best_loss=0.12345,
        top_loss=0.4321,
        top_trials=10,
        now=NOW,
        seconds=250.0,
        left=None,
        occupancy=0.973,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def drawn(
    of: Snapshot,
    width: int = 80,
    height: int = 24,
    events: tuple[str, ...] = (),
    later: float = 0.0,
    known: dict[int, TrialProgress] | None = None,
) -> str:
    configs = progress.ConfigSummary()
    for one in of.running:
        configs.see(one.job.configuration)
    view = progress.SearchView(configs, now=lambda: NOW + later, progress=lambda _: known or {})
    view.update(of, [Text(event) for event in events])
    console = Console(record=True, width=width, height=height, file=io.StringIO(), force_terminal=True)
    console.print(view)
    return console.export_text()


def test_a_terminal_of_80_columns_shows_every_figure() -> None:
    shown = drawn(snapshot(), events=("ended     00003-e003",))
    for word in (
        *("trial 12 of 30", "4:10", "members 15", "best 0.1235 00007-e009", "best 10 trials 0.4321"),
        *(
            "slots busy 2 of 2 (97 %)",
            "queue 4",
            "failed 2",
            "0 → 3",
            "3 → 9",
            "8.0 s",
            "0.5000",
            "ended     00003-e003",
        ),
    ):
        assert word in shown, word
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 12), (200, 50), (40, 10)])
@pytest.mark.parametrize("running", [0, 1, 64])
def test_it_fits_the_terminal(width: int, height: int, running: int) -> None:
    lines = drawn(snapshot(running, 64), width, height, events=("one", "two", "three", "four", "five")).splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_more_slots_than_rows_are_counted_by_rung() -> None:
    shown = drawn(snapshot(64, 64), height=20)
    rows = [line for line in shown.splitlines() if "→" in line]
    counted = next(line for line in shown.splitlines() if "more:" in line)
    hidden = 64 - len(rows)
    assert f"{hidden} more: {hidden // 2} to epoch 3, {hidden - hidden // 2} to epoch 9" in counted


def test_the_clock_advances_between_snapshots() -> None:
    of = snapshot(left=90.0, most_trials=None)
    assert "4:10, 1:30 left" in drawn(of)
    later = drawn(of, later=20.0)
    assert "4:30, 1:10 left" in later
    assert " 28 s" in later or "0:28" in later


def test_the_nearer_end_is_the_one_shown() -> None:
    assert progress.fraction_done(snapshot(running=0)) == pytest.approx(12 / 30)
    assert progress.fraction_done(snapshot(running=2)) == pytest.approx(11 / 30)  # one of two is new and not done
    assert progress.fraction_done(snapshot(left=250.0)) == pytest.approx(0.5)
    assert progress.fraction_done(snapshot(most_trials=None)) is None


def test_a_short_configuration_is_the_values_that_differ() -> None:
    configs = progress.ConfigSummary()
    configs.see(job(0).configuration)
    assert configs.describe(job(0).configuration) == "lr 0.001 batch 64 sgd turn 0 width 16"
    configs.see(job(1).configuration)
    assert configs.describe(job(1).configuration) == "lr 0.002 adam turn 1.5"


def test_markup_in_values_is_text() -> None:
    odd = RunningJob(Job(1, {"name": "[red]x[/nonsense]"}, 0, 1), NOW, None)
    assert "[red]x[/nonsense]" in drawn(replace(snapshot(), running=(odd,)))


def member(of: Job, loss: float) -> Member:
    losses = {"valid_cross_entropy": loss}
    return Member(
        of.member,
        of.trial,
        of.stop,
        "resnet",
        of.configuration,
        Input((8, 8, 1)),
        classification(("a", "b")),
        losses,
        10,
        1.0,
    )


def test_every_event_is_one_line() -> None:
    configs = progress.ConfigSummary()
    configs.see(job(3).configuration)
    assert start_of(job(3), configs).plain.startswith("started   trial 3, epochs 0 to 3  lr 0.004")
    assert start_of(job(3, 3, 9), configs).plain.startswith("promoted  trial 3, epochs 3 to 9")
    assert start_of(replace(job(3, 3, 9), unit="rounds"), configs).plain.startswith("promoted  trial 3, rounds 3 to 9")
    ended = end_of(JobResult(job(3), member(job(3), 0.25), started=10.0, finished=14.2)).plain
    assert ended == "ended     00003-e003  cross-entropy 0.2500  4.2 s"
    failed = end_of(
        JobResult(job(3), failure=Failure("crash", "the worker was killed", log="run/logs/slot-0.log"))
    ).plain
    assert failed == "failed    trial 3, epochs 0 to 3  crash: the worker was killed (see run/logs/slot-0.log)"
    assert progress_of(snapshot(running=0)) == "   4:10   40 %  trial 12 of 30  15 members"


def test_the_summary_has_the_results(tmp_path: object) -> None:
    watch = ProgressCallback(progress.SearchView(progress.ConfigSummary()), progress.ConfigSummary())
    lost = JobResult(job(3), failure=Failure("memory", "out of memory"))
    watch(snapshot(finished=(lost,)))
    watch(snapshot(running=0, ended="deadline"))
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(summary(watch, tmp_path))  # type: ignore[arg-type]
    text = " ".join(console.export_text().split())
    for word in (
        *("the time is up after 4:10", "00007-e009", "15 members of 12 trials", "97 %", "out of memory", "logs"),
        "mean of the ten best trials 0.4321",
    ):
        assert word in text, word


POSITIONS = {0: TrialProgress(2, 12, 40), 1: TrialProgress(7)}


def test_each_running_trial_shows_its_epoch_and_batch() -> None:
    shown = drawn(snapshot(), known=POSITIONS)
    assert "2: 0 → 3" in shown
    assert "12/40" in shown
    assert "7: 3 → 9" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_a_search_bounded_by_trials_shows_about_when_it_ends() -> None:
    counted = snapshot(running=0, expected_epochs=100, epochs=40, timed_epochs=40, timed_seconds=80.0)
    assert "4:10, about 1:00 left" in drawn(counted)
    assert "4:10, 0:45 left" in drawn(replace(counted, left=45.0))
    assert progress_of(counted, 60.0).endswith("15 members  about 1:00 left")


def test_the_first_batches_show_about_when_it_ends() -> None:
    first = snapshot(jobs=0, members=0, expected_epochs=100)
    assert "about" not in drawn(first)
    assert "about" in drawn(first, known=POSITIONS)


def test_a_promotion_names_its_rank_and_a_skipped_step_its_time() -> None:
    promoted = start_of(job(3, 3, 9), progress.ConfigSummary(), (2, 9)).plain
    assert promoted.startswith("promoted  trial 3, epochs 3 to 9, rank 2 of 9 at epoch 3  ")
    trial = progress.skipped_step(SkippedStep(3, 3, 9, 200.0, 70.0)).plain
    assert trial == "skipped   trial 3, 3 to 9  would take 3:20, 1:10 are left"
    assert "new trials, 0 to 27" in progress.skipped_step(SkippedStep(None, 0, 27, 200.0, 70.0)).plain


def test_a_log_without_a_terminal_says_what_trains_when_nothing_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(progress.console, "log", log)
    library = Library(tmp_path)
    for of in snapshot().running:
        ProgressWriter(library.progress_path(of.job.trial)).start_epoch(of.job.start + 1)
    watch = ProgressCallback(None, progress.ConfigSummary(), progress.ProgressReader(tmp_path))
    for second in range(31):
        watch(snapshot(seconds=float(second)))
    assert isinstance(log.file, io.StringIO)
    lines = log.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["5.0", "0:15"]  # after 5 seconds, then after 10, 20, ...
    assert "training  trial 0, epoch 1 of 3; trial 1, epoch 4 of 9" in lines[0]


def test_a_log_without_a_terminal_has_a_line_for_each_clear_growth_of_the_front(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(progress.console, "log", log)
    watch = ProgressCallback(None, progress.ConfigSummary())
    front = LiveFront("members", (FrontEnsemble(1.0, 0.5, ("a",)),), (11.0, 0.6), 0.4, 10)
    for volume in (0.4, 0.41, 0.43, 0.44, 0.46):
        watch(snapshot(seconds=1.0, front=replace(front, hypervolume=volume)))
    assert isinstance(log.file, io.StringIO)
    lines = [line.partition("front")[2].split(";")[0].strip() for line in log.file.getvalue().splitlines()]
    assert lines == ["hypervolume 0.400", "hypervolume 0.430", "hypervolume 0.460"]


def test_the_loss_at_the_end_is_predicted_while_it_may_fall() -> None:
    falling = tuple(1.0 / n for n in range(1, 17))
    quarter = snapshot(most_trials=None, left=750.0, epochs=16, timed_epochs=16, lowest=falling)
    assert "at the end about 0.0312" in drawn(quarter)
    line = progress.training_jobs(quarter, {}).plain
    assert line.endswith("best loss at the end: about 0.0312")
    assert "at the end" not in drawn(replace(quarter, left=100.0))
    assert "at the end" not in drawn(snapshot())


def test_the_view_has_a_line_of_how_well_the_last_step_was_predicted() -> None:
    steps = (StepCorrelation(1, 40, 0.3, 0.8), StepCorrelation(2, 24, 0.68, None))
    line = "predicted rank correlation of loss 0.68, of seconds -, of 24 trials in step 2"
    assert line in drawn(snapshot(correlations=steps))
    assert "predicted" not in drawn(snapshot())
