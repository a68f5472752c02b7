"""Networks, backbones and epochs that a search without a GPU leaves out because of its time."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import ripieno
from ripieno.data import load_dataset
from ripieno.library import Library
from ripieno.models.timm_network import make_backbone
from ripieno.pipeline import time_fit
from ripieno.pipeline.epoch_cost import estimate_epoch_cost
from ripieno.pipeline.space_fit import FittedSpace, fit_to_hours
from ripieno.pipeline.time_fit import (
    feature_seconds,
    fit_backbones,
    fit_epochs,
    fit_networks,
    fit_sizes,
    fit_to_time,
)
from ripieno.pipeline.timm_space import fit_resolution
from ripieno.pipeline.trial_packing_benchmark import sample_configurations
from ripieno.resources import usable_cores
from ripieno.search.built_in_spaces import SPACES, find_space
from ripieno.search.settings import Settings, kept_settings
from ripieno.search.space import Categorical, Integer, Space, fix_backbone, fix_network
from ripieno.types import Configuration, Input

SPACE = find_space("series")
COST = partial(estimate_epoch_cost, "series", Input((427, 1), "float32"), 200)
IMAGES = np.random.default_rng(0).integers(0, 120, (60, 6, 5, 1), np.uint8)
LABELS = np.arange(60) % 2
QUICK: dict[str, Any] = {"trials": 1, "epochs": 1, "algorithm": "random", "pool": "inline", "free": "off"}
of_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs the extra timm")


def networks_within(seconds: float, models: int = 1) -> tuple[str, ...]:
    found, _ = fit_networks(SPACE, COST, models, 27, seconds)
    choice = found.ranges["network"]
    assert isinstance(choice, Categorical)
    assert found == replace(SPACE, ranges={**SPACE.ranges, "network": choice})
    return tuple(map(str, choice.choices))


def test_networks_that_take_most_of_the_time_are_left_out() -> None:
    assert networks_within(1e9) == ("lite", "inception", "resnet-1d", "fcn", "minirocket", "hydra")
    assert networks_within(1e-9) in (("minirocket",), ("hydra",))
    assert set(networks_within(600)) == {"lite", "inception", "fcn", "minirocket", "hydra"}


def test_each_fold_trains_a_network() -> None:
    assert networks_within(1200, models=6) == networks_within(200) == ("lite", "minirocket", "hydra")


def test_the_remark_names_what_is_left_out() -> None:
    _, remark = fit_networks(SPACE, COST, 1, 27, 600)
    assert remark == "left out as too slow for 10 minutes of a core: resnet-1d; give more --hours"
    assert fit_networks(SPACE, COST, 1, 27, 1e9) == (SPACE, "")


def test_a_search_trains_networks_that_fit_in_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_fit, "TRIAL_SHARE", 1e-9)
    series, notes = np.random.default_rng(0).normal(size=(40, 12, 1)), list[str]()
    bounds = {**QUICK, "hours": 0.1, "folds": 0}
    library = ripieno.tune((series, np.arange(40) % 2), tmp_path / "run", kind="series", notes=notes, **bounds)
    (member,) = library.members()
    assert member.family in ("minirocket", "hydra")
    assert any(note.startswith("left out as too slow for") for note in notes)


def test_a_space_of_one_network_stays() -> None:
    one = fix_network(SPACE, "inception")
    assert fit_networks(one, COST, 1, 27, 1e-9) == (one, "")


RESNETS = find_space("resnet-small")
COLOUR = partial(estimate_epoch_cost, "resnet", Input((48, 48, 3)), 2000)


def too_slow(space: Space, factor: float, seconds: float) -> float:
    """Return the share of the configurations of `space` whose epoch takes too large a share of `seconds`."""
    drawn = sample_configurations(space, 7, 60)
    return sum(factor * COLOUR(c) / 1000 > time_fit.EPOCH_SHARE * seconds for c in drawn) / len(drawn)


def test_networks_that_cannot_train_an_epoch_in_a_small_share_of_the_time_are_not_drawn() -> None:
    assert too_slow(RESNETS, 2.0, 360.0) > 0.4
    fitted, remark = fit_sizes(RESNETS, COLOUR, 2.0, 360.0)
    assert too_slow(fitted, 2.0, 360.0) < 0.2
    assert fit_sizes(RESNETS, COLOUR, 2.0, 360.0) == (fitted, remark)
    cut = {name for name in RESNETS.ranges if fitted.ranges[name] != RESNETS.ranges[name]}
    assert cut <= {"convolution", "stem_filters", "width", "blocks_1", "blocks_2", "blocks_3", "blocks_4"}
    assert remark.startswith("networks that are too slow for 6 minutes of a core are not drawn: the search has ")
    assert all(f"{name} " in remark for name in cut)


def test_no_more_is_cut_than_the_time_demands() -> None:
    assert fit_sizes(RESNETS, COLOUR, 1.0, 1e9) == (RESNETS, "")
    some, _ = fit_sizes(RESNETS, COLOUR, 2.0, 360.0)
    most, _ = fit_sizes(RESNETS, COLOUR, 1.0, 1e-9)
    widths = [space.ranges["width"] for space in (RESNETS, some, most)]
    assert [w.high for w in widths if isinstance(w, Integer)] == sorted({w.high for w in widths}, reverse=True)
    assert widths[-1] == Integer(6, 6, log=True)
    assert {most.ranges[f"blocks_{n}"] for n in (1, 2, 3, 4)} == {Integer(1, 1)}


def test_networks_that_the_bounds_of_a_search_leave_out_cut_nothing() -> None:
    bound = 1000 * time_fit.EPOCH_SHARE * 360 / 2

    def allow(configuration: Configuration) -> bool:
        return COLOUR(configuration) <= bound

    assert fit_sizes(RESNETS, COLOUR, 2.0, 360.0, allow) == (RESNETS, "")
    drawn = sample_configurations(RESNETS, 0, time_fit.DRAWN, allow)
    assert len(drawn) == time_fit.DRAWN
    assert all(map(allow, drawn))
    # where nothing is allowed, all counts
    assert fit_sizes(RESNETS, COLOUR, 2.0, 360.0, lambda _: False) == fit_sizes(RESNETS, COLOUR, 2.0, 360.0)
    series = partial(fit_networks, SPACE, COST, 1, 27, 600)
    assert series()[0] == series(lambda c: bool(c["network"] != "fcn"))[0]


@pytest.mark.parametrize("bound", [{"constraints": ("parameters<=50000",)}, {"budget": {"parameters": 50000.0}}])
def test_the_time_of_a_search_is_fitted_to_what_its_bounds_allow(bound: dict[str, Any], tmp_path: Path) -> None:
    dataset = load_dataset((IMAGES, LABELS), folds=0)
    fitted = FittedSpace(RESNETS, 27, COLOUR)

    def ranges(**options: Any) -> dict[str, Any]:
        request: Any = SimpleNamespace(
            settings=Settings(RESNETS, "random", 3, 27, metric="valid_cross_entropy", **options),
            library=Library(tmp_path),
            sources={},
            options=SimpleNamespace(epochs=None),
        )
        return dict(fit_to_hours(request, dataset, fitted, 120 / len(usable_cores()), []).space.ranges)

    free, bounded = ranges(), ranges(**bound)
    assert free != RESNETS.ranges
    assert bounded["width"].high > free["width"].high


def test_the_machine_is_timed_only_where_it_may_be_too_slow() -> None:
    dataset = load_dataset((IMAGES, LABELS), folds=0)
    cost = partial(estimate_epoch_cost, "resnet", dataset.input, len(dataset.rows("train")))
    paces: list[float] = []

    def pace() -> float:
        paces.append(100.0)
        return paces[-1]

    slowest = max(map(cost, sample_configurations(RESNETS, 0, time_fit.DRAWN))) / 1000
    near = 1.01 * slowest / time_fit.EPOCH_SHARE  # all would fit by the estimate
    given: dict[str, Any] = {"pretrained": False, "epochs_given": False, "pace": pace}
    assert fit_to_time(RESNETS, 27, dataset, cost, time_fit.CLOSE * near, **given) == (RESNETS, 27, [])
    assert not paces
    fitted, epochs, remarks = fit_to_time(RESNETS, 27, dataset, cost, near, **given)
    assert paces
    assert (fitted != RESNETS, epochs, len(remarks)) == (True, 27, 1)


def test_networks_of_cells_lose_sizes_but_no_inputs_and_operators() -> None:
    space = find_space("cell")

    def cost(configuration: Configuration) -> float:
        return 1000.0 * int(configuration["filters"]) * (9 if configuration["operator_1a"] == "conv5x5" else 1)

    fitted, remark = fit_sizes(space, cost, 1.0, 1.0)
    changed = [name for name, choice in fitted.ranges.items() if choice != space.ranges[name]]
    assert changed == ["filters"]
    assert "the search has filters 8" in remark


def test_a_search_fitted_to_a_slow_machine_resumes_with_its_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_fit, "EPOCH_SHARE", 1e-9)
    bounds, notes = {**QUICK, "hours": 0.1}, list[str]()
    ripieno.tune((IMAGES, LABELS), tmp_path / "run", folds=0, notes=notes, **bounds)
    assert any("are not drawn: the search has" in note for note in notes)
    library = ripieno.tune(run=tmp_path / "run", **{**bounds, "trials": 2})
    assert [m.configuration["width"] for m in library.members()] == [6, 6]


def test_the_pace_of_a_machine_is_measured_in_a_small_share_of_the_time(tmp_path: Path) -> None:
    library = ripieno.tune((IMAGES, LABELS), tmp_path / "run", folds=0, **QUICK)
    samples = len(load_dataset((IMAGES, LABELS), folds=0).rows("train"))
    cost = partial(estimate_epoch_cost, "resnet", Input((6, 5, 1)), samples)
    assert time_fit.measure_pace(library, RESNETS, cost, 60.0, samples) == 1.0
    measured = time_fit.measure_pace(library, RESNETS, cost, 3600.0, samples)
    twice = time_fit.measure_pace(library, RESNETS, lambda c: 1e6 * cost(c), 3600.0, samples)
    assert 1e5 < measured / twice < 1e7


@of_timm
def test_a_short_search_leaves_out_what_takes_most_of_its_time() -> None:
    dataset = load_dataset({"train": (IMAGES, LABELS), "valid": (IMAGES, LABELS)})
    names = Categorical(("mobilenetv2_100", "resnet18", "test_byobnet"))
    space = replace(find_space("timm-small"), ranges={**find_space("timm-small").ranges, "backbone": names})
    assert fit_backbones(space, dataset, 1e9) == (space, "")
    fitted, remark = fit_backbones(space, dataset, 1e-9)
    assert [len(fitted.ranges[name].choices) for name in ("backbone", "resolution")] == [1, 1]
    assert fitted.ranges["resolution"].choices == (96,)
    assert "160 pixels, 128 pixels" in remark
    assert fitted.ranges.items() - space.ranges.items() == {(n, fitted.ranges[n]) for n in ("backbone", "resolution")}
    one = fix_backbone(space, "timm:test_byobnet")
    fitted, _ = fit_backbones(one, dataset, 1e-9)
    assert fitted.family == "timm:test_byobnet"
    assert "backbone" not in fitted.ranges
    slowest = feature_seconds({"backbone": "test_byobnet", "resolution": 160}, dataset)
    of_all = slowest * (96**2 + 128**2 + 160**2) / 160**2
    assert fit_backbones(one, dataset, 1.01 * of_all / time_fit.SHARE) == (one, "")
    fitted, _ = fit_backbones(one, dataset, 0.99 * of_all / time_fit.SHARE)
    assert fitted.ranges["resolution"] == Categorical((96, 128))


@of_timm
def test_a_short_search_has_trials_of_fewer_epochs() -> None:
    dataset = load_dataset({"train": (IMAGES, LABELS), "valid": (IMAGES, LABELS)})
    space = fix_backbone(find_space("timm-small"), "timm:test_byobnet")
    train, valid = (len(dataset.rows(split)) for split in ("train", "valid"))
    features = feature_seconds({"backbone": "test_byobnet", "resolution": 160}, dataset)
    trial_of_nine = 9.001 * time_fit.PASSES * features * train / (train + valid)
    assert fit_epochs(space, dataset, trial_of_nine / time_fit.TRIAL_SHARE, 27)[0] == 9
    assert fit_epochs(space, dataset, trial_of_nine / time_fit.TRIAL_SHARE, 9) == (9, "")
    assert fit_epochs(space, dataset, 1e9, 27) == (27, "")
    assert fit_epochs(space, dataset, 1e-9, 27)[0] == time_fit.LEAST_EPOCHS


@of_timm
def test_the_networks_of_folds_count() -> None:
    space = fix_backbone(find_space("timm-small"), "timm:test_byobnet")
    whole = load_dataset((IMAGES, LABELS), folds=0)
    folds = load_dataset((IMAGES, LABELS), folds=3)
    alone, several = (fit_epochs(space, data, 1000.0, 10**9)[0] for data in (whole, folds))
    assert alone / several == pytest.approx(4 * len(folds.rows("train")) / len(whole.rows("train")), rel=0.1)


@of_timm
def test_a_backbone_of_one_resolution_is_searched_in_a_bounded_time(tmp_path: Path) -> None:
    file = tmp_path / "test_vit.safetensors"
    save_file(make_backbone("test_vit", 3).state_dict(), file)
    bounds = {**QUICK, "hours": 0.1}
    library = ripieno.tune((IMAGES, LABELS), tmp_path / "run", weights=file, **bounds)
    (member,) = library.members()
    assert member.configuration["resolution"] == 160
    dataset = load_dataset((IMAGES, LABELS))
    space = fit_resolution(fix_backbone(SPACES["timm-small"], "timm:test_vit"))
    assert fit_backbones(space, dataset, 1e-9) == (space, "")
    assert fit_epochs(space, dataset, 1e-9, 27)[0] == time_fit.LEAST_EPOCHS


@of_timm
def test_a_number_of_epochs_that_is_given_or_kept_is_not_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_fit, "TRIAL_SHARE", 1e-6)
    file = tmp_path / "test_byobnet.safetensors"
    save_file(make_backbone("test_byobnet", 3).state_dict(), file)
    bounds = {"trials": 1, "hours": 0.01, "algorithm": "random", "pool": "inline", "free": "off", "weights": file}
    notes = list[str]()
    fitted = ripieno.tune((IMAGES, LABELS), tmp_path / "fitted", notes=notes, **bounds)
    assert [m.epoch for m in fitted.members()] == [4]
    assert "trials have at most 4 epochs, which fit in the time; give more --hours, or --epochs" in notes
    resumed = ripieno.tune(run=tmp_path / "fitted", **{**bounds, "trials": 2, "hours": 1})
    assert [m.epoch for m in resumed.members()] == [4, 4]
    given = ripieno.tune((IMAGES, LABELS), tmp_path / "given", epochs=3, **bounds)
    assert [m.epoch for m in given.members()] == [3]


@of_timm
def test_a_search_fitted_to_its_time_resumes_with_its_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_fit, "SHARE", 1e-6)
    file = tmp_path / "test_byobnet.safetensors"
    save_file(make_backbone("test_byobnet", 3).state_dict(), file)
    bounds, notes = {**QUICK, "hours": 0.01}, list[str]()
    ripieno.tune((IMAGES, LABELS), tmp_path / "run", weights=file, notes=notes, **bounds)
    assert "left out as too slow for 1 minutes of a core: 160 pixels, 128 pixels; give more --hours" in notes
    library = ripieno.tune(run=tmp_path / "run", space="timm-small", **{**bounds, "trials": 2})
    assert [m.configuration["resolution"] for m in library.members()] == [96, 96]


@of_timm
def test_a_search_that_leaves_out_backbones_resumes_with_its_weights_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_fit, "SHARE", 1e-6)
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("lcnet_100", "mobilenetv2_100"):
        save_file(make_backbone(name, 3).state_dict(), weights / f"{name}.safetensors")
    bounds = {**QUICK, "hours": 0.01, "weights": weights}
    ripieno.tune((IMAGES, LABELS), tmp_path / "run", **bounds)
    library = ripieno.tune(run=tmp_path / "run", **{**bounds, "trials": 2})
    assert [m.family for m in library.members()] == ["timm:lcnet_100"] * 2
    kept = kept_settings(library.path / "run.json")
    assert kept is not None
    assert [stem.rpartition("-")[0] for stem in kept.weights] == ["lcnet_100"]
