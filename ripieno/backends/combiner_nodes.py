"""ONNX nodes that combine the predictions of members, as `ripieno.tasks.combiners` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.backends.graph_part import GraphPart
from ripieno.errors import require
from ripieno.tasks.combiners import whole_weights
from ripieno.tasks.registry import kind_of
from ripieno.types import Combiner, Task

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto


def combiner_nodes(
    answers: Sequence[str],
    weights: Sequence[float],
    combiner: Combiner,
    task: Task,
    temperatures: Sequence[float] = (),
    temperature: float = 1.0,
) -> GraphPart:
    """Build the nodes that combine tensors (batch, *task.output) like the engine, and their constants.

    Numbers of a member that are not finite make the result not finite: a graph cannot fail as the engine does. The
    names of the nodes begin with `combine/`.
    """
    onnx = require("onnx")
    kind = kind_of(task)
    constants: list[TensorProto] = []
    nodes: list[NodeProto] = []
    given = answers

    def constant(name: str, value: Any, dtype: Any = np.float32) -> str:
        constants.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), f"combine/{name}"))
        return f"combine/{name}"

    def node(kind: str, inputs: Sequence[str], name: str, outputs: int = 1, **attributes: Any) -> str:
        made = [f"combine/{name}", *(f"combine/{name}-{i}" for i in range(1, outputs))]
        nodes.append(onnx.helper.make_node(kind, inputs, made, f"combine/{name}", **attributes))
        return made[0]

    def logarithm(probabilities: str, floor: float, name: str) -> str:
        return node("Log", [node("Clip", [probabilities, constant(f"{name}-floor", floor)], f"{name}-clip")], name)

    def calibrate(probabilities: str, temperature: float, name: str) -> str:
        """Add the nodes of `tasks.calibration.apply_temperature`."""
        if temperature == 1.0:
            return probabilities
        if kind.activation == "sigmoid":
            absent = node("Sub", [constant(f"{name}-one", 1.0), probabilities], f"{name}-absent")
            logits = node(
                "Sub",
                [logarithm(probabilities, kind.floor, name), logarithm(absent, kind.floor, f"{name}-no")],
                f"{name}-odds",
            )
            scaled = node("Mul", [logits, constant(f"{name}-inverse", 1 / temperature)], f"{name}-scaled")
            return node("Sigmoid", [scaled], f"{name}-calibrated")
        logits = logarithm(probabilities, kind.floor, name)
        scaled = node("Mul", [logits, constant(f"{name}-inverse", 1 / temperature)], f"{name}-scaled")
        return node("Softmax", [scaled], f"{name}-calibrated", axis=-1)

    if combiner != "vote":  # a temperature leaves a member's most likely class as it is
        own = temperatures or (1.0,) * len(answers)
        answers = [calibrate(a, t, f"logits{i}") for i, (a, t) in enumerate(zip(answers, own, strict=True))]
    if combiner == "value":
        answers = _standardised(node, constant, answers, task.output[-1])
    if combiner == "median":
        last = _median(node, constant, answers, scaled=kind.activation == "softmax")
    else:
        given_weights = np.ones(len(answers)) if combiner == "mean" else np.asarray(weights, np.float64)
        if combiner == "vote":
            shares = given_weights / given_weights.sum()
            depth, values = constant("classes", len(task.names), np.int64), constant("values", [0, 1])
            likeliest = [node("ArgMax", [a], f"class{i}", axis=-1, keepdims=0) for i, a in enumerate(answers)]
            answers = [node("OneHot", [c, depth, values], f"vote{i}") for i, c in enumerate(likeliest)]
            # as `tasks.combiners.combine`: summed in double, then rounded to single, so that equal votes are equal
            exact = onnx.TensorProto.DOUBLE
            answers = [node("Cast", [a], f"exact{i}", to=exact) for i, a in enumerate(answers)]
            parts = [
                node("Mul", [a, constant(f"weight{i}", shares[i], np.float64)], f"part{i}")
                for i, a in enumerate(answers)
            ]
            last = node("Cast", [node("Sum", parts, "sum")], "votes", to=onnx.TensorProto.FLOAT)
        else:
            counts = whole_weights(given_weights)
            parts = [node("Mul", [a, constant(f"weight{i}", counts[i])], f"part{i}") for i, a in enumerate(answers)]
            last = node("Div", [node("Sum", parts, "sum"), constant("weights", counts.sum())], "shares")
    last = calibrate(last, temperature, "logits")
    if combiner in ("vote", "median", "value") or temperature != 1.0 or any(t != 1.0 for t in temperatures):
        last = node("Sum", [last, *_not_finite(node, constant, given, len(task.output))], "checked")
    nodes.append(onnx.helper.make_node("Identity", [last], [kind.outputs[0]], f"combine/{kind.outputs[0]}"))
    return GraphPart(nodes, constants)


def _standardised(node: Any, constant: Any, answers: Sequence[str], actions: int) -> list[str]:
    """Add the nodes of `tasks.action_rules.standardised`, in double as there, for each tensor (batch, actions)."""
    onnx = require("onnx")
    axis, count = constant("actions-axis", [-1], np.int64), constant("actions", actions, np.float64)
    none, one = constant("no-scale", 0.0, np.float64), constant("unit-scale", 1.0, np.float64)

    def mean(values: str, name: str) -> str:
        return str(node("Div", [node("ReduceSum", [values, axis], f"{name}-sum", keepdims=1), count], name))

    made = []
    for i, answer in enumerate(answers):
        exact = node("Cast", [answer], f"exact{i}", to=onnx.TensorProto.DOUBLE)
        centred = node("Sub", [exact, mean(exact, f"mean{i}")], f"centred{i}")
        scale = node("Sqrt", [mean(node("Mul", [centred, centred], f"square{i}"), f"variance{i}")], f"scale{i}")
        some = node("Greater", [scale, none], f"some{i}")
        ratio = node("Div", [centred, node("Where", [some, scale, one], f"divisor{i}")], f"ratio{i}")
        kept = node("Where", [some, ratio, none], f"kept{i}")
        made.append(node("Cast", [kept], f"standardised{i}", to=onnx.TensorProto.FLOAT))
    return made


def _not_finite(node: Any, constant: Any, answers: Sequence[str], axes: int) -> list[str]:
    """Return a tensor (batch, 1, ...) for each member: NaN for samples with a number that is not finite, else 0.

    `axes` is the number of axes of a sample. A mean passes on numbers that are not finite; a vote would count them for
    the first class, a clip would hide them.
    """
    axis = constant("finite-axis", list(range(1, 1 + axes)), np.int64)
    zeros = [node("Sub", [a, a], f"nought{i}") for i, a in enumerate(answers)]
    return [node("ReduceSum", [n, axis], f"finite{i}", keepdims=1) for i, n in enumerate(zeros)]


def _median(node: Any, constant: Any, answers: Sequence[str], scaled: bool) -> str:
    """Add the median of each output; with `scaled`, scaled to sum 1, and the mean where all medians are 0."""
    count, first = len(answers), constant("axis", [0], np.int64)
    rows = [node("Unsqueeze", [a, first], f"row{i}") for i, a in enumerate(answers)]
    stacked = node("Concat", rows, "stacked", axis=0)
    ordered = node("TopK", [stacked, constant("count", [count], np.int64)], "ordered", outputs=2, axis=0)
    middles = [
        node("Gather", [ordered, constant(f"place{i}", place, np.int64)], f"middle{i}", axis=0)
        for i, place in enumerate(sorted({(count - 1) // 2, count // 2}))
    ]
    middle = node("Mean", middles, "middle")
    if not scaled:
        return str(middle)
    total = node("ReduceSum", [middle, constant("classes-axis", [1], np.int64)], "total", keepdims=1)
    some = node("Greater", [total, constant("zero", 0.0)], "some")
    divisor = node("Where", [some, total, constant("one", 1.0)], "divisor")
    shares = node("Div", [middle, divisor], "scaled")
    return str(node("Where", [some, shares, node("Mean", answers, "mean")], "chosen"))
