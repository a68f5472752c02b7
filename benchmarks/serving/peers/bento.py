"""BentoML: a service that takes raw bytes and asks another one that batches."""
# ruff: noqa: D102 - the methods are those the framework asks for

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from ensemble import Ensemble, arguments, to_images
from starlette.responses import Response

TITLE = "BentoML"
PROTOCOL = "raw"
SETTINGS = (
    "a front of raw bytes; a worker process a core, sessions of one thread; adaptive batches up to 64; its inner "
    "client not renewed every 100 requests, which fails those under way"
)
REQUIREMENTS = ("bentoml==1.4.39", "onnxruntime==1.31.1")

CORES = int(os.environ.get("CORES", "1"))
PATIENT = {"timeout": 60, "max_concurrency": 1024}


@bentoml.service(workers=CORES, traffic=PATIENT, metrics={"enabled": False})
class Networks:
    """The ensemble."""

    def __init__(self) -> None:
        self.ensemble = Ensemble(Path(os.environ["FOLDER"]))

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64, max_latency_ms=10_000)
    def predict(self, images: np.ndarray) -> np.ndarray:
        return self.ensemble(images)


@bentoml.service(workers=1, traffic=PATIENT, metrics={"enabled": False})
class Front:
    """What clients see."""

    networks = bentoml.depends(Networks)

    def __init__(self) -> None:
        # BentoML's own client is closed and made anew every 100 requests, and requests under way then fail
        inner = self.networks.to_async._session_manager
        inner.max_requests, inner.max_age = 1 << 60, 1e9

    @bentoml.api
    async def predict(self, body: bytes, /) -> bytes:
        answers = await self.networks.to_async.predict(to_images(body))
        return Response(answers.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    folder, port, cores = arguments()
    environment = {**os.environ, "FOLDER": str(folder), "CORES": str(cores), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "serve", "bento:Front", "--host", "127.0.0.1", "--port", str(port)]
    os.chdir(Path(__file__).parent)
    os.execve(sys.executable, [*command, "-q"], environment)
