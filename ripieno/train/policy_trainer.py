"""Trainer of policies: reinforcement learning by the algorithms of stable-baselines3.

Theory of operation. A unit of training is a fixed number of steps of the environment. At its beginning all randomness
is seeded from (seed, trial, unit), and the environment begins a new episode. Between two units the state is therefore
that of the networks and optimisers, some counters, and the transitions for replay: all arrays, from which a trial that
was killed continues as if it had not been. Schedules depend on the steps done, not on the steps to come, which a
promotion changes.

Policies are small, and environments run on the CPU: both train there, one environment a trial.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray

from ripieno.backends.export import export_module
from ripieno.environments import make_environment
from ripieno.environments.rollout import PolicyEnsemble, RolloutRunner
from ripieno.errors import ModelError, SelectionError, require
from ripieno.models.policy_config import PolicyConfig, policy_config
from ripieno.tasks.action_rules import single_rule
from ripieno.tasks.policy import LARGEST_SEED
from ripieno.train.evaluate import DivergedError
from ripieno.train.policy_network import PolicyNetwork
from ripieno.train.trainer import BatchReport, Tensors, ignore_batch
from ripieno.train.training_config import TrainingConfig
from ripieno.types import Dataset, Float32s, Job, PolicyOutput, TrainingUnit

if TYPE_CHECKING:
    from ripieno.environments.wrappers import CheckedEnvironment

COUNTERS = ("num_timesteps", "_episode_num", "_n_updates", "_n_calls", "exploration_rate")
"""Numbers in the state of an agent; not every algorithm has all."""
TRANSITIONS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Arrays of an agent's memory for replay, each (transitions, environments, ...)."""
REPLAY = "replay"
"""Name of these among the tensors: a row of float32 for each transition."""
REPORTED = 50
"""Steps between two reports of progress."""


