"""Libraries of predictions to measure on: the 23 real CIFAR-100 networks, and larger ones derived from them."""

from __future__ import annotations

import io
import lzma
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data" / "predictions" / "cifar100_test.npz.xz"


class Predictions(NamedTuple):
    """Probabilities (members, samples, classes), labels (samples,), costs in millions of multiply-adds, names."""

    cube: NDArray[np.float32]
    labels: NDArray[np.int64]
    costs: NDArray[np.float64]
    names: list[str]


def cifar100() -> Predictions:
    """Return 23 networks on the 10,000 test images. Exit with a message if the file is absent."""
    if not SHARED.exists():
        sys.exit(f"File {SHARED.name} is missing. Place it in ../shared/data/predictions.")
    packed = np.load(io.BytesIO(lzma.decompress(SHARED.read_bytes())))
    cube = np.exp(-24 * (packed["q"].astype(np.float32) / 255) ** 2)
    cube /= cube.sum(axis=-1, keepdims=True)
    names = [str(name) for name in packed["name"]]
    return Predictions(cube, packed["label"].astype(np.int64), packed["madds_m"].astype(np.float64), names)


def grown(members: int, samples: int = 2000, seed: int = 0) -> Predictions:
    """Return `members` networks on `samples` images: real ones with random temperature and noisy logits."""
    real = cifar100()
    rng = np.random.default_rng(seed)
    cube = np.empty((members, samples, real.cube.shape[2]), dtype=np.float32)
    origins = rng.integers(0, len(real.cube), members)
    for member, origin in enumerate(origins):
        logits = np.log(real.cube[origin, :samples] + 1e-8) * rng.uniform(0.5, 1.0)
        logits += rng.normal(0, rng.uniform(0.3, 1.2), logits.shape).astype(np.float32)
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=cube[member])
        cube[member] /= cube[member].sum(axis=1, keepdims=True)
    costs = real.costs[origins] * rng.uniform(0.7, 1.4, members)
    return Predictions(cube, real.labels[:samples], costs, [f"m{i}" for i in range(members)])


def one_thread() -> None:
    """Restart this program with one thread for linear algebra, because NumPy reads the limit when loaded."""
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


def versions() -> dict[str, Any]:
    """Return the versions of NumPy and its BLAS."""
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return {"numpy": np.__version__, "blas": f"{blas.get('name', '?')} {blas.get('version', '')}"}
