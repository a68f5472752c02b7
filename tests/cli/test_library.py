"""`ripieno show` of imported predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import ripieno
from tests.command_line import ripieno as command


def test_show_of_predictions_without_costs_suggests_import_and_not_measure(tmp_path: Path) -> None:
    ripieno.import_(tmp_path / "run", {"ann": np.full((4, 2), 0.5)}, labels=[0, 1, 0, 1])
    shown = command("show", str(tmp_path / "run"))
    output = " ".join((shown.stdout + shown.stderr).split())
    assert shown.returncode == 0
    assert "--costs costs.csv --replace" in output
    assert "ripieno measure" not in output