@final
class PolicyTrainer:
    """Trainer of a policy for the environment of a data set: see `ripieno.train.trainer`.

    `predict` answers observations; `predict_rows` gives the returns of the data set's episodes.
    """

    unit: ClassVar[TrainingUnit] = "steps"
    apart: ClassVar[tuple[str, ...]] = (REPLAY,)

    def __init__(self, config: TrainingConfig | None = None) -> None:  # noqa: ARG002  made as the other trainers
        self.on_batch: BatchReport = ignore_batch
        self.finished = 0
        self._runner: RolloutRunner | None = None
        """of the episodes that validate"""

    def start(self, job: Job, data: Dataset) -> None:
        """Make the agent. Raises ModelError for a bad configuration, DataError for an environment that fails."""
        if not data.environment:
            raise ModelError(f"trainer policy needs an environment, not data of a {data.task.kind}: give gym:ID")
        self.job, self.data = job, data
        self.config = policy_config(job.configuration, data.task)
        with seeded(self._seed(0)):
            self.agent = make_agent(self.config, self._make_environment())
        self.network = PolicyNetwork(self.config.algorithm, self.agent, data.task)
        self.policy_output: PolicyOutput = self.network.output
        self.parameters = self.network.count_parameters()

    def _seed(self, unit: int) -> int:
        """Return the seed of a unit of training, which no episode of validation or test has."""
        drawn = int(np.random.SeedSequence((self.job.seed, unit)).generate_state(1)[0])
        return LARGEST_SEED + 1 + drawn % ((1 << 31) - LARGEST_SEED - 1)

    def epoch(self) -> float | None:
        """Train one unit; return minus the mean return of the episodes that ended in it, None where none did."""
        agent, seed, before = self.agent, self._seed(self.finished + 1), self.agent.num_timesteps

        def report(_locals: Mapping[str, Any], _globals: Mapping[str, Any]) -> bool:
            done = agent.num_timesteps - before
            if done % REPORTED == 0:
                self.on_batch(done, self.config.steps)
            return True

        agent.ep_info_buffer = None  # of the unit alone
        agent._last_obs = None  # a new episode
        with seeded(seed):
            agent.action_space.seed(seed)
            agent.env.seed(seed)
            try:
                agent.learn(self.config.steps, report, reset_num_timesteps=False)
            except ValueError as error:  # of a distribution without finite numbers
                if all(bool(p.isfinite().all()) for p in agent.policy.parameters()):
                    raise
                raise DivergedError("the weights of the policy are not finite") from error
        self.finished += 1
        ended = [float(episode["r"]) for episode in agent.ep_info_buffer]
        return -float(np.mean(ended)) if ended else None

    def predict(self, inputs: NDArray[Any]) -> Float32s:
        """Return what the policy answers to observations (samples, *shape): float32 (samples, *task.output)."""
        self.agent.policy.set_training_mode(False)
        with torch.inference_mode():
            found: Float32s = self.network(torch.from_numpy(np.asarray(inputs, np.float32))).numpy()
        return found

    def predict_rows(self, rows: NDArray[np.int64]) -> Float32s:
        """Return the returns (rows, 1) of the policy in the episodes at `rows` of the data set."""
        if self._runner is None:
            self._runner = RolloutRunner(self._make_environment, self.data.task)
        alone = PolicyEnsemble((self.job.member,), single_rule(self.data.task))
        seeds = np.asarray(self.data.targets[rows])[:, 0].astype(np.int64).tolist()
        with seeded(self._seed(self.finished)):  # of environments that draw from the common generators
            try:
                found = self._runner.run([alone], {self.job.member: self.predict}, seeds)
            except SelectionError as error:
                raise DivergedError(str(error)) from error
        return found.returns[0, :, None].astype(np.float32)

    def _make_environment(self) -> CheckedEnvironment:
        return make_environment(self.data.environment, (self.data.environment,))

    def tensors(self) -> Tensors:
        """Return the state after a unit: networks, optimisers, counters, and the transitions for replay."""
        agent, found = self.agent, {"finished": np.array(self.finished)}
        modules, variables = agent._get_torch_save_params()
        for name in modules:
            part = find_part(agent, name)
            read = optimiser_arrays if isinstance(part, torch.optim.Optimizer) else module_arrays
            found |= read(name, part)
        for name in variables:
            found[name] = getattr(agent, name).detach().numpy().copy()
        found |= {name: np.array(getattr(agent, name)) for name in COUNTERS if hasattr(agent, name)}
        if self.config.is_off_policy:
            memory = agent.replay_buffer
            found |= {"position": np.array(memory.pos), REPLAY: read_transitions(memory)}
        return found

    def load(self, tensors: Tensors) -> None:
        """Continue from `tensors`. Raises ModelError where they are of another agent."""
        agent = self.agent
        modules, variables = agent._get_torch_save_params()
        try:
            for name in modules:
                part = find_part(agent, name)
                if isinstance(part, torch.optim.Optimizer):
                    load_optimiser(name, part, tensors)
                else:
                    part.load_state_dict({key: torch.tensor(array) for key, array in under(name, tensors)})
            with torch.no_grad():
                for name in variables:
                    getattr(agent, name).copy_(torch.tensor(tensors[name]))
            for name in COUNTERS:
                if hasattr(agent, name):
                    setattr(agent, name, tensors[name].item())
            if self.config.is_off_policy:
                write_transitions(agent.replay_buffer, tensors[REPLAY], int(tensors["position"]))
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError("the checkpoint is of another policy") from error
        self.finished = int(tensors["finished"])

    def export(self, path: Path) -> None:
        """Write the policy as ONNX: observations (batch, *shape) to its answers (batch, *task.output)."""
        export_module(self.network, self.data.input, self.data.task, self.job.member, path)

    def close(self) -> None:
        """Close the environments."""
        if hasattr(self, "agent"):
            self.agent.env.close()
        if self._runner is not None:
            self._runner.close()


