"""Searches for policies: from an environment to a library, after a kill, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="needs the extra rl")
import gymnasium

import ripieno
from ripieno.backends.onnx import open_file
from ripieno.data.dataset import open_dataset
from ripieno.errors import DataError, RipienoError, SearchError
from ripieno.library import Library

pytestmark = pytest.mark.rl
CART = "gym:CartPole-v1"
OPTIONS: dict[str, Any] = {"task": "policy", "trials": 2, "epochs": 3, "episodes": 2, "algorithm": "asha"}


@pytest.fixture
def space(tmp_path: Path) -> str:
    """Return the file of a space of quick policies."""
    path = tmp_path / "space.json"
    fixed = {"algorithm": "dqn", "steps": 40, "units": 8, "learning_starts": 20, "batch_size": 8}
    ranges = {"learning_rate": {"kind": "continuous", "low": 1e-3, "high": 1e-2, "log": True}}
    path.write_text(json.dumps({"family": "policy", "ranges": ranges, "fixed": fixed}))
    return str(path)


def check_same(found: Library, expected: Library) -> None:
    assert found.ids() == expected.ids()
    for name in found.ids():
        assert np.array_equal(found.predictions(name), expected.predictions(name))
        files = (library.member_path(name) / "model.onnx" for library in (found, expected))
        inputs = np.random.default_rng(0).standard_normal((5, 4), np.float32)
        first, second = (open_file(file.read_bytes())(inputs)[0] for file in files)
        assert np.array_equal(first, second)


def test_a_search_that_is_killed_and_resumed_gives_the_library_of_one_left_alone(space: str, tmp_path: Path) -> None:
    quiet = ripieno.tune(CART, tmp_path / "quiet", space=space, pool="inline", **OPTIONS)
    command = [sys.executable, "-m", "ripieno", "tune", CART, "--run", str(tmp_path / "run"), "--space", space]
    command += ["--pool", "inline"] + [w for k, v in OPTIONS.items() for w in (f"--{k}", str(v))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints, deadline = tmp_path / "run" / "checkpoints", time.monotonic() + 60
    while not list(checkpoints.glob("*-e001-replay.npy")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = ripieno.tune(run=tmp_path / "run", pool="inline")
    check_same(resumed, quiet)
    best = min(resumed.members(), key=lambda m: m.loss)
    assert best.unit == "steps"
    assert best.policy == "values"
    assert best.format == "onnx"
    assert best.parameters == 4 * 8 + 8 + 8 * 8 + 8 + 8 * 2 + 2
    assert best.losses["valid_return"] == pytest.approx(resumed.predictions(best.id).mean())
    assert best.loss == -best.losses["valid_return"]
    assert len(list(checkpoints.glob("*.npy"))) == 2  # of each trial that of its last unit


def test_the_data_set_holds_the_episodes_of_validation_and_test(space: str, tmp_path: Path) -> None:
    options = {**OPTIONS, "trials": 1, "epochs": 1}
    notes: list[str] = []
    ripieno.tune(CART, tmp_path / "run", space=space, pool="inline", notes=notes, **options)
    assert "gym:CartPole-v1: observations of 4, an action of 2 a step; episodes: 2 valid, 2 test" in notes
    assert "a step of the search is 40 steps of the environment" in notes
    data = open_dataset(tmp_path / "run" / "dataset")
    assert [len(data.rows(split)) for split in ("train", "valid", "test")] == [0, 2, 2]
    assert (data.environment, data.task.kind, data.task.names) == (CART, "policy", ("0", "1"))
    for given in ("gym:Pendulum-v1", tmp_path, (np.zeros((2, 4)), np.zeros(2))):
        with pytest.raises(SearchError, match="made from environment gym:CartPole-v1"):
            ripieno.tune(given, tmp_path / "run", pool="inline")


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (CART, {}, "add --task policy"),
        (CART, {"task": "regression"}, "its task is policy, not regression"),
        (CART, {"task": "policy", "size": 8}, "size does not apply to an environment: leave size out"),
        (CART, {"task": "policy", "folds": 3}, "folds does not apply to an environment"),
        (CART, {"task": "policy", "trainer": "trees:lightgbm"}, "trainer trees:lightgbm fits models to data"),
        (CART, {"task": "policy", "family": "resnet"}, "trainer network fits models to data"),
        (CART, {"task": "policy", "space": "resnet-tiny"}, "trainer network fits models to data"),
        (CART, {"task": "policy", "metric": "accuracy"}, "metric is 'accuracy': it must be return"),
        (CART, {"task": "policy", "episodes": 0}, "episodes are 0: there must be 1"),
        ("gym:CartPoll-v1", {"task": "policy"}, "there is no environment 'gym:CartPoll-v1' .*CartPole-v1"),
        ("pictures", {"task": "policy"}, "task policy is that of an environment, not of pictures"),
        ("nowhere:make", {"task": "policy"}, "cannot import nowhere"),
        ((np.zeros((9, 4)), np.arange(9) % 3), {"task": "policy"}, "not of a tuple"),
        ((np.zeros((90, 4)), np.arange(90) % 3), {"trainer": "policy"}, "finds policies for an environment"),
        ((np.zeros((9, 4)), np.arange(9) % 3), {"episodes": 3}, "leave episodes out"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(data: Any, options: Any, error: str, tmp_path: Path) -> None:
    with pytest.raises(RipienoError, match=error) as raised:
        ripieno.tune(data, tmp_path / "run", trials=1, pool="inline", **options)
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, DataError | RipienoError)


class Lamp(gymnasium.Env[Any, Any]):
    """Environment of a user, whose reward is no number after some steps of all instances."""

    steps = 0

    def __init__(self, sound: int) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float64)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.sound = sound

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 5
        return self.np_random.random(2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        Lamp.steps += 1
        self.left -= 1
        reward = float(action) if Lamp.steps < self.sound else float("nan")
        return self.np_random.random(2), reward, self.left == 0, False, {}


def test_an_own_environment_is_run_only_when_it_is_named(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lamps", types.SimpleNamespace(make=lambda: Lamp(10**9)))
    options = {**OPTIONS, "trials": 1, "epochs": 1}
    library = ripieno.tune("lamps:make", tmp_path / "run", space=space, pool="inline", **options)
    assert 0 <= library.predictions("00000-e001").min() <= library.predictions("00000-e001").max() <= 5
    with pytest.raises(SearchError, match=r"your own code, .* ripieno tune lamps:make --run"):
        ripieno.tune(run=tmp_path / "run", pool="inline")
    assert ripieno.tune("lamps:make", tmp_path / "run", pool="inline").ids() == library.ids()
    with pytest.raises(DataError, match="give lamps:make as the data, with --task policy"):
        ripieno.tune(tmp_path / "run" / "dataset", tmp_path / "other", pool="inline", **options)


def test_a_reward_that_is_no_number_fails_the_trial_in_one_line(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lamp, "steps", 0)
    monkeypatch.setitem(sys.modules, "lamps", types.SimpleNamespace(make=lambda: Lamp(50)))
    with pytest.raises(SearchError, match=r"environment 'lamps:make': the reward of step \d is nan") as raised:
        ripieno.tune("lamps:make", tmp_path / "run", space=space, pool="inline", **OPTIONS)
    assert "\n" not in str(raised.value)


def test_algorithms_that_do_not_take_the_actions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    ranges = {"algorithm": {"kind": "categorical", "choices": ["dqn", "sac"]}}
    path.write_text(json.dumps({"family": "policy", "ranges": ranges}))
    with pytest.raises(SearchError, match="algorithm 'sac' does not take discrete actions: use dqn or ppo"):
        ripieno.tune(CART, tmp_path / "run", space=str(path), pool="inline", **OPTIONS)
