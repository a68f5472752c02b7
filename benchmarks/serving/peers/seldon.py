"""MLServer over gRPC: a custom runtime in MLServer's process, behind its adaptive batching."""
# ruff: noqa: D102 - the framework defines the methods

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from ensemble import Ensemble, arguments, free_port, to_images
from mlserver import MLModel
from mlserver.cli import main
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

TITLE = "MLServer, gRPC"
PROTOCOL = "grpc-bytes"
SETTINGS = {
    "in turn": "a thread per core; batches up to 32 within 1 ms; networks one after the other",
    "at once": "the same; an idle thread shares the networks of a batch",
    "unbatched": "a thread per core, no batches; an idle thread shares the networks of a request",
    "threads": "one thread, no batches; networks one after the other, each with a thread per core",
}
REQUIREMENTS = ("mlserver==1.7.1", "uvloop<0.22", "onnxruntime==1.31.1")


class Runtime(MLModel):
    """Images and answers as elements of bytes: lists of numbers cost MLServer far more."""

    async def load(self) -> bool:
        extra = self.settings.parameters.extra
        self.ensemble = Ensemble(Path(extra["folder"]), extra["threads"], extra["helpers"])
        self.pool = ThreadPoolExecutor(extra["callers"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = list(payload.inputs[0].data)
        answers = await asyncio.get_running_loop().run_in_executor(self.pool, self.answer, images)
        output = ResponseOutput(name="probabilities", datatype="BYTES", shape=[len(images), 1], data=answers)
        return InferenceResponse(model_name=self.name, outputs=[output])

    def answer(self, images: list[bytes]) -> list[bytes]:
        """Return the numbers of each image."""
        return [row.tobytes() for row in np.ascontiguousarray(self.ensemble(to_images(b"".join(images))))]


def serve() -> None:
    """Write the settings, then start as `mlserver start` does."""
    folder, port, cores, setting = arguments()
    at_once, whole = setting in ("at once", "unbatched"), setting == "threads"
    extra = {"folder": str(folder), "threads": cores if whole else 1, "helpers": cores - 1 if at_once else 0}
    extra["callers"] = 1 if whole else cores
    with tempfile.TemporaryDirectory() as place:
        settings = {
            "debug": False,
            "host": "127.0.0.1",
            "grpc_port": port,
            "http_port": free_port(),
            "metrics_port": free_port(),
            "metrics_dir": place,
            # worker processes help code that holds the interpreter's lock; ONNX Runtime does not
            "parallel_workers": 0,
        }
        model = {
            "name": "ensemble",
            "implementation": "seldon.Runtime",
            "parameters": {"extra": extra},
        }
        if setting in ("in turn", "at once"):
            # a batch waits for the whole time unless it is full: single requests are faster without
            model |= {"max_batch_size": 32, "max_batch_time": 0.001}
        (Path(place) / "settings.json").write_text(json.dumps(settings))
        (Path(place) / "model-settings.json").write_text(json.dumps(model))
        sys.argv = ["mlserver", "start", place]
        main()


if __name__ == "__main__":
    serve()
