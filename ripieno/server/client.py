"""Small client for any server of the Open Inference Protocol: arrays or columns in, predictions out."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripieno.data.column_values import ColumnValues
from ripieno.data.data_frame import data_frame_columns, is_data_frame
from ripieno.data.series import fit_series
from ripieno.data_kinds import is_series
from ripieno.durations import check_duration
from ripieno.errors import RipienoError, require, system_error
from ripieno.server.auth import validate_token
from ripieno.server.column_tensors import to_tensors
from ripieno.server.oip_encode import WIRE_TYPES, strings_to_bytes
from ripieno.server.signature import DATATYPES, ENSEMBLE, INPUT
from ripieno.tasks.uncertainty_outputs import UNCERTAINTY_OUTPUTS
from ripieno.types import Input

BYTES = 32 << 20
"""Maximum bytes of images in one request: half of the server's default limit."""

RequestTensor = tuple[dict[str, Any], bytes]
"""An input's name, shape and datatype, and its values."""
Outputs = dict[str, NDArray[Any]]
"""Outputs of a request by name, each (samples, ...)."""
SendFunction = Callable[[Sequence[RequestTensor]], Outputs]


class Client:
    """A connection to a server at `url`, kept open between calls; a context manager."""

    def __init__(self, url: str, model: str = ENSEMBLE, timeout: float = 60.0, token: str | None = None) -> None:
        httpx = require("httpx")
        timeout = check_duration(timeout, "timeout")
        self.url = url.rstrip("/")
        self.model = model
        self._path = f"/v2/models/{quote(model, safe='')}"
        headers = {"authorization": f"Bearer {validate_token(token)}"} if token else {}
        self._http = httpx.Client(timeout=timeout, headers=headers, trust_env=False)

    def infer(
        self,
        images: NDArray[np.generic] | Sequence[Any] | Any,
        batch: int = 256,
        output: str = "",
        *,
        coverage: float | None = None,
    ) -> NDArray[Any]:
        """Return the predictions (samples, *output) of `images` (samples, *shape), sent as raw tensors.

        They are the `output` of that name, by default the model's first: `probabilities` or `values`, float32, or the
        `mask` of a segmentation, uint8. A request has at most `batch` samples, and fewer where images or predictions
        would exceed `BYTES`. Series shorter than the model's are padded with NaN; they may be a list
        of arrays of unequal lengths. Rows of a table may have named columns: a mapping of their values, a data frame,
        or a list of mappings, one a row. `coverage` is the level of the outputs `prediction_set`, bool, and `lower` and
        `upper`; by default the first that the model has.

        Raises RipienoError with the server's message when it returns an error, or when it cannot be reached.
        """
        output = output or next(iter(self._outputs))
        return self.infer_outputs(images, (output,), batch, coverage=coverage)[output]

    def infer_outputs(
        self,
        images: NDArray[np.generic] | Sequence[Any] | Any,
        outputs: Sequence[str],
        batch: int = 256,
        *,
        coverage: float | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return several `outputs` of `images` by name, each (samples, ...); arguments and errors are of `infer`."""
        batch = max(1, batch)
        if not outputs:
            raise RipienoError("outputs is empty. Name at least one.")
        for output in outputs:
            self._check_output(output)
        send = partial(self._send, outputs=tuple(outputs), coverage=coverage)
        if is_data_frame(images):
            return self._infer_columns(data_frame_columns(images, "the data"), batch, send)
        if is_series(self._input):
            images = fit_series(images, self._input)
        images = np.asarray(images)
        if images.ndim == 0 or images.size == 0:
            raise RipienoError("images is empty. Pass at least one image.")
        # a server also holds the probabilities of masks
        held = [self._outputs[name] for name in {*outputs, "probabilities"} if name in self._outputs]
        sizes = [4 * math.prod(map(abs, one["shape"])) for one in held]
        batch = min(batch, max(1, BYTES // max(1, images[0].nbytes, *sizes)))
        return _join([send(_image_tensors(images[i : i + batch])) for i in range(0, len(images), batch)])

    def _check_output(self, output: str) -> None:
        """Raise RipienoError unless `output` is one of numbers or truth values, or the server is to say why not."""
        known = self._outputs.get(output)
        if known is None and output in UNCERTAINTY_OUTPUTS:
            return
        if known is None or known["datatype"] not in WIRE_TYPES:
            numbers = [name for name, one in self._outputs.items() if one["datatype"] in WIRE_TYPES]
            raise RipienoError(
                f"output {output!r} of {self.model} holds no numbers; choose one of {', '.join(numbers)}"
            )

    def masks(self, pictures: Sequence[str | Path | bytes], *, resize: bool = False) -> list[NDArray[np.uint8]]:
        """Return the mask (height, width) of each of `pictures`, paths or contents of files, at its own size.

        The server cuts large pictures into tiles, or shrinks them with `resize`. It must be a ripieno server.
        Raises RipienoError as `infer`, and for a file that cannot be read.
        """
        found = []
        for picture in pictures:
            try:
                content = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
            except OSError as error:
                raise RipienoError(system_error(error, "read")) from error
            query = {"resize": "true"} if resize else {}
            response = self._checked("POST", f"{self._path}/images", content=content, params=query)
            (document,) = response.json()["predictions"]
            if "mask" not in document:
                raise RipienoError(f"{self.model} at {self.url} predicts no masks. Call infer.")
            with Image.open(io.BytesIO(base64.b64decode(document["mask"]))) as image:
                found.append(np.asarray(image, np.uint8))
        return found

    def metadata(self) -> dict[str, Any]:
        """Return the model's metadata: name, inputs, outputs."""
        return self._checked("GET", self._path).json()  # type: ignore[no-any-return]

    def overview(self) -> dict[str, Any]:
        """Return the counts of a ripieno server; see `routes.overview`."""
        return self._checked("GET", "/overview").json()  # type: ignore[no-any-return]

    @cached_property
    def _kept_metadata(self) -> dict[str, Any]:
        return self.metadata()

    @property
    def _outputs(self) -> dict[str, dict[str, Any]]:
        return {str(output["name"]): output for output in self._kept_metadata["outputs"]}

    @cached_property
    def _input(self) -> Input:
        """Shape and type of one sample of the model."""
        tensor = self._kept_metadata["inputs"][0]
        names = {datatype: name for name, datatype in DATATYPES.items()}
        return Input(tuple(tensor["shape"][1:]), names.get(tensor["datatype"], ""))

    def _infer_columns(self, columns: Mapping[str, ColumnValues], batch: int, send: SendFunction) -> Outputs:
        declared = {str(t["name"]): str(t["datatype"]) for t in self._kept_metadata["inputs"]}
        tensors = to_tensors(columns, declared, self.model)
        rows = len(next(iter(tensors.values())))
        parts = []
        for start in range(0, rows, batch):
            part = {name: values[start : start + batch] for name, values in tensors.items()}
            parts.append(send([_request_tensor(name, values, declared[name]) for name, values in part.items()]))
        return _join(parts)

    def _send(self, inputs: Sequence[RequestTensor], outputs: Sequence[str], coverage: float | None) -> Outputs:
        """Return the `outputs` by name for a request with `inputs`."""
        import orjson

        tensors = [{**tensor, "parameters": {"binary_data_size": len(raw)}} for tensor, raw in inputs]
        body = b"".join(raw for _, raw in inputs)
        requested = [{"name": output, "parameters": {"binary_data": True}} for output in outputs]
        request: dict[str, Any] = {"inputs": tensors, "outputs": requested}
        if coverage is not None:
            request["parameters"] = {"coverage": coverage}
        head = orjson.dumps(request)
        headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
        response = self._checked("POST", f"{self._path}/infer", content=head + body, headers=headers)
        at = int(response.headers["inference-header-content-length"])
        found: Outputs = {}
        for tensor in orjson.loads(response.content[:at])["outputs"]:
            dtype, size = np.dtype(WIRE_TYPES[tensor["datatype"]]), math.prod(tensor["shape"])
            found[tensor["name"]] = np.frombuffer(response.content, dtype, size, at).reshape(tensor["shape"])
            at += size * dtype.itemsize
        return found

    def _checked(self, method: str, path: str, **request: Any) -> Any:
        import httpx

        try:
            response = self._http.request(method, self.url + path, **request)
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:  # RuntimeError: the client is closed
            raise RipienoError(f"No response from {self.url} ({error}). Check that a server runs there.") from error
        if response.status_code != 200:
            raise RipienoError(f"{self.url} returned {response.status_code}: {_error_of(response)}")
        return response

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def infer(url: str, images: NDArray[np.generic] | Sequence[Any] | Any, batch: int = 256) -> NDArray[Any]:
    """Return the predictions (samples, *output) of `images` by the ensemble at `url`; see `Client.infer`."""
    with Client(url) as client:
        return client.infer(images, batch)


def _image_tensors(images: NDArray[np.generic]) -> list[RequestTensor]:
    """Return images as the input of a request."""
    kind = str(images.dtype.newbyteorder("="))
    if kind not in DATATYPES:
        raise RipienoError(f"images have dtype {images.dtype}, must be uint8 or float32")
    raw = np.ascontiguousarray(images, images.dtype.newbyteorder("<")).tobytes()
    return [({"name": INPUT, "shape": images.shape, "datatype": DATATYPES[kind]}, raw)]


def _join(parts: Sequence[Outputs]) -> Outputs:
    """Return the outputs of all samples."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _request_tensor(name: str, values: NDArray[Any] | list[str], datatype: str) -> RequestTensor:
    """Return a column (rows, 1) as an input of a request."""
    raw = strings_to_bytes(values) if isinstance(values, list) else values.tobytes()
    return {"name": name, "shape": [len(values), 1], "datatype": datatype}, raw


def _error_of(response: Any) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
