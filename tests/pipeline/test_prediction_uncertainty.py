"""Predictions in files say how sure they are, as far as the bundle knows, whatever the task."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ripieno import files, pipeline
from ripieno.data.dataset import open_dataset, write_dataset
from ripieno.errors import SelectionError
from ripieno.library import read_bundle
from ripieno.pipeline.mask_prediction import predict_masks
from ripieno.pipeline.prediction import PredictionBatch, stream_predictions
from ripieno.pipeline.prediction_files import prediction_writer
from ripieno.pipeline.prediction_tables import TABLES
from ripieno.tasks.conformal import share_held
from ripieno.tasks.metrics import normal_log_loss
from ripieno.tasks.registry import kind_of
from ripieno.tasks.uncertainty_outputs import UncertaintyOutputs
from ripieno.types import Bundle, Cascade, Dataset
from tests.cli.test_app import ripieno
from tests.server.stand_in import CLASSES, MEMBERS, direct_answers, write_mask_bundle, write_small_bundle
from tests.server.test_uncertainty import KINDS, pictures, sure

FLAT = [kind for kind in KINDS if kind != "segmentation"]


def expected(bundle: Bundle, name: str, level: float | None = None) -> Any:
    """Return an output for the pictures of `bundle`, computed without an engine."""
    own = direct_answers(bundle, pictures(bundle))
    outputs = UncertaintyOutputs(bundle.ensemble, bundle.task)
    apart = outputs.kind.member_disagreement(own, np.full(len(own), 1 / len(own)))
    return outputs.compute(name, own.mean(axis=0), spread=own.std(axis=0), disagreement=apart, level=level)


def table(bundle: Bundle, path: Path, coverage: float | None = None) -> list[dict[str, Any]]:
    """Predict the pictures into files; return the rows of the Parquet file, and check that the CSV has the same."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    for suffix in (".csv", ".parquet"):
        with prediction_writer(path / f"out{suffix}", bundle) as append:
            for batch in stream_predictions(bundle, pictures(bundle), coverage=coverage):
                append(batch)
    rows: list[dict[str, Any]] = parquet.read_table(path / "out.parquet").to_pylist()
    with open(path / "out.csv", newline="") as stream:
        assert [list(row.items()) for row in csv.DictReader(stream)] == [
            [
                (name, "" if value is None else str(np.float32(value) if isinstance(value, float) else value))
                for name, value in row.items()
            ]
            for row in rows
        ]
    return rows


@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize("level", [None, 0.5])
def test_tables_have_the_set_or_the_interval_of_a_level_and_the_numbers(
    tmp_path: Path, kind: str, level: float | None
) -> None:
    bundle = sure(write_small_bundle(tmp_path / "bundle", kind=kind))
    rows = table(bundle, tmp_path, level)
    outputs = UncertaintyOutputs(bundle.ensemble, bundle.task)
    for name in outputs.names:
        values = expected(bundle, name, level)
        if name == "prediction_set":
            assert [row[name] for row in rows] == ["|".join(np.array(CLASSES)[own]) for own in values]
        elif name in outputs.by_target:
            found = [[row[f"{target}_{name}"] for target in CLASSES] for row in rows]
            np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-5)
        else:
            np.testing.assert_allclose([row[name] for row in rows], values, rtol=1e-3, atol=1e-5)
    if kind != "regression":
        assert {type(row["abstain"]) for row in rows} == {bool}


def test_a_calibrated_deviation_is_in_tables_without_a_coverage(tmp_path: Path) -> None:
    bundle = sure(write_small_bundle(tmp_path / "bundle", kind="regression"), coverage=(), unusual=())
    rows = table(bundle, tmp_path)
    for index, target in enumerate(CLASSES):
        found = [row[f"{target}_standard_deviation"] for row in rows]
        np.testing.assert_allclose(found, expected(bundle, "standard_deviation")[:, index], rtol=1e-3)
        np.testing.assert_allclose(
            [row[f"{target}_spread"] for row in rows],
            direct_answers(bundle, pictures(bundle)).std(axis=0)[:, index],
            rtol=1e-3,
        )
    assert not [name for name in rows[0] if "lower" in name or name == "unusual"]


