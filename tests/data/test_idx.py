from __future__ import annotations

import io
import lzma
import time

import numpy as np
import pytest

from ripieno.data import load_dataset
from ripieno.errors import DataError


@pytest.fixture
def grey():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (100, 7, 5), np.uint8), (np.arange(100) % 4).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, make, grey):
    images, labels = grey
    make.write_idx(tmp_path / "mnist", "train", images[:80], labels[:80])
    make.write_idx(tmp_path / "mnist", "t10k", images[80:], labels[80:])
    return tmp_path / "mnist"


def refused(folder) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_packed_files_keep_their_test_split_and_get_a_validation_split(folder, grey):
    dataset = load_dataset(folder)
    assert np.array_equal(dataset.inputs[..., 0], grey[0])
    assert np.array_equal(dataset.targets, grey[1])
    assert dataset.rows("test").tolist() == list(range(80, 100))
    assert len(dataset.rows("valid")) == 8
    assert dataset.classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("mark", ["-", "."])
def test_unpacked_files_are_read_under_both_spellings(tmp_path, make, grey, mark):
    make.write_idx(tmp_path, "train", *grey, packed=False)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", f"{mark}idx"))
    dataset = load_dataset(tmp_path)
    assert np.array_equal(dataset.inputs[..., 0], grey[0])
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [72, 8, 20]


def test_a_list_of_classes_beside_them_names_the_classes(folder):
    (folder / "classes.txt").write_text("shirt\ncoat\nshoe\nbag\n")
    assert load_dataset(folder).classes == ("shirt", "coat", "shoe", "bag")


def test_missing_labels_are_named(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "has no t10k-labels-idx1-ubyte[.gz]" in refused(folder)


def test_a_test_split_alone_is_refused(folder):
    (folder / "train-images-idx3-ubyte.gz").unlink()
    assert "has no train-images-idx3-ubyte" in refused(folder)


def test_a_cut_archive_is_named(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    assert refused(folder).startswith(f"{path} cannot be read")


def test_a_file_of_another_type_is_named(folder, make):
    path = folder / "train-images-idx3-ubyte.gz"
    path.unlink()
    (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x0d\x03" + bytes(30))
    assert "is no idx3 file of unsigned bytes" in refused(folder)


def test_a_file_of_the_wrong_length_is_named(folder, make, grey):
    (folder / "train-images-idx3-ubyte.gz").unlink()
    (folder / "train-images-idx3-ubyte").write_bytes(make.idx(grey[0])[:-1])
    assert "must have 3,516" in refused(folder)


def test_more_labels_than_images_are_told(folder, make, grey):
    make.write_idx(folder / "other", "train", grey[0], grey[1])
    (folder / "other" / "train-labels-idx1-ubyte.gz").replace(folder / "train-labels-idx1-ubyte.gz")
    assert "80 inputs but 100 targets" in refused(folder)


def test_two_sets_for_one_split_are_refused(folder, make, grey):
    make.write_idx(folder, "emnist-train", *grey)
    assert "for train; leave one set" in refused(folder)


def test_fashion_mnist_loads_whole_in_a_couple_of_seconds(shared_data, tmp_path, make):
    folder = shared_data / "fashion_mnist"
    for stem, name in (("train", "train"), ("t10k", "test")):
        images = np.load(io.BytesIO(lzma.decompress((folder / f"{name}_images.npy.xz").read_bytes())))
        labels = np.load(folder / f"{name}_labels.npy")
        make.write_idx(tmp_path / "fashion", stem, images, labels)
    started = time.monotonic()
    dataset = load_dataset(tmp_path / "fashion")
    seconds = time.monotonic() - started
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [54000, 6000, 10000]
    assert dataset.inputs.shape == (70000, 28, 28, 1)
    # the published mean and deviation of the 60,000 are 0.2860 and 0.3530
    assert dataset.mean[0] / 255 == pytest.approx(0.2860, abs=1e-3)
    assert dataset.std[0] / 255 == pytest.approx(0.3530, abs=1e-3)
    assert seconds < 20, "it takes about 2 seconds on an idle machine"
