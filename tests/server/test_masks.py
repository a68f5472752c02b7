"""A server of masks: tensors over HTTP and gRPC, our client, pictures of any size, and the page."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from ripieno.data.mask_image import colour_code
from ripieno.errors import RipienoError
from ripieno.pipeline import predict_masks
from ripieno.server import Client, ServerHandle, image_endpoint, infer, start_in_thread
from ripieno.server.http_errors import HttpError
from ripieno.server.limits import Admission, Limits, Permit
from ripieno.server.models import Model, ServedEngine
from ripieno.server.signature import signatures
from ripieno.types import Bundle
from tests.chromium import COMMAND, Page
from tests.server.stand_in import CLASSES, MEMBERS, StandIn, direct_answers, write_mask_bundle
from tests.server.test_image_endpoint import png
from tests.server.test_page import drop, rows

SHAPE = (8, 12, 3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_mask_bundle(tmp_path_factory.mktemp("masks"), SHAPE)


@pytest.fixture(scope="module")
def served(bundle: Bundle) -> Iterator[ServerHandle]:
    with start_in_thread(bundle, grpc_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (5, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def large() -> NDArray[np.uint8]:
    """A picture of several tiles."""
    return np.random.default_rng(4).integers(0, 256, (30, 41, 3), dtype=np.uint8)


def mask_of(document: dict[str, Any]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(document["mask"]))))


def post(served: ServerHandle, query: str, content: bytes) -> Any:
    return httpx.post(f"{served.url}/predict{query}", content=content, trust_env=False, timeout=20)


def test_the_metadata_put_the_mask_first(served: ServerHandle) -> None:
    client = triton.InferenceServerClient(served.url.removeprefix("http://"))
    expected = [
        {"name": "mask", "datatype": "UINT8", "shape": [-1, 8, 12]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 8, 12, 4]},
        {"name": "spread", "datatype": "FP32", "shape": [-1]},
        {"name": "members", "datatype": "FP32", "shape": [-1, 2, 8, 12, 4]},
        {"name": "entropy", "datatype": "FP32", "shape": [-1]},
        {"name": "mutual_information", "datatype": "FP32", "shape": [-1]},
    ]
    assert client.get_model_metadata("ensemble")["outputs"] == expected
    assert client.get_model_metadata(MEMBERS[0])["outputs"] == expected[:2]
    config = {o["name"]: (o["data_type"], o["dims"]) for o in client.get_model_config("ensemble")["output"]}
    assert config["mask"] == ("TYPE_UINT8", [8, 12])
    client.close()


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_over_http(served: ServerHandle, bundle: Bundle, pictures: NDArray[np.uint8], binary: bool) -> None:
    own = direct_answers(bundle, pictures)
    mean = own.mean(axis=0)
    client = triton.InferenceServerClient(served.url.removeprefix("http://"))
    asked = triton.InferInput("images", list(pictures.shape), "UINT8")
    asked.set_data_from_numpy(pictures)
    usual = client.infer("ensemble", [asked])
    assert [o["name"] for o in usual.get_response()["outputs"]] == ["mask"]
    names = ("probabilities", "mask", "spread", "members")
    result = client.infer(
        "ensemble", [asked], outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    )
    client.close()
    for found in (usual, result):
        assert found.as_numpy("mask").dtype == np.uint8
        np.testing.assert_array_equal(found.as_numpy("mask"), mean.argmax(axis=-1))
    np.testing.assert_allclose(result.as_numpy("probabilities"), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("members"), own.swapaxes(0, 1), rtol=1e-5, atol=1e-6)
    assert result.as_numpy("spread").shape == (5,)


def test_tensors_over_grpc(served: ServerHandle, bundle: Bundle, pictures: NDArray[np.uint8]) -> None:
    asked = grpc.InferInput("images", list(pictures.shape), "UINT8")
    asked.set_data_from_numpy(pictures)
    with grpc.InferenceServerClient(served.grpc) as client:
        assert [o.name for o in client.get_model_metadata(MEMBERS[1]).outputs] == ["mask", "probabilities"]
        usual = client.infer(MEMBERS[1], [asked])
        both = client.infer("ensemble", [asked], outputs=[grpc.InferRequestedOutput("probabilities")])
    own = direct_answers(bundle, pictures)
    np.testing.assert_array_equal(usual.as_numpy("mask"), own[1].argmax(axis=-1))
    assert usual.as_numpy("probabilities") is None
    np.testing.assert_allclose(both.as_numpy("probabilities"), own.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_masks_have_no_classification_extension(served: ServerHandle, pictures: NDArray[np.uint8]) -> None:
    client = triton.InferenceServerClient(served.url.removeprefix("http://"))
    asked = triton.InferInput("images", list(pictures.shape), "UINT8")
    asked.set_data_from_numpy(pictures)
    with pytest.raises(InferenceServerException, match="which predicts no classes"):
        client.infer("ensemble", [asked], outputs=[triton.InferRequestedOutput("probabilities", class_count=2)])
    client.close()


def test_our_client_returns_masks_or_the_output_that_is_named(
    served: ServerHandle, bundle: Bundle, pictures: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    mean = direct_answers(bundle, pictures).mean(axis=0)
    masks = infer(served.url, pictures, batch=2)
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, mean.argmax(axis=-1))
    monkeypatch.setattr("ripieno.server.client.BYTES", 2 * 8 * 12 * 4 * 4)  # two samples a request
    with Client(served.url) as client:
        np.testing.assert_allclose(client.infer(pictures, output="probabilities"), mean, rtol=1e-5, atol=1e-6)
        with pytest.raises(RipienoError, match="output 'values' of ensemble holds no numbers; choose one of mask, "):
            client.infer(pictures, output="values")


def test_a_large_picture_is_answered_with_the_mask_of_its_tiles(
    served: ServerHandle, bundle: Bundle, large: NDArray[np.uint8], tmp_path: Path
) -> None:
    (expected,) = predict_masks(bundle, large)
    (document,) = post(served, "?members=true", png(large)).json()["predictions"]
    assert (document["width"], document["height"]) == (41, 30)
    np.testing.assert_array_equal(mask_of(document), expected.mask)
    assert document["confidence"] == pytest.approx(expected.confidence, abs=1e-6)
    assert expected.spread is not None
    assert document["spread"] == pytest.approx(float(expected.spread[0]), abs=1e-6)
    shares = dict(zip(CLASSES, expected.predictions[0].tolist(), strict=True))
    assert document["classes"] == pytest.approx({n: s for n, s in shares.items() if s}, abs=1e-6)
    assert list(document["classes"].values()) == sorted(document["classes"].values(), reverse=True)
    assert document["colours"] == {name: colour_code(CLASSES.index(name)) for name in document["classes"]}
    for member in document["members"]:
        weights = tuple(float(member["member"] == m) for m in MEMBERS)
        alone = dataclasses.replace(bundle.ensemble, combiner="weighted", weights=weights)
        (own,) = predict_masks(dataclasses.replace(bundle, ensemble=alone), large)
        np.testing.assert_array_equal(mask_of(member), own.mask)
    file = tmp_path / "large.png"
    file.write_bytes(png(large))
    with Client(served.url) as client:
        for mask in client.masks([file, png(large)]):
            np.testing.assert_array_equal(mask, expected.mask)
        (shrunk,) = client.masks([file], resize=True)
        with pytest.raises(RipienoError, match="cannot read"):
            client.masks([tmp_path / "absent.png"])
    (resized,) = predict_masks(bundle, large, resize=True)
    np.testing.assert_array_equal(shrunk, resized.mask)
    assert not np.array_equal(shrunk, expected.mask)


def test_the_overlap_of_tiles_can_be_set(served: ServerHandle, bundle: Bundle, large: NDArray[np.uint8]) -> None:
    (expected,) = predict_masks(bundle, large, overlap=0.5)
    (document,) = post(served, "?overlap=0.5&top=1", png(large)).json()["predictions"]
    np.testing.assert_array_equal(mask_of(document), expected.mask)
    assert len(document["classes"]) == len(document["colours"]) == 1


@pytest.mark.parametrize("query", ["?overlap=1", "?overlap=x", "?resize=1", "?members=maybe", "?top=0"])
def test_wrong_options_are_refused(served: ServerHandle, large: NDArray[np.uint8], query: str) -> None:
    answer = post(served, query, png(large))
    assert answer.status_code == 400
    assert "must be" in answer.json()["error"]


def test_several_pictures_of_several_sizes_are_answered_in_order(
    served: ServerHandle, bundle: Bundle, large: NDArray[np.uint8]
) -> None:
    several = {"b.png": large, "a.png": large[:8, :12], "c.png": large[:3, :4]}
    files = [("picture", (name, png(pixels), "image/png")) for name, pixels in several.items()]
    answer = httpx.post(served.url + "/v2/models/ensemble/images", files=files, trust_env=False).json()
    assert [entry["picture"] for entry in answer["predictions"]] == list(several)
    for entry, pixels in zip(answer["predictions"], several.values(), strict=True):
        (expected,) = predict_masks(bundle, pixels)
        np.testing.assert_array_equal(mask_of(entry), expected.mask)


def test_memory_of_pictures_and_of_answers_is_limited(
    bundle: Bundle, large: NDArray[np.uint8], pictures: NDArray[np.uint8]
) -> None:
    sample, tiles = 4 * 8 * 12 * 4, 5  # of the width of the large picture
    with start_in_thread(bundle, limits=Limits(reply=tiles * sample)) as running:
        (document,) = post(running, "", png(large)).json()["predictions"]  # a row of tiles a request
        (expected,) = predict_masks(bundle, large)
        np.testing.assert_array_equal(mask_of(document), expected.mask)
        refused = post(running, "?members=true", png(large))
        assert refused.status_code == 413
        assert "A row of 5 tiles has" in refused.json()["error"]
        many = [("picture", (f"{i}.png", png(large), "image/png")) for i in range(6)]
        refused = httpx.post(running.url + "/predict", files=many, trust_env=False)
        assert refused.status_code == 413
        assert "The masks may exceed" in refused.json()["error"]
        with pytest.raises(RipienoError, match="The response would have about"):
            infer(running.url, np.concatenate([pictures, pictures]))


def test_pictures_count_as_memory_of_their_requests_while_they_are_predicted(
    bundle: Bundle, large: NDArray[np.uint8]
) -> None:
    sample = 4 * 8 * 12 * 4
    seen: list[int] = []
    admission = Admission(Limits(held=large.nbytes + 2 * 5 * sample, reply=5 * sample))
    model = StandIn(bundle)
    submit = model.submit

    def watched(*given: Any, **options: Any) -> Any:
        seen.append(admission.held)
        return submit(*given, **options)

    model.submit = watched  # type: ignore[method-assign]

    def ask(permit: Permit) -> dict[str, Any]:
        scope = {"query_string": b"", "headers": []}
        served = Model(signatures(bundle)[0], ServedEngine(model))
        return asyncio.run(image_endpoint.answer(scope, png(large), served, admission.limits, permit))

    with admission.enter() as first:
        (document,) = ask(first)["predictions"]
        assert set(seen) == {admission.limits.held}
        assert admission.held == len(document["mask"])  # until the response is written
        first.hold(1)
        with admission.enter() as second, pytest.raises(HttpError, match="Too many bytes in flight") as refused:
            ask(second)
    model.close()
    assert refused.value.status == 503
    assert admission.held == 0


def test_pictures_that_take_too_long_are_counted_as_one_failure(bundle: Bundle, large: NDArray[np.uint8]) -> None:
    model, limits = StandIn(bundle), Limits(timeout=0.2)
    served = Model(signatures(bundle)[0], ServedEngine(model))
    scope = {"query_string": b"", "headers": []}
    model.gate.clear()
    with Admission(limits).enter() as permit, pytest.raises(HttpError, match="no masks within") as refused:
        asyncio.run(image_endpoint.answer(scope, png(large), served, limits, permit))
    model.gate.set()
    model.close()
    assert refused.value.status == 504
    assert served.stats.failures == {504: 1}
    assert served.stats.failed_seconds >= 0.2


def test_openapi_describes_masks(served: ServerHandle) -> None:
    document = httpx.get(served.url + "/openapi.json", trust_env=False).json()
    asked = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    names = asked["schema"]["properties"]["outputs"]["items"]["properties"]["name"]["enum"]
    assert names == ["mask", "probabilities", "spread", "members", "entropy", "mutual_information"]
    assert "UINT8" in document["components"]["schemas"]["Output"]["properties"]["datatype"]["enum"]
    query = document["paths"]["/predict"]["post"]["parameters"]
    assert [parameter["name"] for parameter in query] == [
        "top",
        "members",
        "uncertainty",
        "coverage",
        "resize",
        "overlap",
    ]


def test_the_page_lays_the_mask_over_the_picture_with_a_legend(
    served: ServerHandle, bundle: Bundle, large: NDArray[np.uint8], tmp_path: Path
) -> None:
    if COMMAND is None:
        pytest.skip("needs Chromium, which is not installed")
    (expected,) = predict_masks(bundle, large)
    order = np.argsort(-expected.predictions[0], kind="stable")
    with Page(served.url + "/", tmp_path / "chromium") as page:
        drop(page, png(large))
        page.until("!document.getElementById('answer').hidden")
        page.until("document.getElementById('mask').naturalWidth === 41")
        assert rows(page, "classes") == [CLASSES[i] for i in order if expected.predictions[0][i]]
        assert rows(page, "members") == [f"{member}: confidence" for member in MEMBERS]
        colour = page.run("document.querySelector('#classes .bar').style.background")
        red, green, blue = (int(colour_code(int(order[0]))[i : i + 2], 16) for i in (1, 3, 5))
        assert colour == f"rgb({red}, {green}, {blue})"
        box = "JSON.stringify(['shown', 'mask'].map((id) => document.getElementById(id).getBoundingClientRect()))"
        shown, mask = json.loads(page.run(box))
        assert shown == mask
        before = page.run("document.getElementById('mask').src")
        page.run("document.getElementById('which').value = 1")
        page.run("document.getElementById('which').dispatchEvent(new Event('change'))")
        assert page.run("document.getElementById('mask').src") != before