def test_with_a_cascade_the_columns_are_empty_unless_a_level_is_asked_for(tmp_path: Path) -> None:
    made = dataclasses.replace(write_small_bundle(tmp_path / "bundle"), cascade=Cascade(MEMBERS, 0.0))
    bundle = sure(made)
    own = direct_answers(bundle, pictures(bundle))
    names = UncertaintyOutputs(bundle.ensemble, bundle.task).names
    for row, first in zip(table(bundle, tmp_path), own[0], strict=True):
        assert {row[name] for name in names} == {None}
        assert row["probability"] == pytest.approx(first.max(), rel=1e-5)
    for row, mean in zip(table(bundle, tmp_path, 0.9), own.mean(axis=0), strict=True):
        assert None not in [row[name] for name in names]
        assert row["probability"] == pytest.approx(mean.max(), rel=1e-5)


def test_an_evaluation_has_the_likelihood_of_the_deviation_that_is_served(tmp_path: Path) -> None:
    plain = write_small_bundle(tmp_path / "bundle", kind="regression")
    bundle = sure(plain)
    images = np.random.default_rng(1).integers(0, 256, (60, *bundle.input.shape), dtype=np.uint8)
    own = direct_answers(bundle, images)
    targets = (own.mean(axis=0) + np.random.default_rng(2).normal(0, 2, own[0].shape)).astype(np.float32)
    moments = ((127.0,) * 3, (60.0,) * 3)
    split = np.repeat(np.arange(3, dtype=np.uint8), (10, 10, 40))
    data = Dataset("values", images, targets, split, bundle.task, *moments)
    found = pipeline.evaluate(bundle, write_dataset(data, tmp_path / "data"))
    own, targets = own[:, 20:], targets[20:]
    deviation = UncertaintyOutputs(bundle.ensemble, bundle.task).compute(
        "standard_deviation", own.mean(axis=0), spread=own.std(axis=0)
    )
    score = found.scores["normal_log_loss"]
    assert score.value == pytest.approx(normal_log_loss(own.mean(axis=0), targets, deviation), rel=1e-4)
    assert score.low < score.value < score.high
    assert "normal_log_loss" not in pipeline.evaluate(plain, tmp_path / "data").scores
    files.write_json(tmp_path / "bundle" / "bundle.json", dataclasses.replace(bundle, path=Path()))
    run = ripieno("evaluate", str(tmp_path / "bundle"), str(tmp_path / "data"))
    assert "normal negative" in run.stdout, run.stderr


def test_a_level_that_the_bundle_lacks_is_refused_before_the_work(tmp_path: Path) -> None:
    plain = write_small_bundle(tmp_path)
    with pytest.raises(SelectionError, match=r"B1 has no coverage\. Fit it with"):
        stream_predictions(plain, pictures(plain), coverage=0.9)
    with pytest.raises(SelectionError, match=r"coverage is 0\.8, must be 0\.9 or 0\.5"):
        stream_predictions(sure(plain), pictures(plain), coverage=0.8)


@pytest.mark.parametrize("kind", FLAT)
def test_a_listing_has_the_set_or_the_bounds_and_where_to_abstain(tmp_path: Path, kind: str) -> None:
    bundle = sure(write_small_bundle(tmp_path, kind=kind))
    (batch,) = stream_predictions(bundle, pictures(bundle))
    records = json.loads(json.dumps(TABLES[kind].records(batch, bundle)))
    for row, record in enumerate(records):
        if kind == "regression":
            assert record["lower"] == pytest.approx(
                dict(zip(CLASSES, expected(bundle, "lower")[row].tolist(), strict=True)), rel=1e-3
            )
            assert record["standard_deviation"] == pytest.approx(
                dict(zip(CLASSES, expected(bundle, "standard_deviation")[row].tolist(), strict=True)), rel=1e-3
            )
            assert "abstain" not in record
        else:
            held = expected(bundle, "prediction_set")[row]
            assert record["prediction_set"] == [c for c, inside in zip(CLASSES, held, strict=True) if inside]
            assert record["abstain"] == expected(bundle, "abstain")[row]


