"""Seconds a decision on the CPU: ensembles of agents through the engine, against a loop of PyTorch calls.

    python benchmarks/rl/decisions.py [RUN] [--rounds 9] [--decisions 500]

A decision is that of one observation, as in control. The same agents decide in turns: through `Engine` with threads
and with processes, in a loop over ONNX Runtime's sessions, and in a loop over PyTorch modules with the same weights,
one thread each. Values are compared first. RUN is a run of policies with two or more discrete actions: by default
what `agents.py cartpole` trained. Times are medians over the rounds of a round's median, and of its 99th percentile.
Writes benchmarks/results/rl-decisions.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from record import record

from ripieno.engine import Engine
from ripieno.library import Library, write_bundle
from ripieno.tasks.action_rules import combine_actions
from ripieno.types import Allocation, Bundle, Device, Ensemble, Float32s, Placement

RUN = Path(__file__).parents[2] / "runs" / "rl" / "cartpole-homogeneous"
SIZES = (1, 4, 8)
Decide = Callable[[Float32s], Float32s]


def bundled(library: Library, members: Sequence[str], folder: Path) -> Bundle:
    """Write a bundle of `members` with equal weights, all on one processor, that decides by vote."""
    bounds = {"parameters": 1e12}
    ensemble = Ensemble("B1", tuple(members), (1 / len(members),) * len(members), "top-k", bounds, bounds, {}, "vote")
    device = Device("cpu:0", "cpu", 1 << 33)
    placements = tuple(Placement(member, "cpu:0", 8) for member in members)
    return write_bundle(library, ensemble, Allocation("a", "B1", (device,), placements), "onnx", folder)


def torch_policy(path: Path) -> torch.nn.Module:
    """Return the policy in the ONNX file as a PyTorch module. Raises ValueError for other layers."""
    graph = onnx.load(path).graph
    weights = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}
    plain = {"Flatten": torch.nn.Flatten, "Relu": torch.nn.ReLU, "Tanh": torch.nn.Tanh}
    layers: list[torch.nn.Module] = []
    for node in graph.node:
        if node.op_type == "Gemm":
            weight, bias = (weights[name] for name in node.input[1:])
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": bias})
            layers.append(layer)
        elif node.op_type == "Softmax":
            layers.append(torch.nn.Softmax(dim=1))
        elif node.op_type in plain:
            layers.append(plain[node.op_type]())
        else:
            raise ValueError(f"{path} has a layer {node.op_type}: expected a perceptron")
    return torch.nn.Sequential(*layers).eval()


def torch_loop(library: Library, members: Sequence[str]) -> Decide:
    """Return the decision by a loop over PyTorch modules."""
    policies = [torch_policy(library.member_path(member) / "model.onnx") for member in members]

    def decide(observation: Float32s) -> Float32s:
        with torch.inference_mode():
            given = torch.from_numpy(observation)
            return combine_actions("vote", np.stack([policy(given).numpy() for policy in policies]))

    return decide


def session_loop(library: Library, members: Sequence[str]) -> Decide:
    """Return the decision by a loop over sessions of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    files = [str(library.member_path(member) / "model.onnx") for member in members]
    sessions = [onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"]) for file in files]
    name = sessions[0].get_inputs()[0].name

    def decide(observation: Float32s) -> Float32s:
        return combine_actions("vote", np.stack([session.run(None, {name: observation})[0] for session in sessions]))

    return decide


def timed(decide: Decide, observations: Float32s) -> tuple[float, float]:
    """Return the median and the 99th percentile of the microseconds of a decision."""
    taken = []
    for observation in observations:
        began = time.perf_counter()
        decide(observation[None])
        taken.append(time.perf_counter() - began)
    median, slow = np.quantile(taken, (0.5, 0.99))
    return 1e6 * float(median), 1e6 * float(slow)


def main() -> None:
    """Measure in turns for each size; report medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=RUN)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--decisions", type=int, default=500, help="in a round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    library = Library(arguments.run)
    ids = sorted(library.ids(), key=lambda one: library.member(one).loss)
    shape = library.member(ids[0]).input.shape
    observations = np.random.default_rng(0).normal(0, 0.1, (arguments.decisions, *shape)).astype(np.float32)
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        chosen = ids[:size]
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            bundle = bundled(library, chosen, Path(folder) / "bundle")
            ways: dict[str, Decide] = {
                "PyTorch loop": torch_loop(library, chosen),
                "ONNX Runtime loop": session_loop(library, chosen),
                "engine, threads": stack.enter_context(Engine(bundle, isolation="thread")).predict,
                "engine, processes": stack.enter_context(Engine(bundle, isolation="process")).predict,
            }
            expected = ways["PyTorch loop"](observations[:64])
            for way, decide in ways.items():
                differ = float(np.abs(decide(observations[:64]) - expected).max())
                if differ > 1e-5:
                    raise SystemExit(f"{way} differs from PyTorch by {differ:g}")
            rounds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for _ in range(arguments.rounds):
                for way, decide in ways.items():
                    rounds[way].append(timed(decide, observations))
        base = np.array(rounds["PyTorch loop"])[:, 0]
        for way, times in rounds.items():
            medians, slow = np.array(times).T
            ratios = medians / base
            share = f"{np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f})"
            figures = {"median us": float(np.median(medians)), "p99 us": float(np.median(slow)), "of PyTorch": share}
            rows.append({"agents": size, "way": way, **figures})
    settings = {"run": arguments.run.name, "rounds": arguments.rounds, "decisions": arguments.decisions}
    record("rl-decisions", settings, rows, "one observation a decision; all ways in turns")


if __name__ == "__main__":  # workers import this file and must not run the command
    main()
