"""What every peer answers with: the ensemble's networks in ONNX Runtime, one after the other, and their mean.

Runs in the peers' own environments: NumPy and ONNX Runtime are all it needs.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import onnxruntime

SHAPE = (32, 32, 3)


def arguments() -> tuple[Path, int, int]:
    """The folder of the networks, the port, the number of cores: what a peer's script is given."""
    return Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


class Network:
    """One network with `threads` threads."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (samples, classes) float32 of uint8 images (samples, 32, 32, 3)."""
        return self._session.run(None, {"images": images})[0]


def paths(folder: Path) -> list[Path]:
    """The networks' files, in the ensemble's order."""
    return sorted(folder.glob("members/*/model.onnx"))


class Ensemble:
    """All networks; may be called from many threads."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._networks = [Network(path, threads) for path in paths(folder)]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The mean of the networks' probabilities."""
        return mean([network(images) for network in self._networks])


def mean(answers: list[np.ndarray]) -> np.ndarray:
    """The ensemble's answer."""
    return np.add.reduce(answers, 0) / np.float32(len(answers))


def to_images(body: bytes) -> np.ndarray:
    """Samples as they came over the wire."""
    return np.frombuffer(body, np.uint8).reshape(-1, *SHAPE)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
