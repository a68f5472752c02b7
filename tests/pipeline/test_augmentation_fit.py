"""Augmentation that a search leaves out: by a look at the data, and by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import ripieno
from ripieno.data import load_dataset
from ripieno.errors import SearchError
from ripieno.pipeline.augmentation_fit import fit_augmentation
from ripieno.search.built_in_spaces import SPACES
from ripieno.search.settings import kept_settings

SOURCE = load_digits()
IMAGES, LABELS = (SOURCE.images[:, :, :, None] * 15).astype(np.uint8), SOURCE.target


def test_a_built_in_space_searches_no_flips_of_digits_and_says_so() -> None:
    space, notes = fit_augmentation(SPACES["resnet-small"], load_dataset((IMAGES, LABELS)))
    assert set(SPACES["resnet-small"].ranges) - set(space.ranges) == {"flip"}
    assert space.fixed == SPACES["resnet-small"].fixed
    assert len(notes) == 1
    assert notes[0].startswith("augmentation leaves out flip: mirrored training images are recognised ")


def test_a_random_policy_also_loses_its_rotations_and_colours() -> None:
    chosen = dataclasses.replace(SPACES["resnet-small"], fixed={"operations": 1})
    space, notes = fit_augmentation(chosen, load_dataset((IMAGES, LABELS)))
    assert space.fixed == {"operations": 1, "without": "colour, rotate"}
    assert "max_rotation" in space.ranges
    assert len(notes) == 3


def test_a_space_without_flips_and_policy_stays() -> None:
    assert fit_augmentation(SPACES["resnet-tiny"], load_dataset((IMAGES, LABELS))) == (SPACES["resnet-tiny"], [])


def test_what_is_left_out_by_hand_is_kept_in_the_run_and_must_stay(tmp_path: Path) -> None:
    run, options = tmp_path / "run", {"trials": 1, "epochs": 1, "pool": "inline", "free": "off", "device": "cpu"}
    data = IMAGES[:100], LABELS[:100]
    first = ripieno.tune(data, run, space="resnet-tiny", without="rotate,zoom", **options)
    (member,) = first.members()
    assert not {"max_rotation", "max_zoom"} & member.configuration.keys()
    assert "max_shear" in member.configuration
    settings = kept_settings(run / "run.json")
    assert settings is not None
    assert not {"max_rotation", "max_zoom"} & settings.space.ranges.keys()
    for again in ({}, {"without": ["rotate", "zoom"]}):
        assert [m.id for m in ripieno.tune(None, run, **{**options, **again}).members()] == [member.id]
    with pytest.raises(SearchError, match="contains a search with space"):
        ripieno.tune(None, run, without="shear-x", **options)


def test_a_name_that_is_unknown_or_a_trainer_without_augmentation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="without is 'spin': it must be of "):
        ripieno.tune((IMAGES, LABELS), tmp_path / "run", without="spin")
    with pytest.raises(SearchError, match="without leaves out augmentation of networks"):
        ripieno.tune((IMAGES, LABELS), tmp_path / "run", without="flip", trainer="trees:random-forest")
