"""User families: run only when the user names them, never because a file does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.errors import ModelError, SearchError

OWN = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("sprung").touch()

def build(configuration, input, classes):
    height, width, channels = input.shape
    return nn.Sequential(nn.Flatten(), nn.Linear(height * width * channels, classes))
"""
NAME = "own_of_a_space:build"
SPACE = {
    "family": NAME,
    "ranges": {"learning_rate": {"kind": "continuous", "low": 0.01, "high": 0.02}},
    "fixed": {"batch_size": 16, "optimizer": "adamw", "schedule": "rung"},
}
IMAGES = np.random.default_rng(0).integers(0, 120, (40, 6, 5, 1), np.uint8)
LABELS = np.arange(40) % 2


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A space file with the name of a module that writes a file when it is imported."""
    (tmp_path / "own_of_a_space.py").write_text(OWN)
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_of_a_space", raising=False)
    return str(tmp_path / "space.json")


def test_a_family_that_only_a_spaces_file_names_is_refused_and_not_imported(space: str, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=f"only when you name it too: --family {NAME}"):
        ripieno.tune((IMAGES, LABELS), tmp_path / "run", trials=1, epochs=1, space=space, pool="inline", free="off")
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "run").exists()


def test_a_classifier_searches_its_own_family_when_it_is_named(space: str, tmp_path: Path) -> None:
    options = {"trials": 1, "epochs": 1, "space": space, "algorithm": "random", "pool": "inline"}
    with pytest.raises(SearchError, match="--family"):
        ripieno.EnsembleClassifier({"parameters": 1e9}, **options).fit(IMAGES, LABELS)
    assert not (tmp_path / "sprung").exists()
    fitted = ripieno.EnsembleClassifier({"parameters": 1e9}, family=NAME, free="off", **options).fit(IMAGES, LABELS)
    assert (tmp_path / "sprung").exists()
    assert fitted.predict_proba(IMAGES).shape == (40, 2)
    assert [m.family for m in fitted.bundle_.members] == [NAME]


def test_the_library_of_a_search_trusts_its_family_and_one_that_is_opened_anew_does_not(
    space: str, tmp_path: Path
) -> None:
    options = {"trials": 1, "epochs": 1, "space": space, "algorithm": "random", "pool": "inline"}
    library = ripieno.tune((IMAGES, LABELS), tmp_path / "run", family=NAME, free="off", **options)
    with pytest.raises(ModelError, match="is not trusted"):
        ripieno.measure(tmp_path / "run")
    assert ripieno.measure(library)
    opened = ripieno.Library(tmp_path / "run")
    ripieno.measure(opened, again=True, trusted=[NAME])
    assert opened.trusted == ()
