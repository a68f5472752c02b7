"""The command that searches CIFAR-100 on a GPU, run on a CPU with a few images in the files' own format."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ripieno import Library
from ripieno.data import open_dataset

ROOT = Path(__file__).parents[2]
TINY = ["--minutes", "0.1", "--seeds", "1", "--slots", "1", "--algorithms", "hyperband"]
TINY += ["--space", "resnet-tiny", "--epochs", "1", "--device", "cpu"]


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    """Five sheets for training and one for testing, each of 100 images of four classes."""
    folder = tmp_path / "data" / "cifar100"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (*(f"train_{k}" for k in range(5)), "test_0"):
        picture = Image.fromarray(rng.integers(0, 256, (32, 3200, 3), dtype=np.uint8))
        picture.save(folder / f"{name}.webp", lossless=True)
    train, test = np.arange(500) % 4, np.arange(100) % 4
    np.savez(folder / "labels.npz", train_fine=train, test_fine=test, val_index=np.arange(0, 500, 25))
    (folder / "classes.json").write_text(json.dumps({"fine": list("abcd")}))
    return folder.parent


def test_the_command_that_searches_cifar100_fills_a_library_and_is_then_done(sheets: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/paper/searches.py"), "cifar100", "--data", str(sheets), *TINY]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("runs/paper/cifar100-60000-resnet-tiny-e1-0.1m-1xcpu/hyperband-0")
    assert (run / "done").exists()
    member = Library(run).members()[0]
    assert (member.classes, member.input.shape) == (tuple("abcd"), (32, 32, 3))
    found = open_dataset(Library(run).dataset_path)
    assert [len(found.rows(split)) for split in ("train", "valid", "test")] == [480, 20, 100]
