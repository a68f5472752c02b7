from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import ripieno
from ripieno import clock, files
from ripieno.data import load_dataset, write_dataset
from ripieno.library import Library, trial_progress
from ripieno.library.trial_progress import TrialProgress
from ripieno.tasks.metrics import scores
from ripieno.train import TrainingConfig, batching, job, loading_strategy, train_job
from ripieno.train.checkpoint import TrainingState
from ripieno.train.evaluate import predict
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


def train(config: TrainingConfig, configuration: Configuration, start: int, stop: int, trial: int = 3) -> Member:
    outcome = train_job(config, Job(trial, configuration, start, stop))
    assert outcome.failure is None, outcome.failure
    assert outcome.member is not None
    return outcome.member


def started(config: TrainingConfig, configuration: Configuration, stop: int, digits: Dataset) -> NetworkTrainer:
    trainer = NetworkTrainer(config)
    trainer.start(Job(3, configuration, 0, stop), digits)
    return trainer


def weights(config: TrainingConfig, member: Member) -> bytes:
    return Library(config.run).weights_path(member.id).read_bytes()


def elsewhere(config: TrainingConfig, name: str = "other") -> TrainingConfig:
    """Return the same configuration with another library."""
    return dataclasses.replace(config, run=config.run.with_name(name))


