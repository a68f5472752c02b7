"""A server of a table with named columns, over a socket: tensors by column, rows, and the matrix."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as triton
from numpy.typing import NDArray

from ripieno.data.table_encoding import encode
from ripieno.errors import DataError, RipienoError
from ripieno.server import Client, ServerHandle, infer, start_in_thread
from ripieno.types import Bundle, Column
from tests.server.stand_in import COLUMNS, MEMBERS, ROWS, direct_answers, write_table_bundle

DAYS = np.array([19782.5625, 10956.0, np.nan, -165.0])
TENSORS: dict[str, tuple[str, NDArray[Any]]] = {
    "age": ("FP32", np.array([31, np.nan, 45.5, -2], np.float32)),
    "plan": ("BYTES", np.array([b"gold", b"12", b"new", b""], object)),
    "since": ("FP64", DAYS),
    "paid": ("FP32", np.array([1, 0, np.nan, 1], np.float32)),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_table_bundle(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def matrix() -> NDArray[np.float32]:
    return encode(COLUMNS, ROWS, "x", DataError)


@pytest.fixture(scope="module")
def expected(bundle: Bundle, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(direct_answers(bundle, matrix).mean(axis=0))


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[ServerHandle]:
    with start_in_thread(bundle, grpc_port=0) as running:
        yield running


def near(found: Any, expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_metadata_list_the_columns(server: ServerHandle) -> None:
    address = server.url.removeprefix("http://")
    inputs = [{"name": name, "datatype": datatype, "shape": [-1, 1]} for name, (datatype, _) in TENSORS.items()]
    with triton.InferenceServerClient(address) as client:
        for model in ("ensemble", MEMBERS[0]):
            assert client.get_model_metadata(model)["inputs"] == inputs
        config = {i["name"]: (i["data_type"], i["dims"]) for i in client.get_model_config("ensemble")["input"]}
    types = {"FP32": "TYPE_FP32", "FP64": "TYPE_FP64", "BYTES": "TYPE_STRING"}
    assert config == {name: (types[datatype], [1]) for name, (datatype, _) in TENSORS.items()}
    with grpc.InferenceServerClient(server.grpc) as other:
        assert [i.name for i in other.get_model_metadata("ensemble").inputs] == list(TENSORS)
        assert [i.name for i in other.get_model_config("ensemble").config.input] == list(TENSORS)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_clients_send_a_tensor_a_column(
    server: ServerHandle, expected: NDArray[np.float32], binary: bool
) -> None:
    asked = []
    for name, (datatype, values) in TENSORS.items():
        tensor = triton.InferInput(name, [4, 1], datatype)
        # NaN has no JSON: raw tensors carry it
        tensor.set_data_from_numpy(values[:, np.newaxis], binary_data=binary or datatype != "BYTES")
        asked.append(tensor)
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        near(client.infer("ensemble", asked).as_numpy("probabilities"), expected)


def test_grpc_clients_send_a_tensor_a_column(server: ServerHandle, expected: NDArray[np.float32]) -> None:
    asked = []
    for name, (datatype, values) in TENSORS.items():
        tensor = grpc.InferInput(name, [4, 1], datatype)
        tensor.set_data_from_numpy(values[:, np.newaxis])
        asked.append(tensor)
    with grpc.InferenceServerClient(server.grpc) as client:
        near(client.infer("ensemble", asked).as_numpy("probabilities"), expected)


class Frame:
    """A data frame without a library."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.columns = list(values)
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]


def test_our_client_takes_columns_rows_and_frames(
    server: ServerHandle, expected: NDArray[np.float32], matrix: NDArray[np.float32]
) -> None:
    dates = np.array(["2024-02-29T13:30", "1999-12-31", "NaT", "1969-07-20"], "M8[s]")
    typed = {
        "age": TENSORS["age"][1].astype(np.float64),
        "plan": np.array(["gold", "12", "new", None], object),
        "since": dates,
        "paid": np.array([True, False, None, True], object),
    }
    times = [None if np.isnat(date) else date.astype(datetime.datetime) for date in dates]
    rows = [dict(zip(ROWS, values, strict=True)) for values in zip(*ROWS.values(), strict=True)]
    with Client(server.url) as client:
        for data in (ROWS, typed, {**ROWS, "since": times}, {**ROWS, "since": DAYS}, Frame(typed), rows, matrix):
            near(client.infer(data), expected)
        for batch in (3, 0):
            near(client.infer(ROWS, batch=batch), expected)
        near(client.infer({"target": [1] * 4, **ROWS}), expected)
        whole = {**ROWS, "plan": np.array([12.0, 12, 12, 12])}  # whole numbers are categories without a point
        near(client.infer(whole)[1], expected[1])
    near(infer(server.url, ROWS), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {k: v for k, v in ROWS.items() if k != "plan"},
            "the data have no column 'plan'; ensemble has the inputs age, plan",
        ),
        ({**ROWS, "age": ["old"] * 4}, "row 0 of column 'age' holds 'old'; expected a number"),
        ({**ROWS, "since": ["soon"] * 4}, "row 0 of column 'since' holds 'soon'; expected a date such as"),
        ({**ROWS, "age": [1]}, "has 1 values for 'age', but 4 for 'plan'"),
        ({name: [] for name in ROWS}, "the data have no rows"),
        ({**ROWS, "age": [1e300] * 4}, "returned 400: the request row 0 holds 'inf' for 'age'"),
    ],
)
def test_our_client_refuses_other_columns_in_one_line(server: ServerHandle, data: Any, message: str) -> None:
    with Client(server.url) as client, pytest.raises(RipienoError, match=message):
        client.infer(data)


