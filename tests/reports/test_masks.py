"""Reports of segmentations: figures by class, errors near boundaries, and overlays that the colour-blind can read."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ripieno.data import write_dataset
from ripieno.library import Library
from ripieno.reports import overlays, pixel_explorer, report
from ripieno.reports.explorer import load_front
from ripieno.reports.mask_quality import DISTANCES, HardMask, near_boundary
from ripieno.reports.overlays import OTHERS, PALETTE, class_colours, draw_overlays, overlay
from ripieno.reports.pixel_explorer import explore_pixels
from ripieno.reports.run_data import load_run
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.metrics import METRICS
from ripieno.tasks.pixels import most_likely
from ripieno.tasks.registry import TASKS
from ripieno.types import IGNORED, BatchProfile, Dataset, Profile
from tests.pixel_members import TASK, fill_library, make_masks
from tests.reports.made_run import KIND

SAMPLES, TEST = 30, 26


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Return a library of members with costs, and its images."""
    path = tmp_path_factory.mktemp("masks") / "run"
    masks = np.concatenate([make_masks(4, 3), make_masks(SAMPLES), make_masks(TEST, 7)])
    images = np.random.default_rng(0).integers(0, 255, (*masks.shape, 3), dtype=np.uint8)
    split = np.repeat(np.arange(3, dtype=np.uint8), (4, SAMPLES, TEST))
    write_dataset(Dataset("made", images, masks, split, TASK, (127.0,) * 3, (60.0,) * 3), path / "dataset")
    library = fill_library(path, members=6, samples=SAMPLES, test=TEST)
    points = [tuple(BatchProfile(b, c * b / 2000, 0.02, 1 << 20) for b in (1, 8)) for c in (3, 1, 2, 4, 1, 0.5)]
    profiles = [Profile(m.id, KIND, "onnx", p) for m, p in zip(library.members(), points, strict=True)]
    library.write_profiles(KIND, profiles)
    return library


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_page_has_the_figures_of_masks_and_none_of_classes_of_samples(run: Library) -> None:
    page = report(run).read_text()
    assert not re.findall(r'id="(?:confusion|reliability|doubted|disputed)"', page)
    assert "By class" in page
    assert "Masks of the hardest images" in page
    assert len(re.findall(r'<img src="data:image/webp;base64,[^"]+" alt="Sample \d+: ', page)) == 36
    for name in TASK.names:
        assert re.search(rf'<li><span style="background:#[0-9a-f]{{6}}"></span>{name}</li>', page)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["masks"] is True
    assert data["ranking"] == "cross_entropy"
    hardest = data["points"][-1]["hardest"]
    assert [s["p"] for s in hardest] == sorted((s["p"] for s in hardest), reverse=True)
    assert all(re.fullmatch(r"[\d.]+% of pixels right", s["truth"]) for s in hardest)
    assert all(s["drawing"] is not None for s in hardest)
    folder = run.path / "report"
    assert {"classes", "boundary-error", "front", "diversity"} <= {p.stem for p in folder.glob("*.svg")}
    assert [row["class"] for row in read_table(folder / "by-name.csv")] == list(TASK.names)
    assert [int(row["distance"]) for row in read_table(folder / "boundary-error.csv")] == list(DISTANCES)
    assert set(read_table(folder / "images.csv")[0]) >= {"pixels_right", "most_missed_class", "loss"}


