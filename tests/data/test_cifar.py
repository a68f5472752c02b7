from __future__ import annotations

import os

import numpy as np
import pytest

from ripieno.data import load_dataset
from ripieno.errors import DataError

FORMS = ["python10", "binary10", "python100", "binary100"]
FOLDERS = {
    "python10": "cifar-10-batches-py",
    "binary10": "cifar-10-batches-bin",
    "python100": "cifar-100-python",
    "binary100": "cifar-100-binary",
}


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def cifar(make, form):
    return make.Cifar(10, 5, 40) if form.endswith("10") else make.Cifar(20, 1, 100)


@pytest.fixture
def contents(cifar, form):
    return getattr(cifar, form)()


def refused(source) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check(dataset, cifar):
    assert np.array_equal(dataset.inputs, cifar.images)
    assert np.array_equal(dataset.targets, cifar.labels)
    assert dataset.classes == tuple(cifar.names)
    per_batch = len(cifar.images) // (cifar.batches + 1)
    assert dataset.rows("test").tolist() == list(range(len(cifar.images) - per_batch, len(cifar.images)))
    assert dataset.name == ("cifar-10" if cifar.batches == 5 else "cifar-100")


def test_the_folder_is_read(tmp_path, make, cifar, contents):
    check(load_dataset(make.write_files(tmp_path / "x", contents)), cifar)


def test_the_folder_it_was_unpacked_in_is_read(tmp_path, make, cifar, contents, form):
    make.write_files(tmp_path / FOLDERS[form], contents)
    check(load_dataset(tmp_path), cifar)


def test_the_archive_is_read_without_unpacking(tmp_path, make, cifar, contents, form):
    path = make.write_tar(tmp_path / "cifar.tar.gz", FOLDERS[form], contents)
    check(load_dataset(path), cifar)
    assert os.listdir(tmp_path) == ["cifar.tar.gz"]


def test_without_their_names_classes_are_numbered(tmp_path, make, contents):
    for name in ("batches.meta", "batches.meta.txt", "meta", "fine_label_names.txt"):
        contents.pop(name, None)
    assert load_dataset(make.write_files(tmp_path, contents)).classes[:3] == ("0", "1", "2")


def test_a_cut_batch_is_named(tmp_path, make, contents):
    name = next(n for n in contents if n.startswith(("train", "data_batch_3")))
    contents[name] = contents[name][:-100]
    assert refused(make.write_files(tmp_path, contents)).startswith(f"{tmp_path / name} ")


def test_a_missing_batch_is_named(tmp_path, make):
    contents = make.Cifar(10, 5, 40).python10()
    del contents["data_batch_3"]
    assert "has no data_batch_3, which cifar-10 requires" in refused(make.write_files(tmp_path, contents))


def test_a_cut_archive_is_named(tmp_path, make):
    path = make.write_tar(tmp_path / "cifar.tar.gz", "cifar-100-python", make.Cifar(20, 1, 100).python100())
    path.write_bytes(path.read_bytes()[:-1000])
    assert "is not a readable tar archive" in refused(path)


def test_another_archive_says_what_it_must_be(tmp_path, make):
    path = make.write_tar(tmp_path / "other.tar.gz", "other", {"a.txt": b"hello"})
    assert "is no CIFAR archive" in refused(path)


def test_a_file_that_asks_for_code_is_refused_and_nothing_runs(tmp_path, make):
    contents = make.Cifar(20, 1, 100).python100()
    victim = tmp_path / "victim"
    contents["train"] = b"\x80\x02cos\nsystem\nq\x00U" + bytes([len(f"touch {victim}")])
    contents["train"] += f"touch {victim}".encode() + b"q\x01\x85q\x02Rq\x03."
    message = refused(make.write_files(tmp_path / "cifar", contents))
    assert "refers to os.system, which no CIFAR file needs; no code of it was run" in message
    assert not victim.exists()


def test_a_file_without_labels_is_told(tmp_path, make):
    contents = make.Cifar(20, 1, 100).python100()
    contents["test"] = make.program({b"data": np.zeros((3, 3072), np.uint8)})
    assert "has no list of fine_labels" in refused(make.write_files(tmp_path, contents))


def test_a_file_with_images_of_another_size_is_told(tmp_path, make):
    contents = make.Cifar(20, 1, 100).python100()
    contents["test"] = make.program({b"data": np.zeros((3, 300), np.uint8), b"fine_labels": [1, 2, 3]})
    assert 'has no "data" of 3,072 bytes an image' in refused(make.write_files(tmp_path, contents))
