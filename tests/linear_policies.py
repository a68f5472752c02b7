"""Runs of hand-made linear policies, for tests: quick, exact, and good or bad as asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ripieno.data.dataset import write_dataset
from ripieno.environments import make_environment, task_of
from ripieno.library import Library, write_bundle
from ripieno.pipeline.policy_selection import reevaluated
from ripieno.types import Allocation, Bundle, Dataset, Device, Ensemble, Input, Member, Placement, loss_key

VALID, TEST = (3, 4, 5), (11, 12)
CARTPOLE = {
    "good": [0.1, 0.5, 3.0, 1.0],
    "fair": [0.0, 0.0, 1.0, 0.1],
    "bad": [1.0, 0.0, 0.0, 0.0],
}
"""Weights of observations of CartPole: a positive sum pushes to the right."""


def policy_model(weights, low=None, high=None) -> bytes:
    """Return an ONNX policy: two action values, minus and plus a linear score; with bounds the score, clipped."""
    given = helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["batch", len(weights)])
    column = np.asarray(weights, np.float32)[:, None]
    matrix = column if low is not None else np.concatenate([-column, column], axis=1)
    nodes = [helper.make_node("MatMul", ["observation", "matrix"], ["score"])]
    constants = [numpy_helper.from_array(matrix, "matrix")]
    if low is not None:
        nodes.append(helper.make_node("Clip", ["score", "low", "high"], ["values"]))
        constants += [numpy_helper.from_array(np.float32(v), n) for v, n in ((low, "low"), (high, "high"))]
    else:
        nodes.append(helper.make_node("Identity", ["score"], ["values"]))
    found = helper.make_tensor_value_info("values", TensorProto.FLOAT, ["batch", matrix.shape[1]])
    graph = helper.make_graph(nodes, "policy", [given], [found], constants)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def environment_run(folder: Path, name: str = "gym:CartPole-v1") -> Dataset:
    """Write the data set of an environment, with few episodes."""
    environment = make_environment(name)
    seeds = (*VALID, *TEST)
    inputs = np.stack([environment.reset(seed=seed)[0] for seed in seeds])
    split = np.array([1] * len(VALID) + [2] * len(TEST), np.uint8)
    width = inputs.shape[1]
    moments = (0.0,) * width, (1.0,) * width
    made = Dataset(
        name, inputs, np.float32(seeds)[:, None], split, task_of(environment), *moments, "table", environment=name
    )
    environment.close()
    return write_dataset(made, folder / "dataset")


def policy_run(folder: Path, weights=None, *, policy="values", own=None) -> Library:
    """Make a run of CartPole with a linear policy of each name in `weights`; `own` are the returns it was kept with."""
    dataset = environment_run(folder)
    library = Library(folder)
    for number, (name, row) in enumerate((CARTPOLE if weights is None else weights).items()):
        task, returns = dataset.task, np.full((len(VALID), 1), (own or {}).get(name, 100.0 - number), np.float32)
        losses = {loss_key(task): -float(returns.mean()), "valid_return": float(returns.mean())}
        given = Input((4,), "float32")
        first = (name, number, 1, "policy", {"algorithm": "dqn"}, given, task, losses)
        member = Member(*first, parameters=4, seconds=1.0, format="onnx", policy=policy)
        library.add(member, returns, np.float32(VALID)[:, None], policy_model(row))
    return library


def policy_bundle(folder: Path, members=("good", "fair"), rule="value") -> Bundle:
    """Make a run of CartPole and a bundle of an ensemble of its policies, which is selected by their returns."""
    library = policy_run(folder / "run")
    ensemble = Ensemble(
        "B1", members, (1 / len(members),) * len(members), "top-k", {"parameters": 9.0}, {"parameters": 8.0}, {}, rule
    )
    ensemble = reevaluated(library, ensemble)
    library.write_ensemble(ensemble)
    device = Device("cpu:0", "cpu-x", 1 << 33)
    allocation = Allocation("a", "B1", (device,), tuple(Placement(m, "cpu:0", 8) for m in members))
    return write_bundle(library, ensemble, allocation, "onnx", folder / "bundle")
