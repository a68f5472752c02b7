"""BentoML: a service that takes raw bytes and answers itself, or calls another service that batches."""
# ruff: noqa: D102 - the framework defines the methods

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from ensemble import Ensemble, arguments, to_images
from starlette.responses import Response

TITLE = "BentoML"
PROTOCOL = "raw"
SETTINGS = {
    "batches": "a front for raw bytes with a worker process per core; adaptive batches up to 64; networks at once",
    "in turn": "a worker process per core takes raw bytes, no batches; networks one after the other",
    "at once": "the same; networks at once, in a thread per core",
    "threads": "one worker process, no batches; networks one after the other, each with a thread per core",
}
REQUIREMENTS = ("bentoml==1.4.39", "onnxruntime==1.31.1")

CORES = int(os.environ.get("CORES", "1"))
SETTING = os.environ.get("SETTING", "batches")
WHOLE = SETTING == "threads"
SERVICE = {"traffic": {"timeout": 60, "max_concurrency": 1024}, "metrics": {"enabled": False}}


def ensemble() -> Ensemble:
    """Return the ensemble of a worker."""
    helpers = CORES - 1 if SETTING in ("batches", "at once") else 0
    return Ensemble(Path(os.environ["FOLDER"]), CORES if WHOLE else 1, helpers)


@bentoml.service(workers=1 if WHOLE else CORES, **SERVICE)
class Direct:
    """The ensemble without batches: BentoML's batches need arrays, which only its own client sends as bytes."""

    def __init__(self) -> None:
        self.ensemble = ensemble()

    @bentoml.api
    def predict(self, body: bytes, /) -> bytes:
        return Response(self.ensemble(to_images(body)).tobytes(), media_type="application/octet-stream")


@bentoml.service(workers=CORES, **SERVICE)
class Networks:
    """The ensemble, in batches."""

    def __init__(self) -> None:
        self.ensemble = ensemble()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64, max_latency_ms=10_000)
    def predict(self, images: np.ndarray) -> np.ndarray:
        return self.ensemble(images)


@bentoml.service(workers=1, **SERVICE)
class Front:
    """The service for clients, in front of the batches."""

    networks = bentoml.depends(Networks)

    def __init__(self) -> None:
        # BentoML recreates its own client every 100 requests, and requests in flight then fail
        inner = self.networks.to_async._session_manager
        inner.max_requests, inner.max_age = 1 << 60, 1e9

    @bentoml.api
    async def predict(self, body: bytes, /) -> bytes:
        answers = await self.networks.to_async.predict(to_images(body))
        return Response(answers.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    folder, port, cores, setting = arguments()
    environment = {**os.environ, "FOLDER": str(folder), "CORES": str(cores), "SETTING": setting}
    environment["BENTOML_DO_NOT_TRACK"] = "True"
    service = "bento:Front" if setting == "batches" else "bento:Direct"
    command = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    os.chdir(Path(__file__).parent)
    os.execve(sys.executable, [*command, "-q"], environment)
