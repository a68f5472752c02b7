"""The demo: what it compares, and the same steps by hand."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from ripieno.cli import demo
from ripieno.cli.doctor import demo as demo_command
from ripieno.types import Ensemble


def ensemble(name: str, accuracy: float, loss: float) -> Ensemble:
    losses = {"test_accuracy": accuracy, "test_cross_entropy": loss}
    return Ensemble(name, ("00000-e001",), (1.0,), "best", budget={}, cost={}, losses=losses)


@pytest.mark.parametrize(
    ("accuracy", "loss", "words"),
    [
        (0.91, 0.29, "beats top-5-mean in accuracy and cross-entropy"),
        (0.91, 0.30, "beats top-5-mean in accuracy only"),
        (0.90, 0.29, "beats top-5-mean in cross-entropy only"),
        (0.90, 0.30, "does not beat top-5-mean"),
        (0.89, 0.31, "does not beat top-5-mean"),
    ],
)
def test_a_tie_is_not_a_win(accuracy: float, loss: float, words: str) -> None:
    assert demo.verdict(ensemble("B1", accuracy, loss), ensemble("top-5-mean", 0.90, 0.30)) == words


def test_budgets_are_multiples_of_the_median_cost() -> None:
    assert demo.budgets_of([5.0, 1.0, 2.0]) == [2.0, 6.0, 18.0]


def test_the_steps_by_hand_have_the_options_of_the_demo() -> None:
    tune, _, measure, select, *_ = demo._step_by_step(Path("demo-run"), 12, [1.0, 3.0, 9.0], "B3")
    assert f"--trials 12 --split {','.join(map(str, demo.SPLIT))}" in tune
    assert f"--space {demo.SPACE} --algorithm {demo.ALGORITHM} --epochs {demo.EPOCHS}" in tune
    assert all(f"--prune {demo.PRUNE}" in step for step in (measure, select))
    assert select.endswith("--budget 1 3 9")


def test_the_command_and_the_script_run_as_many_trials() -> None:
    assert inspect.signature(demo_command).parameters["trials"].default == demo.TRIALS
