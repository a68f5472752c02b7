"""`tritonclient.http`, unchanged, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from ripieno.server import ServerHandle
from ripieno.types import Bundle
from tests.server.stand_in import CLASSES, MEMBERS, direct_answers


@pytest.fixture(scope="module")
def client(server: ServerHandle) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"), concurrency=2)
    yield client
    client.close()


def asked(images: NDArray[np.generic], binary: bool = True) -> list[triton.InferInput]:
    datatype = {"uint8": "UINT8", "float32": "FP32"}[str(images.dtype)]
    tensor = triton.InferInput("images", list(images.shape), datatype)
    tensor.set_data_from_numpy(images, binary_data=binary)
    return [tensor]


def test_health_and_metadata_are_read(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("ensemble")
    assert client.is_model_ready("ensemble", "1")
    assert not client.is_model_ready("absent")
    assert client.get_server_metadata()["name"] == "ripieno"
    metadata = client.get_model_metadata("ensemble")
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}]
    assert {"name": "label", "datatype": "BYTES", "shape": [-1]} in metadata["outputs"]


def test_the_configuration_and_the_index_are_read(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("ensemble")
    assert config["max_batch_size"] > 1
    assert config["input"][0]["dims"] == [8, 8, 3]
    assert [m["name"] for m in client.get_model_repository_index()] == ["ensemble", *MEMBERS]
    assert {m["state"] for m in client.get_model_repository_index()} == {"READY"}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_every_mix_of_json_and_binary_gives_the_mean_of_the_members(
    client: triton.InferenceServerClient,
    bundle: Bundle,
    images: NDArray[np.uint8],
    binary_in: bool,
    binary_out: bool,
) -> None:
    outputs = [triton.InferRequestedOutput(n, binary_data=binary_out) for n in ("probabilities", "label")]
    result = client.infer("ensemble", asked(images, binary_in), outputs=outputs, request_id="row 7")
    expected = direct_answers(bundle, images).mean(axis=0)
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-6)
    labels = [x.decode() if isinstance(x, bytes) else x for x in result.as_numpy("label")]
    assert labels == [CLASSES[i] for i in expected.argmax(axis=1)]
    assert result.get_response()["id"] == "row 7"


def test_without_outputs_named_all_come_in_binary(
    client: triton.InferenceServerClient, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    result = client.infer("ensemble", asked(images))
    np.testing.assert_allclose(result.as_numpy("probabilities"), direct_answers(bundle, images).mean(axis=0), atol=1e-6)
    assert len(result.as_numpy("label")) == len(images)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_requests_are_read(
    client: triton.InferenceServerClient, images: NDArray[np.uint8], compression: str
) -> None:
    plain = client.infer("ensemble", asked(images)).as_numpy("probabilities")
    packed = client.infer(
        "ensemble", asked(images), request_compression_algorithm=compression, response_compression_algorithm="gzip"
    )
    np.testing.assert_array_equal(packed.as_numpy("probabilities"), plain)


def test_whole_float_images_equal_their_bytes(client: triton.InferenceServerClient, images: NDArray[np.uint8]) -> None:
    bytes_said = client.infer("ensemble", asked(images)).as_numpy("probabilities")
    floats_said = client.infer("ensemble", asked(images.astype(np.float32))).as_numpy("probabilities")
    np.testing.assert_array_equal(floats_said, bytes_said)


def test_a_member_is_asked_alone_by_its_id(
    client: triton.InferenceServerClient, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    for number, member in enumerate(MEMBERS):
        said = client.infer(member, asked(images)).as_numpy("probabilities")
        np.testing.assert_allclose(said, direct_answers(bundle, images)[number], atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_members_and_their_spread_are_answered_on_request(
    client: triton.InferenceServerClient, bundle: Bundle, images: NDArray[np.uint8], binary: bool
) -> None:
    outputs = [triton.InferRequestedOutput(n, binary_data=binary) for n in ("members", "spread")]
    result = client.infer("ensemble", asked(images), outputs=outputs)
    each = direct_answers(bundle, images)
    np.testing.assert_allclose(result.as_numpy("members"), each.transpose(1, 0, 2), atol=1e-6)
    best = each.mean(axis=0).argmax(axis=1)
    np.testing.assert_allclose(result.as_numpy("spread"), each.std(axis=0)[np.arange(5), best], atol=1e-6)


def test_the_classification_extension_names_the_best_classes(
    client: triton.InferenceServerClient, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    output = triton.InferRequestedOutput("probabilities", class_count=2)
    rows = client.infer("ensemble", asked(images), outputs=[output]).as_numpy("probabilities")
    expected = direct_answers(bundle, images).mean(axis=0)
    assert rows.shape == (5, 2)
    value, index, name = rows[0, 0].decode().split(":")
    assert int(index) == expected[0].argmax()
    assert name == CLASSES[int(index)]
    assert float(value) == pytest.approx(expected[0].max(), abs=1e-5)


def test_many_requests_at_once_get_each_its_own_answer(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    whole = client.infer("ensemble", asked(images)).as_numpy("probabilities")
    waiting = [client.async_infer("ensemble", asked(images[i % 5 : i % 5 + 1])) for i in range(20)]
    for i, one in enumerate(waiting):
        np.testing.assert_allclose(one.get_result().as_numpy("probabilities")[0], whole[i % 5], atol=1e-6)


def test_statistics_count_requests_and_samples(client: triton.InferenceServerClient, images: NDArray[np.uint8]) -> None:
    def counted() -> tuple[int, ...]:
        stats = client.get_inference_statistics("ensemble", "1")["model_stats"][0]
        # perf_analyzer identifies the requested version by its queue count
        steps = ("success", "queue", "compute_input", "compute_infer", "compute_output")
        return stats["inference_count"], *(stats["inference_stats"][step]["count"] for step in steps)

    samples, *requests = counted()
    client.infer("ensemble", asked(images))
    assert counted() == (samples + 5, *(count + 1 for count in requests))
    assert len(client.get_inference_statistics()["model_stats"]) == 3


def test_a_refusal_reaches_the_client_as_its_one_line(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    with pytest.raises(InferenceServerException, match=r"shape \[5, 8, 8\], must be \[samples, 8, 8, 3\]"):
        client.infer("ensemble", asked(np.ascontiguousarray(images[..., 0])))
    with pytest.raises(InferenceServerException, match=r"Not found: model 'absent'\. Available models: ensemble"):
        client.infer("absent", asked(images))
    with pytest.raises(InferenceServerException, match="Unknown output 'logits'"):
        client.infer("ensemble", asked(images), outputs=[triton.InferRequestedOutput("logits")])


def test_shared_memory_and_loading_are_refused_in_words(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="Not found: /"):
        client.get_system_shared_memory_status()
    with pytest.raises(InferenceServerException, match="Not found: /"):
        client.load_model("../../etc/passwd")