def kill_after(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """End training with an exception that nothing catches once the checkpoint of `epoch` is written."""
    real = job.write_checkpoint

    def write(path: Path, progress: TrainingState, *rest: object) -> None:
        real(path, progress, *rest)  # type: ignore[arg-type]
        if progress.epoch == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(job, "write_checkpoint", write)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_trained.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_job_makes_a_member_with_its_curve_and_its_predictions(config: TrainingConfig, digits: Dataset) -> None:
    member = train(config, TINY, 0, 2)
    library = Library(config.run)
    assert library.member("00003-e002") == member
    assert [e.epoch for e in member.curve] == [1, 2]
    assert member.seconds == pytest.approx(sum(e.seconds for e in member.curve))
    assert member.losses.keys() == {"valid_cross_entropy", "valid_accuracy", "valid_macro_f1"}
    assert member.losses["valid_cross_entropy"] == member.curve[-1].valid_loss
    assert member.losses["valid_accuracy"] == member.curve[-1].valid_score
    cached = library.predictions(member.id)
    assert (cached.shape, cached.dtype) == ((len(digits.rows("valid")), 10), np.float32)
    assert np.allclose(cached.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_steps_loss_is_the_cross_entropy_with_labels_smoothed(
    config: TrainingConfig, digits: Dataset, smoothing: float
) -> None:
    trainer = started(config, {**TINY, "label_smoothing": smoothing}, 1, digits)
    with closing(trainer.pipeline):
        images, labels = next(iter(next(iter(trainer.pipeline.batches(1)))))
    trainer.network.train()
    with torch.no_grad():
        logs = trainer.body(images).log_softmax(1).double()
    true = logs[torch.arange(len(labels)), labels]
    # a true label keeps 1 - smoothing, and all classes share the rest
    expected = -((1 - smoothing) * true + smoothing * logs.mean(1)).mean()
    assert trainer.step(images, labels, 0.1).item() == pytest.approx(expected.item(), rel=1e-4)


def test_training_learns_the_digits(config: TrainingConfig) -> None:
    member = train(config, {**TINY, "width": 8, "learning_rate": 0.01}, 0, 6)
    assert member.losses["valid_accuracy"] > 0.8
    assert (member.curve[-1].train_loss or 9) < (member.curve[0].train_loss or 0) / 2


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_trial_killed_between_epochs_ends_with_the_same_weights(
    config: TrainingConfig, optimizer: str, killed_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = {**MOVED, "optimizer": optimizer, "weight_decay": 0.01}
    whole = train(elsewhere(config), configuration, 0, 3)
    with monkeypatch.context() as patch:
        kill_after(patch, killed_after)
        with pytest.raises(KeyboardInterrupt):
            train_job(config, Job(3, configuration, 0, 3))
    resumed = train(config, configuration, 0, 3)
    assert weights(config, resumed) == weights(elsewhere(config), whole)
    assert [e.valid_loss for e in resumed.curve] == [e.valid_loss for e in whole.curve]


def test_dropout_of_a_users_network_resumes_to_the_same_weights(
    own: None, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, family="own_trained:dropping")
    whole = train(elsewhere(config), {"hidden": 16}, 0, 2)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train_job(config, Job(3, {"hidden": 16}, 0, 2))
    torch.rand(5)  # the generator of the process does not matter
    assert weights(config, train(config, {"hidden": 16}, 0, 2)) == weights(elsewhere(config), whole)


def test_a_network_that_uses_a_module_twice_is_stored_resumed_and_read_back(
    own: None, config: TrainingConfig, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ripieno.backends.torch import load_network

    config = dataclasses.replace(config, family="own_trained:sharing")
    whole = train(elsewhere(config), {}, 0, 2)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train_job(config, Job(3, {}, 0, 2))
    member = train(config, {}, 0, 2)
    assert weights(config, member) == weights(elsewhere(config), whole)
    assert [e.valid_loss for e in member.curve] == [e.valid_loss for e in whole.curve]
    network = load_network(member, Library(config.run).weights_path(member.id), trusted=(config.family,))
    assert network.body[1] is network.body[2]
    answers = predict(network, digits.inputs[digits.rows("valid")])
    assert np.allclose(answers, Library(config.run).predictions(member.id), atol=1e-5)


def test_a_process_killed_at_any_moment_loses_at_most_an_epoch(config: TrainingConfig) -> None:
    code = (
        "import pathlib; from ripieno.train import TrainingConfig, train_job; from ripieno.types import Job\n"
        f"run, dataset = pathlib.Path({str(config.run)!r}), pathlib.Path({str(config.dataset)!r})\n"
        "config = TrainingConfig(run, dataset, 'resnet', 9, 7)\n"
        f"train_job(config, Job(3, {TINY!r}, 0, 400))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(ripieno.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    path = Library(config.run).checkpoint_path(3)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    member = train(dataclasses.replace(config, deadline=0.0), TINY, 0, 400)
    assert len(member.curve) == member.epoch >= 1
    assert len(Library(config.run)) == 1


def test_the_time_waited_for_data_is_kept_with_the_epoch(config: TrainingConfig) -> None:
    member = train(config, {**TINY, "max_rotation": 10}, 0, 2)
    assert all(0 < e.waited < e.seconds for e in member.curve)


def test_an_epoch_has_the_energy_of_the_trials_share_of_the_processor(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "10000000"), ("energy_uj", "9000000")):
        (zone / name).write_text(text)
    monkeypatch.setenv("RIPIENO_POWERCAP", str(zone.parent))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    epoch = NetworkTrainer.epoch

    def use_energy(trainer: NetworkTrainer) -> float:
        (zone / "energy_uj").write_text("1000000")  # 2 J more, and around
        return epoch(trainer)

    monkeypatch.setattr(NetworkTrainer, "epoch", use_energy)
    first, second = train(config, TINY, 0, 2).curve
    assert (first.joules, second.joules) == (0.5, 0.0)


def test_without_a_counter_no_energy_is_told(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIPIENO_POWERCAP", str(tmp_path))
    member = train(config, TINY, 0, 1)
    assert member.curve[0].joules is None
    assert member.train_joules is None


def test_cores_that_prepare_data_change_nothing_but_time(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(batching.BLOCK_BYTES, "cpu", 24 * 64 * 4)
    monkeypatch.setattr(loading_strategy, "SECONDS", 0.0)
    monkeypatch.setattr(loading_strategy, "GOAL", 0.0)
    spared = dataclasses.replace(elsewhere(config), spare=1)
    assert weights(config, train(config, MOVED, 0, 3)) == weights(spared, train(spared, MOVED, 0, 3))


def test_jobs_of_one_trial_continue_each_other(config: TrainingConfig) -> None:
    first, second = train(config, TINY, 0, 1), train(config, TINY, 1, 3)
    assert second.curve[:1] == first.curve
    assert second.seconds > first.seconds
    assert Library(config.run).ids() == ["00003-e001", "00003-e003"]


def test_a_members_job_asked_again_returns_it_without_training(config: TrainingConfig) -> None:
    member = train(config, TINY, 0, 1)
    Library(config.run).checkpoint_path(3).unlink()
    assert train(config, TINY, 0, 1) == member
    assert not Library(config.run).checkpoint_path(3).exists()


def test_a_member_of_another_configuration_by_that_name_is_trained_again(config: TrainingConfig) -> None:
    other = train(config, {**TINY, "learning_rate": 0.5}, 0, 1)
    member = train(config, TINY, 0, 1)
    assert member.id == other.id
    assert Library(config.run).member(member.id).configuration == TINY
    assert weights(config, member) == weights(elsewhere(config), train(elsewhere(config), TINY, 0, 1))


def test_a_checkpoint_without_its_member_makes_it_without_training(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(elsewhere(config), TINY, 0, 1)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train_job(config, Job(3, TINY, 0, 1))
    member = train(config, TINY, 0, 1)
    assert weights(config, member) == weights(elsewhere(config), whole)
    assert member.losses == whole.losses


@pytest.mark.parametrize("damage", ["truncated", "emptied", "foreign", "ahead"])
def test_a_checkpoint_that_cannot_be_used_is_passed_over(config: TrainingConfig, damage: str) -> None:
    expected = train(elsewhere(config), TINY, 0, 1)
    path = Library(config.run).checkpoint_path(3)
    if damage == "foreign":
        train(config, {**TINY, "learning_rate": 0.5}, 0, 1)
    elif damage == "ahead":
        train(config, TINY, 0, 2)
    else:
        train(config, TINY, 0, 1)
        path.write_bytes(path.read_bytes()[: 1000 if damage == "truncated" else 0])
    for member in Library(config.run).ids():
        Library(config.run).remove(member)
    assert weights(config, train(config, TINY, 0, 1)) == weights(elsewhere(config), expected)


def test_seed_and_trial_change_the_weights_and_nothing_else_does(config: TrainingConfig) -> None:
    same, trial = train(config, TINY, 0, 1), train(config, TINY, 0, 1, trial=4)
    torch.manual_seed(99)
    again = train(elsewhere(config), TINY, 0, 1)
    other = dataclasses.replace(elsewhere(config, "third"), seed=8)
    assert weights(config, same) == weights(elsewhere(config), again)
    assert weights(config, same) != weights(config, trial)
    assert weights(config, same) != weights(other, train(other, TINY, 0, 1))


def test_every_epoch_has_an_order_and_an_augmentation_of_its_own(config: TrainingConfig, digits: Dataset) -> None:
    trainer = started(config, TINY, 3, digits)
    drawn = set()
    for number in (1, 2, 3):
        order, draws = trainer.pipeline.plan._generators(number)
        drawn.add((*order.permutation(50), *torch.rand(5, generator=draws).tolist()))
    assert len({d[:50] for d in drawn}) == len({d[50:] for d in drawn}) == 3


def test_a_trainer_is_freed_with_its_last_reference(config: TrainingConfig, digits: Dataset) -> None:
    gc.collect()
    gc.disable()  # a trainer that waits for garbage collection keeps a second network on the GPU
    try:
        trainer = started(config, MOVED, 3, digits)
        with closing(trainer.pipeline):
            trainer.epoch()  # more epochs could follow
        held = [weakref.ref(o) for o in (trainer, trainer.pipeline, trainer.network)]
        del trainer
        assert [ref() for ref in held] == [None] * 3
    finally:
        gc.enable()


def test_training_leaves_the_process_as_it_was(config: TrainingConfig) -> None:
    torch.manual_seed(1)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    train(dataclasses.replace(config, threads=threads + 1), MOVED, 0, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


def test_after_the_deadline_the_first_epoch_becomes_the_member(config: TrainingConfig) -> None:
    late = dataclasses.replace(config, deadline=0.0)
    assert train(late, TINY, 0, 5).id == "00003-e001"
    assert train(late, TINY, 0, 5).id == "00003-e001"
    assert train(config, TINY, 0, 2).id == "00003-e002"


def test_the_deadline_stops_an_epoch_once_the_library_has_a_member(config: TrainingConfig) -> None:
    train(config, TINY, 0, 1, trial=1)
    late = dataclasses.replace(config, deadline=0.0)
    outcome = train_job(late, Job(3, TINY, 0, 5))
    assert outcome.member is None
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.log) == ("time", "")
    assert Library(config.run).ids() == ["00001-e001"]


def test_a_stopped_epoch_leaves_the_member_of_the_one_before(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch of a trial passes the deadline, which its clock does not foresee."""
    start = NetworkTrainer.epoch
    whole = train(config, TINY, 0, 3)
    library = Library(config.run)
    library.checkpoint_path(3).unlink()
    library.remove(whole.id)
    train(config, TINY, 0, 1, trial=1)
    deadline, count = clock.now() + 1000.0, itertools.count(1)

    def epoch(self: NetworkTrainer) -> float | None:
        if next(count) == 2:
            monkeypatch.setattr(clock, "now", lambda: deadline + 1)
        return start(self)

    monkeypatch.setattr(NetworkTrainer, "epoch", epoch)
    member = train(dataclasses.replace(config, deadline=deadline), TINY, 0, 3)
    assert (member.id, member.loss) == ("00003-e001", whole.curve[0].valid_loss)
    assert next(count) == 3
    monkeypatch.undo()
    assert train(config, TINY, 0, 3).losses == whole.losses


def test_no_epoch_starts_that_would_end_after_the_deadline(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every epoch takes 1,000 seconds by its own clock."""
    seconds = itertools.count(step=1000.0)
    monkeypatch.setattr(job, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    left = dataclasses.replace(config, deadline=clock.now() + 900)
    assert train(left, TINY, 0, 5).id == "00003-e001"
    assert train(dataclasses.replace(left, deadline=clock.now() + 1900), TINY, 0, 5).id == "00003-e005"


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged(config: TrainingConfig) -> None:
    outcome = train_job(config, Job(3, {**TINY, "optimizer": "sgd", "learning_rate": 1e30}, 0, 3))
    assert outcome.member is None
    assert outcome.failure is not None
    assert (outcome.failure.reason, "\n" in outcome.failure.message) == ("diverged", False)
    assert not Library(config.run).ids()


def test_a_network_too_large_for_memory_fails_for_memory(own: None, config: TrainingConfig) -> None:
    config = dataclasses.replace(config, family="own_trained:hungry")
    outcome = train_job(config, Job(3, {}, 0, 1))
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
def test_a_gpu_out_of_memory_has_several_error_messages(
    own: None, config: TrainingConfig, says: str, reason: str
) -> None:
    config = dataclasses.replace(config, family="own_trained:failing")
    failure = train_job(config, Job(3, {"says": says}, 0, 1)).failure
    assert failure is not None
    assert failure.reason == reason
    assert failure.message == f"RuntimeError: {says.splitlines()[0]}"


@pytest.mark.parametrize(
    ("configuration", "word"),
    [
        ({"learning_rat": 0.1}, "'learning_rat' is not a hyperparameter of resnet"),
        ({"learning_rate": -1}, "above 0"),
        ({"batch_size": 1}, "at least 2"),
        ({"optimizer": "rmsprop"}, "adam, adamw, sgd"),
        ({"label_smoothing": 1.0}, "below 1"),
        ({"max_zoom": 2.0}, "max_zoom"),
        ({"width": 0}, "width"),
    ],
)
def test_an_error_is_reported_in_one_line_with_a_log(
    config: TrainingConfig, configuration: Configuration, word: str
) -> None:
    failure = train_job(config, Job(3, {**TINY, **configuration}, 0, 1)).failure
    assert failure is not None
    assert failure.reason == "error"
    assert word in failure.message
    assert "\n" not in failure.message
    assert "Traceback" in failure.detail
    assert failure.detail in Path(failure.log).read_text()


@pytest.mark.parametrize("batch_size", [5, 43, 215, 216, 1000])
def test_every_batch_size_trains_even_with_one_sample_left_over(
    own: None, config: TrainingConfig, batch_size: int
) -> None:
    # 216 training samples: 5, 43 and 215 leave one, on which a 1-D batch norm would fail
    config = dataclasses.replace(config, family="own_trained:dropping")
    assert train(config, {"batch_size": batch_size}, 0, 1).epoch == 1


def test_macro_f1_is_the_score_if_it_is_the_metric_of_the_data_set(config: TrainingConfig, digits: Dataset) -> None:
    from ripieno.data import write_dataset

    folder = config.run.with_name("f1")
    write_dataset(
        dataclasses.replace(digits, task=dataclasses.replace(digits.task, metric="macro-f1"), path=None), folder
    )
    member = train(dataclasses.replace(config, dataset=folder), TINY, 0, 1)
    assert member.curve[0].valid_score == member.losses["valid_macro_f1"]


def test_float_images_train_too(config: TrainingConfig, digits: Dataset) -> None:
    from ripieno.data import load_dataset, write_dataset

    images: NDArray[np.float32] = digits.inputs.astype(np.float32) / 255
    folder = config.run.with_name("floats")
    write_dataset(load_dataset((images, digits.targets)), folder)
    member = train(dataclasses.replace(config, dataset=folder), MOVED, 0, 1)
    assert member.input.dtype == "float32"


def test_cached_predictions_are_those_of_the_weights_kept(config: TrainingConfig, digits: Dataset) -> None:
    from ripieno.backends.torch import load_network

    member = train(config, TINY, 0, 1)
    network = load_network(member, Library(config.run).weights_path(member.id))
    answers = predict(network, digits.inputs[digits.rows("valid")], batch_size=7)
    assert np.allclose(answers, Library(config.run).predictions(member.id), atol=1e-5)
    found = scores(answers, digits.targets[digits.rows("valid")])
    assert found["cross_entropy"] == pytest.approx(member.losses["valid_cross_entropy"], abs=1e-4)


@pytest.mark.parametrize("folds", [0, 2])
def test_a_job_reports_its_batches_and_leaves_no_file(
    config: TrainingConfig, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: int
) -> None:
    monkeypatch.setattr(trial_progress, "INTERVAL", 0.0)
    if folds:
        inputs, targets = np.asarray(digits.inputs), np.asarray(digits.targets)
        data = write_dataset(load_dataset((inputs, targets), folds=folds), tmp_path / "folds")
        config = dataclasses.replace(config, dataset=data.path)
    seen: list[TrialProgress] = []

    def written(path: Path, data: bytes) -> None:
        seen.append(files.from_json(data, TrialProgress, path))

    monkeypatch.setattr(files, "write_status", written)
    outcome = train_job(config, Job(0, {**TINY, "batch_size": 64}, 0, 2))
    assert outcome.failure is None
    done = [progress.epochs for progress in seen]
    assert done == sorted(done)
    assert len(set(done)) >= 8
    assert (done[0], done[-1]) == (0.0, 2.0)
    assert not list(Library(config.run).path.glob("progress/*"))
