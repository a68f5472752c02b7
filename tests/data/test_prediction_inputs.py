from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ripieno.data import load_dataset
from ripieno.data.prediction_inputs import count_inputs, read_inputs, stream_inputs
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
    assert {i.tobytes() for i in images} == {i.tobytes() for i in np.asarray(trained.inputs)}


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
        f"skipped in {tmp_path}: 3 hidden or system (first: ._4.png), "
        "1 neither file nor folder (first: pipe.png), 1 not an image by name (first: list.txt)"
    ]


def test_a_pipe_to_predict_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="is neither file nor folder"):
        read_inputs(tmp_path / "pipe.png", Input((4, 4, 3)))


def test_an_array_of_one_image_is_a_batch_of_one(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((4, 4, 1), np.uint8))
    assert read_inputs(tmp_path / "one.npy", Input((4, 4, 1)))[1].shape == (1, 4, 4, 1)


@pytest.mark.parametrize(("shape", "noun"), [((4, 4, 1), "images"), ((4, 1), "series"), ((4,), "rows")])
def test_samples_of_an_array_are_named_by_their_kind(shape: tuple[int, ...], noun: str) -> None:
    wanted = Input(shape, "float32")
    assert read_inputs(np.ones((2, *shape), np.float32), wanted)[0] == [f"{noun}[0]", f"{noun}[1]"]
    with pytest.raises(DataError, match=f"^{noun}(: {noun})? have shape"):
        read_inputs(np.ones((2, 3, 3, 3), np.float32), wanted)


@pytest.mark.parametrize(
    ("name", "wanted", "says"),
    [
        ("absent.png", Input((4, 4, 3)), "does not exist"),
        ("broken.png", Input((4, 4, 3)), r"broken\.png is not a readable image"),
        ("empty", Input((4, 4, 3)), "holds no images"),
        ("broken.png", Input((7,), "float32"), "not pictures"),
        ("wrong.npy", Input((4, 4, 3)), r"images have shape \(2, 3, 3, 3\), must be \(samples, 4, 4, 3\)"),
        ("wrong.npy", Input((4,), "float32"), r"rows have shape \(2, 3, 3, 3\), must be \(samples, 4\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, name: str, wanted: Input, says: str) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nonsense")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3, 3, 3), np.uint8))
    with pytest.raises(DataError, match=says):
        read_inputs(tmp_path / name, wanted)


# depth


