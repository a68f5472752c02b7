"""A server of ensembles that know how sure they are: sets, intervals, disagreement and abstention, in every form."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from ripieno.errors import RipienoError
from ripieno.server import Client, ServerHandle, start_in_thread
from ripieno.server.http_errors import HttpError
from ripieno.server.oip_decode import InferenceRequest, RequestedOutput
from ripieno.server.oip_encode import check_size
from ripieno.server.signature import signatures
from ripieno.tasks.registry import kind_of
from ripieno.tasks.uncertainty_outputs import UncertaintyOutputs
from ripieno.types import AbstainRule, Bundle, Cascade, Coverage, SpreadCalibration
from tests.chromium import COMMAND, Page
from tests.server.stand_in import CLASSES, MEMBERS, direct_answers, write_mask_bundle, write_small_bundle
from tests.server.test_image_endpoint import png
from tests.server.test_page import drop

KINDS = ("classification", "multilabel", "regression", "segmentation")
LEVELS = (0.9, 0.5)
UNUSUAL = tuple(np.linspace(0, 0.5, 101).tolist())


def sure(bundle: Bundle, **changes: Any) -> Bundle:
    """Return `bundle` with two levels of coverage, a rule to abstain and what is usual."""
    kind = bundle.task.kind
    if kind == "regression":
        coverage = (
            Coverage(0.9, "spread", (2.0, 2.5, 3.0, 3.5), 100, floors=(0.1,) * 4),
            Coverage(0.5, "residual", (1.0, 2.0, 3.0, 4.0), 100),
        )
    else:
        score = "lac" if kind == "classification" else "fnr"
        coverage = (Coverage(0.9, score, (0.8,), 100), Coverage(0.5, score, (0.6,), 100))
    rule = None if kind == "regression" else AbstainRule(0.02, confidence_between(bundle), 100)
    deviation = SpreadCalibration((1.5, 0.0, 2.0, 3.0), (0.2, 0.3, 0.1, 0.4), 100) if kind == "regression" else None
    fitted = {"coverage": coverage, "abstain": rule, "unusual": UNUSUAL, "spread_calibration": deviation}
    known = {**fitted, **changes}
    return dataclasses.replace(bundle, ensemble=dataclasses.replace(bundle.ensemble, **known))


def confidence_between(bundle: Bundle) -> float:
    """Return a confidence that some of the test's pictures reach and others do not."""
    confidence = kind_of(bundle.task).confidence(direct_answers(bundle, pictures(bundle)).mean(axis=0))
    assert confidence is not None
    ordered = np.sort(confidence)
    return float(ordered[1:3].mean(dtype=np.float64))


def pictures(bundle: Bundle) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (5, *bundle.input.shape), dtype=np.uint8)


class Served(NamedTuple):
    """A running server with the pictures that it is asked about, and what its outputs are."""

    bundle: Bundle
    server: ServerHandle
    images: NDArray[np.uint8]

    @property
    def outputs(self) -> UncertaintyOutputs:
        return UncertaintyOutputs(self.bundle.ensemble, self.bundle.task)

    def expected(self, name: str, level: float | None = None) -> NDArray[Any]:
        own = direct_answers(self.bundle, self.images)
        weights = np.full(len(own), 1 / len(own))
        apart = self.outputs.kind.member_disagreement(own, weights)
        return self.outputs.compute(name, own.mean(axis=0), spread=own.std(axis=0), disagreement=apart, level=level)


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp(request.param)
    made = write_mask_bundle(path) if request.param == "segmentation" else write_small_bundle(path, kind=request.param)
    bundle = sure(made)
    with start_in_thread(bundle, grpc_port=0) as running:
        yield Served(bundle, running, pictures(bundle))


def tensor(images: NDArray[np.uint8], module: Any = triton) -> list[Any]:
    asked = module.InferInput("images", list(images.shape), "UINT8")
    asked.set_data_from_numpy(images)
    return [asked]


