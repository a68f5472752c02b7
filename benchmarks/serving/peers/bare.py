"""A bare server: FastAPI on uvicorn, ONNX Runtime in a pool of threads that batch greedily."""

from __future__ import annotations

import asyncio
import queue
import threading

import numpy as np
import uvicorn
import uvloop
from ensemble import Ensemble, arguments, to_images
from fastapi import FastAPI, Request, Response

TITLE = "FastAPI + ONNX Runtime + threads"
PROTOCOL = "raw"
SETTINGS = "uvloop, httptools, raw bytes; a thread a core, sessions of one thread, batches of what waits up to 64"
REQUIREMENTS = ("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "onnxruntime==1.31.1")

MOST = 64
Asked = tuple[np.ndarray, asyncio.Future[bytes]]
waiting: queue.SimpleQueue[Asked] = queue.SimpleQueue()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Samples in, probabilities out."""
    future = asyncio.get_running_loop().create_future()
    waiting.put((to_images(await request.body()), future))
    return Response(await future, media_type="application/octet-stream")


def work(ensemble: Ensemble, loop: asyncio.AbstractEventLoop) -> None:
    """Answer what waits, together."""
    while True:
        asked = [waiting.get()]
        rows = len(asked[0][0])
        while rows < MOST:
            try:
                asked.append(waiting.get_nowait())
            except queue.Empty:
                break
            rows += len(asked[-1][0])
        answers = ensemble(np.concatenate([images for images, _ in asked]) if len(asked) > 1 else asked[0][0])
        loop.call_soon_threadsafe(deliver, asked, answers)


def deliver(asked: list[Asked], answers: np.ndarray) -> None:
    """To each its own."""
    at = 0
    for images, future in asked:
        if not future.done():
            future.set_result(answers[at : at + len(images)].tobytes())
        at += len(images)


async def main() -> None:
    """Serve."""
    folder, port, cores = arguments()
    ensemble, loop = Ensemble(folder), asyncio.get_running_loop()
    for _ in range(cores):
        threading.Thread(target=work, args=(ensemble, loop), daemon=True).start()
    config = uvicorn.Config(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main())
