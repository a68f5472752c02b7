"""Members without networks: exact to predict, slow or broken on demand. Worker processes import `load` by name."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ripieno.types import Allocation, Bundle, Device, Ensemble, Input, Member, Placement, classification

SHAPE = (2, 2, 1)
CLASSES = 3
BACKBONE = "fake-0123abcd-2"
SHORT, KILL, RAISE, HANG, SPOIL = 250, 251, 252, 253, 254
"""first pixels at which a member with that habit fails"""


class FakeBackend:
    """Softmax of a random linear map of the pixels; `configuration` holds its habits."""

    def __init__(self, path: Path, member: Member) -> None:
        self.habits = dict(member.configuration)
        generator = np.random.default_rng(int(self.habits.get("seed", 0)))
        self.weights = generator.standard_normal((int(np.prod(member.input.shape)), len(member.classes))) / 255
        if marker := self.habits.get("load_fails"):
            raise RuntimeError(str(marker))
        if os.path.exists(str(self.habits.get("absent_while", ""))):
            raise RuntimeError("its file is gone")

    def infer(self, images):
        time.sleep(float(self.habits.get("delay", 0.0)) * len(images))
        first = images.reshape(len(images), -1)[:, 0]
        once = self.habits.get("once")
        for pixel, act in ((KILL, _die), (RAISE, _raise), (HANG, _hang)):
            if self.habits.get("bad") == pixel and (first == pixel).any():
                if once and os.path.exists(str(once)):
                    continue
                if once:
                    Path(str(once)).touch()
                act(float(self.habits.get("hang", 1000)))
        logits = images.reshape(len(images), -1).astype(np.float64) @ self.weights
        powers = np.exp(logits - logits.max(1, keepdims=True))
        answers = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
        if self.habits.get("bad") == SPOIL:
            answers[first == SPOIL, int(self.habits.get("spoilt", 0))] = float(self.habits.get("by", "nan"))
        return answers[:, 1:] if self.habits.get("bad") == SHORT and (first == SHORT).any() else answers

    def close(self) -> None:
        pass


def _die(seconds: float) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(seconds: float) -> None:
    raise ValueError("a bad pixel")


def _hang(seconds: float) -> None:
    time.sleep(seconds)


class FakeBackbone:
    """A backbone whose features are the pixels, so that a head predicts as the whole member; it counts its calls."""

    calls = 0

    def infer(self, images):
        FakeBackbone.calls += 1
        return images.reshape(len(images), -1).astype(np.float32)

    def close(self) -> None:
        pass


def load(
    backend: str, path: Path, member: Member, device: Device, threads: int, part: str = "whole"
) -> FakeBackend | FakeBackbone:
    return FakeBackbone() if part == "backbone" else FakeBackend(path, member)


def member(index: int, **habits: bool | int | float | str) -> Member:
    task = classification([f"c{i}" for i in range(CLASSES)])
    return Member(f"{index:05d}-e001", index, 1, "onnx", {"seed": index, **habits}, Input(SHAPE), task, {}, 0, 0.0)


def sharing(members: int, **habits: bool | int | float | str) -> list[Member]:
    """Members that share one backbone; the last has the `habits`."""
    plain = [member(i) for i in range(members - 1)]
    return [dataclasses.replace(m, backbone=BACKBONE) for m in (*plain, member(members - 1, **habits))]


def bundle(
    members: int | Sequence[Member] = 3,
    lanes: int = 2,
    batch_size: int = 8,
    combiner: str = "mean",
    weights: Sequence[float] | None = None,
    cores: tuple[int, ...] = (),
    spread_out: bool = False,
) -> Bundle:
    """Bundle with every member in every worker, or with `spread_out` member i only in worker i modulo `lanes`."""
    chosen = [member(i) for i in range(members)] if isinstance(members, int) else list(members)
    ids = tuple(m.id for m in chosen)
    shares = tuple(weights or [1 / len(ids)] * len(ids))
    ensemble = Ensemble("test", ids, shares, "hand", {}, {}, {}, combiner)
    places = tuple(
        Placement(m, "cpu:0", batch_size, lane)
        for lane in range(lanes)
        for i, m in enumerate(ids)
        if not spread_out or i % lanes == lane
    )
    allocation = Allocation("test", "test", (Device("cpu:0", "cpu", 1 << 30, cores),), places)
    return Bundle(ensemble, allocation, tuple(chosen), chosen[0].input, chosen[0].task, "onnx", Path("nowhere"))


def images(samples: int, seed: int = 0) -> np.ndarray:
    """Random images that make no member misbehave."""
    return np.random.default_rng(seed).integers(0, 250, (samples, *SHAPE), np.uint8)


def each(of: Bundle, inputs: np.ndarray) -> np.ndarray:
    """Probabilities (members, samples, classes) of every member, computed without an engine."""
    plain = [
        Member(m.id, m.trial, 1, m.family, {"seed": m.configuration["seed"]}, m.input, m.task, {}, 0, 0.0)
        for m in of.members
    ]
    return np.stack([FakeBackend(Path(), m).infer(inputs) for m in plain])
