"""Training on a GPU: precision, data feed, measurements, memory that runs out."""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from ripieno.data import open_dataset
from ripieno.data.augment import Augmentation
from ripieno.data.augmentation_policy import RandomPolicy
from ripieno.data.image_operations import ImageOperations
from ripieno.library import Library
from ripieno.train import TrainingConfig, batching, data_pipeline, train_job
from ripieno.train.augmentation import InputAugmentation
from ripieno.train.batching import EpochBatches
from ripieno.train.checkpoint import TrainingState
from ripieno.train.data_pipeline import BatchPipeline
from ripieno.train.device_copy import to_device
from ripieno.train.loading_strategy import INLINE, THREAD, LoadingStrategy
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.train.policy_augmentation import PolicyAugmentation
from ripieno.train.speed import measure_throughput
from ripieno.train.stall_timer import StallTimer
from ripieno.types import Configuration, Dataset, Job

GPU = torch.device("cuda")
CONFIGURATION: Configuration = {
    "stem_filters": 8,
    "width": 8,
    **{f"blocks_{n}": 1 for n in (1, 2, 3, 4)},
    "batch_size": 24,
    "learning_rate": 0.01,
}
WARPED: Configuration = {**CONFIGURATION, "max_zoom": 0.2, "max_rotation": 10, "flip": True}


def pipeline_of(
    digits: Dataset, augment: InputAugmentation, strategy: LoadingStrategy = INLINE, device: torch.device = GPU
) -> BatchPipeline:
    """A pipeline of one epoch."""

    def generators(number: int) -> tuple[np.random.Generator, torch.Generator]:
        return np.random.default_rng(number), torch.Generator().manual_seed(number)

    return BatchPipeline(
        digits, EpochBatches(digits, 24, augment, generators, device.type), device, 1, strategy=strategy
    )


