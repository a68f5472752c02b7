from __future__ import annotations

from pathlib import Path

import fake_members as fake
from hypothesis import given
from hypothesis import strategies as st

from ripieno.engine.messages import (
    LONGEST,
    MessageKind,
    RunBatch,
    WorkerMessage,
    WorkerSetup,
    pack,
    pack_setup,
    unpack_messages,
    unpack_setup,
    unpack_tasks,
)
from ripieno.engine.model_runner import ModelSpec, WorkerConfig
from ripieno.engine.range_queue import MOST_RANGES
from ripieno.engine.ring import MAX_ASSIGNMENTS
from ripieno.types import Device, Input

small = st.integers(0, 2**16 - 1)
slots = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=5).map(tuple)


@given(st.lists(st.builds(RunBatch, st.integers(0, 2**64 - 1), small, slots, st.booleans()), max_size=6))
def test_tasks_arrive_as_they_were_sent(tasks):
    assert unpack_tasks(pack(tasks)) == tasks


messages = st.builds(
    WorkerMessage, st.sampled_from(MessageKind), small, st.integers(0, 2**64 - 1), st.floats(0, 1e9), st.text()
)


@given(st.lists(messages, max_size=4))
def test_messages_arrive_as_they_were_sent(many):
    assert unpack_messages(pack(many)) == many


def test_the_most_a_worker_may_hold_fits_one_message():
    most = 2**32 - 1
    worst = [RunBatch(2**64 - 1, most, ((most, most),) * MOST_RANGES)] * MAX_ASSIGNMENTS
    assert len(pack(worst)) < LONGEST


def test_a_setup_survives_json():
    spec = ModelSpec(3, 2, fake.member(3, delay=0.5), Path("a/model.onnx"))
    config = WorkerConfig("onnx", Device("cpu:0", "cpu", 1, (0, 1)), 2, (1,), (spec,))
    setup = WorkerSetup("module:load", config, 64, 4, (3,), Input((2, 2, 1)))
    assert unpack_setup(pack_setup(setup)) == setup
