"""Cached features: made once, by the rows of the data set, whole or absent, also when their maker is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ripieno.errors import RipienoError
from ripieno.train import features as module
from ripieno.train.features import cached_features
from ripieno.types import Dataset, Float32s, classification

WIDTH = 3


def make_dataset(samples: int = 150) -> Dataset:
    random = np.random.default_rng(0)
    inputs = random.integers(0, 256, (samples, 4, 4, 3), dtype=np.uint8)
    targets = random.integers(0, 2, samples)
    split = random.choice(3, samples, p=[0.6, 0.2, 0.2]).astype(np.uint8)
    return Dataset("made", inputs, targets, split, classification(("a", "b")), (0.0,) * 3, (1.0,) * 3)


def mean_of_channels(inputs: np.ndarray) -> Float32s:
    return inputs.mean((1, 2)).astype(np.float32)


def test_they_stand_at_the_rows_of_the_data_set(tmp_path: Path) -> None:
    dataset = make_dataset()
    found = cached_features(tmp_path / "f.npy", dataset, WIDTH, mean_of_channels)
    used = dataset.split != 2
    assert np.array_equal(found[used], mean_of_channels(dataset.inputs)[used])
    assert np.isnan(found[~used]).all()
    assert found.shape == (150, WIDTH)


def test_they_are_made_once(tmp_path: Path) -> None:
    calls = []

    def compute(inputs: np.ndarray) -> Float32s:
        calls.append(len(inputs))
        return mean_of_channels(inputs)

    dataset = make_dataset()
    first = cached_features(tmp_path / "f.npy", dataset, WIDTH, compute)
    made = len(calls)
    second = cached_features(tmp_path / "f.npy", dataset, WIDTH, compute)
    assert len(calls) == made > 1
    assert np.array_equal(first, second, equal_nan=True)


def test_other_processes_wait_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT", 0.01)
    calls, dataset = [], make_dataset()

    def compute(inputs: np.ndarray) -> Float32s:
        calls.append(len(inputs))
        time.sleep(0.05)
        return mean_of_channels(inputs)

    found: list[Float32s] = []
    threads = [
        threading.Thread(target=lambda: found.append(cached_features(tmp_path / "f.npy", dataset, WIDTH, compute)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert sum(calls) == (dataset.split != 2).sum()


def _make_slowly(path: Path, begun: object) -> None:
    def compute(inputs: np.ndarray) -> Float32s:
        begun.set()  # type: ignore[attr-defined]
        time.sleep(60)
        return mean_of_channels(inputs)

    cached_features(path, make_dataset(), WIDTH, compute)


def test_another_takes_over_from_a_maker_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT", 0.01)
    path = tmp_path / "f.npy"
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    maker = context.Process(target=_make_slowly, args=(path, begun))
    maker.start()
    assert begun.wait(20)
    assert maker.pid is not None
    os.kill(maker.pid, signal.SIGKILL)
    maker.join()
    assert not path.exists()
    dataset = make_dataset()
    found = cached_features(path, dataset, WIDTH, mean_of_channels)
    assert np.isfinite(found[dataset.split != 2]).all()


@pytest.mark.parametrize("content", [b"", b"broken", None])
def test_a_broken_file_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    path, dataset = tmp_path / "f.npy", make_dataset()
    if content is None:  # of other data
        np.save(path, np.zeros((3, WIDTH), np.float32))
    else:
        path.write_bytes(content)
    assert len(cached_features(path, dataset, WIDTH, mean_of_channels)) == len(dataset.inputs)


def test_no_room_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file where the folder should be")
    with pytest.raises(RipienoError, match="features"):
        cached_features(tmp_path / "features" / "f.npy", make_dataset(), WIDTH, mean_of_channels)