def check(served: Served, found: Any, level: float | None = None) -> None:
    """Check that `found` holds every output of `served` as it is computed without a server."""
    for name in served.outputs.names:
        values, expected = found.as_numpy(name), served.expected(name, level)
        assert values.dtype == expected.dtype == (bool if name in ("prediction_set", "abstain") else np.float32)
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("binary", [True, False])
def test_all_outputs_come_over_http_at_each_level(served: Served, binary: bool) -> None:
    client = triton.InferenceServerClient(served.server.url.removeprefix("http://"))
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in served.outputs.names]
    check(served, client.infer("ensemble", tensor(served.images), outputs=outputs))
    for level in LEVELS:
        found = client.infer("ensemble", tensor(served.images), outputs=outputs, parameters={"coverage": level})
        check(served, found, level)
        assert found.get_response()["parameters"]["coverage"] == level
    client.close()


def test_all_outputs_come_over_grpc(served: Served) -> None:
    outputs = [grpc.InferRequestedOutput(name) for name in served.outputs.names]
    with grpc.InferenceServerClient(served.server.grpc) as client:
        check(served, client.infer("ensemble", tensor(served.images, grpc), outputs=outputs))
        asked = {"coverage": "0.5"}  # its client sends no floats
        found = client.infer("ensemble", tensor(served.images, grpc), outputs=outputs, parameters=asked)
    check(served, found, 0.5)
    assert found.get_response().parameters["coverage"].double_param == 0.5


def test_a_level_alone_asks_for_the_set_or_the_interval_and_nothing_else_does(served: Served) -> None:
    with httpx.Client(base_url=served.server.url, trust_env=False) as http:
        body = {
            "inputs": [
                {"name": "images", "shape": served.images.shape, "datatype": "UINT8", "data": served.images.tolist()}
            ]
        }
        plain = http.post("/v2/models/ensemble/infer", json=body).json()
        level = http.post("/v2/models/ensemble/infer", json={**body, "parameters": {"coverage": 0.5}}).json()
    usual = [output["name"] for output in plain["outputs"]]
    assert not set(usual).intersection(served.outputs.names)
    assert [output["name"] for output in level["outputs"]] == [*usual, *served.outputs.covered]
    assert level["parameters"] == {"coverage": 0.5}


def test_the_interface_lists_the_outputs_with_their_types(served: Served) -> None:
    client = triton.InferenceServerClient(served.server.url.removeprefix("http://"))
    listed = {o["name"]: (o["datatype"], o["shape"]) for o in client.get_model_metadata("ensemble")["outputs"]}
    config = client.get_model_config("ensemble")
    types = {o["name"]: o["data_type"] for o in config["output"]}
    client.close()
    whole = [-1, *served.bundle.task.output]
    for name in served.outputs.names:
        datatype = "BOOL" if name in ("prediction_set", "abstain") else "FP32"
        assert listed[name] == (datatype, whole if name in (*served.outputs.covered, "standard_deviation") else [-1])
        assert types[name] == f"TYPE_{datatype}"
    assert json.loads(config["parameters"]["coverage"]["string_value"]) == list(LEVELS)
    member = httpx.get(f"{served.server.url}/v2/models/{MEMBERS[0]}", trust_env=False).json()
    assert not {output["name"] for output in member["outputs"]}.intersection(served.outputs.names)


