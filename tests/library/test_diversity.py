from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno.library import Library, import_predictions
from ripieno.library.diversity import disagreement


def test_disagreement_is_the_mean_over_the_others(tmp_path: Path) -> None:
    library = Library(tmp_path)
    # classes answered: a 0 0 1, b 0 0 1, c 1 0 0
    rows = {"a": [0.9, 0.8, 0.1], "b": [0.8, 0.7, 0.3], "c": [0.2, 0.6, 0.6]}
    answers = {name: np.stack([np.array(p), 1 - np.array(p)], axis=1) for name, p in rows.items()}
    import_predictions(library, answers, np.array([0, 0, 1]))
    assert disagreement(library) == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 2 / 3})
    single = Library(tmp_path / "single")
    import_predictions(single, {"c": answers["c"]}, np.array([0, 0, 1]))
    assert disagreement(single) == {"c": 0.0}
    assert disagreement(Library(tmp_path / "empty")) == {}
