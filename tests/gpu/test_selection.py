"""Selection with the matrix of probabilities on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ripieno.errors import SelectionError
from ripieno.selection import select_members
from ripieno.selection.out_of_core import BlockedCrossEntropy
from ripieno.selection.torch_device import DeviceCrossEntropy


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_losses_are_those_of_the_cpu(dtype: type) -> None:
    truth = np.random.default_rng(0).uniform(0.01, 1, (12, 5000)).astype(dtype)
    here, there = BlockedCrossEntropy(list(truth)), DeviceCrossEntropy(list(truth), "cuda")
    for members in ((), (3,), (3, 7, 1)):
        candidates = np.arange(12)
        expected = here.losses(here.state(members), candidates)
        found = there.losses(there.state(members), candidates)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_same_members_are_selected() -> None:
    generator = np.random.default_rng(1)
    truth = np.clip(generator.uniform(0, 0.6, 3000) + generator.uniform(0, 0.4, (30, 3000)), 1e-4, 1)
    costs = generator.uniform(0.5, 2, 30)
    here, there = (select_members(truth, None, costs, 8.0, prune=1.0, device=d) for d in ("cpu", "cuda"))
    assert here.members == there.members
    assert here.loss == pytest.approx(there.loss, abs=1e-6)


def test_a_matrix_larger_than_the_gpu_is_refused() -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (4 << 20)) / total)
    try:
        with pytest.raises(SelectionError, match="cannot hold the predictions"):
            DeviceCrossEntropy([np.full(1 << 20, 0.5, np.float32)] * 16, "cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(SelectionError, match="cannot hold the predictions"):
        DeviceCrossEntropy([np.full(4, 0.5, np.float32)], f"cuda:{torch.cuda.device_count()}")
