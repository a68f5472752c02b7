"""The confusion matrix of `ripieno evaluate` fits the terminal."""

from __future__ import annotations

import numpy as np
import pytest
from rich.table import Table

from ripieno.cli.console import PlainConsole
from ripieno.cli.evaluate import confusion_table
from ripieno.pipeline.evaluation import BundleEvaluation
from ripieno.types import IGNORED, Task, classification


def evaluation(classes: int) -> BundleEvaluation:
    targets = np.arange(600) % classes
    answers = np.where(np.arange(600) % 7 == 0, (targets + 1) % classes, targets)
    task = classification([f"class {i}" for i in range(classes)])
    return BundleEvaluation(task, "test", 600, {}, 0, [], np.eye(classes, dtype=np.float32)[answers], targets)


def table_of(found: BundleEvaluation, width: int) -> Table:
    counts = found.confusion()
    assert counts is not None
    return confusion_table(found, counts, width)


@pytest.mark.parametrize(("width", "shown"), [(1000, 20), (100, 8), (60, 4), (20, 2)])
def test_as_many_classes_are_shown_as_fit(width: int, shown: int) -> None:
    found = evaluation(40)
    table = table_of(found, width)
    assert len(table.columns) == shown + 2, "a column of names, and one of the other classes"
    cells = [[int(str(cell).replace(",", "")) for cell in column.cells] for column in table.columns[1:]]
    assert np.sum(cells) == 600, "every sample is counted"
    console = PlainConsole(width=max(width, 60))
    with console.capture() as capture:
        console.print(table)
    if width >= 60:
        rows = [line for line in capture.get().splitlines() if line.startswith(("class", "others"))]
        assert len(rows) == shown + 1, "a line per row"


def test_all_classes_need_no_others() -> None:
    table = table_of(evaluation(3), 80)
    assert [str(column.header) for column in table.columns] == ["", "class 0", "class 1", "class 2"]


def test_the_confusion_of_pixels_has_shares_of_the_counted_ones() -> None:
    task = Task("segmentation", (1, 4, 3), ("sky", "road", "tree"))
    masks = np.array([[[0, 0, 1, IGNORED]], [[0, 2, 2, 2]]], np.uint8)
    answers = np.array([[[0, 1, 1, 1]], [[0, 2, 2, 0]]], np.uint8)
    found = BundleEvaluation(task, "test", 2, {}, 0, [], answers, masks)
    assert np.array_equal(found.confusion(), [[2, 1, 0], [0, 1, 0], [1, 0, 2]])
    table = table_of(found, 80)
    assert "true, in % of its pixels" in str(table.title)
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows == [
        ("sky", "66.7", "33.3", "0.0"),
        ("road", "0.0", "100.0", "0.0"),
        ("tree", "33.3", "0.0", "66.7"),
    ]
