from __future__ import annotations

import os
from pathlib import Path

import fake_members as fake
import pytest

from ripieno.engine.model_runner import ModelRunner, ModelSpec, WorkerConfig, stamp_of
from ripieno.engine.ring_memory import Memory
from ripieno.errors import EngineError
from ripieno.types import Device, Input


@pytest.mark.parametrize(("device", "batches"), [("cpu:0", [1, 1]), ("cuda:0", [8, 1, 1])])
def test_members_are_warmed_up_on_one_sample_and_on_a_gpu_on_their_largest_batch_before(device, batches):
    seen = []

    class Watched(fake.FakeBackend):
        def infer(self, images):
            seen.append(len(images))
            return super().infer(images)

    def load(backend, path, member, device, threads):
        return Watched(path, member)

    spec = ModelSpec(0, 0, fake.member(0), Path("nowhere"), batch_size=8)
    config = WorkerConfig("onnx", Device(device, "some", 1 << 30), 1, (), (spec,))
    runner = ModelRunner(load, config, Memory(8, 1, (fake.CLASSES,), Input(fake.SHAPE)))
    assert runner.warm_up().keys() == {0}
    assert seen == batches
    runner.close()


def test_a_member_of_another_width_is_refused_before_it_serves():
    class Narrow(fake.FakeBackend):
        def infer(self, images):
            return super().infer(images)[:, 1:]

    def load(backend, path, member, device, threads):
        return Narrow(path, member)

    config = WorkerConfig(
        "onnx", Device("cpu:0", "some", 1 << 30), 1, (), (ModelSpec(0, 0, fake.member(0), Path("nowhere")),)
    )
    runner = ModelRunner(load, config, Memory(8, 1, (fake.CLASSES,), Input(fake.SHAPE)))
    with pytest.raises(EngineError, match=r"shape \(1, 2\), expected \(1, 3\)"):
        runner.warm_up()
    runner.close()


@pytest.mark.parametrize("change", ["over", "moved", "gone"])
def test_a_file_that_changed_since_the_engine_was_opened_is_not_loaded(tmp_path, change):
    """Any change counts, even with the old date and size: otherwise only some workers would use the new file."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    dates = path.stat()
    spec = ModelSpec(0, 0, fake.member(0), path, stamp=stamp_of(path, fake.member(0)))
    config = WorkerConfig("onnx", Device("cpu:0", "some", 1 << 30), 1, (), (spec,))
    memory = Memory(8, 1, (fake.CLASSES,), Input(fake.SHAPE))
    load = lambda backend, path, member, device, threads: fake.FakeBackend(path, member)  # noqa: E731
    ModelRunner(load, config, memory).close()
    if change == "over":
        path.write_bytes(b"new")
        os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    elif change == "moved":
        (tmp_path / "other").write_bytes(b"new")
        os.replace(tmp_path / "other", path)
    else:
        path.unlink()
    with pytest.raises(EngineError, match="has changed since the engine was opened"):
        ModelRunner(load, config, memory)
