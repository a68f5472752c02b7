"""LitServe: worker processes fed by queues."""
# ruff: noqa: D102 - the framework defines the methods

from typing import Annotated

import litserve
import numpy as np
from ensemble import Ensemble, arguments, to_images
from fastapi import Body, Response

TITLE = "LitServe"
PROTOCOL = "raw"
SETTINGS = {
    "in turn": "a worker process per core; batches up to 64 within 1 ms; networks one after the other",
    "at once": "the same; networks of a batch at once, in a thread per core",
    "unbatched": "a worker process per core, no batches; networks at once, in a thread per core",
    "threads": "one worker process, no batches; networks one after the other, each with a thread per core",
}
REQUIREMENTS = ("litserve==0.2.19", "onnxruntime==1.31.1")


class Api(litserve.LitAPI):
    """Raw samples in, raw numbers out."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        folder, _, cores, setting = arguments()
        at_once = setting in ("at once", "unbatched")
        self.ensemble = Ensemble(folder, cores if setting == "threads" else 1, cores - 1 if at_once else 0)

    def decode_request(self, request: Annotated[bytes, Body()]) -> np.ndarray:
        return to_images(request)

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return inputs

    def predict(self, inputs: np.ndarray | list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        if isinstance(inputs, np.ndarray):
            return self.ensemble(inputs)
        answers = self.ensemble(np.concatenate(inputs))
        return np.split(answers, np.cumsum([len(images) for images in inputs])[:-1])

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        return output

    def encode_response(self, output: np.ndarray) -> Response:
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    _, port, cores, setting = arguments()
    # a batch waits for the whole timeout, so that single requests are faster without batches; a timeout
    # of 0 makes idle workers spin. `fast_queue` is its setting for more than 100 requests per second
    batches = {"max_batch_size": 64, "batch_timeout": 0.001} if setting in ("in turn", "at once") else {}
    workers = 1 if setting == "threads" else cores
    server = litserve.LitServer(Api(**batches), accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)
