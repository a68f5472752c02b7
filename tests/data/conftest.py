"""Small sources of every kind, in their published layout."""

from __future__ import annotations

import gzip
import io
import struct
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]


def picture(path: Path, size: tuple[int, int] = (8, 8), mode: str = "RGB", value: int | None = None) -> Path:
    """Write a picture of (width, height) pixels, random from its path unless `value` fills it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    rng = np.random.default_rng(list(path.name.encode()))
    pixels = rng.integers(0, 256, shape, np.uint8) if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels, mode if len(mode) > 1 else None).save(path)
    return path


def idx(array: Bytes) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, stem: str, images: Bytes, labels: Bytes, packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{stem}-images-idx3-ubyte", images), (f"{stem}-labels-idx1-ubyte", labels)):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), compresslevel=1))
        else:
            (folder / name).write_bytes(idx(array))


class Program:
    """Pickler with the output of Python 2's cPickle, protocol 2: byte strings for str, every object into the memo."""

    def __init__(self) -> None:
        self.out = io.BytesIO()
        self.out.write(b"\x80\x02")
        self.slots = 0

    def put(self) -> None:
        self.out.write(b"q" + bytes([self.slots]) if self.slots < 256 else b"r" + struct.pack("<I", self.slots))
        self.slots += 1

    def value(self, value: object) -> None:
        if isinstance(value, bytes):
            short = len(value) < 256
            self.out.write((b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value)
            self.put()
        elif isinstance(value, int):
            if 0 <= value < 256:
                self.out.write(b"K" + bytes([value]))
            elif 0 <= value < 65536:
                self.out.write(b"M" + struct.pack("<H", value))
            else:
                self.out.write(b"J" + struct.pack("<i", value))
        elif isinstance(value, list):
            self.out.write(b"]")
            self.put()
            for start in range(0, len(value), 1000):
                self.out.write(b"(")
                for item in value[start : start + 1000]:
                    self.value(item)
                self.out.write(b"e")
        elif isinstance(value, dict):
            self.out.write(b"}")
            self.put()
            self.out.write(b"(")
            for key, item in value.items():
                self.value(key)
                self.value(item)
            self.out.write(b"u")
        elif isinstance(value, np.ndarray):
            self.array(value)
        else:
            raise TypeError(type(value))

    def array(self, array: Bytes) -> None:
        self.out.write(b"cnumpy.core.multiarray\n_reconstruct\n")
        self.put()
        self.out.write(b"cnumpy\nndarray\n")
        self.put()
        self.out.write(b"K\x00\x85")
        self.put()
        self.value(b"b")
        self.out.write(b"\x87")
        self.put()
        self.out.write(b"R")
        self.put()
        self.out.write(b"(K\x01")
        for n in array.shape:
            self.value(n)
        self.out.write(b"\x86")
        self.put()
        self.out.write(b"cnumpy\ndtype\n")
        self.put()
        self.value(b"u1")
        self.out.write(b"K\x00K\x01\x87")
        self.put()
        self.out.write(b"R")
        self.put()
        self.out.write(b"(K\x03")
        self.value(b"|")
        self.out.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
        self.out.write(b"\x89")
        self.value(array.tobytes())
        self.out.write(b"tb")


def program(value: object) -> bytes:
    writer = Program()
    writer.value(value)
    return writer.out.getvalue() + b"."


class Cifar:
    """A small CIFAR: `images` (samples, 32, 32, 3) and `labels`, the last fifth or sixth of which is the test split."""

    def __init__(self, classes: int, batches: int, per_batch: int) -> None:
        rng = np.random.default_rng(7)
        self.classes, self.batches = classes, batches
        self.images = rng.integers(0, 256, ((batches + 1) * per_batch, 32, 32, 3), np.uint8)
        self.labels = np.arange(len(self.images)) % classes
        self.names = [f"class {i}" for i in range(classes)]

    def split(self, array: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        return np.split(array, self.batches + 1)

    @property
    def pixels(self) -> list[Bytes]:
        return [np.ascontiguousarray(b.transpose(0, 3, 1, 2)).reshape(len(b), -1) for b in self.split(self.images)]

    def python10(self) -> dict[str, bytes]:
        files = {"batches.meta": program({b"num_cases_per_batch": 10000, b"label_names": _bytes(self.names)})}
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        for name, pixels, labels in zip(names, self.pixels, self.split(self.labels), strict=True):
            batch = {b"batch_label": b"a batch", b"labels": labels.tolist(), b"data": pixels}
            files[name] = program({**batch, b"filenames": [b"a.png"] * len(labels)})
        return files

    def binary10(self) -> dict[str, bytes]:
        files = {"batches.meta.txt": "\n".join([*self.names, "", ""]).encode()}
        names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
        for name, pixels, labels in zip(names, self.pixels, self.split(self.labels), strict=True):
            files[name] = np.hstack([labels[:, None].astype(np.uint8), pixels]).tobytes()
        return files

    def python100(self) -> dict[str, bytes]:
        files = {"meta": program({b"fine_label_names": _bytes(self.names), b"coarse_label_names": [b"all"]})}
        for name, pixels, labels in zip(("train", "test"), self.pixels, self.split(self.labels), strict=True):
            coarse = [0] * len(labels)
            files[name] = program({b"fine_labels": labels.tolist(), b"coarse_labels": coarse, b"data": pixels})
        return files

    def binary100(self) -> dict[str, bytes]:
        files = {"fine_label_names.txt": "\n".join([*self.names, ""]).encode(), "coarse_label_names.txt": b"all\n"}
        for name, pixels, labels in zip(("train.bin", "test.bin"), self.pixels, self.split(self.labels), strict=True):
            both = np.stack([np.zeros(len(labels), np.uint8), labels.astype(np.uint8)], axis=1)
            files[name] = np.hstack([both, pixels]).tobytes()
        return files


def _bytes(names: list[str]) -> list[bytes]:
    return [n.encode() for n in names]


def write_files(folder: Path, contents: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, top: str, contents: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in contents.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture(scope="session")
def make() -> ModuleType:
    """The functions above."""
    return sys.modules[__name__]


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make an image folder with `count` pictures of each of `classes`."""

    def make(classes: str = "ab", count: int = 10, top: str = "images", **how: object) -> Path:
        for name in classes:
            for i in range(count):
                picture(tmp_path / top / name / f"{name}{i:03}.png", **how)
        return tmp_path / top

    return make


@pytest.fixture
def arrays() -> tuple[Bytes, NDArray[np.int64]]:
    """Return 60 colour images of 6 x 5 pixels in 3 classes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (60, 6, 5, 3), np.uint8), np.arange(60) % 3
