"""Members that share a backbone, from their profiles to a bundle and to files for other servers."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.torch import save_file

import ripieno
from ripieno import files, pipeline
from ripieno.backends.onnx import open_file
from ripieno.data import open_dataset, write_dataset
from ripieno.engine import Engine
from ripieno.library import read_backend_report, read_bundle
from ripieno.profiles import profiler
from ripieno.types import DISABLED, Dataset, Ensemble, classification
from tests.onnx_networks import write_network
from tests.shared_networks import CPU, FAMILY, INPUT, Shared, shared_networks

ALONE = "00009-e001"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A run with three members that share a backbone, and one that does not, measured."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    with shared_networks(folder, home="library", export=False) as shared:
        library = ripieno.Library(folder, trusted=[FAMILY])
        targets = np.arange(30) % 4
        images, labels = (np.concatenate([all_of, all_of[:8]]) for all_of in (shared.images, targets))
        split = np.repeat(np.asarray([1, 0, 2], np.uint8), (30, 4, 4))
        data = Dataset("noise", images, labels, split, classification("abcd"), (120.0,) * 3, (60.0,) * 3)
        write_dataset(data, library.dataset_path)
        losses = {"valid_cross_entropy": 1.0}
        for member, predictions in zip(shared.members, shared.predictions, strict=True):
            weights = shared.path(member, "weights.safetensors").read_bytes()
            library.add(dataclasses.replace(member, losses=losses), predictions, targets, weights)
        path = folder.parent / "alone.onnx"
        alone = write_network(path, name=ALONE, shape=INPUT.shape, classes=4, seed=3)  # type: ignore[arg-type]
        alone = dataclasses.replace(alone, task=classification("abcd"), losses=losses)
        predictions = open_file(path.read_bytes())(shared.images)[0]
        library.add(alone, predictions, targets, path.read_bytes())
        names = (shared.members[0].id, ALONE, shared.members[1].id, shared.members[2].id)
        library.write_ensemble(Ensemble("mixed", names, (0.25,) * 4, "hand", {"seconds": 1.0}, {}, {}))
        heads = tuple(member.id for member in shared.members)
        library.write_ensemble(Ensemble("heads", heads, (1 / 3,) * 3, "hand", {"seconds": 1.0}, {}, {}))
        profiler.measure_library(library, CPU, window=0.01, max_seconds=0.2, batch_sizes=(1, 8))
        yield dataclasses.replace(shared, predictions=np.stack([*shared.predictions, predictions]))


def copy(made: Shared, folder: Path) -> ripieno.Library:
    shutil.copytree(made.folder, folder / "run")
    return ripieno.Library(folder / "run", trusted=[FAMILY])


def test_a_backbone_is_measured_once_and_heads_apart(made: Shared, tmp_path: Path, monkeypatch) -> None:
    library = copy(made, tmp_path)
    shared = made.members[0].backbone
    profiles = library.profiles(CPU.kind)
    assert profiles.keys() == {shared, ALONE, *(m.id for m in made.members)}
    parts = []
    measure = profiler.profile

    def counted(path, member, *what, part, **options):
        parts.append((member.id, part))
        return measure(path, member, *what, part=part, **options)

    monkeypatch.setattr(profiler, "profile", counted)
    quick = {"window": 0.01, "max_seconds": 0.2, "batch_sizes": (1, 8)}
    assert profiler.measure_library(library, CPU, **quick).keys() == profiles.keys()
    assert parts == []
    one, two, _ = (member.id for member in made.members)
    again = profiler.measure_library(library, CPU, [one, two], again=True, **quick)
    assert again.keys() == {shared, one, two}
    assert parts == [(one, "backbone"), (one, "head"), (two, "head")]


def test_an_allocation_places_a_unit_together_and_its_bundle_serves_elsewhere(made: Shared, tmp_path: Path) -> None:
    library = copy(made, tmp_path)
    kinds = {"devices": [CPU], "trusted": [FAMILY]}
    bundle = ripieno.allocate(library, "mixed", max_benches=2, bundle=tmp_path / "bundle", **kinds)
    heads = {m.id: set() for m in made.members}
    for p in bundle.allocation.placements:
        if p.member in heads:
            heads[p.member].add((p.device, p.lane, p.batch_size))
    assert len({frozenset(places) for places in heads.values()}) == 1
    assert len(bundle.allocation.shares) == len(bundle.allocation.placements)
    files = {str(p.relative_to(bundle.path)) for p in bundle.path.rglob("*") if p.is_file()}
    stem = made.members[0].backbone.removesuffix("-8")
    wanted = {f"members/{name}/model.onnx" for name in bundle.ensemble.members}
    assert files == wanted | {
        f"backbones/{stem}-8.onnx",
        f"backbones/{stem}.json",
        "bundle.json",
        "README.md",
        "validation.json",
    }
    shutil.rmtree(library.path)
    moved = shutil.move(bundle.path, tmp_path / "moved")
    with Engine(moved) as engine:
        np.testing.assert_allclose(engine.predict(made.images), made.predictions.mean(0), atol=1e-5)


def test_members_of_a_unit_run_with_one_backend(made: Shared, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("openvino")
    library, calls = copy(made, tmp_path), []

    def seconds(runners, *_, **__):
        calls.append(sorted(runners))
        first = {"onnx": 1.0, "openvino": 0.5} if len(calls) == 1 else {"onnx": 0.5, "openvino": 1.0}
        return {name: first.get(name, 2.0) for name in runners}

    monkeypatch.setattr("ripieno.pipeline.backend_selection.time_alternately", seconds)
    options = {"devices": [CPU], "max_benches": 0, "bundle": tmp_path / "bundle"}
    bundle = ripieno.allocate(library, "heads", backend="auto", **options)
    assert set(bundle.allocation.backends) == {"onnx"}, "the first member chose openvino, the others did not"
    with Engine(bundle) as engine:
        np.testing.assert_allclose(engine.predict(made.images), made.predictions[:3].mean(0), atol=1e-5)
    bundle = ripieno.allocate(library, "heads", precision="int8", **options)
    assert set(bundle.allocation.backends) == {"onnx"}
    report = read_backend_report(bundle.path)
    assert report is not None
    assert {c.refused["onnx:int8"] for c in report.choices} == {"a shared backbone has no file in a lower precision"}


def test_an_explanation_and_a_cascade_know_units(made: Shared, tmp_path: Path) -> None:
    library = copy(made, tmp_path)
    bundle = ripieno.allocate(library, "mixed", devices=[CPU], max_benches=0)
    found = pipeline.explain(library, bundle.allocation)
    assert found.throughput == pytest.approx(bundle.allocation.predicted)
    assert sum(p.share for p in found.placements) == pytest.approx(sum(d.busy for d in found.devices), rel=0.01)
    notes: list[str] = []
    served, cascade = pipeline.cascade(library, bundle, tolerance=10.0, notes=notes)
    shared = [m.id for m in made.members]
    places = sorted(cascade.order.index(name) for name in shared)
    assert places[-1] - places[0] == 2
    assert cascade.effects["valid"].asked == pytest.approx(3.0 if cascade.order[0] in shared else 1.0)
    with Engine(served) as engine:
        depth = engine.submit(made.images).result().members_evaluated
        assert set(depth) <= {1, 3, 4}
    one_unit = ripieno.allocate(library, "heads", devices=[CPU], max_benches=0)
    unchanged, cascade = pipeline.cascade(library, one_unit, tolerance=10.0)
    assert (cascade.threshold, unchanged.cascade) == (DISABLED, None), "one unit has nothing to leave out"
    assert (served.path / "backbones" / f"{made.members[0].backbone}.onnx").is_file()


def test_a_unit_runs_with_pytorch_from_one_copy_of_the_weights(made: Shared, tmp_path: Path) -> None:
    library = copy(made, tmp_path)
    bundle = ripieno.allocate(library, "heads", devices=[CPU], max_benches=0, backend="torch", bundle=tmp_path / "b")
    stem = made.members[0].backbone.removesuffix("-8")
    assert {p.name for p in (bundle.path / "backbones").iterdir()} == {f"{stem}.safetensors", f"{stem}.json"}
    with Engine(read_bundle(bundle.path, [FAMILY])) as engine:
        np.testing.assert_allclose(engine.predict(made.images), made.predictions[:3].mean(0), atol=1e-5)
    path = pipeline.export(bundle, tmp_path / "ensemble.onnx", trusted=[FAMILY])
    (merged,) = open_file(path.read_bytes())(made.images)
    np.testing.assert_allclose(merged, made.predictions[:3].mean(0), atol=1e-5)
    assert sum(node.op_type == "Conv" for node in onnx.load(str(path)).graph.node) == 1


def test_other_servers_get_whole_networks(made: Shared, tmp_path: Path) -> None:
    library = copy(made, tmp_path)
    bundle = ripieno.allocate(library, "mixed", devices=[CPU], max_benches=0)
    (merged,) = open_file(pipeline.export(bundle, tmp_path / "all.onnx").read_bytes())(made.images)
    np.testing.assert_allclose(merged, made.predictions.mean(0), atol=1e-5)
    pipeline.export(bundle, tmp_path / "triton", form="triton")
    for member, expected in zip(made.members, made.predictions, strict=False):
        content = (tmp_path / "triton" / f"ensemble-{member.id}" / "1" / "model.onnx").read_bytes()
        np.testing.assert_allclose(open_file(content)(made.images)[0], expected, atol=1e-5)


def test_a_plan_for_absent_devices_counts_the_backbone_once(made: Shared, tmp_path: Path) -> None:
    library = copy(made, tmp_path)
    planned = pipeline.plan_offline(library, "heads", devices=[CPU], output=tmp_path / "plan")
    profiles = library.profiles(CPU.kind)
    parts = [profiles[made.members[0].backbone], *(profiles[m.id] for m in made.members)]
    fastest = min(sum(p.at(n).seconds for p in parts) / n for n in (1, 8))
    assert planned.allocation.predicted == pytest.approx(1 / fastest, rel=0.5)
    assert planned.allocation.predicted <= 1 / fastest
    everything = pipeline.plan_offline(library, devices=[CPU], output=tmp_path / "plan2")
    assert {p.member for p in everything.allocation.placements} == {ALONE, *(m.id for m in made.members)}


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_heads_of_a_search_are_served_as_they_were_judged(tmp_path: Path) -> None:
    """Heads trained on kept features give, in a bundle on a backbone exported once, their validation predictions."""
    from ripieno.models.torchvision_import import import_timm

    name = "test_efficientnet"
    save_file(import_timm().create_model(name).state_dict(), tmp_path / f"{name}.safetensors")
    ranges = {"learning_rate": {"kind": "continuous", "low": 1e-3, "high": 1e-2, "log": True}}
    space = {"family": f"timm:{name}", "ranges": ranges, "fixed": {"frozen": "all", "resolution": 32}}
    files.write_json(tmp_path / "space.json", space)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 120)
    images = (generator.integers(0, 100, (120, 40, 40, 3)) + 50 * labels[:, None, None, None]).astype(np.uint8)
    options = {"space": str(tmp_path / "space.json"), "weights": tmp_path / f"{name}.safetensors", "free": "off"}
    library = ripieno.tune((images, labels), tmp_path / "run", trials=2, epochs=1, pool="inline", **options)
    members = tuple(m.id for m in library.members())
    (shared,) = {m.backbone for m in library.members()}
    assert shared.startswith(f"{name}-")
    ensemble = Ensemble("heads", members, (0.5, 0.5), "hand", {"seconds": 1.0}, {}, {})
    cpu = dataclasses.replace(CPU, cores=(min(os.sched_getaffinity(0)),))
    bundle = ripieno.allocate(library, ensemble, devices=[cpu], max_benches=0, bundle=tmp_path / "bundle")
    dataset = open_dataset(library.dataset_path)
    with Engine(bundle) as engine:
        each = engine.submit(np.asarray(dataset.inputs[dataset.rows("valid")]), each=True).result().member_predictions
    assert each is not None
    for member, predictions in zip(members, each, strict=True):
        np.testing.assert_allclose(predictions, library.predictions(member), atol=1e-3)