def epoch(
    digits: Dataset, augment: InputAugmentation, strategy: LoadingStrategy, device: torch.device = GPU
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of one epoch, on the CPU."""
    with closing(pipeline_of(digits, augment, strategy, device)) as pipeline:
        parts = [(images.cpu(), labels.cpu()) for block in pipeline.batches(1) for images, labels in block]
        assert pipeline.waited() >= 0
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def test_a_job_learns_on_the_gpu_and_its_member_predicts_the_same_on_the_cpu(config: TrainingConfig) -> None:
    outcome = train_job(config, Job(0, WARPED, 0, 6))
    assert outcome.failure is None, outcome.failure
    assert outcome.member is not None
    assert outcome.member.losses["valid_cross_entropy"] < 0.7 * np.log(10)
    assert len(outcome.member.curve) == 6
    assert all(0 <= e.waited <= e.seconds for e in outcome.member.curve)


def test_a_job_continues_from_the_checkpoint_of_the_one_before(config: TrainingConfig) -> None:
    first = train_job(config, Job(0, CONFIGURATION, 0, 2)).member
    second = train_job(config, Job(0, CONFIGURATION, 2, 4)).member
    assert first is not None
    assert second is not None
    assert [e.epoch for e in second.curve] == [1, 2, 3, 4]
    assert second.curve[:2] == first.curve
    assert second.curve[3].train_loss < first.curve[0].train_loss


def test_training_leaves_the_generators_of_the_gpu_alone(config: TrainingConfig) -> None:
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    train_job(config, Job(0, CONFIGURATION, 0, 1))
    assert torch.equal(before, torch.cuda.get_rng_state())


@pytest.mark.parametrize("half", [True, False])
def test_steps_use_bfloat16_only_where_the_gpu_computes_in_it(
    config: TrainingConfig, digits: Dataset, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if half and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("needs a GPU that computes in bfloat16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: half)
    trainer = NetworkTrainer(config, INLINE)
    trainer.start(Job(0, CONFIGURATION, 0, 1), digits)
    kinds = []
    trainer.network.body.register_forward_hook(lambda _module, _inputs, output: kinds.append(output.dtype))
    with closing(trainer.pipeline):
        progress, answers = trainer.epoch(TrainingState(trainer.fingerprint, 0, 0.0, ()))
    assert kinds[0] == (torch.bfloat16 if half else torch.float32)
    assert next(trainer.network.parameters()).dtype == torch.float32
    assert progress.epoch == 1
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-4)


def test_a_compiled_network_trains(config: TrainingConfig) -> None:
    outcome = train_job(dataclasses.replace(config, compiled=True), Job(0, CONFIGURATION, 0, 1))
    assert outcome.failure is None, outcome.failure


@pytest.mark.parametrize(
    "augment",
    [
        Augmentation(),
        Augmentation(max_rotation=20, max_zoom=0.2, flip=True),
        PolicyAugmentation(Augmentation(flip=True), RandomPolicy("image"), ImageOperations()),
    ],
)
def test_batches_are_the_same_resident_from_the_host_and_by_a_thread(
    digits: Dataset, augment: InputAugmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, labels = epoch(digits, augment, INLINE, torch.device("cpu"))
    resident = epoch(digits, augment, INLINE)
    by_thread = epoch(digits, augment, THREAD)
    monkeypatch.setattr(data_pipeline, "free_bytes", lambda _: 0)
    from_host = epoch(digits, augment, INLINE)
    for images, found in (resident, by_thread, from_host):
        assert torch.equal(found, labels)
        torch.testing.assert_close(images, expected, atol=2e-3, rtol=1e-3)
    assert torch.equal(resident[0], from_host[0])


def test_images_stay_on_the_gpu_until_the_pipeline_is_closed(digits: Dataset) -> None:
    before = torch.cuda.memory_allocated()
    pipeline = pipeline_of(digits, Augmentation())
    assert torch.cuda.memory_allocated() - before >= digits.inputs.nbytes
    block = next(pipeline.batches(1))
    assert {images.device.type for images, _ in block} == {"cuda"}
    pipeline.close()
    assert pipeline._resident is None


def test_images_that_would_take_half_of_the_free_memory_stay_on_the_host(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_pipeline, "free_bytes", lambda _: 2 * digits.inputs.nbytes - 1)
    assert pipeline_of(digits, Augmentation())._resident is None
    monkeypatch.undo()
    assert data_pipeline.free_bytes(GPU) > 2 * digits.inputs.nbytes
    assert pipeline_of(digits, Augmentation())._resident is not None


def test_free_memory_counts_what_pytorch_keeps() -> None:
    torch.cuda.empty_cache()
    before = data_pipeline.free_bytes(GPU)
    held = torch.empty(64 << 20, dtype=torch.uint8, device=GPU)
    assert before - data_pipeline.free_bytes(GPU) >= 60 << 20
    del held  # PyTorch keeps it, and may use it again
    assert data_pipeline.free_bytes(GPU) >= before - (8 << 20)


def test_copies_to_the_gpu_hold_their_values() -> None:
    tensors = [torch.full((1 << 16,), float(i)) for i in range(20)]
    there = [to_device(tensor, GPU) for tensor in tensors]
    assert [float(t.sum()) for t in there] == [i * (1 << 16) for i in range(20)]
    assert to_device(there[0], GPU) is there[0]


def test_the_data_feed_is_chosen_by_measurement_and_recorded(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_pipeline, "free_bytes", lambda _: 0)
    monkeypatch.setitem(batching.BLOCK_BYTES, "cuda", 24 * 64 * 4)
    outcome = train_job(dataclasses.replace(config, spare=1), Job(0, WARPED, 0, 9))
    assert outcome.failure is None, outcome.failure
    timings = list((Library(config.run).path / "feeds").glob("cuda-*.json"))
    assert len(timings) <= 1  # none if the epochs end before a strategy is chosen


def test_stalls_are_measured_in_the_devices_own_queue() -> None:
    timer = StallTimer(GPU)
    torch.cuda._sleep(1)
    torch.cuda.synchronize()
    timer.begin()
    torch.cuda._sleep(50_000_000)  # clock cycles
    timer.end()
    began = time.perf_counter()
    torch.cuda.synchronize()
    waited = time.perf_counter() - began
    assert timer.last() > 0.5 * waited
    assert timer.seconds() == timer.last()
    assert timer.seconds() == 0


def test_throughput_is_measured_when_the_gpu_has_done_its_work(config: TrainingConfig) -> None:
    found = measure_throughput(config, CONFIGURATION, 0.5)
    assert found.rate > 0
    assert 0 <= found.waited <= 1


def test_a_gpu_without_memory_is_reported_as_lack_of_memory(config: TrainingConfig) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    large = {**CONFIGURATION, "width": 128, "stem_filters": 128}
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (40 << 20)) / total)
    try:
        outcome = train_job(config, Job(0, large, 0, 1))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert outcome.failure is not None
    assert outcome.failure.reason == "memory"


def test_a_data_set_of_floats_trains_on_the_gpu(tmp_path: Path) -> None:
    from ripieno.data import load_dataset, write_dataset

    images = np.random.default_rng(0).standard_normal((60, 6, 6, 2)).astype(np.float32)
    written = write_dataset(load_dataset((images, np.arange(60) % 3)), tmp_path / "data")
    assert written.path is not None
    config = TrainingConfig(tmp_path / "run", written.path, "resnet", 1, 0, device="cuda")
    outcome = train_job(config, Job(0, {**CONFIGURATION, "max_channel_shift": 0.1}, 0, 1))
    assert outcome.failure is None, outcome.failure
    assert open_dataset(written.path).inputs.dtype == np.float32
