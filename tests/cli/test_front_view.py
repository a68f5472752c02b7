"""The live front of a search in words."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.cli.front_view import front_line, front_table, next_commands, select_command, short_amount
from ripieno.cli.parsing import parse_quantity
from ripieno.library import Library
from ripieno.search.built_in_spaces import find_space
from ripieno.search.settings import Settings, resolve_settings
from ripieno.types import FrontEnsemble, LiveFront
from tests.cli.test_progress import drawn, snapshot

MEMBERS = LiveFront(
    "members",
    tuple(FrontEnsemble(float(n), 0.5 - 0.02 * n, tuple(f"m{k}" for k in range(n))) for n in range(1, 9)),
    (11.0, 0.6),
    0.4567,
    members=30,
    seconds=12.0,
)
FLOPS = replace(MEMBERS, cost="flops", ensembles=tuple(replace(p, cost=1.234e6 * p.cost) for p in MEMBERS.ensembles))


def test_the_line_has_hypervolume_and_loss_at_some_budgets() -> None:
    assert str(front_line(MEMBERS)) == (
        "hypervolume 0.457; loss 0.4800 within 1 member, 0.4600 within 2, 0.4200 within 4, 0.3400 within 8"
    )
    assert str(front_line(FLOPS)).startswith("hypervolume 0.457; loss 0.4800 within 1.3M FLOPs, 0.4600 within 2.5M")


def test_the_budget_of_the_search_is_bold_with_the_best_ensemble_within_it() -> None:
    line = front_line(replace(MEMBERS, budget=3.5))
    bold = [str(line)[span.start : span.end] for span in line.spans if "bold" in str(span.style)]
    assert bold == ["0.4400 within 3.5"]
    assert not any("bold" in str(span.style) for span in front_line(MEMBERS).spans)


def test_the_command_selects_what_the_front_shows() -> None:
    words = shlex.split(select_command(MEMBERS, Path("run")))
    assert words == ["ripieno", "select", "run", "--size", "8"]
    words = shlex.split(select_command(FLOPS, Path("run")))
    assert words == ["ripieno", "select", "run", "--budget", "flops=9.9M"]


@pytest.mark.parametrize("amount", [0.5, 1.0, 12.0, 999.0, 1500.0, 2.5e6, 3.21e9, 4e12, 123456.0])
def test_an_amount_is_read_back(amount: float) -> None:
    assert parse_quantity("--budget", short_amount(amount)) == pytest.approx(amount, rel=1e-5)


def test_the_table_has_a_row_for_each_budget() -> None:
    table = front_table(MEMBERS)
    assert list(table.columns[1].cells) == ["1", "2", "4", "8"]
    assert list(table.columns[2].cells) == ["0.4800", "0.4600", "0.4200", "0.3400"]


def test_the_live_view_has_a_line_of_the_front_and_fits_the_terminal() -> None:
    assert "front " not in drawn(snapshot())
    shown = drawn(snapshot(20, 20, front=MEMBERS), height=12)
    assert "front hypervolume 0.457; loss 0.4800 within 1 member" in shown
    assert len(shown.rstrip("\n").splitlines()) <= 11
    assert np.max([len(line) for line in shown.splitlines()]) <= 80


@pytest.mark.parametrize(
    ("bounds", "selecting", "following"),
    [
        ({}, "select RUN --size 8", "measure RUN"),
        ({"constraints": ("bytes<=60k", "accuracy>=0.5")}, "", "select RUN --budget bytes=60000"),
        ({"constraints": ("bytes<=60k", "latency<=1")}, "select RUN --budget bytes=60000 latency=1", "measure RUN"),
        ({"constraints": ("accuracy>=0.5",)}, "select RUN --size 8", "measure RUN"),
        ({"budget": {"flops": 1e9}}, "", "select RUN"),
        ({"budget": {"flops": 1e9, "seconds": 2.0}}, "select RUN", "measure RUN"),
    ],
)
def test_only_a_search_that_bounds_measured_costs_is_measured_next(
    bounds: dict[str, Any], selecting: str, following: str, tmp_path: Path
) -> None:
    settings = Settings(find_space("resnet-tiny"), "random", 3, 9, metric="valid_cross_entropy", **bounds)
    resolve_settings(tmp_path / "run.json", settings, 1, None)
    wanted = [text and f"ripieno {text.replace('RUN', str(tmp_path))}" for text in (selecting, following)]
    library = Library(tmp_path)
    assert [*next_commands(library, tmp_path, MEMBERS, has_untried=False)] == wanted
    assert next_commands(library, tmp_path, None, has_untried=True)[1] == f"ripieno soup {tmp_path}"
