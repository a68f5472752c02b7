"""Predictions against results, read from a journal, shown and drawn."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import ripieno
from ripieno.library import Library
from ripieno.reports import report
from ripieno.reports.figure_style import style
from ripieno.reports.plot_files import PlotWriter
from ripieno.reports.predictions import describe_correlation, draw_predictions, read_predictions, time_front
from ripieno.search import Continuous, Space
from ripieno.search.journal import JobFinished, JobSubmitted, Journal
from ripieno.search.predictions import StepCorrelation, TrialPrediction
from tests.command_line import ripieno as command
from tests.reports.made_run import make_run

pytest.importorskip("matplotlib")
SPACE = Space("one", "resnet", {"x": Continuous(0.0, 1.0)})


@pytest.fixture
def library(tmp_path: Path) -> Library:
    made = make_run(tmp_path / "run", ["cat", "dog"], members=18, samples=(8, 16, 8))
    write_predictions(made)
    return made


def write_predictions(library: Library) -> None:
    """Write a journal in which trials 0 to 2 are of step 1 and the others of step 2, all predicted but the last."""
    journal = Journal(library.journal_path, SPACE, "random", 0)
    for trial in range(6):
        if trial < 5:
            journal.predictions[trial] = TrialPrediction(1 + trial // 3, 3, 0.5 + trial, 30.0 - trial)
        journal.configuration(trial)
        for start, stop in ((0, 1), (1, 3)):
            journal.append(JobSubmitted(trial, start, stop, 1.0, 0))
            journal.append(JobFinished(trial, stop, 0.4 + trial if stop == 3 else 9.0, 1.0 + trial))
    journal.sync()


def test_predictions_are_read_beside_the_results(library: Library) -> None:
    checks = read_predictions(library.journal_path)
    assert [(c.trial, c.loss, c.seconds) for c in checks.compared] == [(n, 0.4 + n, 2.0 + 2 * n) for n in range(5)]
    first, second = checks.correlations()
    assert (first.loss, first.seconds) == (pytest.approx(1), pytest.approx(-1))
    assert second == StepCorrelation(2, 2, None, None)
    assert describe_correlation(second) == "rank correlation of loss -, of seconds -, of 2 trials in step 2"


def test_a_line_that_is_still_written_is_left_out(library: Library) -> None:
    text = library.journal_path.read_text()
    last = text.index('"prediction":{"trial":4')
    library.journal_path.write_text(text[: last + 30])
    assert len(read_predictions(library.journal_path).compared) == 4
    assert read_predictions(library.path / "absent").compared == ()


def test_no_other_member_is_faster_and_better_than_one_of_the_front(library: Library) -> None:
    members = library.members()
    front = time_front(members)
    beaten = [m for m in members if any(o.seconds <= m.seconds and o.loss <= m.loss and o != m for o in members)]
    assert sorted(m.id for m in front) == sorted({m.id for m in members} - {m.id for m in beaten})
    assert list(front) == sorted(front, key=lambda m: m.seconds)


def test_predictions_and_the_front_are_drawn_with_their_numbers(library: Library) -> None:
    folder = PlotWriter(library.path / "report")
    with style():
        plots = draw_predictions(folder, read_predictions(library.journal_path), library.members(), "cross-entropy")
        assert draw_predictions(folder, read_predictions(library.path / "absent"), library.members(), "loss") == []
    assert [plot.name for plot in plots] == ["predicted-loss", "predicted-seconds", "time-front"]
    assert all("step 2" in plot.picture for plot in plots)
    with (library.path / "report" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted_seconds"] for row in rows] == [str(30.0 - n) for n in range(5)]


def test_show_prints_the_correlations_and_gives_all_numbers_as_json(library: Library) -> None:
    shown = command("show", str(library.path))
    assert "predictions against results" in shown.stdout
    assert "front of loss and seconds of training" in shown.stdout
    found = json.loads(command("show", str(library.path), "--json").stdout)["predictions"]
    assert found["steps"][0] == {"step": 1, "trials": 3, "loss": pytest.approx(1), "seconds": pytest.approx(-1)}
    assert found["trials"][4]["predicted_loss"] == 4.5
    assert found["front"] == [m.id for m in time_front(library.members())]


def test_the_report_has_a_section_on_them(tmp_path: Path) -> None:
    library = make_run(tmp_path / "run", ["cat", "dog"], members=3, samples=(4, 8, 4))
    write_predictions(library)
    page = report(library).read_text()
    assert 'id="predictions"' in page
    assert 'id="plot-predicted-seconds"' in page


def test_nothing_of_it_appears_for_runs_without_predictions(tmp_path: Path) -> None:
    library = make_run(tmp_path / "run", ["cat", "dog"], members=6, samples=(8, 16, 8))
    assert ripieno.show(library).predictions.compared == ()
    shown = command("show", str(library.path), "--json")
    assert "predictions" not in json.loads(shown.stdout)
    assert "against results" not in command("show", str(library.path)).stdout
