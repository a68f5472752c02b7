"""The verbs on what a run keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.cli.kept import show


def test_show_of_predictions_without_costs_sends_to_import_and_not_to_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ripieno.import_(tmp_path / "run", {"ann": np.full((4, 2), 0.5)}, labels=[0, 1, 0, 1])
    show(tmp_path / "run", top=10, sort="loss")
    spoken = " ".join("".join(capsys.readouterr()).split())
    assert "--costs costs.csv --replace" in spoken
    assert "ripieno measure" not in spoken
