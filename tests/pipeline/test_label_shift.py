"""Bundles keep the shares of their classes, by which predictions of other shares are corrected."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.errors import SelectionError
from ripieno.library import read_bundle
from ripieno.pipeline.prediction import stream_predictions
from ripieno.tasks.label_shift import correct_prior
from tests.command_line import ripieno as run
from tests.server.stand_in import write_small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one network of four classes, which were equally frequent."""
    return write_small_bundle(tmp_path_factory.mktemp("shares") / "bundle").path


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (150, 8, 8, 3), np.uint8)


def test_predictions_are_corrected_by_all_of_them(bundle: Path, images: np.ndarray) -> None:
    notes: list[str] = []
    plain, corrected = ripieno.predict(bundle, images), ripieno.predict(bundle, images, prior="auto", notes=notes)
    np.testing.assert_array_equal(corrected, correct_prior(plain, read_bundle(bundle).prior)[0])
    assert np.abs(corrected - plain).max() > 0.01
    assert "shares of classes corrected by 150 predictions" in notes[0]
    batches = list(stream_predictions(read_bundle(bundle), images, prior="auto", notes=notes))
    np.testing.assert_allclose(np.concatenate([b.predictions for b in batches]), corrected, atol=1e-5)
    assert notes[0] == notes[1]


def test_an_evaluation_tells_how_it_corrected(bundle: Path, images: np.ndarray) -> None:
    labels = ripieno.predict(bundle, images).argmax(axis=1)
    task = read_bundle(bundle).task
    data = (images, np.array(task.names)[labels])
    plain, corrected = ripieno.evaluate(bundle, data), ripieno.evaluate(bundle, data, prior="auto")
    assert plain.prior is None
    assert corrected.prior is not None
    assert corrected.prior.answers == 150
    assert corrected.scores["cross_entropy"].value != plain.scores["cross_entropy"].value


def test_the_shares_of_a_bundle_count(bundle: Path, images: np.ndarray) -> None:
    known = dataclasses.replace(read_bundle(bundle), prior=(0.7, 0.1, 0.1, 0.1))
    notes: list[str] = []
    found = ripieno.predict(known, images, prior="auto", notes=notes)
    assert np.abs(found - ripieno.predict(bundle, images, prior="auto")).max() > 0.01
    assert "equal ones are assumed" not in notes[0]


def test_other_tasks_and_words_are_refused(tmp_path: Path, bundle: Path, images: np.ndarray) -> None:
    values = write_small_bundle(tmp_path / "values", kind="regression").path
    with pytest.raises(SelectionError, match="prior auto is for samples of one class each, not for a regression"):
        ripieno.predict(values, images, prior="auto")
    with pytest.raises(SelectionError, match="prior 'em' is unknown: expected trained or auto"):
        ripieno.predict(bundle, images, prior="em")  # type: ignore[arg-type]


def test_the_commands_take_it(bundle: Path, images: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images)
    done = run("predict", bundle, tmp_path / "images.npy", "--prior", "auto", "--json")
    assert len(json.loads(done.stdout)["predictions"]) == 150
    assert "shares of classes corrected by 150 predictions" in done.stderr
    names = np.array(read_bundle(bundle).task.names)
    np.savez(tmp_path / "data.npz", inputs=images, targets=names[np.arange(150) % 4])
    done = run("evaluate", bundle, tmp_path / "data.npz", "--prior", "auto", "--json")
    assert abs(sum(json.loads(done.stdout)["prior"].values()) - 1) < 1e-6
    refused = run("predict", bundle, tmp_path / "images.npy", "--prior", "em")
    assert refused.returncode != 0
    assert "--prior 'em' must be one of trained, auto" in refused.stderr