def test_figures_of_the_front_are_those_of_whole_arrays_whatever_the_blocks(
    run: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = load_run(run)
    front = load_front(reading, lambda *_: None)
    assert max(len(e.members) for e in front) > 1
    whole = explore_pixels(reading, front, lambda *_: None)
    monkeypatch.setattr(pixel_explorer, "TOGETHER", 1)
    parts = explore_pixels(reading, front, lambda *_: None)
    assert whole is not None
    assert parts is not None
    assert whole == parts
    assert whole.masks is not None
    ensemble = whole.spots[-1].ensemble
    assert ensemble.temperature != 1
    tables = [run.predictions(m, "test") for m in ensemble.members]
    mean = combine_calibrated(tables, ensemble, TASKS["segmentation"])
    truth, counted = run.targets("test"), run.targets("test") != IGNORED
    predicted = mean.argmax(axis=-1)
    for name in ("cross_entropy", "mean_iou", "pixel_accuracy"):
        expected = METRICS[name].function(mean, truth)
        assert ensemble.losses[f"test_{name}"] == pytest.approx(expected, rel=1e-4)
    wrong = int((counted & (predicted != truth)).sum())
    for one in whole.masks.boundaries:
        assert one.near_wrong + one.far_wrong == wrong
        assert one.near + one.far == counted.sum()
    first = whole.masks.hardest[0]
    assert np.array_equal(first.truth, truth[first.row])
    assert np.array_equal(first.predicted, predicted[first.row])
    for (one, other), share in whole.disagreement.items():
        pair = [most_likely(run.predictions(m, "test"))[counted] for m in (one, other)]
        assert share == pytest.approx((pair[0] != pair[1]).mean())


def test_few_samples_are_used_of_large_masks(run: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_explorer, "VALUES", 5 * 6 * 8 * 3)
    reading = load_run(run)
    found = explore_pixels(reading, load_front(reading, lambda *_: None), lambda *_: None)
    assert found is not None
    assert found.samples == 5
    assert found.rows.tolist() == [0, 6, 12, 19, 25]
    assert found.masks is not None
    ensemble = found.spots[-1].ensemble
    tables = [run.predictions(m, "test") for m in ensemble.members]
    mean = combine_calibrated(tables, ensemble, TASKS["segmentation"])
    for one in found.masks.hardest:
        assert np.array_equal(one.predicted, mean[one.row].argmax(axis=-1))
        assert np.array_equal(one.truth, run.targets("test")[one.row])


def test_pixels_near_a_boundary_have_another_value_within_the_distance() -> None:
    mask = np.random.default_rng(1).choice([0, 1, IGNORED], (9, 11), p=[0.8, 0.15, 0.05]).astype(np.uint8)
    for distance in (1, 2):
        expected = np.zeros(mask.shape, bool)
        for row, column in np.ndindex(mask.shape):
            window = mask[
                max(0, row - distance) : row + distance + 1, max(0, column - distance) : column + distance + 1
            ]
            expected[row, column] = (window != mask[row, column]).any()
        assert np.array_equal(near_boundary(mask, distance), expected)
    assert not near_boundary(np.full((4, 4), 2, np.uint8), 3).any()


SEEN = {
    "": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}
"""Linear colours as seen without one kind of cone (Machado et al., 2009)."""
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def lab(colours: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sRGB colours (n, 3), 0 to 1, in CIELAB as they are seen."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ seen.T, 0, 1) @ TO_XYZ.T / (0.95047, 1, 1.08883)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("kind", SEEN)
def test_the_colours_differ_for_everyone(kind: str) -> None:
    colours = np.array([list(bytes.fromhex(c[1:])) for c in PALETTE]) / 255
    seen = lab(colours, SEEN[kind])
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 30


def test_classes_beyond_the_colours_share_the_last_one() -> None:
    names = [f"class {i}" for i in range(15)]
    legend, colours = class_colours(np.arange(15), names)
    assert [name for name, _ in legend] == [f"class {i}" for i in range(14, 3, -1)] + [OTHERS]
    assert [colour for _, colour in legend] == list(PALETTE)
    assert len({tuple(c) for c in colours.tolist()}) == 12
    assert (colours[:4] == colours[0]).all()
    assert OTHERS not in dict(class_colours(np.array([3, 0, 5]), names[:3])[0])


def test_ignored_pixels_have_no_colour() -> None:
    colours = np.array([[200, 0, 0], [0, 0, 200]], np.uint8)
    mask = np.array([[0, 1, IGNORED]], np.uint8)
    picture = np.full((1, 3, 3), (30, 60, 90), np.uint8)
    drawn = overlay(mask, colours, picture)
    assert drawn[0, 2].tolist() == [60, 60, 60]
    assert drawn[0, 0].tolist() == [151, 21, 21]
    assert overlay(mask, colours, None)[0].tolist() == [[200, 0, 0], [0, 0, 200], [255, 255, 255]]


def test_overlays_are_drawn_over_the_image_of_their_row(run: Library) -> None:
    dataset = load_run(run).dataset
    assert dataset is not None
    mask = np.zeros((6, 8), np.uint8)
    one = draw_overlays([HardMask(2, 1.0, 0.5, mask, mask)], TASK.names, dataset, {2: 33}).images[0]
    assert [what for what, _ in one.drawings] == ["image", "truth", "prediction"]
    with Image.open(io.BytesIO(base64.b64decode(one.drawings[0][1].partition(",")[2]))) as picture:
        off = np.abs(np.asarray(picture.convert("RGB")).astype(int) - dataset.inputs[33]).mean()
        assert off < np.abs(np.asarray(picture.convert("RGB")).astype(int) - dataset.inputs[32]).mean()
    alone = draw_overlays([HardMask(2, 1.0, 0.5, mask, mask)], TASK.names, dataset, {}).images[0]
    assert [what for what, _ in alone.drawings] == ["truth", "prediction"]


def test_overlays_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlays, "BYTES", 1000)
    hard = [HardMask(i, 1.0, 0.5, *np.random.default_rng(i).integers(0, 3, (2, 6, 8), np.uint8)) for i in range(12)]
    assert 0 < len(draw_overlays(hard, TASK.names, None, {}).images) < 12


def test_imported_predictions_have_overlays_without_images(tmp_path: Path) -> None:
    page = report(fill_library(tmp_path / "run", test=0)).read_text()
    assert "Masks of the hardest images" in page
    assert len(re.findall(r'alt="Sample \d+: truth"', page)) == 12
    assert 'alt="Sample 0: image"' not in page
