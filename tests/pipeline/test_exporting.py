"""Exported ensembles have the predictions of the engine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import ripieno
from ripieno.backends.backend_id import MODEL, WEIGHTS
from ripieno.data.table_encoding import encode
from ripieno.errors import DataError, LibraryError, RipienoError
from ripieno.files import copy_file, write_json
from ripieno.library import read_bundle
from ripieno.library.bundle import model_path
from ripieno.types import Bundle, Column
from tests.onnx_networks import write_trees
from tests.server.stand_in import (
    COLUMNS,
    ROWS,
    direct_answers,
    write_mask_bundle,
    write_small_bundle,
    write_table_bundle,
)


@pytest.fixture(scope="module", params=["plain", "calibrated"])
def bundle(finished_bundle: Path, request: pytest.FixtureRequest) -> Bundle:
    bundle = read_bundle(finished_bundle)
    calibrated = request.param == "calibrated"
    temperatures = tuple(0.5 + 0.4 * i for i in range(len(bundle.members))) if calibrated else ()
    ensemble = dataclasses.replace(bundle.ensemble, temperatures=temperatures, temperature=1.3 if calibrated else 1.0)
    return dataclasses.replace(bundle, ensemble=ensemble)


@pytest.fixture(scope="module")
def images(finished_run: Path) -> NDArray[np.generic]:
    from ripieno.data import open_dataset

    dataset = open_dataset(finished_run / "dataset")
    tests = dataset.inputs[dataset.rows("test")]
    return np.concatenate([tests, tests])[:100]


def run(path: Path, given: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], given)[0], np.float32)


def test_one_onnx_file_answers_as_the_engine(bundle: Bundle, images: NDArray[np.generic], tmp_path: Path) -> None:
    path = ripieno.export(bundle, tmp_path / "one.onnx", licence="mit")
    assert np.abs(run(path, {"images": images}) - ripieno.predict(bundle, images)).max() < 1e-6
    assert "license: mit" in (tmp_path / "one.md").read_text()


def test_a_bundle_run_by_torch_is_exported_too(
    bundle: Bundle, finished_run: Path, images: NDArray[np.generic], tmp_path: Path
) -> None:
    for member in bundle.ensemble.members:
        copy_file(finished_run / "library" / member / WEIGHTS, tmp_path / "members" / member / WEIGHTS)
    by_torch = dataclasses.replace(bundle, backend="torch", path=tmp_path)
    write_json(tmp_path / "bundle.json", by_torch)
    path = ripieno.export(tmp_path)
    assert path == tmp_path / "ensemble.onnx"
    assert not list(tmp_path.rglob(MODEL))
    assert np.abs(run(path, {"images": images}) - ripieno.predict(bundle, images)).max() < 1e-4


def test_a_triton_repository_is_valid_and_answers_as_the_engine(
    bundle: Bundle, images: NDArray[np.generic], tmp_path: Path
) -> None:
    ripieno.export(bundle, tmp_path / "models", form="triton", name="digits")
    configs = read_configs(tmp_path / "models")
    members = [f"digits-{m}" for m in bundle.ensemble.members]
    assert set(configs) == {"digits", *members, "digits-combine"}
    whole = configs["digits"]
    assert whole.platform == "ensemble"
    assert (tmp_path / "models" / "digits" / "1").is_dir()
    labels = (tmp_path / "models" / "digits" / whole.output[0].label_filename).read_text().splitlines()
    assert tuple(labels) == bundle.classes
    tensors = {whole.input[0].name: images}
    for step in whole.ensemble_scheduling.step:
        model = configs[step.model_name]
        assert model.max_batch_size == whole.max_batch_size
        session = onnxruntime.InferenceSession(
            str(tmp_path / "models" / step.model_name / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        declared = {i.name: list(i.dims) for i in model.input}
        assert declared == {i.name: list(i.shape[1:]) for i in session.get_inputs()}
        assert set(step.input_map) == set(declared)
        given = {name: tensors[ours] for name, ours in step.input_map.items()}
        names = list(step.output_map)
        tensors |= dict(zip(step.output_map.values(), session.run(names, given), strict=True))
    answer = tensors[whole.output[0].name]
    assert np.abs(answer - ripieno.predict(bundle, images)).max() < 1e-6


@pytest.mark.parametrize(("kind", "output"), [("multilabel", "probabilities"), ("regression", "values")])
def test_exports_have_the_tensors_of_the_task(tmp_path: Path, kind: str, output: str) -> None:
    thresholds = (0.1, 0.9, 0.5, 0.25) if kind == "multilabel" else ()
    bundle = write_small_bundle(tmp_path / "bundle", kind=kind, thresholds=thresholds)
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    expected = ripieno.predict(bundle, images)
    path = ripieno.export(bundle, tmp_path / "one.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run([output], {"images": images})[0], expected, rtol=1e-5, atol=1e-6)
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["task"], json.loads(facts["thresholds"])) == (kind, list(thresholds))
    card = (tmp_path / "one.md").read_text()
    assert f"It gives `{output}` (batch, 4) of float32" in card
    assert ("fitted on the validation samples: cat 0.100, dog 0.900" in card) == bool(thresholds)
    assert ("pipeline_tag: image-classification" in card) == (kind == "multilabel")
    for form in ("triton", "triton-single"):
        ripieno.export(bundle, tmp_path / form, form=form)
        config = read_configs(tmp_path / form)["ensemble"]
        assert [(o.name, list(o.dims)) for o in config.output] == [(output, [4])]
        assert json.loads(config.parameters["thresholds"].string_value or "[]") == list(thresholds)
    combine = tmp_path / "triton" / "ensemble-combine" / "1" / "model.onnx"
    assert [o.name for o in onnxruntime.InferenceSession(combine).get_outputs()] == [output]


@pytest.mark.parametrize(
    ("combiner", "temperatures"), [("mean", ()), ("weighted", (1.6, 0.5)), ("vote", ()), ("mean", (1.0, 0.4))]
)
def test_masks_are_exported_as_the_probabilities_of_pixels(
    tmp_path: Path, combiner: str, temperatures: tuple[float, ...]
) -> None:
    warm = {"temperatures": temperatures, "temperature": 0.7 if temperatures else 1.0}
    bundle = write_mask_bundle(tmp_path / "bundle", (8, 12, 3), combiner=combiner, weights=(0.25, 0.75), **warm)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    served = ripieno.predict(bundle, images)
    path = ripieno.export(bundle, tmp_path / "one.onnx")
    np.testing.assert_allclose(run(path, {"images": images}), served, atol=1e-6)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    assert (output.name, output.shape[1:]) == ("probabilities", [8, 12, 4])
    repository = ripieno.export(bundle, tmp_path / "triton", form="triton")
    configs = read_configs(repository)
    assert [list(o.dims) for name in configs for o in configs[name].output] == [[8, 12, 4]] * len(configs)
    own = direct_answers(bundle, images)
    given = {f"member{i}": member for i, member in enumerate(own)}
    combined = run(repository / "ensemble-combine" / "1" / "model.onnx", given)
    np.testing.assert_allclose(combined, served, atol=1e-6)
    if combiner == "vote":
        given["member1"] = own[1].copy()
        given["member1"][1, 2, 3, 0] = np.nan
        broken = run(repository / "ensemble-combine" / "1" / "model.onnx", given)
        assert np.isnan(broken[1]).all()
        assert np.isfinite(broken[[0, 2]]).all()


def test_trees_are_exported_with_networks(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    write_trees(model_path(bundle, bundle.ensemble.members[0]))
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    expected = ripieno.predict(bundle, images)
    path = ripieno.export(bundle, tmp_path / "one.onnx")
    assert np.abs(run(path, {"images": images}) - expected).max() < 1e-6
    models = ripieno.export(bundle, tmp_path / "models", form="triton")
    given = {}
    for number, member in enumerate(bundle.ensemble.members):
        given[f"member{number}"] = run(models / f"ensemble-{member}" / "1" / "model.onnx", {"images": images})
    assert np.abs(run(models / "ensemble-combine" / "1" / "model.onnx", given) - expected).max() < 1e-6


def test_instances_and_batches_are_those_of_the_allocation(bundle: Bundle, tmp_path: Path) -> None:
    member = bundle.ensemble.members[0]
    two = [ripieno.Placement(member, "cuda:1", 32, lane) for lane in (0, 1)]
    others = [p for p in bundle.allocation.placements if p.member != member]
    allocation = dataclasses.replace(bundle.allocation, placements=(*two, *others))
    ripieno.export(dataclasses.replace(bundle, allocation=allocation), tmp_path / "models", form="triton")
    config = read_configs(tmp_path / "models")[f"ensemble-{member}"]
    assert [(g.count, list(g.gpus)) for g in config.instance_group] == [(2, [1])]
    assert list(config.dynamic_batching.preferred_batch_size) == [32]


def test_a_repository_may_hold_the_one_file(bundle: Bundle, images: NDArray[np.generic], tmp_path: Path) -> None:
    ripieno.export(bundle, tmp_path, form="triton-single")
    config = read_configs(tmp_path)["ensemble"]
    assert (config.backend, config.input[0].name, config.output[0].name) == ("onnxruntime", "images", "probabilities")
    answer = run(tmp_path / "ensemble" / "1" / "model.onnx", {"images": images})
    assert np.abs(answer - ripieno.predict(bundle, images)).max() < 1e-6


def test_exports_share_a_repository_but_no_other_folder(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ripieno.export(bundle, tmp_path / "models", form="triton-single", name=name)
    assert set(read_configs(tmp_path / "models")) == {"one", "two"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(LibraryError, match="holds no model repository"):
        ripieno.export(bundle, tmp_path / "mine", form="triton")
    with pytest.raises(LibraryError, match=r"must end in .onnx"):
        ripieno.export(bundle, tmp_path / "mine")
    with pytest.raises(RipienoError, match="letters, digits"):
        ripieno.export(bundle, tmp_path / "models", form="triton", name="../escape")


def read_configs(repository: Path) -> dict[str, Any]:
    """Read the configuration of every model as Triton does: the folder has the name of the model."""
    text_format = pytest.importorskip("google.protobuf.text_format", reason="needs protobuf")
    words = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
    found = {}
    for path in repository.glob("*/config.pbtxt"):
        found[path.parent.name] = text_format.Parse(path.read_text(), words.ModelConfig())
        assert found[path.parent.name].name == path.parent.name
    return found


def raw_columns() -> dict[str, NDArray[Any]]:
    """Return ROWS as the tensors (4, 1) of an exported graph, with dates as days."""
    return {
        "age": np.array([[31], [np.nan], [45.5], [-2]], np.float32),
        "plan": np.array([["gold"], ["12"], ["new"], [""]], object),
        "since": np.array([[19782.5625], [10956], [np.nan], [-165]]),
        "paid": np.array([[1], [0], [np.nan], [1]], np.float32),
    }


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_tables_are_exported_from_raw_columns_to_predictions(tmp_path: Path, kind: str) -> None:
    bundle = write_table_bundle(tmp_path / "bundle", kind=kind)
    matrix = encode(COLUMNS, ROWS, "rows", DataError)
    expected = direct_answers(bundle, matrix).mean(axis=0)
    np.testing.assert_allclose(ripieno.predict(bundle, matrix), expected, rtol=1e-5, atol=1e-6)
    path = ripieno.export(bundle, tmp_path / "one.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    types = {"age": "tensor(float)", "plan": "tensor(string)", "since": "tensor(double)", "paid": "tensor(float)"}
    assert {i.name: (i.type, i.shape) for i in session.get_inputs()} == {n: (t, ["batch", 1]) for n, t in types.items()}
    np.testing.assert_allclose(session.run(None, raw_columns())[0], expected, rtol=1e-5, atol=1e-6)
    card = (tmp_path / "one.md").read_text()
    assert "| plan | category | text, one of 3: gold, 12, größer; others are unseen; missing: empty |" in card


def test_a_triton_repository_of_a_table_encodes_its_columns_in_a_model_of_its_own(tmp_path: Path) -> None:
    bundle = write_table_bundle(tmp_path / "bundle")
    expected = direct_answers(bundle, encode(COLUMNS, ROWS, "rows", DataError)).mean(axis=0)
    models = ripieno.export(bundle, tmp_path / "models", form="triton", name="t")
    configs = read_configs(models)
    assert set(configs) == {"t", "t-columns", *(f"t-{m}" for m in bundle.ensemble.members), "t-combine"}
    for name in ("t-columns", "t-combine"):  # a few operations, on no GPU
        assert [(g.kind, g.count) for g in configs[name].instance_group] == [(2, 1)]
    declared = [(i.name, i.data_type, list(i.dims)) for i in configs["t"].input]
    assert declared == [("age", 11, [1]), ("plan", 13, [1]), ("since", 12, [1]), ("paid", 11, [1])]
    tensors: dict[str, Any] = raw_columns()
    for step in configs["t"].ensemble_scheduling.step:
        session = onnxruntime.InferenceSession(str(models / step.model_name / "1" / "model.onnx"))
        given = {name: tensors[ours] for name, ours in step.input_map.items()}
        assert [i.name for i in configs[step.model_name].input] == [i.name for i in session.get_inputs()]
        found = session.run(list(step.output_map), given)
        tensors |= dict(zip(step.output_map.values(), found, strict=True))
    np.testing.assert_allclose(tensors["probabilities"], expected, atol=1e-6)
    single = ripieno.export(bundle, tmp_path / "single", form="triton-single")
    assert [i.name for i in read_configs(single)["ensemble"].input] == list(ROWS)


def test_a_column_named_as_the_output_is_refused_before_a_server_meets_it(tmp_path: Path) -> None:
    for name, form in (("probabilities", "onnx"), ("probabilities", "triton"), ("member1", "triton")):
        bundle = write_table_bundle(tmp_path / "bundle", (Column(name),))
        with pytest.raises(LibraryError, match=f"column '{name}' has the name of another tensor"):
            ripieno.export(bundle, tmp_path / f"out-{form}.onnx", form=form)
