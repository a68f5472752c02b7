"""A bare server: FastAPI on uvicorn, ONNX Runtime in a thread pool with greedy batching."""

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
SETTINGS = {
    "in turn": "a thread per core, each with a batch of waiting samples, up to 64; networks one after the other",
    "at once": "the same, and an idle thread shares the networks of a batch",
    "at once, 16": "the same in batches up to 16",
    "threads": "one batch at a time, up to 64; networks one after the other, each with a thread per core",
}
REQUIREMENTS = ("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "onnxruntime==1.31.1")

Asked = tuple[np.ndarray, asyncio.Future[bytes]]
waiting: queue.SimpleQueue[Asked] = queue.SimpleQueue()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Answer samples with probabilities."""
    future = asyncio.get_running_loop().create_future()
    waiting.put((to_images(await request.body()), future))
    return Response(await future, media_type="application/octet-stream")


def work(ensemble: Ensemble, loop: asyncio.AbstractEventLoop, most: int) -> None:
    """Answer waiting requests in batches."""
    while True:
        asked = [waiting.get()]
        rows = len(asked[0][0])
        while rows < most:
            try:
                asked.append(waiting.get_nowait())
            except queue.Empty:
                break
            rows += len(asked[-1][0])
        answers = ensemble(np.concatenate([images for images, _ in asked]) if len(asked) > 1 else asked[0][0])
        loop.call_soon_threadsafe(deliver, asked, answers)


def deliver(asked: list[Asked], answers: np.ndarray) -> None:
    """Deliver each request's part of the answers."""
    at = 0
    for images, future in asked:
        if not future.done():
            future.set_result(answers[at : at + len(images)].tobytes())
        at += len(images)


async def main() -> None:
    """Serve."""
    folder, port, cores, setting = arguments()
    whole = setting == "threads"
    ensemble = Ensemble(folder, cores if whole else 1, cores - 1 if setting.startswith("at once") else 0)
    loop, most = asyncio.get_running_loop(), 16 if setting.endswith("16") else 64
    for _ in range(1 if whole else cores):
        threading.Thread(target=work, args=(ensemble, loop, most), daemon=True).start()
    # the faster of uvicorn's loops and parsers are uvloop and httptools; without access logs it is faster too
    config = uvicorn.Config(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main())