def test_masks_have_the_means_of_their_tiles_and_abstain_by_the_whole_picture(tmp_path: Path) -> None:
    bundle = sure(write_mask_bundle(tmp_path, (8, 8, 3)))
    own = direct_answers(bundle, pictures(bundle))
    found = list(predict_masks(bundle, pictures(bundle)))
    for name in ("entropy", "mutual_information", "unusual", "abstain"):
        values = [mask.uncertainty[name].tolist() for mask in found]
        np.testing.assert_allclose(np.ravel(values), expected(bundle, name), rtol=1e-3, atol=1e-5)
    assert {type(value) for value in values[0]} == {bool}
    listed = [json.loads(json.dumps(TABLES["segmentation"].records(mask, bundle)))[0]["abstain"] for mask in found]
    assert listed == expected(bundle, "abstain").tolist()
    wide = np.concatenate(pictures(bundle)[:2], axis=1)[None]  # two tiles without overlap
    (mask,) = predict_masks(bundle, wide, overlap=0.0)
    apart = UncertaintyOutputs(bundle.ensemble, bundle.task).kind.member_disagreement(own[:, :2], np.full(2, 0.5))
    assert mask.uncertainty["mutual_information"][0] == pytest.approx(apart.mean(), rel=1e-3)
    cascaded = dataclasses.replace(bundle, cascade=Cascade(MEMBERS, 0.0))
    assert [mask.uncertainty for mask in predict_masks(cascaded, wide)] == [{}]


def test_a_class_may_have_the_name_of_an_output(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    bundle = write_small_bundle(tmp_path / "bundle")
    names = ("abstain", "prediction_set", *bundle.task.names[2:])
    bundle = dataclasses.replace(bundle, task=dataclasses.replace(bundle.task, names=names))
    shares = np.full((1, len(names)), 1 / len(names), np.float32)
    with prediction_writer(tmp_path / "out.parquet", bundle) as append:
        append(PredictionBatch(["a.png"], shares, None))
    (row,) = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row[name] for name in names] == shares[0].tolist()


def test_the_command_takes_a_level_and_lists_what_is_in_the_sets(tmp_path: Path) -> None:
    bundle = sure(write_small_bundle(tmp_path / "bundle"))
    files.write_json(tmp_path / "bundle" / "bundle.json", dataclasses.replace(bundle, path=Path()))
    Image.fromarray(pictures(bundle)[0]).save(tmp_path / "a.png")
    done = ripieno("predict", "bundle", "a.png", "--coverage", "0.5", "--output", "out.csv", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    held = [c for c, inside in zip(CLASSES, expected(bundle, "prediction_set", 0.5)[0], strict=True) if inside]
    assert json.loads(done.stdout)["predictions"][0]["prediction_set"] == held
    with open(tmp_path / "out.csv", newline="") as stream:
        assert next(csv.DictReader(stream))["prediction_set"] == "|".join(held)
    wrong = ripieno("predict", "bundle", "a.png", "--coverage", "0.8", cwd=tmp_path)
    assert wrong.returncode
    assert "coverage is 0.8, must be 0.9 or 0.5: the levels that B1 has" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_validation_samples_are_served_as_they_were_fitted(
    finished_run: Path, finished_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    name = read_bundle(finished_bundle).ensemble.name
    fitted = pipeline.coverage(tmp_path / "run", name, coverage=[0.9], abstain=0.3)
    bundle = dataclasses.replace(read_bundle(finished_bundle), ensemble=fitted)
    data = open_dataset(tmp_path / "run" / "dataset")
    rows = data.rows("valid")
    (batch,) = stream_predictions(bundle, np.asarray(data.inputs[rows]))
    held = share_held(batch.uncertainty["prediction_set"], data.targets[rows]).mean()
    one = 1 / len(rows)  # a sample at a threshold may be on its other side: networks run by another library
    assert 0.9 - one <= held <= 0.9 + 3 * one
    assert fitted.abstain is not None
    answered = ~batch.uncertainty["abstain"]
    assert answered.mean() == pytest.approx(fitted.abstain.answered, abs=2 * one)
    errors = kind_of(data.task).errors(batch.predictions, data.targets[rows])
    assert errors[answered].mean() <= 0.3
    np.testing.assert_allclose(np.sort(batch.uncertainty["unusual"]), np.linspace(0, 1, len(rows)), atol=0.03)
