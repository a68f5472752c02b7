"""A server of each kind of task, over a socket: its tensors by `tritonclient`, our client, gRPC and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from ripieno.server import Client, ServerHandle, infer, start_in_thread
from tests.server.stand_in import CLASSES, MEMBERS, direct_answers, write_small_bundle
from tests.server.test_image_endpoint import png

THRESHOLDS = (0.1, 0.9, 0.5, 0.5)
PREDICTIONS = {"classification": "probabilities", "multilabel": "probabilities", "regression": "values"}
UNCERTAINTY = {
    **dict.fromkeys(("classification", "multilabel"), ("entropy", "mutual_information")),
    "regression": (),
}
LABELS = {"classification": "label", "multilabel": "labels"}


class Served(NamedTuple):
    """A running server of one kind of task, and what its members predict."""

    kind: str
    server: ServerHandle
    members: NDArray[np.float32]
    labels: list[str]
    spread: NDArray[np.float32]

    @property
    def mean(self) -> NDArray[np.float32]:
        return self.members.mean(axis=0)


@pytest.fixture(scope="module", params=["classification", "multilabel", "regression"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, images: NDArray[np.uint8]
) -> Iterator[Served]:
    kind = request.param
    thresholds = THRESHOLDS if kind == "multilabel" else ()
    bundle = write_small_bundle(tmp_path_factory.mktemp(kind), kind=kind, thresholds=thresholds)
    members = direct_answers(bundle, images)
    mean, deviation = members.mean(axis=0), members.std(axis=0)
    if kind == "classification":
        best = mean.argmax(axis=1)
        labels, deviation = [CLASSES[i] for i in best], deviation[np.arange(len(images)), best]
    else:
        labels = ["|".join(n for n, p, t in zip(CLASSES, row, THRESHOLDS, strict=True) if p >= t) for row in mean]
    with start_in_thread(bundle, grpc_port=0) as running:
        yield Served(kind, running, members, labels, deviation)


@pytest.fixture
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(served.server.url.removeprefix("http://"))
    yield client
    client.close()


def tensor(images: NDArray[np.uint8]) -> list[triton.InferInput]:
    asked = triton.InferInput("images", list(images.shape), "UINT8")
    asked.set_data_from_numpy(images)
    return [asked]


def words(strings: NDArray[Any]) -> list[str]:
    return [s.decode() if isinstance(s, bytes) else s for s in strings]


def test_the_metadata_list_the_tensors_of_the_task(served: Served, client: triton.InferenceServerClient) -> None:
    numbers = {"name": PREDICTIONS[served.kind], "datatype": "FP32", "shape": [-1, 4]}
    labels = [{"name": LABELS[served.kind], "datatype": "BYTES", "shape": [-1]}] if served.kind in LABELS else []
    spread = {"name": "spread", "datatype": "FP32", "shape": [-1] if served.kind == "classification" else [-1, 4]}
    members = {"name": "members", "datatype": "FP32", "shape": [-1, 2, 4]}
    more = [{"name": name, "datatype": "FP32", "shape": [-1]} for name in UNCERTAINTY[served.kind]]
    assert client.get_model_metadata("ensemble")["outputs"] == [numbers, *labels, spread, members, *more]
    assert client.get_model_metadata(MEMBERS[0])["outputs"] == [numbers, *labels]
    document = client.get_model_config("ensemble")
    parameters = {key: value["string_value"] for key, value in document["parameters"].items()}
    thresholds = json.loads(parameters.pop("thresholds", "[]"))
    assert parameters == {"task": served.kind, "names": json.dumps(CLASSES)}
    assert tuple(thresholds) == (THRESHOLDS if served.kind == "multilabel" else ())
    config = {o["name"]: o["data_type"] for o in document["output"]}
    assert config[PREDICTIONS[served.kind]] == "TYPE_FP32"
    assert all(config[output["name"]] == "TYPE_STRING" for output in labels)


@pytest.mark.parametrize("binary", [True, False])
def test_every_tensor_is_answered_as_the_metadata_declare(
    served: Served, client: triton.InferenceServerClient, images: NDArray[np.uint8], binary: bool
) -> None:
    declared = client.get_model_metadata("ensemble")["outputs"]
    outputs = [triton.InferRequestedOutput(o["name"], binary_data=binary) for o in declared]
    result = client.infer("ensemble", tensor(images), outputs=outputs)
    for output in declared:
        array = result.as_numpy(output["name"])
        assert [-1, *array.shape[1:]] == output["shape"]
    np.testing.assert_allclose(result.as_numpy(PREDICTIONS[served.kind]), served.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("spread"), served.spread, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("members"), served.members.swapaxes(0, 1), rtol=1e-5, atol=1e-6)
    if served.kind in LABELS:
        assert words(result.as_numpy(LABELS[served.kind])) == served.labels


def test_a_request_that_names_no_output_gets_those_of_the_task(
    served: Served, client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    for model in ("ensemble", MEMBERS[1]):
        outputs = client.infer(model, tensor(images)).get_response()["outputs"]
        labels = [LABELS[served.kind]] if served.kind in LABELS else []
        assert [o["name"] for o in outputs] == [PREDICTIONS[served.kind], *labels]


def test_grpc_answers_the_same_tensors(served: Served, images: NDArray[np.uint8]) -> None:
    asked = grpc.InferInput("images", list(images.shape), "UINT8")
    asked.set_data_from_numpy(images)
    with grpc.InferenceServerClient(served.server.grpc) as client:
        declared = [(o.name, o.datatype) for o in client.get_model_metadata("ensemble").outputs]
        outputs = [grpc.InferRequestedOutput(name) for name, _ in declared]
        result = client.infer("ensemble", [asked], outputs=outputs)
    assert declared[0] == (PREDICTIONS[served.kind], "FP32")
    np.testing.assert_allclose(result.as_numpy(declared[0][0]), served.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("spread"), served.spread, rtol=1e-4, atol=1e-6)
    if served.kind in LABELS:
        assert words(result.as_numpy(LABELS[served.kind])) == served.labels


def test_our_client_returns_the_first_output(served: Served, images: NDArray[np.uint8]) -> None:
    np.testing.assert_allclose(infer(served.server.url, images, batch=2), served.mean, rtol=1e-5, atol=1e-6)
    with Client(served.server.url, model=MEMBERS[1]) as client:
        np.testing.assert_allclose(client.infer(images), served.members[1], rtol=1e-5, atol=1e-6)


def test_only_classes_have_the_classification_extension(
    served: Served, client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    output = triton.InferRequestedOutput(PREDICTIONS[served.kind], class_count=2)
    if served.kind == "classification":
        assert client.infer("ensemble", tensor(images), outputs=[output]).as_numpy("probabilities").shape == (5, 2)
        return
    with pytest.raises(InferenceServerException, match="which predicts no classes"):
        client.infer("ensemble", tensor(images), outputs=[output])


def test_pictures_are_answered_by_task(served: Served, images: NDArray[np.uint8]) -> None:
    answer = httpx.post(served.server.url + "/predict?members=true", content=png(images[0]), trust_env=False).json()
    (prediction,) = answer["predictions"]
    assert [m["member"] for m in prediction["members"]] == list(MEMBERS)
    if served.kind == "classification":
        assert prediction["label"] == served.labels[0]
        assert prediction["probability"] == pytest.approx(served.mean[0].max(), abs=1e-6)
        return
    documents = prediction, *prediction["members"]
    for document, numbers in zip(documents, (served.mean[0], *served.members[:, 0]), strict=True):
        named = document[PREDICTIONS[served.kind]]
        assert named == pytest.approx(dict(zip(CLASSES, numbers.tolist(), strict=True)), rel=1e-5, abs=1e-6)
    assert list(prediction["spread"]) == list(CLASSES)
    if served.kind in LABELS:
        assert prediction["labels"] == served.labels[0]


def test_openapi_lists_the_outputs_of_the_task(served: Served) -> None:
    document = httpx.get(served.server.url + "/openapi.json", trust_env=False).json()
    infer = document["paths"]["/v2/models/{model}/infer"]["post"]
    request = infer["requestBody"]["content"]["application/json"]["schema"]
    labels = [LABELS[served.kind]] if served.kind in LABELS else []
    expected = [PREDICTIONS[served.kind], *labels, "spread", "members", *UNCERTAINTY[served.kind]]
    assert request["properties"]["outputs"]["items"]["properties"]["name"]["enum"] == expected
