"""Members that share a backbone run as one unit: one forward of the backbone a batch, predictions of every member."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import fake_members as fake
import numpy as np
import pytest

from ripieno import backends
from ripieno.engine import AllocationBenchmark, Cascade, Engine, RestartPolicy, bench, judge_cascade, plan_cascade
from ripieno.engine.worker_config import units_of
from ripieno.errors import EngineError, LibraryError
from ripieno.library import read_bundle
from ripieno.types import DISABLED, Placement
from tests.shared_networks import FAMILY, Shared, shared_bundle, shared_networks

QUICK = RestartPolicy(back_off=0.01, check=0.05)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_networks(tmp_path_factory.mktemp("shared")) as made:
        shared_bundle(made, lanes=2)
        yield made


def mixed(**habits):
    """Two members that share a backbone around one that does not, so that units and members differ in their indices."""
    first, last = fake.sharing(2, **habits)
    alone = dataclasses.replace(fake.member(7), id="00007-e001")
    return [first, alone, last]


def test_the_members_of_a_backbone_are_one_unit_in_the_ensembles_order():
    assert units_of(fake.bundle(mixed())) == ((0, 2), (1,))
    assert units_of(fake.bundle(3)) == ((0,), (1,), (2,))


def test_every_member_predicts_what_it_predicts_alone(isolation):
    bundle, images = fake.bundle(mixed(), lanes=2), fake.images(50)
    own = fake.each(bundle, images)
    with Engine(bundle, isolation=isolation, load=fake.load) as engine:
        answer = engine.submit(images, each=True).result()
        np.testing.assert_allclose(answer.member_predictions, own, atol=1e-6)
        np.testing.assert_allclose(answer.predictions, own.mean(0), atol=1e-6)
        for number, name in enumerate(bundle.ensemble.members):
            np.testing.assert_allclose(engine.predict(images[:5], [name]), own[number][:5], atol=1e-6)
        stats = engine.stats()
    assert {work.samples for work in list(stats.members.values())[::2]} == {60}
    first, alone, last = stats.members.values()
    assert (first.batches, first.computing) == (last.batches, last.computing)
    assert sum(lane.computing for lane in stats.lanes) == pytest.approx(sum(m.computing for m in (first, alone, last)))
    assert [sum(lane.seats.values()) for lane in stats.lanes] == pytest.approx([w.computing for w in stats.lanes])


def test_the_backbone_runs_once_a_batch_for_all_its_heads():
    bundle = fake.bundle(fake.sharing(5), lanes=1, batch_size=8)
    with Engine(bundle, isolation="thread", load=fake.load) as engine:
        before = fake.FakeBackbone.calls
        engine.predict(fake.images(64))
        calls = fake.FakeBackbone.calls - before
        assert calls == sum(lane.batches for lane in engine.stats().lanes)
    assert 8 <= calls <= 16


def test_a_worker_killed_with_a_unit_recovers():
    bundle, images = fake.bundle(mixed(), lanes=1), fake.images(20)
    own = fake.each(bundle, images).mean(0)
    with Engine(bundle, isolation="process", load=fake.load, patience=QUICK) as engine:
        (lane,) = engine.stats().lanes
        future = engine.submit(np.concatenate([images] * 20))
        os.kill(lane.process, signal.SIGKILL)
        np.testing.assert_allclose(future.result(30).predictions[:20], own, atol=1e-6)
        np.testing.assert_allclose(engine.predict(images), own, atol=1e-6)
        (after,) = engine.stats().lanes
        assert (after.restarts, after.process != lane.process) == (1, True)


def test_a_head_whose_predictions_are_not_finite_is_left_out_alone(isolation):
    bundle = fake.bundle(mixed(bad=fake.SPOIL))
    images = fake.images(10)
    images[3].flat[0] = fake.SPOIL
    own, names = fake.each(bundle, images), bundle.ensemble.members
    with Engine(bundle, isolation=isolation, load=fake.load, min_members=2) as engine:
        answer = engine.submit(images).result()
        assert (answer.members, answer.partial) == (names[:2], True)
        np.testing.assert_allclose(answer.predictions, own[:2].mean(0), atol=1e-6)
    with Engine(bundle, isolation=isolation, load=fake.load) as engine, pytest.raises(EngineError, match=names[2]):
        engine.predict(images)


def test_a_unit_that_kills_its_worker_is_left_out_whole():
    """The samples of the request are lost for both heads, not for the member of the other worker."""
    bundle = fake.bundle(mixed(bad=fake.KILL), lanes=2)
    shared = {m.id for m in bundle.members if m.backbone}
    places = tuple(Placement(m.id, "cpu:0", 8, 0 if m.id in shared else 1) for m in bundle.members)
    bundle = dataclasses.replace(bundle, allocation=dataclasses.replace(bundle.allocation, placements=places))
    images = fake.images(4)
    images[0].flat[0] = fake.KILL
    with Engine(bundle, isolation="process", load=fake.load, patience=QUICK, min_members=1) as engine:
        answer = engine.submit(images).result(30)
        assert answer.members == (bundle.ensemble.members[1],)
        np.testing.assert_allclose(answer.predictions, fake.each(bundle, images)[1], atol=1e-6)
        assert len(engine.submit(fake.images(4)).result(30).members) == 3


def test_a_cascade_runs_the_members_of_a_unit_together():
    bundle = fake.bundle(mixed())
    names = bundle.ensemble.members
    images = fake.images(40)
    own = fake.each(bundle, images)
    together, all_three = own[[0, 2]].mean(0), own.mean(0)
    threshold = float(np.median(together.max(1)))
    bundle = dataclasses.replace(bundle, cascade=Cascade((names[0], names[1], names[2]), threshold))
    with Engine(bundle, isolation="thread", load=fake.load) as engine:
        answer = engine.submit(images).result()
    sure = together.max(1) >= threshold
    assert 0 < sure.sum() < 40
    np.testing.assert_array_equal(answer.members_evaluated, np.where(sure, 2, 3))
    np.testing.assert_allclose(answer.predictions, np.where(sure[:, None], together, all_three), atol=1e-5)


def test_a_cascade_goes_on_without_heads_that_are_not_finite():
    bundle = fake.bundle(mixed(bad=fake.SPOIL))
    names = bundle.ensemble.members
    bundle = dataclasses.replace(bundle, cascade=Cascade((names[0], names[2], names[1]), DISABLED))
    images = fake.images(6)
    images[2].flat[0] = fake.SPOIL
    own = fake.each(bundle, images)
    with Engine(bundle, isolation="thread", load=fake.load, min_members=1) as engine:
        answer = engine.submit(images).result()
    assert answer.members == (names[0], names[1])
    np.testing.assert_allclose(answer.predictions[2], own[:2, 2].mean(0), atol=1e-5)


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"lane": 1}])
def test_members_of_a_unit_that_are_placed_apart_are_refused(change):
    bundle = fake.bundle(fake.sharing(2), lanes=1)
    first, last = bundle.allocation.placements
    allocation = dataclasses.replace(bundle.allocation, placements=(first, dataclasses.replace(last, **change)))
    with pytest.raises(EngineError, match="share a backbone, but differ in their placements on cpu:0"):
        Engine(dataclasses.replace(bundle, allocation=allocation), load=fake.load)


def test_one_member_of_a_backbone_is_a_unit_too():
    bundle, images = fake.bundle(fake.sharing(1)), fake.images(9)
    with Engine(bundle, isolation="thread", load=fake.load) as engine:
        np.testing.assert_allclose(engine.predict(images), fake.each(bundle, images)[0], atol=1e-6)


@pytest.mark.parametrize("backend", ["onnx", "openvino", "torch"])
def test_real_networks_in_a_copied_bundle_predict_as_alone(shared, backend, isolation, tmp_path):
    if backend == "openvino":
        pytest.importorskip("openvino")
    shutil.copytree(shared.folder, tmp_path / "elsewhere")
    bundle = dataclasses.replace(read_bundle(tmp_path / "elsewhere", [FAMILY]), backend=backend)
    with Engine(bundle, isolation=isolation) as engine:
        answer = engine.submit(shared.images, each=True).result()
        np.testing.assert_allclose(answer.member_predictions, shared.predictions, atol=1e-5)
        np.testing.assert_allclose(answer.predictions, shared.predictions.mean(0), atol=1e-5)
        if (backend, isolation) == ("onnx", "process"):
            maps = Path(f"/proc/{engine.stats().lanes[0].process}/maps").read_text()
            assert "libtorch" not in maps


def test_a_backbone_that_changed_is_not_loaded_by_a_worker_that_restarts(shared, tmp_path):
    shutil.copytree(shared.folder, tmp_path / "bundle")
    (path,) = (tmp_path / "bundle" / "backbones").glob("*.onnx")
    with Engine(tmp_path / "bundle", isolation="process", patience=QUICK) as engine:
        path.write_bytes(path.read_bytes())
        os.kill(engine.stats().lanes[0].process, signal.SIGKILL)
        until = time.monotonic() + 20
        while time.monotonic() < until and engine.stats().lanes[0].restarts < 2:
            time.sleep(0.02)
        assert engine.stats().lanes[0].restarts >= 2
        assert not engine.ready


def test_a_bundle_without_its_backbone_is_refused(shared, tmp_path):
    shutil.copytree(shared.folder, tmp_path / "bundle")
    (path,) = (tmp_path / "bundle" / "backbones").glob("*.onnx")
    path.unlink()
    with pytest.raises(LibraryError, match=rf"backbones/{path.name} is missing, or no file; copy the whole bundle"):
        read_bundle(tmp_path / "bundle")


def test_a_benchmark_counts_calls_of_the_backbone_once(shared):
    calls = []

    def load(*what, part="whole"):
        loaded = backends.load(*what, part=part)
        infer = loaded.infer
        loaded.infer = lambda images: (calls.append(part), infer(images))[1]
        return loaded

    result = bench(shared.folder, seconds=0.1, isolation="thread", load=load)
    assert result.throughput > 0
    assert calls.count("head") == 3 * calls.count("backbone")


def test_benchmarks_of_allocations_lease_a_backbone_and_its_heads_again(shared):
    loaded = []

    def load(*what, part="whole"):
        loaded.append(part)
        return backends.load(*what, part=part)

    bundle = read_bundle(shared.folder)
    members = {m.id: m for m in bundle.members}
    paths = {m.id: shared.path(m) for m in bundle.members}
    with AllocationBenchmark(bundle.ensemble, members, paths, seconds=0.05, load=load) as measure:
        assert measure(bundle.allocation) > 0
        assert sorted(loaded) == ["backbone"] * 2 + ["head"] * 6
        assert measure(bundle.allocation) > 0
    assert len(loaded) == 8


def test_a_planned_cascade_runs_units_whole():
    """Members of a unit are adjacent, samples stop after whole units only, and the costs of a unit add up."""
    interleaved = 0
    for seed in range(8):
        generator = np.random.default_rng(seed)
        targets = generator.integers(0, 3, 200)
        logits = generator.normal(size=(3, 200, 3)) + 2 * np.eye(3)[targets] * np.array([1.5, 1.2, 0.5])[:, None, None]
        powers = np.exp(logits)
        given = (("a", "x", "b"), (powers / powers.sum(2, keepdims=True)).astype(np.float32), targets, (1.0, 1.5, 1.0))
        alone = plan_cascade(*given, tolerance=0.05)
        planned = plan_cascade(*given, tolerance=0.05, units=("s", "x", "s"))
        interleaved += alone.order.index("x") == 1
        assert planned.order in (("a", "b", "x"), ("x", "a", "b"))
        effect = planned.effects["valid"]
        first = (0, 2) if planned.order[0] == "a" else (1,)
        mean = given[1][list(first)].mean(0).max(1)
        stopped = (mean >= planned.threshold).mean()
        assert effect.asked == pytest.approx(stopped * len(first) + (1 - stopped) * 3)
        assert effect.saved == pytest.approx(stopped * (1.5 if len(first) == 2 else 2.0) / 3.5)
        assert judge_cascade(planned, *given, units=("s", "x", "s")) == effect
    assert interleaved, "without units, no order has a member between those of the unit"
