"""Predictions larger than memory: the selected members do not depend on the blocks."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.selection import out_of_core, problem_builder, select_members
from ripieno.selection.out_of_core import BlockedCrossEntropy, PredictionRow, row_of
from ripieno.selection.torch_device import DeviceCrossEntropy
from ripieno.selection.tree import ParentBounds, Tree
from ripieno.tasks.metrics import cross_entropy

SAMPLES = 5001


@pytest.fixture
def truth() -> NDArray[np.float16]:
    rng = np.random.default_rng(0)
    hard = rng.beta(4, 0.7, SAMPLES)
    noisy = np.stack([hard * rng.beta(5, 0.2 + 0.02 * m, SAMPLES) for m in range(12)])
    noisy[noisy < 0.02] = 0
    return noisy.astype(np.float16)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_core, "BLOCK", 256)
    monkeypatch.setattr(out_of_core, "TASK", 1024)
    monkeypatch.setattr(problem_builder, "IN_MEMORY", 0)


def test_every_float16_is_read_exactly_but_for_its_sign() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    read = out_of_core._read(finite, np.empty(len(finite), np.float32), np.empty(len(finite), np.uint32))
    assert (read == np.abs(finite.astype(np.float32))).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_losses_are_within_1e_6_of_the_exact_ones(truth: NDArray[np.float16], dtype: type, small_blocks: None) -> None:
    rows = truth.astype(dtype)
    objective = BlockedCrossEntropy(list(rows))
    members: tuple[int, ...] = ()
    for member in (3, 0, 7, 7, 2):
        losses = objective.losses(members, np.arange(12))
        exact = [cross_entropy(rows[[*members, c]].astype(np.float64).mean(axis=0)) for c in range(12)]
        assert losses == pytest.approx(exact, abs=1e-6)
        members = (*members, member)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_members_that_rule_the_truth_out_cost_the_log_of_1e_15(count: int) -> None:
    objective = BlockedCrossEntropy(list(np.zeros((4, 40), np.float16)))
    members = tuple(range(count))
    assert objective.losses(members, np.array([3])) == pytest.approx([15 * np.log(10)], abs=1e-6)


def test_bounds_from_gains_are_never_above_the_losses(small_blocks: None) -> None:
    rng = np.random.default_rng(0)
    rows = rng.beta(rng.uniform(0.1, 3, (20, 1)), 1, (20, 500)).astype(np.float16)
    objective = BlockedCrossEntropy(list(rows))
    for members in [(3, 1), (3, 1, 1), (0, 5, 7, 9, 11)]:
        before = float(objective.losses(members[:-2], np.array(members[-2:-1]))[0])
        above = ParentBounds(before, objective.losses(members[:-1], np.arange(20)))
        loss = float(above.lower_bounds[members[-1]])
        losses = objective.losses(members, np.arange(20))
        bounds = objective.lower_bounds(members, loss, above)
        assert (bounds <= losses).all()
        assert (bounds > losses - 0.7).any()


def test_going_back_to_a_smaller_ensemble_gives_the_same_losses(truth: NDArray[np.float16], small_blocks: None) -> None:
    objective = BlockedCrossEntropy(list(truth))
    first = objective.losses((1,), np.arange(12)).tolist()
    objective.losses((1, 2, 3), np.arange(12))
    objective.losses((4,), np.arange(12))
    assert objective.losses((1,), np.arange(12)).tolist() == first


def test_gains_of_smaller_ensembles_save_evaluations_and_change_nothing(
    small_blocks: None,
) -> None:
    rng = np.random.default_rng(0)
    truth = rng.beta(rng.uniform(0.2, 3, (40, 1)), 1, (40, SAMPLES)).astype(np.float16)
    trees = [Tree(BlockedCrossEntropy(list(truth)), bounded) for bounded in (True, False)]
    paths = []
    for tree in trees:
        node = tree.root
        for _ in range(8):
            left = np.setdiff1d(np.arange(40), node.members)
            member = tree.step(node, left, 1.0, np.zeros(len(left)), np.inf)
            assert member is not None
            node = tree.child(node, member)
        paths.append((node.members, node.loss))
    assert paths[0] == paths[1]
    assert trees[0].evaluations < 0.9 * trees[1].evaluations


def test_threads_and_processes_give_the_same_bits(
    truth: NDArray[np.float16], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out_of_core, "TASK", 1024)
    monkeypatch.setattr(problem_builder, "IN_MEMORY", 0)
    np.save(tmp_path / "truth.npy", truth)
    mapped = np.load(tmp_path / "truth.npy", mmap_mode="r")
    costs = np.linspace(1, 3, 12)
    alone = select_members(truth, costs=costs, budget=9.0, method="smobf")
    with ThreadPoolExecutor(3) as threads:
        assert select_members(mapped, costs=costs, budget=9.0, pool=threads, method="smobf") == alone
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert select_members(list(mapped), costs=costs, budget=9.0, pool=processes, method="smobf") == alone


def test_blocks_choose_what_the_matrix_in_memory_chooses(
    truth: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = np.linspace(1, 3, 12)
    memory = select_members(truth, costs=costs, budget=9.0, method="smobf")
    monkeypatch.setattr(problem_builder, "IN_MEMORY", 0)
    blocked = select_members(truth, costs=costs, budget=9.0, method="smobf")
    assert blocked.members == memory.members
    assert blocked.loss == pytest.approx(memory.loss, abs=1e-6)


def test_a_row_of_a_mapped_matrix_is_named_by_file_and_offset(truth: NDArray[np.float16], tmp_path: Path) -> None:
    np.save(tmp_path / "truth.npy", truth)
    mapped = np.load(tmp_path / "truth.npy", mmap_mode="r")
    row = row_of(mapped[5][100:])
    assert isinstance(row, PredictionRow)
    assert (out_of_core._open(row) == truth[5][100:]).all()
    assert row_of(truth[5]) is not None
    assert not isinstance(row_of(truth[5]), PredictionRow)


def test_a_replaced_file_is_read_again(truth: NDArray[np.float16], tmp_path: Path) -> None:
    path = tmp_path / "truth.npy"
    for value in (truth[0], truth[1]):
        path.unlink(missing_ok=True)
        np.save(path, value)
        row = row_of(np.load(path, mmap_mode="r"))
        assert isinstance(row, PredictionRow)
        assert (out_of_core._open(row) == value).all()


def test_torch_gives_the_same_members_within_the_tolerance(truth: NDArray[np.float16]) -> None:
    pytest.importorskip("torch")
    here, device = BlockedCrossEntropy(list(truth)), DeviceCrossEntropy(list(truth), "cpu")
    for members in [(), (3,), (3, 1, 4)]:
        here_losses = here.losses(here.state(members), np.arange(12))
        assert device.losses(device.state(members), np.arange(12)) == pytest.approx(here_losses, abs=1e-6)


def test_torch_too_counts_what_is_ruled_out_as_1e_15() -> None:
    pytest.importorskip("torch")
    device = DeviceCrossEntropy(list(np.zeros((4, 40), np.float16)), "cpu")
    assert device.losses(device.state((0, 1)), np.array([3])) == pytest.approx([15 * np.log(10)], abs=1e-5)


def test_an_absent_device_is_one_line(truth: NDArray[np.float16]) -> None:
    pytest.importorskip("torch")
    with pytest.raises(SelectionError, match="cannot hold the predictions"):
        select_members(truth, device="cuda:97", method="smobf")
    with pytest.raises(SelectionError, match="cannot hold the predictions"):
        select_members(truth, device="abacus", method="smobf")
