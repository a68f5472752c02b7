from __future__ import annotations

from pathlib import Path

import fake_members as fake
import pytest

from ripieno.engine.crew import Crew, Orders, Seat
from ripieno.engine.memory import Memory
from ripieno.types import Device, Input


@pytest.mark.parametrize(("device", "batches"), [("cpu:0", [1, 1]), ("cuda:0", [8, 1, 1])])
def test_members_are_rehearsed_on_one_sample_and_on_a_gpu_on_their_largest_batch_before(device, batches):
    seen = []

    class Watched(fake.FakeBackend):
        def infer(self, images):
            seen.append(len(images))
            return super().infer(images)

    def load(backend, path, member, device, threads):
        return Watched(path, member)

    seat = Seat(0, fake.member(0), Path("nowhere"), batch_size=8)
    orders = Orders("onnx", Device(device, "some", 1 << 30), 1, (), (seat,))
    crew = Crew(load, orders, Memory(8, 1, fake.CLASSES, Input(fake.SHAPE)))
    assert crew.rehearse().keys() == {0}
    assert seen == batches
    crew.close()
