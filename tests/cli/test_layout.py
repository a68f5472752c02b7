"""Tables on narrow terminals, and names that look like markup or terminal commands."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.table import Table

from ripieno.cli import console, tables
from ripieno.cli.layout import PlainConsole
from ripieno.types import BatchProfile, Ensemble, Profile

NAMES = ["photo [final].png", "[red]", "[/]", "[bold]x[/bold]", ":smile:", "a\\[b", "\x1b[31mred", "\udce9", "[link=x]"]
LONG = "convnext_base_clip_laion2b_augreg_ft_in12k_in1k_384_second_try_of_monday_for_the_final_submission"


def printed(table: object, width: int = 80) -> str:
    screen = PlainConsole(width=width, file=io.StringIO(), force_terminal=False)
    screen.print(table)
    return screen.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def a_table(name: str, title: str = "title") -> Table:
    made = console.table(title, "name", "cross-entropy", "test accuracy", "seconds for 2,000", "class")
    made.add_row(name, "0.1234", "97.51 %", "0.05604", name)
    return made


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("name", ["00042-e027", LONG])
def test_no_line_is_wider_than_the_terminal_and_no_id_is_cut(name: str, width: int) -> None:
    shown = printed(a_table(name), width)
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())
    assert "…" not in shown
    assert shown.replace("\n", "").replace(" ", "").count(name) == 2
    for value in ("0.1234", "97.51 %", "0.05604"):
        assert value in shown


def test_headers_are_broken_before_rows_are() -> None:
    made = console.table("title", "name", "cross-entropy", "test accuracy")
    made.add_row("x" * 20, "0.1234", "97.51 %")
    assert printed(made, 50).splitlines()[1].split() == ["name", "cross-entropy", "test", "accuracy"]
    assert [line.split() for line in printed(made, 40).splitlines()[1:]] == [
        ["cross-", "test"],
        ["name", "entropy", "accuracy"],
        ["x" * 20, "0.1234", "97.51", "%"],
    ]


@pytest.mark.parametrize("width", [30, 200])
@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str, width: int) -> None:
    plain = name if name.isprintable() else name.encode("unicode_escape").decode()
    assert printed(a_table(name, title=name), width).count(plain) == 3


@pytest.mark.parametrize("name", NAMES)
def test_notes_errors_and_last_lines_print_names_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = name if name.isprintable() else name.encode("unicode_escape").decode()
    console.set_output_mode(json=False, quiet=False)
    console.warn(f"left out: {name}")
    console.print_error(f"no {name}", 2)
    console.print_interrupted(f"ripieno show {name}", 130)
    console.print_result(name, f"ripieno show {name}")
    shown = "".join(capsys.readouterr())
    assert shown.count(plain) == 5
    assert "\x1b" not in shown


def test_every_table_of_long_names_shows_them_whole_in_80_columns() -> None:
    ensemble = Ensemble(LONG, (LONG,), (1.0,), "swap", {"seconds": 1.0}, {"seconds": 0.5}, {"valid_cross_entropy": 0.1})
    profile = Profile(LONG, "cpu", "onnx", (BatchProfile(1, 0.001, 0.0, 1 << 20), BatchProfile(8, 0.002, 0.0, 1 << 20)))
    for made in (tables.ensembles([ensemble], "accuracy"), tables.profiles([profile], {LONG: {"parameters": 1e9}})):
        shown = printed(made)
        assert LONG in shown.replace("\n", "")
        assert "…" not in shown
        assert all(len(line.rstrip()) <= 80 for line in shown.splitlines())


def test_the_expected_loss_is_shown_with_its_error_before_the_one_that_chose() -> None:
    losses = {"valid_cross_entropy": 0.5, "valid_accuracy": 0.91}
    bounds = {"seconds": 1.0}
    one = Ensemble(
        "one", ("a",), (1.0,), "smobf-r", bounds, bounds, losses, expected_loss=0.61, expected_loss_error=0.03
    )
    two = dataclasses.replace(one, name="two", expected_loss=None, expected_loss_error=None)
    shown = printed(tables.ensembles([one, two], "accuracy"), 200)
    assert re.search(r"members +expected cross-entropy +cross-entropy +accuracy", shown)
    assert "expected: cross-validated" in shown
    assert re.search(r"one .* 0\.6100 ± 0\.0300 +0\.5000 +91\.00 %", shown)
    assert re.search(r"two .* 1 +- +0\.5000", shown)
    assert "expected" not in printed(tables.ensembles([two], "accuracy"), 200)
    score = dataclasses.replace(one, loss="accuracy", expected_loss=0.12)
    shown = printed(tables.ensembles([score], "accuracy"), 200)
    assert "expected accuracy" in shown
    assert "88.00 ± 3.00 %" in shown
    assert "expected loss" in printed(
        tables.ensembles([one, dataclasses.replace(one, loss="squared-error")], "accuracy"), 200
    )


def test_ensembles_selected_by_a_score_are_shown_with_it() -> None:
    losses = {"valid_cross_entropy": 0.5, "valid_accuracy": 0.91, "valid_macro_f1": 0.83, "test_macro_f1": 0.77}
    one = Ensemble("one", ("a",), (1.0,), "smobf", {"seconds": 1.0}, {"seconds": 1.0}, losses)
    two = Ensemble("two", ("b",), (1.0,), "smobf", {"seconds": 1.0}, {"seconds": 1.0}, losses, loss="macro-f1")
    shown = printed(tables.ensembles([one, two], "accuracy"), 200)
    first, second = shown.split("ensembles selected by macro-F1")
    assert "91.00 %" in first
    assert "83.00 %" not in first
    assert "83.00 %" in second
    assert "77.00 %" in second
    assert "91.00 %" not in second
