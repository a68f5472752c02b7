"""`predict` with a bundle of masks: a folder of PNG files, its options, and an interrupt between pictures."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ripieno.pipeline import predict_masks
from ripieno.types import Bundle
from tests.command_line import ripieno
from tests.server.stand_in import CLASSES, write_mask_bundle, write_small_bundle

SHAPE = (16, 16, 3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_mask_bundle(tmp_path_factory.mktemp("masks"), SHAPE)


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (40, 30)) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


@pytest.mark.parametrize("options", [(), ("--resize",), ("--overlap", "0.5")])
def test_a_folder_of_masks_is_written_and_listed(bundle: Bundle, tmp_path: Path, options: tuple[str, ...]) -> None:
    photos = write_pictures(tmp_path / "photos", 3)
    output = tmp_path / "masks"
    done = ripieno("predict", bundle.path, photos, "--output", output, "--top", "2", "--json", *options)
    assert done.returncode == 0, done.stderr
    overlap = 0.5 if "--overlap" in options else 0.25
    expected = list(predict_masks(bundle, photos, resize="--resize" in options, overlap=overlap))
    for mask in expected:
        with Image.open(output / mask.names[0]) as image:
            assert (image.mode, image.size) == ("P", (40, 30))
            np.testing.assert_array_equal(np.asarray(image), mask.mask)
    document = json.loads(done.stdout)
    assert document["samples"] == 3
    assert len(document["predictions"]) == 2
    first = document["predictions"][0]
    shares = expected[0].predictions[0]
    assert first["image"] == "000.png"
    assert first["class"] == CLASSES[int(shares.argmax())]
    assert first["share"] == pytest.approx(float(shares.max()), abs=1e-6)
    assert first["confidence"] == pytest.approx(expected[0].confidence, abs=1e-6)


def test_options_of_masks_and_folders_are_refused_for_other_tasks(tmp_path: Path) -> None:
    other = write_small_bundle(tmp_path / "bundle")
    photos = write_pictures(tmp_path / "photos", 1)
    for options, says in (
        (("--resize",), "--resize is for segmentations, but"),
        (("--overlap", "0.1"), "--overlap is for segmentations, but"),
        (("--output", tmp_path / "masks"), "must end in .csv, .parquet, .npy"),
    ):
        done = ripieno("predict", other.path, photos, *options)
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_picture_that_cannot_be_read_is_skipped_by_name(bundle: Bundle, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", 2)
    (photos / "001.png").write_bytes(b"no picture")
    done = ripieno("predict", bundle.path, photos, "--output", tmp_path / "masks", "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "001.png" in done.stderr
    assert [p.name for p in (tmp_path / "masks").iterdir()] == ["000.png"]


def test_an_interrupt_leaves_whole_masks_only(bundle: Bundle, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", 300, (100, 75))
    masks = tmp_path / "masks"
    command = [sys.executable, "-m", "ripieno", "predict", str(bundle.path), str(photos), "--output", str(masks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not list(masks.glob("*.png")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    written = [path.name for path in masks.iterdir()]
    assert process.returncode == 130, errors
    assert 0 < len(written) < 300
    assert all(name.endswith(".png") and not name.startswith(".") for name in written)
    for name in written:
        with Image.open(masks / name) as image:
            image.load()
            assert image.size == (100, 75)
