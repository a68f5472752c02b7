from __future__ import annotations

import dataclasses
import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import ripieno
from ripieno.library import Library
from ripieno.train import TrainingConfig, batching, crew, loop, train_job, ways
from ripieno.train.checkpoint import TrainingState
from ripieno.train.evaluate import predict, scores
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.types import Configuration, Dataset, Job, Member

TINY = {"stem_filters": 4, "width": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1, "batch_size": 24}
MOVED = {**TINY, "max_zoom": 0.2, "max_rotation": 10, "max_channel_shift": 0.1, "flip": True}
OWN = """
import torch
from torch import nn
def dropping(configuration, input, classes):
    height, width, channels = input.shape
    layers = nn.Linear(height * width * channels, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, classes)
    return nn.Sequential(nn.Flatten(), *layers)
class Hungry(nn.Linear):
    def forward(self, images):
        if self.training:
            torch.empty(1 << 50)
        return super().forward(images.flatten(1))
def hungry(configuration, input, classes):
    return Hungry(64, classes)
class Failing(nn.Linear):
    def forward(self, images):
        if self.training:
            raise RuntimeError(self.says)
        return super().forward(images.flatten(1))
def failing(configuration, input, classes):
    network = Failing(64, classes)
    network.says = configuration["says"]
    return network
def sharing(configuration, input, classes):
    block = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
    return nn.Sequential(nn.Flatten(), block, block, nn.Linear(64, classes))
"""


def train(task: TrainingConfig, configuration: Configuration, start: int, stop: int, trial: int = 3) -> Member:
    outcome = train_job(task, Job(trial, configuration, start, stop))
    assert outcome.failure is None, outcome.failure
    assert outcome.member is not None
    return outcome.member


def weights(task: TrainingConfig, member: Member) -> bytes:
    return Library(task.run).weights_path(member.id).read_bytes()


def elsewhere(task: TrainingConfig, name: str = "other") -> TrainingConfig:
    """The same task with a library of its own."""
    return dataclasses.replace(task, run=task.run.with_name(name))


