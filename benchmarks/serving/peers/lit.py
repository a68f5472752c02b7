"""LitServe: worker processes fed by queues."""
# ruff: noqa: D102 - the methods are those the framework asks for

from typing import Annotated

import litserve
import numpy as np
from ensemble import Ensemble, arguments, to_images
from fastapi import Body, Response

TITLE = "LitServe"
PROTOCOL = "raw"
SETTINGS = "a worker process a core, sessions of one thread; batches up to 64, timeout 1 ms (0 makes workers spin)"
REQUIREMENTS = ("litserve==0.2.19", "onnxruntime==1.31.1")


class Api(litserve.LitAPI):
    """Raw samples in, raw numbers out."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.ensemble = Ensemble(arguments()[0])

    def decode_request(self, request: Annotated[bytes, Body()]) -> np.ndarray:
        return to_images(request)

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return inputs

    def predict(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        answers = self.ensemble(np.concatenate(inputs))
        return np.split(answers, np.cumsum([len(images) for images in inputs])[:-1])

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        return output

    def encode_response(self, output: np.ndarray) -> Response:
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    _, port, cores = arguments()
    server = litserve.LitServer(
        Api(max_batch_size=64, batch_timeout=0.001), accelerator="cpu", workers_per_device=cores, fast_queue=True
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)