def test_rows_are_predicted_by_name(
    server: ServerHandle, bundle: Bundle, expected: NDArray[np.float32], matrix: NDArray[np.float32]
) -> None:
    rows = [dict(zip(ROWS, values, strict=True)) for values in zip(*ROWS.values(), strict=True)]
    found = httpx.post(server.url + "/predict?members=true&top=2", json=rows, trust_env=False).json()
    assert [p["row"] for p in found["predictions"]] == [0, 1, 2, 3]
    names = np.array(bundle.task.names)[expected.argmax(axis=1)]
    assert [p["label"] for p in found["predictions"]] == names.tolist()
    assert [p["probability"] for p in found["predictions"]] == pytest.approx(expected.max(axis=1).tolist(), abs=1e-6)
    assert [len(p["classes"]) for p in found["predictions"]] == [2] * 4
    assert [m["member"] for m in found["predictions"][0]["members"]] == list(MEMBERS)
    alone = httpx.post(f"{server.url}/v2/models/{MEMBERS[1]}/rows", json=rows[3], trust_env=False).json()
    own = direct_answers(bundle, matrix)[1, 3]
    assert alone["predictions"][0]["probability"] == pytest.approx(own.max(), abs=1e-6)
    refused = httpx.post(server.url + "/predict", content=b"\x89PNG", trust_env=False)
    assert (refused.status_code, list(refused.json())) == (400, ["error"])
    assert httpx.post(f"{server.url}/v2/models/ensemble/images", content=b"x", trust_env=False).status_code == 415


def test_the_page_says_how_rows_are_sent(server: ServerHandle) -> None:
    response = httpx.get(server.url + "/", trust_env=False)
    assert response.headers["content-type"].startswith("text/html")
    assert "predicts rows of a table. Send them to /predict as JSON" in response.text
    assert "icture" not in response.text


def test_openapi_lists_the_columns(server: ServerHandle) -> None:
    paths = httpx.get(server.url + "/openapi.json", trust_env=False).json()["paths"]
    request = paths["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    inputs = request["properties"]["inputs"]
    assert inputs["maxItems"] == len(COLUMNS)
    named = {}
    for tensor in inputs["items"]["anyOf"]:
        name, shape = tensor["properties"]["name"], tensor["properties"]["shape"]["prefixItems"]
        named |= dict.fromkeys(
            name.get("enum", [name.get("const")]), (tensor["properties"]["datatype"]["enum"][0], shape[1])
        )
    columns = {name: (datatype, {"const": 1}) for name, (datatype, _) in TENSORS.items()}
    assert named == {"images": ("FP32", {"const": 8}), **columns}
    for path in ("/predict", "/v2/models/{model}/rows"):
        row, rows = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
        assert list(row["properties"]) == row["required"] == list(ROWS)
        assert rows["items"] == row
        assert row["additionalProperties"] is False


def test_unseen_categories_are_counted_by_column(server: ServerHandle) -> None:
    def count() -> float:
        text = httpx.get(server.url + "/metrics", trust_env=False).text
        wanted = 'ripieno_unseen_categories_total{column="plan",model="ensemble"} '
        return sum(float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted))

    before = count()
    infer(server.url, {**ROWS, "plan": ["silver", "gold", "silver", None]})
    assert count() == before + 2


def test_a_grpc_call_may_have_hundreds_of_columns(tmp_path: Path) -> None:
    columns = tuple(Column(f"c{i}") for i in range(200))
    bundle = write_table_bundle(tmp_path, columns)
    row = np.random.default_rng(0).standard_normal((1, 200), np.float32)
    asked = [grpc.InferInput(column.name, [1, 1], "FP32") for column in columns]
    for number, tensor in enumerate(asked):
        tensor.set_data_from_numpy(row[:, number : number + 1])
    with start_in_thread(bundle, grpc_port=0) as running, grpc.InferenceServerClient(running.grpc) as client:
        near(client.infer("ensemble", asked).as_numpy("probabilities"), direct_answers(bundle, row).mean(axis=0))