def test_our_client_returns_them_by_name(served: Served) -> None:
    covered = served.outputs.covered
    with Client(served.server.url) as client:
        found = client.infer_outputs(served.images, ["spread", *served.outputs.names], batch=2, coverage=0.5)
        one = client.infer(served.images, output=covered[0], coverage=0.9)
    assert set(found) == {"spread", *served.outputs.names}
    for name in served.outputs.names:
        np.testing.assert_allclose(found[name], served.expected(name, 0.5), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(one, served.expected(covered[0], 0.9), rtol=1e-3, atol=1e-5)


def test_a_document_names_what_is_in_the_set_and_how_unusual_the_picture_is(served: Served) -> None:
    image = png(served.images[0])
    kind = served.bundle.task.kind
    with httpx.Client(base_url=served.server.url, trust_env=False) as http:
        plain = http.post("/predict", content=image).json()["predictions"][0]
        document = http.post("/predict?uncertainty=true", content=image).json()
        found = document["predictions"][0]
        level = http.post("/predict?coverage=0.5", content=image)
    assert not set(plain).intersection(served.outputs.names)
    assert "spread" not in found
    for name in ("entropy", "mutual_information", "unusual", "abstain"):
        if name in served.outputs.names:
            assert found[name] == pytest.approx(served.expected(name)[0], rel=1e-3, abs=1e-5)
            assert isinstance(found[name], bool) == (name == "abstain")
    if kind == "regression":
        deviation = dict(zip(CLASSES, served.expected("standard_deviation")[0].tolist(), strict=True))
        assert found["standard_deviation"] == pytest.approx(deviation, rel=1e-3)
    if kind == "segmentation":  # sets of pixels are tensors
        assert "prediction_set" not in found
        assert level.status_code == 400
        assert "Request prediction_set as a tensor" in level.json()["error"]
        return
    assert document["coverage"] == 0.9
    assert level.json()["coverage"] == 0.5
    second = level.json()["predictions"][0]
    assert set(second) - set(plain) == set(served.outputs.covered)
    for entry, asked in ((found, 0.9), (second, 0.5)):
        for name in served.outputs.covered:
            value = served.expected(name, asked)[0]
            if name == "prediction_set":
                assert entry[name] == [c for c, held in zip(CLASSES, value, strict=True) if held]
            else:
                assert entry[name] == pytest.approx(dict(zip(CLASSES, value.tolist(), strict=True)), rel=1e-3)


def test_abstentions_are_counted_where_they_are_asked_for(served: Served) -> None:
    if served.bundle.task.kind == "regression":
        pytest.skip("a regression has no confidence")
    expected = served.expected("abstain")
    assert 0 < expected.sum() < len(expected)

    def counts() -> dict[str, float]:
        lines = httpx.get(f"{served.server.url}/metrics", trust_env=False).text.splitlines()
        start = 'ripieno_abstain_samples_total{abstain="'
        ours = [line for line in lines if line.startswith(start) and 'model="ensemble"' in line]
        return {line.removeprefix(start).partition('"')[0]: float(line.split()[-1]) for line in ours}

    before = {"true": 0.0, "false": 0.0, **counts()}
    with Client(served.server.url) as client, grpc.InferenceServerClient(served.server.grpc) as other:
        client.infer(served.images)
        client.infer_outputs(served.images, ["abstain"])
        wanted = [grpc.InferRequestedOutput("abstain")]
        other.infer("ensemble", tensor(served.images, grpc), outputs=wanted)
    for image, abstains in zip(served.images, expected, strict=True):
        said = httpx.post(f"{served.server.url}/predict?uncertainty=true", content=png(image), trust_env=False).json()
        assert said["predictions"][0]["abstain"] == abstains
    after = counts()
    assert after["true"] - before["true"] == 3 * expected.sum()
    assert after["false"] - before["false"] == 3 * (~expected).sum()


@pytest.mark.parametrize(
    ("coverage", "words"),
    [
        (0.8, "coverage is 0.8, must be 0.9 or 0.5"),
        (1.5, "coverage is 1.5, must be 0.9 or 0.5"),
        ("high", "coverage is 'high', must be a number such as 0.9"),
        (True, "coverage is 'True', must be a number such as 0.9"),
        ("nan", "coverage is 'nan', must be a number such as 0.9"),
    ],
)
def test_an_unknown_level_is_refused_in_one_line(served: Served, coverage: Any, words: str) -> None:
    client = triton.InferenceServerClient(served.server.url.removeprefix("http://"))
    with pytest.raises(InferenceServerException, match=words):
        client.infer("ensemble", tensor(served.images), parameters={"coverage": coverage})
    with pytest.raises(InferenceServerException, match=r"is a single member, without coverage\. Send cov"):
        client.infer(MEMBERS[0], tensor(served.images), parameters={"coverage": 0.9})
    client.close()
    refused = httpx.post(f"{served.server.url}/predict?coverage={coverage}", content=b"", trust_env=False)
    assert (refused.status_code, words in refused.json()["error"]) == (400, True)


def test_what_a_bundle_was_not_fitted_to_is_refused_with_the_mend(tmp_path: Path) -> None:
    plain = write_small_bundle(tmp_path)
    with start_in_thread(plain) as running, Client(running.url) as client:
        images = pictures(plain)
        assert client.infer_outputs(images, ["entropy", "mutual_information"])["entropy"].shape == (5,)
        with pytest.raises(RipienoError, match=r"400: B1 has no coverage\. Fit it with `ripieno coverage RUN B1 --cov"):
            client.infer(images, output="prediction_set")
        with pytest.raises(RipienoError, match=r"400: B1 has no coverage\. Fit it"):
            client.infer(images, coverage=0.9)
        with pytest.raises(RipienoError, match=r"400: B1 has no rule to abstain\. Fit it with `ripieno coverage"):
            client.infer(images, output="abstain")
        with pytest.raises(RipienoError, match="outputs is empty"):
            client.infer_outputs(images, [])
        document = httpx.post(f"{running.url}/predict?uncertainty=true", content=png(images[0]), trust_env=False).json()
        assert "coverage" not in document
        assert {"entropy", "mutual_information"} < set(document["predictions"][0])
        refused = httpx.post(
            f"{running.url}/v2/models/{MEMBERS[0]}/images?uncertainty=true", content=png(images[0]), trust_env=False
        )
        assert "is a single member. Send uncertainty=true to the ensemble." in refused.json()["error"]


def test_what_was_fitted_to_all_members_is_computed_from_all_members_despite_a_cascade(tmp_path: Path) -> None:
    bundle = sure(dataclasses.replace(write_small_bundle(tmp_path), cascade=Cascade(MEMBERS, 0.0)))
    with start_in_thread(bundle) as running, Client(running.url) as client:
        served = Served(bundle, running, pictures(bundle))
        own = direct_answers(bundle, served.images)
        np.testing.assert_allclose(client.infer(served.images), own[0], atol=1e-6)  # the first member is always sure
        for name in served.outputs.names:
            found = client.infer_outputs(served.images, ["probabilities", name])
            np.testing.assert_allclose(found["probabilities"], own.mean(axis=0), atol=1e-6)
            np.testing.assert_allclose(found[name], served.expected(name), rtol=1e-3, atol=1e-5)


def test_the_limit_of_responses_counts_truth_values_by_their_bytes(served: Served) -> None:
    signature = signatures(served.bundle)[0]
    name = served.outputs.covered[0]
    for binary in (True, False):
        request = InferenceRequest(served.images, (RequestedOutput(name, binary),))
        each = {(True, True): 1, (True, False): 6, (False, True): 4, (False, False): 12}[
            name == "prediction_set", binary
        ]
        numbers = int(np.prod(served.bundle.task.output))
        least = 4 * numbers if served.bundle.task.kind == "segmentation" else 0
        assert check_size(request, signature, 1 << 30) == 5 * max(each * numbers, least)
        with pytest.raises(HttpError, match="The response would have about"):
            check_size(request, signature, 5 * numbers - 1)


def test_openapi_has_the_outputs_the_datatype_and_the_options(served: Served) -> None:
    document = httpx.get(served.server.url + "/openapi.json", trust_env=False).json()
    infer = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    names = infer["schema"]["properties"]["outputs"]["items"]["properties"]["name"]["enum"]
    assert set(served.outputs.names) <= set(names)
    assert "BOOL" in document["components"]["schemas"]["Output"]["properties"]["datatype"]["enum"]
    query = [parameter["name"] for parameter in document["paths"]["/predict"]["post"]["parameters"]]
    assert query[:4] == ["top", "members", "uncertainty", "coverage"]


def test_the_page_shows_the_set_or_the_interval_and_what_is_unusual(served: Served, tmp_path: Path) -> None:
    if COMMAND is None:
        pytest.skip("needs Chromium, which is not installed")
    kind = served.bundle.task.kind
    with Page(served.server.url + "/", tmp_path / "chromium") as page:
        drop(page, png(served.images[0]))
        page.until("!document.getElementById('answer').hidden")
        shown = page.run("document.getElementById('uncertainty').textContent")
        hidden = page.run("document.getElementById('abstain').hidden")
        assert page.run("uncertainty({ coverage: 0.995, prediction_set: [] })") == "99.5 % coverage: no class"
    if kind in ("classification", "multilabel"):
        held = [c for c, inside in zip(CLASSES, served.expected("prediction_set")[0], strict=True) if inside]
        assert shown.startswith(f"90 % coverage: {', '.join(held)}; entropy ")
    elif kind == "regression":
        assert shown.startswith("90 % coverage: cat ")
        assert " to " in shown
        assert "standard deviation: cat " in shown
    assert f"unusual {served.expected('unusual')[0]:.3f}" in shown
    assert hidden == (kind == "regression" or not served.expected("abstain")[0])
