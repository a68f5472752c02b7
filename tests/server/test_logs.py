"""The log of `--log`: every request, answered or refused, over every protocol."""

from __future__ import annotations

import datetime
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ripieno.server import start_in_thread
from ripieno.server.logs import log_to
from tests.server.stand_in import StandIn

Find = Callable[[str], dict[str, Any]]


@pytest.fixture
def line_of() -> Iterator[Find]:
    """Return the log line of a request, by its id."""
    stream = io.StringIO()
    handler = log_to(stream)

    def find(request: str) -> dict[str, Any]:
        handler.flush()
        lines: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
        (found,) = (line for line in lines if line.get("request") == request)
        return found

    yield find
    for name in ("ripieno", "uvicorn", "opentelemetry"):
        logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).setLevel(logging.NOTSET)


def fields(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line.get(name) for name in ("message", "model", "samples", "status"))


def test_requests_are_logged_as_json_lines_with_their_ids(
    engine: StandIn, images: NDArray[np.uint8], line_of: Find
) -> None:
    with start_in_thread(engine) as running:
        body = images[:1].tobytes()
        headers = {"x-request-id": "walk-7", "inference-header-content-length": "0"}
        path = "/v2/models/ensemble/infer"
        response = httpx.post(running.url + path, content=body, headers=headers, trust_env=False)
        assert response.headers["x-request-id"] == "walk-7"
        other = httpx.post(running.url + path, content=b"x", trust_env=False)
    answered = line_of("walk-7")
    assert fields(answered) == ("answered", "ensemble", 1, 200)
    assert abs(answered["time"] - datetime.datetime.now().timestamp()) < 60
    assert line_of(other.headers["x-request-id"])["status"] == 400


def test_pictures_are_logged(engine: StandIn, images: NDArray[np.uint8], line_of: Find) -> None:
    picture = io.BytesIO()
    Image.fromarray(images[0]).save(picture, "PNG")
    with start_in_thread(engine) as running:
        files = [("p", (f"{i}.png", picture.getvalue())) for i in range(3)]
        for name, given in (("walk-1", {"files": files}), ("walk-2", {"content": b"no picture"})):
            httpx.post(running.url + "/predict", headers={"x-request-id": name}, trust_env=False, **given)
    assert fields(line_of("walk-1")) == ("answered", "ensemble", 3, 200)
    assert line_of("walk-1")["seconds"] > 0
    assert line_of("walk-2")["status"] == 415


def test_grpc_calls_are_logged(engine: StandIn, images: NDArray[np.uint8], line_of: Find) -> None:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    tensor = triton.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    with start_in_thread(engine, grpc_port=0) as running, triton.InferenceServerClient(running.grpc) as client:
        client.infer("ensemble", [tensor], headers={"x-request-id": "walk-3"})
        with pytest.raises(InferenceServerException, match="Not found: model 'absent'"):
            client.infer("absent", [tensor], headers={"x-request-id": "walk-4"})
    assert fields(line_of("walk-3")) == ("answered", "ensemble", len(images), 200)
    assert line_of("walk-3")["seconds"] > 0
    assert line_of("walk-4")["status"] == 404
    assert line_of("walk-4")["message"].startswith("ModelInfer: Not found: model 'absent'")