def kill_after(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """End training with an exception that nothing catches once the checkpoint of `epoch` is written."""
    real = loop.write_checkpoint

    def write(path: Path, progress: TrainingState, *rest: object) -> None:
        real(path, progress, *rest)  # type: ignore[arg-type]
        if progress.epoch == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_checkpoint", write)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_trained.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_job_makes_a_member_with_its_curve_and_its_predictions(task: TrainingConfig, digits: Dataset) -> None:
    member = train(task, TINY, 0, 2)
    library = Library(task.run)
    assert library.member("00003-e002") == member
    assert [e.epoch for e in member.curve] == [1, 2]
    assert member.seconds == pytest.approx(sum(e.seconds for e in member.curve))
    assert member.losses.keys() == {"valid_cross_entropy", "valid_accuracy", "valid_macro_f1"}
    assert member.losses["valid_cross_entropy"] == member.curve[-1].valid_cross_entropy
    assert member.losses["valid_accuracy"] == member.curve[-1].valid_score
    cached = library.probabilities(member.id)
    assert (cached.shape, cached.dtype) == ((len(digits.rows("valid")), 10), np.float32)
    assert np.allclose(cached.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_steps_loss_is_the_cross_entropy_with_labels_smoothed(
    task: TrainingConfig, digits: Dataset, smoothing: float
) -> None:
    trial = NetworkTrainer(task, Job(3, {**TINY, "label_smoothing": smoothing}, 0, 1), digits)
    with closing(trial.feed):
        images, labels = next(iter(next(iter(trial.feed.batches(1)))))
    trial.network.train()
    with torch.no_grad():
        logs = trial.body(images).log_softmax(1).double()
    true = logs[torch.arange(len(labels)), labels]
    # a true label keeps 1 - smoothing, and all classes share the rest
    expected = -((1 - smoothing) * true + smoothing * logs.mean(1)).mean()
    assert trial.step(images, labels, 0.1).item() == pytest.approx(expected.item(), rel=1e-4)


def test_training_learns_the_digits(task: TrainingConfig) -> None:
    member = train(task, {**TINY, "width": 8, "learning_rate": 0.01}, 0, 6)
    assert member.losses["valid_accuracy"] > 0.8
    assert member.curve[-1].train_cross_entropy < member.curve[0].train_cross_entropy / 2


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_trial_killed_between_epochs_ends_with_the_same_weights(
    task: TrainingConfig, optimizer: str, killed_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = {**MOVED, "optimizer": optimizer, "weight_decay": 0.01}
    whole = train(elsewhere(task), configuration, 0, 3)
    with monkeypatch.context() as patch:
        kill_after(patch, killed_after)
        with pytest.raises(KeyboardInterrupt):
            train_job(task, Job(3, configuration, 0, 3))
    resumed = train(task, configuration, 0, 3)
    assert weights(task, resumed) == weights(elsewhere(task), whole)
    assert [e.valid_cross_entropy for e in resumed.curve] == [e.valid_cross_entropy for e in whole.curve]


def test_dropout_of_a_users_network_resumes_to_the_same_weights(
    own: None, task: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = dataclasses.replace(task, family="own_trained:dropping")
    whole = train(elsewhere(task), {"hidden": 16}, 0, 2)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train_job(task, Job(3, {"hidden": 16}, 0, 2))
    torch.rand(5)  # the generator of the process does not matter
    assert weights(task, train(task, {"hidden": 16}, 0, 2)) == weights(elsewhere(task), whole)


def test_a_network_that_uses_a_module_twice_is_kept_gone_on_with_and_read_back(
    own: None, task: TrainingConfig, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ripieno.backends.torch import load_network

    task = dataclasses.replace(task, family="own_trained:sharing")
    whole = train(elsewhere(task), {}, 0, 2)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train_job(task, Job(3, {}, 0, 2))
    member = train(task, {}, 0, 2)
    assert weights(task, member) == weights(elsewhere(task), whole)
    assert [e.valid_cross_entropy for e in member.curve] == [e.valid_cross_entropy for e in whole.curve]
    network = load_network(member, Library(task.run).weights_path(member.id), trusted=(task.family,))
    assert network.body[1] is network.body[2]
    answers = predict(network, digits.images[digits.rows("valid")])
    assert np.allclose(answers, Library(task.run).probabilities(member.id), atol=1e-5)


def test_a_process_killed_at_any_moment_loses_at_most_an_epoch(task: TrainingConfig) -> None:
    code = (
        "import pathlib; from ripieno.train import Task, train_job; from ripieno.types import Job\n"
        f"train_job(Task(pathlib.Path({str(task.run)!r}), pathlib.Path({str(task.dataset)!r}), 'resnet', 9, 7), "
        f"Job(3, {TINY!r}, 0, 400))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(ripieno.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    path = Library(task.run).checkpoint_path(3)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    member = train(dataclasses.replace(task, deadline=0.0), TINY, 0, 400)
    assert len(member.curve) == member.epoch >= 1
    assert len(Library(task.run)) == 1


def test_the_time_waited_for_data_is_kept_with_the_epoch(task: TrainingConfig) -> None:
    member = train(task, {**TINY, "max_rotation": 10}, 0, 2)
    assert all(0 < e.waited < e.seconds for e in member.curve)


def test_cores_that_prepare_data_change_nothing_but_time(task: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batching.BLOCK_BYTES, "cpu", 24 * 64 * 4)
    monkeypatch.setattr(ways, "SECONDS", 0.0)
    monkeypatch.setattr(ways, "GOAL", 0.0)
    beside = dataclasses.replace(elsewhere(task), spare=1)
    assert weights(task, train(task, MOVED, 0, 3)) == weights(beside, train(beside, MOVED, 0, 3))
    crew.dismiss()


def test_jobs_of_one_trial_go_on_from_each_other(task: TrainingConfig) -> None:
    first, second = train(task, TINY, 0, 1), train(task, TINY, 1, 3)
    assert second.curve[:1] == first.curve
    assert second.seconds > first.seconds
    assert Library(task.run).ids() == ["00003-e001", "00003-e003"]


def test_a_members_job_asked_again_returns_it_without_training(task: TrainingConfig) -> None:
    member = train(task, TINY, 0, 1)
    Library(task.run).checkpoint_path(3).unlink()
    assert train(task, TINY, 0, 1) == member
    assert not Library(task.run).checkpoint_path(3).exists()


def test_a_member_of_another_configuration_by_that_name_is_trained_anew(task: TrainingConfig) -> None:
    other = train(task, {**TINY, "learning_rate": 0.5}, 0, 1)
    member = train(task, TINY, 0, 1)
    assert member.id == other.id
    assert Library(task.run).member(member.id).configuration == TINY
    assert weights(task, member) == weights(elsewhere(task), train(elsewhere(task), TINY, 0, 1))


def test_a_checkpoint_without_its_member_makes_it_without_training(
    task: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(elsewhere(task), TINY, 0, 1)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train_job(task, Job(3, TINY, 0, 1))
    member = train(task, TINY, 0, 1)
    assert weights(task, member) == weights(elsewhere(task), whole)
    assert member.losses == whole.losses


@pytest.mark.parametrize("damage", ["truncated", "emptied", "foreign", "ahead"])
def test_a_checkpoint_that_cannot_be_used_is_passed_over(task: TrainingConfig, damage: str) -> None:
    expected = train(elsewhere(task), TINY, 0, 1)
    path = Library(task.run).checkpoint_path(3)
    if damage == "foreign":
        train(task, {**TINY, "learning_rate": 0.5}, 0, 1)
    elif damage == "ahead":
        train(task, TINY, 0, 2)
    else:
        train(task, TINY, 0, 1)
        path.write_bytes(path.read_bytes()[: 1000 if damage == "truncated" else 0])
    for member in Library(task.run).ids():
        Library(task.run).remove(member)
    assert weights(task, train(task, TINY, 0, 1)) == weights(elsewhere(task), expected)


def test_seed_and_trial_change_the_weights_and_nothing_else_does(task: TrainingConfig) -> None:
    same, trial = train(task, TINY, 0, 1), train(task, TINY, 0, 1, trial=4)
    torch.manual_seed(99)
    again = train(elsewhere(task), TINY, 0, 1)
    other = dataclasses.replace(elsewhere(task, "third"), seed=8)
    assert weights(task, same) == weights(elsewhere(task), again)
    assert weights(task, same) != weights(task, trial)
    assert weights(task, same) != weights(other, train(other, TINY, 0, 1))


def test_every_epoch_has_an_order_and_an_augmentation_of_its_own(task: TrainingConfig, digits: Dataset) -> None:
    trial = NetworkTrainer(task, Job(3, TINY, 0, 3), digits)
    drawn = set()
    for number in (1, 2, 3):
        order, draws = trial.feed.plan._generators(number)
        drawn.add((*order.permutation(50), *torch.rand(5, generator=draws).tolist()))
    assert len({d[:50] for d in drawn}) == len({d[50:] for d in drawn}) == 3


def test_a_trial_is_gone_as_soon_as_nobody_holds_it(task: TrainingConfig, digits: Dataset) -> None:
    gc.collect()
    gc.disable()  # who waits for the collector has two networks on the GPU
    try:
        trial = NetworkTrainer(task, Job(3, MOVED, 0, 3), digits)
        with closing(trial.feed):
            trial.epoch(TrainingState(trial.fingerprint))  # more epochs could follow
        held = [weakref.ref(o) for o in (trial, trial.feed, trial.network)]
        del trial
        assert [ref() for ref in held] == [None] * 3
    finally:
        gc.enable()


def test_training_leaves_the_process_as_it_was(task: TrainingConfig) -> None:
    torch.manual_seed(1)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    train(dataclasses.replace(task, threads=threads + 1), MOVED, 0, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


def test_at_the_deadline_the_running_epoch_becomes_the_member(task: TrainingConfig) -> None:
    late = dataclasses.replace(task, deadline=0.0)
    assert train(late, TINY, 0, 5).id == "00003-e001"
    assert train(late, TINY, 0, 5).id == "00003-e001"
    assert train(task, TINY, 0, 2).id == "00003-e002"


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged(task: TrainingConfig) -> None:
    outcome = train_job(task, Job(3, {**TINY, "optimizer": "sgd", "learning_rate": 1e30}, 0, 3))
    assert outcome.member is None
    assert outcome.failure is not None
    assert (outcome.failure.reason, "\n" in outcome.failure.message) == ("diverged", False)
    assert not Library(task.run).ids()


def test_a_network_too_large_for_memory_fails_for_memory(own: None, task: TrainingConfig) -> None:
    task = dataclasses.replace(task, family="own_trained:hungry")
    outcome = train_job(task, Job(3, {}, 0, 1))
    assert outcome.failure is not None
    assert outcome.failure.reason == "memory"


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`", "memory"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "memory"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "memory"),
        ("CUDA error: device-side assert triggered", "error"),
    ],
)
def test_a_gpu_that_ran_out_of_memory_says_so_in_many_ways(
    own: None, task: TrainingConfig, says: str, reason: str
) -> None:
    task = dataclasses.replace(task, family="own_trained:failing")
    failure = train_job(task, Job(3, {"says": says}, 0, 1)).failure
    assert failure is not None
    assert failure.reason == reason
    assert failure.message == f"RuntimeError: {says.splitlines()[0]}"


@pytest.mark.parametrize(
    ("configuration", "word"),
    [
        ({"learning_rat": 0.1}, "'learning_rat' is no hyperparameter of resnet"),
        ({"learning_rate": -1}, "above 0"),
        ({"batch_size": 1}, "at least 2"),
        ({"optimizer": "rmsprop"}, "adam, adamw, sgd"),
        ({"label_smoothing": 1.0}, "below 1"),
        ({"max_zoom": 2.0}, "max_zoom"),
        ({"width": 0}, "width"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_a_log(
    task: TrainingConfig, configuration: Configuration, word: str
) -> None:
    failure = train_job(task, Job(3, {**TINY, **configuration}, 0, 1)).failure
    assert failure is not None
    assert failure.reason == "error"
    assert word in failure.message
    assert "\n" not in failure.message
    assert "Traceback" in failure.detail
    assert failure.detail in Path(failure.log).read_text()


@pytest.mark.parametrize("batch_size", [5, 43, 215, 216, 1000])
def test_every_batch_size_trains_even_with_one_sample_left_over(
    own: None, task: TrainingConfig, batch_size: int
) -> None:
    # 216 training samples: 5, 43 and 215 leave one, on which a 1-D batch norm would fail
    task = dataclasses.replace(task, family="own_trained:dropping")
    assert train(task, {"batch_size": batch_size}, 0, 1).epoch == 1


def test_macro_f1_is_the_score_where_the_data_set_says_so(task: TrainingConfig, digits: Dataset) -> None:
    from ripieno.data import write_dataset

    folder = task.run.with_name("f1")
    write_dataset(dataclasses.replace(digits, metric="macro-f1", path=None), folder)
    member = train(dataclasses.replace(task, dataset=folder), TINY, 0, 1)
    assert member.curve[0].valid_score == member.losses["valid_macro_f1"]


def test_float_images_train_too(task: TrainingConfig, digits: Dataset) -> None:
    from ripieno.data import load_dataset, write_dataset

    images: NDArray[np.float32] = digits.images.astype(np.float32) / 255
    folder = task.run.with_name("floats")
    write_dataset(load_dataset((images, digits.labels)), folder)
    member = train(dataclasses.replace(task, dataset=folder), MOVED, 0, 1)
    assert member.input.dtype == "float32"


def test_cached_predictions_are_those_of_the_weights_kept(task: TrainingConfig, digits: Dataset) -> None:
    from ripieno.backends.torch import load_network

    member = train(task, TINY, 0, 1)
    network = load_network(member, Library(task.run).weights_path(member.id))
    answers = predict(network, digits.images[digits.rows("valid")], batch_size=7)
    assert np.allclose(answers, Library(task.run).probabilities(member.id), atol=1e-5)
    found = scores(answers, digits.labels[digits.rows("valid")])
    assert found["cross_entropy"] == pytest.approx(member.losses["valid_cross_entropy"], abs=1e-4)
