"""The ensemble of every peer: its networks in ONNX Runtime, and the mean of their answers.

Runs in the peers' own environments and needs only NumPy and ONNX Runtime. ONNX Runtime releases the interpreter's
lock while it computes and a session supports many threads, so that threads of one process suffice.
"""

from __future__ import annotations

import socket
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

SHAPE = (32, 32, 3)


def arguments() -> tuple[Path, int, int, str]:
    """Return a peer script's arguments: the networks' folder, the port, the number of cores, the setting."""
    return Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


class Network:
    """One network with `threads` threads, which sleep while they wait."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # spinning, ONNX Runtime's default, made two threads several times slower when a client shared the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return probabilities (samples, classes) float32 of uint8 images (samples, 32, 32, 3)."""
        return self._session.run(None, {"images": images})[0]


def paths(folder: Path | str) -> list[Path]:
    """Return the networks' files, in the ensemble's order."""
    return sorted(Path(folder).glob("members/*/model.onnx"))


class Ensemble:
    """All networks; may be called from many threads.

    With `helpers` threads the networks of one batch run concurrently, the costliest first: the caller and every
    idle helper take the next network until none is left. A session has `threads` threads.
    """

    def __init__(self, folder: Path | str, threads: int = 1, helpers: int = 0) -> None:
        self._networks = sorted((Network(path, threads) for path in paths(folder)), key=seconds, reverse=True)
        self._helpers = helpers
        self._pool = ThreadPoolExecutor(helpers) if helpers else None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the mean of the networks' probabilities."""
        if self._pool is None:
            return mean([network(images) for network in self._networks])
        left, answers = deque(self._networks), []

        def take() -> None:
            while True:
                try:
                    network = left.popleft()
                except IndexError:
                    return
                answers.append(network(images))

        helping = [self._pool.submit(take) for _ in range(self._helpers)]
        take()
        for helper in helping:
            # cancel a helper that is still busy with another batch: nothing is left to do here
            if not helper.cancel():
                helper.result()
        return mean(answers)


def seconds(network: Network) -> float:
    """Return the time of a network on a small batch, the shorter of two."""
    images, times = np.zeros((8, *SHAPE), np.uint8), []
    for _ in range(2):
        began = time.perf_counter()
        network(images)
        times.append(time.perf_counter() - began)
    return min(times)


def mean(answers: list[np.ndarray]) -> np.ndarray:
    """Return the ensemble's answer."""
    return np.add.reduce(answers, 0) / np.float32(len(answers))


def to_images(body: bytes) -> np.ndarray:
    """Return the samples of a request's bytes."""
    return np.frombuffer(body, np.uint8).reshape(-1, *SHAPE)


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
