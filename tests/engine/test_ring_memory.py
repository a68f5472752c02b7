from __future__ import annotations

import os

import numpy as np
import pytest

from ripieno.engine.ring_memory import Memory
from ripieno.errors import EngineError
from ripieno.types import Input

INPUT = Input((2, 2, 1))


def test_two_mappings_of_one_descriptor_see_the_same_samples_and_predictions():
    ours = Memory(8, 2, (3,), INPUT, shared=True)
    theirs = Memory(8, 2, (3,), INPUT, descriptor=os.dup(ours.descriptor))
    ours.samples[5] = 7
    theirs.predictions[1, 5] = 0.5
    assert (theirs.samples[5] == 7).all()
    assert (ours.predictions[1, 5] == 0.5).all()
    assert not ours.predictions[0].any()
    ours.close()
    theirs.close()


def test_one_run_of_slots_is_read_without_a_copy():
    memory = Memory(8, 1, (3,), INPUT)
    assert np.shares_memory(memory.gather([(2, 4)]), memory.samples)


def test_scattered_slots_are_read_in_their_order():
    memory = Memory(8, 1, (3,), INPUT)
    memory.samples[:] = np.arange(8, dtype=np.uint8)[:, None, None, None]
    assert memory.gather([(6, 2), (0, 1)])[:, 0, 0, 0].tolist() == [6, 7, 0]


def test_predictions_go_to_the_slots_of_their_samples_and_nowhere_else():
    memory = Memory(8, 2, (3,), INPUT)
    answers = np.arange(9, dtype=np.float32).reshape(3, 3)
    memory.scatter(1, [(6, 2), (0, 1)], answers)
    assert (memory.predictions[1, [6, 7, 0]] == answers).all()
    assert not memory.predictions[0].any()
    assert not memory.predictions[1, 1:6].any()


@pytest.mark.parametrize("shape", [(1, 3), (2, 4), (2,)])
def test_predictions_of_a_wrong_shape_are_refused_not_broadcast(shape):
    memory = Memory(8, 1, (3,), INPUT)
    with pytest.raises(EngineError, match=r"expected \(2, 3\)"):
        memory.scatter(0, [(0, 2)], np.zeros(shape, np.float32))


def test_closing_frees_the_descriptor():
    memory = Memory(8, 1, (3,), INPUT, shared=True)
    descriptor = memory.descriptor
    memory.close()
    memory.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
