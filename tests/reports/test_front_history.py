"""Course of the live front, read from a journal and drawn."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ripieno.reports.figure_style import style
from ripieno.reports.front_history import front_budgets, read_front_history
from ripieno.reports.plot_files import PlotWriter
from ripieno.reports.sections import draw_live_front
from ripieno.types import FrontEnsemble, LiveFront


def entry(number: int, volume: float, new: list[list[object]]) -> str:
    value = {
        "cost": "flops",
        "reference": [1000.0, 1.0],
        "hypervolume": volume,
        "members": 10 * (number + 1),
        "seconds": 60.0 * number,
        "new": new,
    }
    return json.dumps({"op_code": 2, "study_id": 0, "user_attr": {f"front:{number:06d}": value}}) + "\n"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"op_code": 2, "study_id": 0, "user_attr": {"event:000000": {"event": "issued"}}}) + "\n",
        entry(0, 0.3, [[100.0, 0.5, ["a"]], [200.0, 0.4, ["a", "b"]]]),
        entry(1, 0.5, [[100.0, 0.3, ["c"]]]),
        entry(2, 0.6, [[300.0, 0.2, ["c", "d", "e"]]]),
    ]
    path = tmp_path / "journal.log"
    path.write_text("".join(lines) + entry(3, 0.9, [])[:-9])
    return path


def test_each_front_is_what_no_ensemble_until_then_dominates(journal: Path) -> None:
    history = read_front_history(journal)
    found = [[(e.cost, e.loss) for e in front.ensembles] for front in history]
    assert found == [[(100, 0.5), (200, 0.4)], [(100, 0.3)], [(100, 0.3), (300, 0.2)]]
    assert [front.hypervolume for front in history] == [0.3, 0.5, 0.6]
    assert [front.members for front in history] == [10, 20, 30]
    assert history[-1].ensembles[-1].members == ("c", "d", "e")
    assert read_front_history(journal.with_name("absent")) == ()


def made(costs: list[float], **changed: float) -> LiveFront:
    ensembles = tuple(FrontEnsemble(cost, 1.0 / (n + 1), (f"m{n}",)) for n, cost in enumerate(costs))
    return LiveFront("flops", ensembles, (1e9, 1.0), 0.5, 30, **changed)  # type: ignore[arg-type]


def test_budgets_are_spread_by_ratio_from_the_cheapest_ensemble_to_the_best() -> None:
    front = made([1.04e6, 2e6, 5e6, 1.1e7, 5e7, 9e7, 1e8])
    budgets = front_budgets(front)
    assert [budget for budget, _ in budgets] == [1.1e6, 2e6, 1.1e7, 1e8]
    assert all(front.best(budget) == ensemble for budget, ensemble in budgets)
    assert front_budgets(made([7.0])) == [(7.0, made([7.0]).ensembles[0])]
    assert [budget for budget, _ in front_budgets(made([0.0, 4.0]))] == [0.0, 4.0]


def test_the_budget_of_the_search_is_among_them() -> None:
    front = made([1e6, 2e6, 5e6, 1.1e7, 5e7], budget=6e6)
    assert (6e6, front.ensembles[2]) in front_budgets(front)
    assert front_budgets(made([1e6], budget=10.0)) == [(1e6, made([1e6]).ensembles[0])]


def test_the_report_has_the_hypervolume_over_time_and_the_growing_front(journal: Path, tmp_path: Path) -> None:
    folder = PlotWriter(tmp_path / "report")
    with style():
        plots = draw_live_front(folder, read_front_history(journal), "cross-entropy")
        assert draw_live_front(folder, (), "cross-entropy") == []
    assert [plot.name for plot in plots] == ["hypervolume", "front-history"]
    assert "From 0.300 to 0.600" in plots[0].note
    with open(tmp_path / "report" / "hypervolume.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["seconds"]), float(row["hypervolume"])) for row in rows] == [(0, 0.3), (60, 0.5), (120, 0.6)]
    with open(tmp_path / "report" / "front-history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert rows[-1]["members"] == "c d e"
