"""Masks of pictures without a server: by tiles, resized, from every source, into files."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ripieno
from ripieno.data.mask_image import class_colours
from ripieno.errors import DataError, EngineError, RipienoError
from ripieno.pipeline.mask_prediction import PredictedMask, predict_masks
from ripieno.pipeline.prediction_files import check_output, prediction_writer
from ripieno.types import Bundle
from tests.server.stand_in import CLASSES, direct_answers, write_mask_bundle, write_small_bundle

SHAPE = (8, 12, 3)
"""Of the networks' input, which is not square."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Networks that see one pixel: tiles and the whole picture then have the same mask."""
    return write_mask_bundle(tmp_path_factory.mktemp("masks"), SHAPE, kernel=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes, one in a folder within."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "inner").mkdir()
    for name, shape in (("a.png", (8, 12)), ("b.png", (30, 41)), ("inner/c.png", (5, 50)), ("d.png", (4, 6))):
        Image.fromarray(pixels_of(shape)).save(folder / name)
    return folder


def pixels_of(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


def expected(bundle: Bundle, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean probabilities of each pixel, computed as samples of a multiple of the networks' size."""
    flat = pixels.reshape(-1, 3)
    count = SHAPE[0] * SHAPE[1]
    padded = np.concatenate([flat, np.zeros((-len(flat) % count, 3), np.uint8)]).reshape(-1, *SHAPE)
    probabilities = direct_answers(bundle, padded).mean(axis=0)
    return probabilities.reshape(-1, len(CLASSES))[: len(flat)].reshape(*pixels.shape[:2], len(CLASSES))


def test_pictures_larger_than_the_network_are_cut_into_tiles(bundle: Bundle, photos: Path) -> None:
    found = {mask.names[0]: mask for mask in predict_masks(bundle, photos)}
    assert list(found) == ["a.png", "b.png", "d.png", "inner/c.png"]
    for name in ("a.png", "b.png", "inner/c.png"):
        pixels = np.asarray(Image.open(photos / name))
        probabilities = expected(bundle, pixels)
        mask = found[name]
        assert np.array_equal(mask.mask, probabilities.argmax(axis=-1))
        assert mask.confidence == pytest.approx(probabilities.max(axis=-1).mean(), abs=1e-5)
        shares = np.bincount(mask.mask.reshape(-1), minlength=4) / mask.mask.size
        np.testing.assert_allclose(mask.predictions[0], shares, atol=1e-6)
        assert mask.spread is not None
        assert mask.spread[0] > 0
    assert found["d.png"].mask.shape == (4, 6)  # smaller: resized, and its mask brought back


def test_resize_shrinks_a_large_picture_instead(bundle: Bundle) -> None:
    halves = np.zeros((80, 120, 3), np.uint8)
    halves[:, 60:] = 255
    (tiled,) = predict_masks(bundle, halves)
    (resized,) = predict_masks(bundle, halves, resize=True)
    assert tiled.mask.shape == resized.mask.shape == (80, 120)
    edge = slice(50, 70)
    left, right = expected(bundle, np.array([[[0] * 3, [255] * 3]], np.uint8)).argmax(axis=-1)[0]
    assert left != right
    assert np.all(resized.mask[:, :50] == left)
    assert np.all(resized.mask[:, 70:] == right)
    assert not np.array_equal(tiled.mask[:, edge], resized.mask[:, edge])  # the edge is blurred


def test_a_square_network_sees_the_whole_picture_and_its_mask_has_no_padding(tmp_path: Path) -> None:
    bundle = write_mask_bundle(tmp_path, (8, 8, 3), kernel=1)
    wide = np.zeros((20, 80, 3), np.uint8)
    wide[:10] = 255
    (found,) = predict_masks(bundle, wide, resize=True)
    one, other = np.unique(found.mask[[0, -1]])
    assert found.mask.shape == (20, 80)
    assert np.all(found.mask[:5] == found.mask[0, 0])
    assert np.all(found.mask[-5:] == found.mask[-1, 0])
    assert one != other


def test_arrays_of_any_size_and_layout_are_predicted(bundle: Bundle, tmp_path: Path) -> None:
    pixels = np.stack([pixels_of((20, 30)), pixels_of((20, 30))[::-1]])
    want = [expected(bundle, one).argmax(axis=-1) for one in pixels]
    np.save(tmp_path / "some.npy", pixels)
    for source in (pixels, pixels.transpose(0, 3, 1, 2), tmp_path / "some.npy"):
        found = list(predict_masks(bundle, source))
        assert [mask.names[0].partition("[")[2] for mask in found] == ["0]", "1]"]
        assert all(np.array_equal(mask.mask, one) for mask, one in zip(found, want, strict=True))
    with pytest.raises(DataError, match="have shape"):
        list(predict_masks(bundle, np.zeros((2, 20, 30, 5), np.uint8)))


def test_many_requests_in_flight_are_joined_to_their_own_pictures(
    bundle: Bundle, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [mask.mask for mask in predict_masks(bundle, photos)]
    monkeypatch.setattr("ripieno.pipeline.mask_prediction.GROUP_BYTES", 1)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr("ripieno.engine.engine.capacity_of", lambda *_: 8)
    found = predict_masks(bundle, photos, progress=lambda _, done, total: told.append((done, total)))
    assert all(np.array_equal(mask.mask, one) for mask, one in zip(found, whole, strict=True))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4), (4, 4)]


def test_a_bundle_of_another_task_and_a_wrong_overlap_are_refused_at_once(bundle: Bundle, tmp_path: Path) -> None:
    other = write_small_bundle(tmp_path)
    with pytest.raises(EngineError, match="classification, which predicts no masks"):
        predict_masks(other, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="must be a share of a tile"):
        predict_masks(bundle, np.zeros((8, 12, 3), np.uint8), overlap=1.0)


def test_a_folder_gets_an_indexed_png_for_each_picture(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    with prediction_writer(tmp_path / "masks", bundle) as append:
        found = [mask for mask in predict_masks(bundle, photos) if append(mask) is None]
    written = sorted(p.relative_to(tmp_path / "masks").as_posix() for p in (tmp_path / "masks").rglob("*.*"))
    assert written == ["a.png", "b.png", "d.png", "inner/c.png"]
    for mask in found:
        image = Image.open(tmp_path / "masks" / mask.names[0])
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), mask.mask)
        palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
        assert np.array_equal(palette[:4], class_colours()[:4])


def test_two_pictures_with_one_stem_get_two_masks(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp"):
        Image.fromarray(pixels_of((8, 12))).save(tmp_path / name)
    with prediction_writer(tmp_path / "masks", bundle) as append:
        for mask in predict_masks(bundle, [tmp_path / "a.bmp", tmp_path / "a.png"]):
            append(replaced(mask, Path(mask.names[0]).name))
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["a.png", "a.png.png"]


def test_pictures_whose_masks_would_have_one_name_get_one_mask_each(bundle: Bundle, tmp_path: Path) -> None:
    (mask,) = predict_masks(bundle, pixels_of((8, 12)))
    with prediction_writer(tmp_path / "masks", bundle) as append:
        for name in ("x/a.jpg", "../x/a.jpg", "/x/a.jpg", "../../x/a.jpg"):
            append(replaced(mask, name))
    names = sorted(p.name for p in (tmp_path / "masks" / "x").iterdir())
    assert names == ["a.jpg-2.png", "a.jpg-3.png", "a.jpg.png", "a.png"]


def replaced(mask: PredictedMask, name: str) -> PredictedMask:
    return PredictedMask([name], mask.predictions, mask.spread, mask.mask, mask.confidence)


def test_names_cannot_leave_the_folder(bundle: Bundle, tmp_path: Path) -> None:
    (mask,) = predict_masks(bundle, pixels_of((8, 12)))
    with prediction_writer(tmp_path / "masks", bundle) as append:
        for name in ("../../out.png", "/root.png", ".."):
            append(replaced(mask, name))
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["mask.png", "out.png", "root.png"]


def test_tables_and_arrays_of_masks(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    with prediction_writer(tmp_path / "out.csv", bundle) as table:
        found = [mask for mask in predict_masks(bundle, photos) if table(mask) is None]
    with open(tmp_path / "out.csv", newline="") as stream:
        head, *rows = list(csv.reader(stream))
    assert head == ["file", "confidence", "spread", *CLASSES]
    assert [row[0] for row in rows] == [mask.names[0] for mask in found]
    assert sum(map(float, rows[0][3:])) == pytest.approx(1.0, abs=1e-5)
    same = np.stack([pixels_of((9, 13)), pixels_of((9, 13))])
    with prediction_writer(tmp_path / "out.npy", bundle) as array:
        masks = [mask.mask for mask in predict_masks(bundle, same) if array(mask) is None]
    assert np.array_equal(np.load(tmp_path / "out.npy"), masks)


def write(masks: Iterable[PredictedMask], path: Path, bundle: Bundle) -> None:
    with prediction_writer(path, bundle) as append:
        for mask in masks:
            append(mask)


def test_an_array_of_masks_of_several_sizes_is_refused_and_absent(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    says = "several sizes to one array: a.png is 12 x 8 pixels and b.png is 41 x 30 pixels; choose a folder"
    with pytest.raises(RipienoError, match=says):
        write(predict_masks(bundle, photos), tmp_path / "out.npy", bundle)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_predicted_is_no_folder_for_masks(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    deep = photos / "inner" / "c.png"  # of several sources, masks are named by the whole path
    for folder, source in (
        (photos, photos),
        (photos / "masks", photos),
        (photos, photos / "a.png"),
        (photos, deep),
        (photos.parent, photos / "inner"),
    ):
        with pytest.raises(RipienoError, match="is predicted; choose a folder outside of it"):
            check_output(folder, bundle.task, [source])
    check_output(tmp_path / "masks", bundle.task, [photos, photos / "a.png"])
    with pytest.raises(RipienoError, match="or have no suffix: a folder of masks"):
        check_output(tmp_path / "masks.txt", bundle.task)


def test_predict_gives_the_probabilities_of_pictures_as_the_network_sees_them(bundle: Bundle) -> None:
    pixels = pixels_of((8, 12))
    np.testing.assert_allclose(ripieno.predict(bundle, pixels[None])[0], expected(bundle, pixels), atol=1e-5)
