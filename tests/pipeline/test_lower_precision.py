"""Members in lower precision."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.errors import LibraryError, MissingExtraError
from ripieno.pipeline.lower_precision import Variant
from tests.command_line import ripieno as command


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> ripieno.Library:
    shutil.copytree(finished_run, tmp_path / "run")
    return ripieno.Library(tmp_path / "run")


@pytest.fixture
def made(run: ripieno.Library) -> tuple[Variant, ...]:
    return ripieno.variants(run, ["int8", "fp16"], prune=0.1)


def networks(made: tuple[Variant, ...]) -> list[Variant]:
    return [variant for variant in made if variant.member is not None]


def test_they_are_smaller_members_with_predictions_of_their_own(
    run: ripieno.Library, made: tuple[Variant, ...]
) -> None:
    found = networks(made)
    assert found
    for variant in found:
        name = f"{variant.source.id}-{variant.precision}"
        member = run.member(name)
        assert (member, variant.added) == (variant.member, True)
        assert member.variant_of == variant.source.id
        assert run.onnx_path(name).stat().st_size < 0.8 * run.onnx_path(variant.source.id).stat().st_size
        own, source = (np.asarray(run.predictions(one)) for one in (name, variant.source.id))
        assert 0 < np.abs(own - source).max() < 0.2
        assert member.loss == pytest.approx(variant.source.loss, rel=0.1)


def test_selection_trades_them_under_a_budget_of_bytes_and_the_bundle_predicts(
    run: ripieno.Library, made: tuple[Variant, ...], tmp_path: Path
) -> None:
    sizes = {v.member.id: run.onnx_path(v.member.id).stat().st_size for v in networks(made) if v.member}
    ensemble = ripieno.select(run, {"bytes": 1.1 * min(sizes.values())}, prune=1.0)[0]
    assert set(ensemble.members) <= set(sizes)
    bundle = ripieno.allocate(run, ensemble, devices="cpu", max_benches=0)
    dataset = ripieno.Library(run.path).dataset_path
    images = np.load(dataset / "inputs.npy")[:4]
    assert ripieno.predict(bundle, images).shape == (4, 10)


@pytest.mark.skipif(importlib.util.find_spec("nncf") is not None, reason="nncf is installed")
def test_the_quantiser_of_openvino_needs_its_extra(run: ripieno.Library) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'ripieno\[nncf\]'"):
        ripieno.variants(run, ["int8-openvino"], prune=0.1)


def test_the_quantiser_of_openvino_makes_members_that_both_runtimes_run(run: ripieno.Library) -> None:
    pytest.importorskip("nncf", reason="needs NNCF: pip install 'ripieno[nncf]'")
    made = networks(ripieno.variants(run, ["int8-openvino"], prune=0.1))
    assert made
    for variant in made[:1]:
        name = f"{variant.source.id}-int8-openvino"
        assert run.onnx_path(name).stat().st_size < 0.8 * run.onnx_path(variant.source.id).stat().st_size
        assert run.member(name).loss == pytest.approx(variant.source.loss, rel=0.1)


def test_they_are_made_once_and_again_after_their_source(run: ripieno.Library, made: tuple[Variant, ...]) -> None:
    again = ripieno.variants(run, ["int8", "fp16"], prune=0.1)
    assert not any(variant.added for variant in again)
    assert {v.member.id for v in networks(again) if v.member} == {v.member.id for v in networks(made) if v.member}
    source = networks(made)[0].source
    newer = dataclasses.replace(source, created=2e12)
    (run.member_path(source.id) / "member.json").write_bytes(
        (run.member_path(source.id) / "member.json")
        .read_bytes()
        .replace(json.dumps(source.created).encode(), json.dumps(newer.created).encode())
    )
    assert [v.source.id for v in ripieno.variants(ripieno.Library(run.path), ["int8"], prune=0.1) if v.added] == [
        source.id
    ]


def test_the_command_names_them_and_bad_words_are_refused(run: ripieno.Library) -> None:
    done = command("variants", run.path, "--precision", "fp16", "--prune", "0.1", "--json")
    found = json.loads(done.stdout)
    assert [v["precision"] for v in found["variants"]] == ["fp16"] * len(found["variants"])
    assert len(found["wrote"]) == sum(v["added"] for v in found["variants"]) > 0
    assert found["next"] == f"ripieno measure {run.path}"
    with pytest.raises(LibraryError, match=r"unknown precision 'int4': expected one of fp16, int8, int8-openvino"):
        ripieno.variants(run, ["int4"])
    with pytest.raises(LibraryError, match=r"prune 0 is not valid"):
        ripieno.variants(run, prune=0)


def test_predictions_alone_have_no_variants(tmp_path: Path) -> None:
    library = ripieno.Library(tmp_path / "run")
    values = {"one": np.full((20, 2), 0.5, np.float32)}
    ripieno.import_(library, values, targets=np.arange(20) % 2)
    with pytest.raises(LibraryError, match=r"has only predictions, heads of shared backbones, or variants"):
        ripieno.variants(library)
