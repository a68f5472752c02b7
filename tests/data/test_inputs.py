from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ripieno.data import load_dataset
from ripieno.data.inputs import read_inputs
from ripieno.errors import DataError
from ripieno.types import Input


def test_pictures_to_predict_are_sized_as_those_trained_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for n in range(4):
            pixels = rng.integers(0, 256, (20 + 3 * n, 11, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{n}.png")
    trained = load_dataset(tmp_path / "images", size=16, split=(0.5, 0.25, 0.25))
    names, images = read_inputs(tmp_path / "images", Input((16, 16, 3)))
    assert names[0] == "a/0.png"
    assert {i.tobytes() for i in images} == {i.tobytes() for i in np.asarray(trained.images)}


def test_a_folder_is_searched_as_for_training(tmp_path: Path) -> None:
    for name in ("1.PNG", "deep/2.png", ".cache/3.png", "._4.png", "__MACOSX/5.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "list.txt").touch()
    notes: list[str] = []
    names, _ = read_inputs(tmp_path, Input((4, 4, 3)), notes)
    assert names == ["1.PNG", "deep/2.png"]
    assert notes == [
        f"left out of {tmp_path}: 3 hidden or system (first: ._4.png), "
        "1 neither file nor folder (first: pipe.png), 1 not an image by name (first: list.txt)"
    ]


def test_a_pipe_to_predict_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="is neither file nor folder"):
        read_inputs(tmp_path / "pipe.png", Input((4, 4, 3)))


def test_an_array_of_one_image_is_a_batch_of_one(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((4, 4, 1), np.uint8))
    assert read_inputs(tmp_path / "one.npy", Input((4, 4, 1)))[1].shape == (1, 4, 4, 1)


@pytest.mark.parametrize(
    ("name", "wanted", "says"),
    [
        ("absent.png", Input((4, 4, 3)), "does not exist"),
        ("broken.png", Input((4, 4, 3)), r"broken\.png is not a readable image"),
        ("empty", Input((4, 4, 3)), "holds no images"),
        ("broken.png", Input((7,), "float32"), "not pictures"),
        ("wrong.npy", Input((4, 4, 3)), r"must be \(samples, 4, 4, 3\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, name: str, wanted: Input, says: str) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nonsense")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3, 3, 3), np.uint8))
    with pytest.raises(DataError, match=says):
        read_inputs(tmp_path / name, wanted)
