"""Searches of series: the space by the kind of data, and one network by its family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno import Library, pipeline
from ripieno.errors import SearchError
from ripieno.models.series_config import NETWORKS
from ripieno.pipeline.epoch_cost import estimate_epoch_cost
from ripieno.pipeline.space_choice import default_space
from ripieno.search.built_in_spaces import SPACES, find_space, fit_space
from ripieno.search.settings import kept_settings
from ripieno.search.space import Categorical, Integer, Space, fix_network
from ripieno.types import Input, Task


def waves(samples: int = 60) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    classes, times = np.arange(samples) % 2, np.arange(24) / 24
    series = np.sin(2 * np.pi * times * (classes[:, None] + 1)) + generator.normal(0, 0.3, (samples, 24))
    return series[:, :, None].astype(np.float32), classes


def search(run: Path, **options: object) -> Library:
    defaults = {"trials": 1, "epochs": 1, "free": "off", "pool": "inline", "folds": 0, "kind": "series"}
    return pipeline.tune(waves(), run, **{**defaults, **options})  # type: ignore[arg-type]


def test_the_space_of_series_is_the_default_and_names_the_network(tmp_path: Path) -> None:
    library = search(tmp_path / "run", seed=5)  # its first network is quickly trained
    kept = kept_settings(library.path / "run.json")
    assert kept is not None
    assert (kept.space.name, kept.space.family) == ("series", "series")
    (member,) = library.members()
    assert member.family == member.configuration["network"] == "minirocket"
    pipeline.tune(run=library.path, trials=1, pool="inline")  # resumed without a space


def test_a_family_searches_one_network(tmp_path: Path) -> None:
    library = search(tmp_path / "run", family="minirocket")
    (member,) = library.members()
    assert member.family == "minirocket"


def test_the_default_space_follows_the_kind_of_data_and_the_family() -> None:
    assert default_space(None, False, kind="series").name == "series"
    assert default_space(None, True, "lite").name == "series"
    assert default_space(None, False, "own:family", "series").name == "resnet-small"
    assert default_space("trees:lightgbm", False, kind="series").name == "lightgbm"
    fixed = fix_network(SPACES["series"], "lite")
    assert (fixed.family, fixed.fixed["network"]) == ("lite", "lite")
    assert "network" not in fixed.ranges
    own = Space("own", "lite", {"batch_size": Integer(8, 16)})
    assert fix_network(own, "lite") is own
    with pytest.raises(SearchError, match="space resnet is of family resnet, not of lite: use series"):
        fix_network(SPACES["resnet"], "lite")


def test_networks_that_do_not_fit_the_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="kind series, which family resnet does not take: use series, lite, incep"):
        search(tmp_path / "run", space="resnet-tiny")
    images = np.zeros((60, 8, 8), np.uint8), waves()[1]
    with pytest.raises(
        SearchError, match="kind image, which family fcn does not take: use resnet, timm, cell, your own"
    ):
        pipeline.tune(images, tmp_path / "other", family="fcn", trials=1)


def test_the_cost_of_an_epoch_counts_all_its_passes() -> None:
    shape = Input((100, 1), "float32")
    costs = {n: estimate_epoch_cost("series", shape, 50, {"network": n, "batch_size": 10}) for n in NETWORKS}
    assert costs["lite"] < costs["inception"]
    assert costs["minirocket"] < costs["lite"]
    assert estimate_epoch_cost("lite", shape, 50, {"batch_size": 10}) == costs["lite"]
    once = estimate_epoch_cost("lite", shape, 50, {"batch_size": 10, "epoch_samples": 0})
    assert costs["lite"] == pytest.approx(20 * once)


def test_the_space_has_all_networks() -> None:
    assert SPACES["series"].ranges["network"] == Categorical(NETWORKS)


def test_hyperparameters_that_do_not_fit_are_left_out() -> None:
    values = Task("regression", (1,), ("value",))
    fitted = fit_space(SPACES["series"], "series", values)
    assert "label_smoothing" not in fitted.ranges
    assert {"jitter", "scaling", "window_warp", "crop"} <= fitted.ranges.keys()
    own = Space("own", "resnet", {"jitter": Integer(0, 1)})
    with pytest.raises(SearchError, match="jitter does not fit inputs of kind image"):
        fit_space(own, "image", values)


def test_the_space_of_cells_depends_on_the_data() -> None:
    names = [
        default_space(None, False, "cell", kind, task).name
        for kind, task in (("image", "regression"), ("series", "classification"), ("image", "segmentation"))
    ]
    assert names == ["cell", "cell-series", "cell-segmentation"]
    for name in names:
        assert find_space(name).family == "cell"
