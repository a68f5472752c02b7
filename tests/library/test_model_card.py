"""The model card: it describes a bundle, and names in it are never markup."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from ripieno.errors import LibraryError
from ripieno.library import read_bundle
from ripieno.library.backbones import BackboneRecord
from ripieno.library.model_card import CARD, read_or_render_card, render_card
from ripieno.types import AbstainRule, Column, Coverage, Input, SpreadCalibration, classification
from tests.server.stand_in import write_mask_bundle, write_small_bundle


def test_every_bundle_has_a_card_with_its_figures_members_costs_data_and_making(finished_bundle: Path) -> None:
    bundle = read_bundle(finished_bundle)
    text = (finished_bundle / CARD).read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "unknown"
    assert head["library_name"] == "ripieno"
    for title in ("Scores", "Members", "Costs", "Data", "How it was made", "Licence"):
        assert f"\n## {title}\n" in text
    assert all(m in text for m in bundle.ensemble.members)
    assert f"{bundle.ensemble.losses['test_accuracy']:.4f}" in text
    assert "360 images" in text
    assert "searched by hyperband in the space resnet-tiny" in text
    older = render_card(bundle, search={"algorithm": "bohb", "space": {"name": "wide"}})  # of version 0.1
    assert "searched by bohb in the space wide" in older
    bounded = {"algorithm": "bohb", "space": {"name": "wide"}, "budget": {"seconds": 5.0, "bytes": 4e6}}
    assert "under a budget of 5 seconds and 4e+06 bytes." in render_card(bundle, search=bounded)
    assert read_or_render_card(bundle) == text


def test_a_card_names_method_calibration_and_expected_loss(finished_bundle: Path) -> None:
    bundle = read_bundle(finished_bundle)
    ensemble = bundle.ensemble
    assert (ensemble.method, ensemble.calibration) == ("smobf-r", "members")
    text = render_card(bundle)
    assert "chosen by smobf-r on validation samples" in text
    assert (
        f"Calibration: members; each member at its temperature, and their weighted mean at {ensemble.temperature:.3f}."
        in text
    )
    for member, temperature in zip(ensemble.members, ensemble.temperatures, strict=True):
        assert re.search(rf"^\| {member} \| \d\.\d+ \| {temperature:.3f} \|", text, re.MULTILINE)
    expected = f"{ensemble.expected_loss:.4f} ± {ensemble.expected_loss_error:.4f}"
    assert f"| expected (cross-validated, ± standard error) | {expected} | - | - |" in text
    plain = dataclasses.replace(ensemble, calibration="none", temperatures=(), temperature=1.0, expected_loss=None)
    text = render_card(dataclasses.replace(bundle, ensemble=plain))
    assert "Probabilities are not calibrated." in text
    assert "expected (" not in text


def test_a_card_states_the_coverage_with_the_samples_behind_it(finished_bundle: Path) -> None:
    bundle = read_bundle(finished_bundle)
    assert "## Coverage" not in render_card(bundle)
    coverage = Coverage(0.9, "aps", (0.97,), 1234, sizes=(1.625,), held_out=True)
    each = Coverage(0.95, "lac", (0.5,) * len(bundle.classes), 1234, sizes=(2.0,), per_class=True)
    rule = AbstainRule(0.02, 0.8125, 1234, answered=0.75)
    ensemble = dataclasses.replace(bundle.ensemble, coverage=(coverage, each), abstain=rule)
    text = render_card(dataclasses.replace(bundle, ensemble=ensemble))
    assert "gives prediction sets that hold the truth" in text
    assert "| 0.9 | aps | 1,234 kept from selection | 1.625 |" in text
    assert "| 0.95 | lac by class | 1,234 of validation, used for selection too | 2 |" in text
    assert "confidence below 0.8125. Of the others, at most 2.00% are expected to be wrong." in text
    assert "75.0% of them are answered" in text


def test_a_licence_is_stated_in_the_head_and_at_the_end(finished_bundle: Path) -> None:
    text = read_or_render_card(read_bundle(finished_bundle), "apache-2.0")
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "apache-2.0"
    assert text.endswith("## Licence\n\napache-2.0.\n")
    with pytest.raises(LibraryError, match="one word"):
        read_or_render_card(read_bundle(finished_bundle), "mine: yes\nevil: 1")


def test_a_name_in_a_card_is_no_markup(finished_bundle: Path) -> None:
    bundle = read_bundle(finished_bundle)
    evil = ("<img src=x>", "a|b\nc", "[x](http://y)")
    text = render_card(dataclasses.replace(bundle, task=classification((*evil, *bundle.classes[3:]))))
    assert "\n<img" not in text
    assert "\\<img src=x\\>" in text
    assert "a\\|b c" in text
    assert "Not known: these members were imported" in text


def test_a_card_lists_some_columns_and_some_categories(finished_bundle: Path) -> None:
    categories = tuple("abcdefghi")
    columns = (Column("plan", "category", categories), *(Column(f"c{i}") for i in range(51)))
    table = dataclasses.replace(read_bundle(finished_bundle), input=Input((52,), "float32", columns=columns))
    text = render_card(table)
    assert "It takes one tensor (batch, 1) for each of 52 columns" in text
    assert "| plan | category | text, one of 9: a, b, c, d, e, f, g, h, ...; others are unseen" in text
    assert "| c48 | number | float32; missing: NaN |\n\nAnd 2 more columns.\n" in text
    assert yaml.safe_load(text.split("---\n")[1])["pipeline_tag"] == "tabular-classification"
    few = dataclasses.replace(
        table, input=Input((1,), "float32", columns=(Column("plan", "category", categories[:8]),))
    )
    assert "a, b, c, d, e, f, g, h; others" in render_card(few)
    assert "more columns" not in render_card(few)


def test_pretrained_weights_are_named_with_their_licence(finished_bundle: Path) -> None:
    bundle = read_bundle(finished_bundle)
    assert "Pretrained" not in render_card(bundle)
    origins = {
        "a-11111111": BackboneRecord("a", "https://huggingface.co/timm/a", "apache-2.0", "1" * 64),
        "b_c-22222222": BackboneRecord("b_c", "own|file.safetensors", "", "2" * 64),
    }
    text = render_card(bundle, origins=origins)
    assert f"| a | https://huggingface.co/timm/a | apache-2.0 | {'1' * 64} |" in text
    assert f"| b\\_c | own\\|file.safetensors | not stated | {'2' * 64} |" in text


def test_a_card_of_values_has_the_scale_of_their_deviation(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path, kind="regression")
    assert "Standard deviation" not in render_card(bundle)
    known = SpreadCalibration((1.25, 0.0, 2.0, 3.0), (0.5, 0.25, 1e-5, 4.0), 1200)
    ensemble = dataclasses.replace(bundle.ensemble, spread_calibration=known)
    text = render_card(dataclasses.replace(bundle, ensemble=ensemble))
    assert "highest normal likelihood of 1,200 validation samples" in text
    assert "| cat | 1.250 | 0.5 |" in text
    assert "| owl | 2.000 | 1e-05 |" in text


def test_a_card_of_masks_says_what_their_values_are_and_has_its_own_tag(tmp_path: Path) -> None:
    text = render_card(write_mask_bundle(tmp_path, (8, 12, 3)))
    assert yaml.safe_load(text.split("---\n")[1])["pipeline_tag"] == "image-segmentation"
    assert "It gives `probabilities` (batch, 8, 12, 4) of float32" in text
    assert "Classes, in order: cat, dog, owl, fübär." in text
    assert "a mask holds its index in the list" in text
    assert "larger than 8 × 12 pixels are predicted in tiles" in text
    assert "| member | weight | temperature |" in text
    assert "Probabilities are not calibrated." in text
    warm = write_mask_bundle(tmp_path, (8, 12, 3), calibration="members", temperatures=(1.5, 0.8), temperature=0.7)
    text = render_card(warm)
    assert "| 0.500 | 1.500 |" in text
    assert "Calibration: members; each member at its temperature, and their mean at 0.700." in text