GREY = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
BYTES = Input((8, 8, 1), "uint8", (0.0, 255.0))
UNIT = Input((8, 8, 1), "float32", (0.0, 1.0))
DEEP = Input((8, 8, 1), "float32", (0.0, 63041.0))
TIMES_255 = Input((8, 8, 1), "float32", (0.0, 255.0))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The same grey picture with 8 bits, with 16 in two formats, and as floats of 0 to 1."""
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(GREY).save(tmp_path / "8.png")
    Image.fromarray(deep).save(tmp_path / "16.png")
    Image.fromarray(deep).save(tmp_path / "16.tif")
    Image.fromarray(deep).save(tmp_path / "16.pgm")
    Image.fromarray(GREY.astype(np.float32) / 255).save(tmp_path / "floats.tif")
    return tmp_path


@pytest.mark.parametrize("name", ["8.png", "16.png", "16.tif", "16.pgm"])
def test_a_picture_of_8_or_16_bits_is_the_same_to_every_network_whose_unit_is_known(pictures: Path, name: str) -> None:
    assert np.array_equal(read_inputs(pictures / name, BYTES)[1][0, ..., 0], GREY)
    assert np.array_equal(
        read_inputs(pictures / name, Input((8, 8, 3)))[1][0], np.repeat(GREY[..., np.newaxis], 3, axis=2)
    )
    assert np.allclose(read_inputs(pictures / name, UNIT)[1][0, ..., 0], GREY / 255, atol=1e-6)


def test_a_16_bit_picture_is_sized_as_the_8_bit_one(pictures: Path) -> None:
    small = Input((5, 5, 1))
    one, other = (read_inputs(pictures / name, small)[1].astype(int) for name in ("8.png", "16.png"))
    assert abs(one - other).max() <= 1


def test_16_bits_are_rounded_to_8(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 100 * 257 + 200, np.uint16)).save(tmp_path / "16.png")
    assert read_inputs(tmp_path / "16.png", BYTES)[1].max() == 101


def test_16_bits_and_floats_are_kept_where_they_were_trained_on(pictures: Path) -> None:
    assert np.array_equal(read_inputs(pictures / "16.png", DEEP)[1][0, ..., 0], GREY * np.float32(257))
    assert np.array_equal(read_inputs(pictures / "floats.tif", UNIT)[1][0, ..., 0], GREY.astype(np.float32) / 255)
    assert np.array_equal(read_inputs(pictures / "8.png", TIMES_255)[1][0, ..., 0], GREY)


@pytest.mark.parametrize(
    ("name", "wanted", "says"),
    [
        ("floats.tif", BYTES, "it holds floats, but the network was trained on 8 bits"),
        ("8.png", DEEP, "it holds 8 bits, but the network was trained on float32 of 0 to 63041"),
        ("8.png", Input((8, 8, 1), "float32", (-2.1, 2.6)), "trained on float32 of -2.1 to 2.6"),
        ("floats.tif", DEEP, "its pixels range over .* to 1, but the network was trained on 0 to 63041"),
        ("16.png", TIMES_255, "its pixels range over .*, but the network was trained on 0 to 255"),
        ("8.png", Input((8, 8, 1), "uint8", (0.0, 1.0)), "its pixels range over .* trained on 0 to 1"),
        ("8.png", Input((8, 8, 3), "float32"), "not pictures"),
        ("8.png", Input((8, 8, 4)), "not pictures"),
    ],
)
def test_a_picture_of_another_depth_or_range_is_refused_by_name(
    pictures: Path, name: str, wanted: Input, says: str
) -> None:
    with pytest.raises(DataError, match=rf"^{name}: .*{says}"):
        read_inputs(pictures / name, wanted)


def test_training_images_are_the_same_when_they_are_predicted(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for n in range(4):
            pixels = np.random.default_rng(n).integers(0, 4000, (9, 7)).astype(np.uint16)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{n}.png", transparency=int(pixels[0, 0]))
    for size in (None, 6):
        trained = load_dataset(tmp_path / "images", size=size, split=(0.5, 0.25, 0.25))
        _, images = read_inputs(tmp_path / "images", trained.input)
        assert {i.tobytes() for i in images} == {i.tobytes() for i in np.asarray(trained.inputs)}


# sources


COLOURS = np.random.default_rng(2).integers(0, 256, (6, 8, 8, 3), np.uint8)
CODES = np.arange(6) % 2
COLOURED = Input((8, 8, 3), "uint8", (0.0, 255.0))


class Items:
    """A stand-in with the interface of a PyTorch data set."""

    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


@pytest.mark.parametrize(
    "source",
    [
        COLOURS,
        COLOURS.transpose(0, 3, 1, 2),
        list(COLOURS),
        COLOURS.tolist(),
        (COLOURS, CODES),
        [Image.fromarray(c) for c in COLOURS],
        Items([(Image.fromarray(c), 0) for c in COLOURS]),
        Items([(c, 0) for c in COLOURS]),
        Items(list(COLOURS)),
        {"train": (COLOURS[:4], CODES[:4]), "test": (COLOURS[4:], CODES[4:])},
        {"train": Items([(c, 0) for c in COLOURS[:4]]), "test": (COLOURS[4:], CODES[4:])},
        [COLOURS[0], *(Image.fromarray(c) for c in COLOURS[1:])],
        load_dataset((np.repeat(COLOURS, 3, axis=0), np.repeat(CODES, 3))),
    ],
    ids=lambda source: type(source).__name__,
)
def test_whatever_is_trained_on_can_be_predicted(source: object) -> None:
    names, images = read_inputs(source, COLOURED)
    assert len(names) == len(set(names)) == len(images)
    found = {image.tobytes() for image in images}
    assert found == {image.tobytes() for image in COLOURS}


def test_files_of_arrays_and_pictures_are_read_alike(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", COLOURS)
    np.savez(tmp_path / "x.npz", x_train=COLOURS[:4], y_train=CODES[:4], x_test=COLOURS[4:], y_test=CODES[4:])
    np.savez(tmp_path / "one.npz", COLOURS)
    np.savez(tmp_path / "no.npz", weights=COLOURS, biases=CODES)
    load_dataset((np.repeat(COLOURS, 3, axis=0), np.repeat(CODES, 3)), folder=tmp_path / "prepared")
    paths = []
    for n, colours in enumerate(COLOURS):
        paths.append(tmp_path / f"{n}.png")
        Image.fromarray(colours).save(paths[-1])
    for source in (tmp_path / "x.npy", tmp_path / "x.npz", tmp_path / "one.npz", paths, [str(p) for p in paths]):
        names, images = read_inputs(source, COLOURED)
        assert np.array_equal(images, COLOURS)
        assert len(set(names)) == 6
    assert read_inputs([paths[3]], COLOURED)[0] == [str(paths[3])]
    assert len(read_inputs(tmp_path / "prepared", COLOURED)[1]) == 18
    assert len(read_inputs([tmp_path / "x.npy", paths[0]], COLOURED)[0]) == 7
    with pytest.raises(DataError, match="holds weights, biases; name one of them as images"):
        read_inputs(tmp_path / "no.npz", COLOURED)


@pytest.mark.parametrize("source", [[], 5, "nowhere.png", {}, Items([object()]), [np.zeros(3), np.zeros(4)]])
def test_what_holds_no_images_is_refused_in_a_line(source: object) -> None:
    with pytest.raises(DataError) as caught:
        read_inputs(source, COLOURED)
    assert "\n" not in str(caught.value)


def test_pictures_that_cannot_be_used_are_left_out_by_name_when_asked(tmp_path: Path) -> None:
    for n, colours in enumerate(COLOURS):
        Image.fromarray(colours).save(tmp_path / f"{n}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "floats.tif")
    notes: list[str] = []
    names, images = read_inputs(tmp_path, COLOURED, notes, skip_bad=True)
    assert names == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    assert np.array_equal(images, COLOURS[[0, 1, 3, 4, 5]])
    assert [note.split(" is ")[0].split(":")[1].strip() for note in notes] == ["2.png", "floats.tif"]
    with pytest.raises(DataError, match=r"2\.png is not a readable image"):
        read_inputs(tmp_path, COLOURED)
    with pytest.raises(DataError, match="none of 1 pictures can be used"):
        read_inputs(tmp_path / "2.png", COLOURED, skip_bad=True)


def test_arrays_that_do_not_fit_are_never_left_out() -> None:
    with pytest.raises(DataError, match="must be"):
        read_inputs([np.zeros((5, 5, 3), np.uint8), Image.fromarray(COLOURS[0])], COLOURED, skip_bad=True)


def test_a_stream_yields_what_is_read_at_once_in_batches(tmp_path: Path) -> None:
    for name in ("b.png", "a/2.png", "a/1.png", "c/d/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), ord(name[0]), np.uint8)).save(tmp_path / name)
    np.save(tmp_path / "more.npy", np.arange(5 * 16, dtype=np.uint8).reshape(5, 4, 4, 1))
    source, wanted = [tmp_path, tmp_path / "more.npy"], Input((4, 4, 1))
    names, images = read_inputs(source, wanted)
    parts = list(stream_inputs(source, wanted, size=3))
    assert [len(part) for part, _ in parts] == [3, 1, 3, 2]
    assert [name for part, _ in parts for name in part] == names
    assert [name.removeprefix(f"{tmp_path}/") for name in names[:5]] == [
        "a/1.png", "a/2.png", "b.png", "c/d/1.png", "more.npy[0]",
    ]  # fmt: skip
    assert np.array_equal(np.concatenate([block for _, block in parts]), images)
    assert count_inputs(source, wanted) == len(names)


@pytest.mark.parametrize(
    ("shape", "wanted", "samples"),
    [
        ((5, 6, 3), (5, 6, 3), 1),
        ((3, 5, 6), (5, 6, 3), 1),
        ((2, 3, 5, 6), (5, 6, 3), 2),
        ((5, 6), (5, 6, 1), 1),
        ((5, 6, 1), (5, 6, 1), 1),
        ((4, 5, 6), (5, 6, 1), 4),
        ((4, 1, 5, 6), (5, 6, 1), 4),
        ((7,), (9, 1), 1),
        ((4, 7), (9, 1), 4),
        ((7, 2), (9, 2), 1),
        ((4, 7, 2), (9, 2), 4),
        ((3,), (3,), 1),
        ((4, 3), (3,), 4),
    ],
)
def test_arrays_of_every_layout_are_counted_as_they_are_read(
    shape: tuple[int, ...], wanted: tuple[int, ...], samples: int
) -> None:
    array, given = np.zeros(shape, np.float32), Input(wanted, "float32")
    assert count_inputs(array, given) == len(read_inputs(array, given)[0]) == samples


def test_series_of_unequal_lengths_are_counted() -> None:
    series = np.array([np.zeros(3, np.float32), np.zeros(5, np.float32)], object)
    given = Input((9, 1), "float32")
    assert count_inputs(series, given) == len(read_inputs(series, given)[0]) == 2