def make_agent(config: PolicyConfig, environment: Any) -> Any:
    """Make an algorithm of stable-baselines3 for an environment. Raises MissingExtraError without the extra."""
    library = require("stable_baselines3")
    options: dict[str, Any] = {
        name: getattr(config, name) for name in ("learning_rate", "gamma", "batch_size", *_agent_options(config))
    }
    if config.is_off_policy:
        options["train_freq"] = divisor(config.steps, config.train_freq)
        options["gradient_steps"] = 1 if config.algorithm == "dqn" else -1  # as many as steps
    if config.algorithm == "ppo":  # whole updates in a unit, of whole batches
        options["n_steps"] = divisor(config.steps, config.n_steps)
        options["batch_size"] = divisor(options["n_steps"], config.batch_size)
    if config.algorithm == "ddpg":
        noise = require("stable_baselines3.common.noise").NormalActionNoise
        size = environment.action_space.shape[0]
        options["action_noise"] = noise(np.zeros(size), np.full(size, config.action_noise))
    network = {
        "net_arch": [config.units] * config.layers,
        "activation_fn": {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[config.activation],
    }
    agent = getattr(library, config.algorithm.upper())(
        "MlpPolicy", environment, policy_kwargs=network, device="cpu", **options
    )
    agent.set_logger(require("stable_baselines3.common.logger").Logger(folder=None, output_formats=[]))
    if config.algorithm == "dqn":
        final, length = config.exploration_final_eps, config.exploration_steps
        agent.exploration_schedule = lambda _: max(final, 1.0 - (1.0 - final) * agent.num_timesteps / length)
    return agent


def _agent_options(config: PolicyConfig) -> tuple[str, ...]:
    """Return the hyperparameters of an algorithm that it takes as they are."""
    names = {
        "dqn": ("buffer_size", "learning_starts", "exploration_final_eps", "target_update_interval"),
        "ddpg": ("buffer_size", "learning_starts", "tau"),
        "sac": ("buffer_size", "learning_starts", "tau"),
        "ppo": ("n_epochs", "gae_lambda", "clip_range", "ent_coef"),
    }
    return names[config.algorithm]


def divisor(number: int, least: int) -> int:
    """Return the smallest divisor of `number` of at least `least`; `number` where `least` is larger."""
    return next(d for d in range(min(least, number), number + 1) if number % d == 0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and PyTorch that the library draws from, and restore them afterwards.

    Meanwhile PyTorch has one thread, with which small networks are fastest, and results the same on any machine.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  what the library uses
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
        torch.set_num_threads(threads)


def find_part(agent: Any, name: str) -> Any:
    """Return the part of an agent with a dotted name: `policy.optimizer`."""
    for attribute in name.split("."):
        agent = getattr(agent, attribute)
    return agent


def under(name: str, tensors: Tensors) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the tensors of a part by their names within it."""
    for key, array in tensors.items():
        part, _, own = key.partition("/")
        if part == name:
            yield own, array


def module_arrays(name: str, module: torch.nn.Module) -> dict[str, NDArray[Any]]:
    """Return the weights of a module by `name/KEY`."""
    return {f"{name}/{key}": tensor.numpy().copy() for key, tensor in module.state_dict().items()}


def optimiser_arrays(name: str, optimiser: torch.optim.Optimizer) -> dict[str, NDArray[Any]]:
    """Return the state of an optimiser by `name/PARAMETER.KEY`."""
    return {
        f"{name}/{parameter}.{key}": value.numpy().copy()
        for parameter, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }


def load_optimiser(name: str, optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Set the state of an optimiser to that of `optimiser_arrays`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, array in under(name, tensors):
        parameter, _, own = key.partition(".")
        state.setdefault(int(parameter), {})[own] = torch.tensor(array)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def read_transitions(memory: Any) -> Float32s:
    """Return the transitions that an agent keeps for replay: (transitions, columns), in their places."""
    count = memory.size()
    parts = [getattr(memory, name)[:count].reshape(count, -1) for name in TRANSITIONS]
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def write_transitions(memory: Any, rows: NDArray[np.float32], position: int) -> None:
    """Give an agent the transitions of `read_transitions`. Raises ValueError where these do not fit its memory."""
    start, count = 0, len(rows)
    for name in TRANSITIONS:
        array = getattr(memory, name)
        width = int(np.prod(array.shape[1:]))
        array[:count] = rows[:, start : start + width].reshape(count, *array.shape[1:])
        start += width
    if start != rows.shape[1]:
        raise ValueError(f"{rows.shape[1]} columns, expected {start}")
    memory.pos, memory.full = position, count == memory.buffer_size
