"""Plots of cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from ripieno.models.cell_spec import parse_cell
from ripieno.reports import figure_style
from ripieno.reports.cell_plot import block_places, draw_cell, draw_cells
from ripieno.reports.plot_files import PlotWriter
from ripieno.types import Input, Member, classification

pytest.importorskip("matplotlib")
CELL = "max3x3(-2)+conv3x3(-1);sep3x3-se(-1)+identity(-1);avg3x3(0)+conv5x5(1);conv1x7-7x1(-2)+conv1x1(2)"


def test_a_cell_is_drawn_with_all_operators_and_inputs() -> None:
    cell = parse_cell(CELL)
    with figure_style.style():
        texts = [text.get_text() for text in draw_cell(cell).axes[0].texts]
    assert sorted(texts) == sorted([*cell.operators, "-1", "-2", "result", *"++++"])


def test_blocks_stand_right_of_what_they_read_and_no_two_at_one_place() -> None:
    cell = parse_cell(CELL)
    places = block_places(cell)
    assert len(set(places.values())) == len(places) == 6
    for number, block in enumerate(cell.blocks):
        assert all(places[edge.input][0] < places[number][0] for edge in block)


def test_the_best_cells_of_members_are_drawn_once_each(tmp_path: Path) -> None:
    cells = ("max3x3(-2)+sep3x3(-1)", "conv3x3(-1)+identity(-1)", "identity(-1)+conv3x3(-1)", "")
    members = [
        Member(
            f"{trial:05d}-e001",
            trial,
            1,
            "cell" if cell else "resnet",
            {"cell": cell} if cell else {},
            Input((8, 8, 1)),
            classification("ab"),
            {"valid_cross_entropy": 1 / (trial + 1)},
            0,
            0.0,
        )
        for trial, cell in enumerate(cells)
    ]
    with figure_style.style():
        drawn = draw_cells(PlotWriter(tmp_path), members, "loss")
    assert [(plot.name, plot.note) for plot in drawn] == [
        ("cell-00002-e001", "conv3x3(-1)+identity(-1); loss 0.3333"),
        ("cell-00000-e001", "max3x3(-2)+sep3x3(-1); loss 1.0000"),
    ]
    assert "<svg" in drawn[0].picture
    assert (tmp_path / "cell-00002-e001.svg").exists()
