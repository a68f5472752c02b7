"""Merging of an ensemble into one ONNX file: the members' graphs share one input, and their combination is the output.

Every name of a member's graph gets its own prefix, so that two members share only the images. Of a table with named
columns, the file takes the columns, and its first nodes encode them: see `column_nodes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.backends.column_nodes import MATRIX, ML_OPSET, column_nodes
from ripieno.backends.support import ML_DOMAIN, ml_operators
from ripieno.data.input_tensors import IMAGES, InputTensor, input_tensors
from ripieno.errors import EngineError, LibraryError, error_summary, require
from ripieno.tasks.combiners import whole_weights
from ripieno.tasks.metrics import FLOOR
from ripieno.tasks.registry import kind_of
from ripieno.types import Combiner, Input, Task

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET = 17
"""The oldest operator set for the combination; a newer set of the members is used instead."""
ML_TREES = 5
"""Operator set of `ai.onnx.ml` without the trees of older sets."""
MOST = 2**31 - 1
"""Bytes of an ONNX file at most: the limit of the format."""


def merge_onnx(
    paths: Mapping[str, Path],
    weights: Sequence[float],
    combiner: Combiner,
    input: Input,
    task: Task,
    facts: Mapping[str, str],
    temperatures: Sequence[float] = (),
    temperature: float = 1.0,
    backbones: Mapping[str, Path] | None = None,
) -> bytes:
    """Merge the members' ONNX files `paths`, by name, into one, weighted by `weights` in that order.

    It takes the tensors of `ripieno.data.input_tensors`, `images` (batch, *input.shape) of `input.dtype` or the columns
    (batch, 1) of a table, and gives `probabilities` or `values` (batch, *task.output) float32; the batch is dynamic.
    `facts` become its metadata. The members are at their `temperatures` (empty: 1),
    their combination at `temperature`. `backbones` holds the file of the backbone of each member that shares one, whose
    own file is then a head: every backbone is in the graph once.

    Raises LibraryError naming the file that cannot be read or joined, or the column whose name the graph needs,
    EngineError when they exceed `MOST` bytes.
    """
    onnx = require("onnx")
    backbones = backbones or {}
    shared = {str(path): path for path in backbones.values()}
    total = sum(path.stat().st_size for path in (*paths.values(), *shared.values()) if path.exists())
    if total > MOST:
        raise EngineError(
            f"{len(paths)} members take {total:,} bytes; an ONNX file holds at most {MOST:,}; export for triton"
        )
    files = {**shared, **paths}
    parts = _of_one_opset({name: _read(path) for name, path in files.items()}, files)
    merged = onnx.ModelProto()
    images = _append_columns(merged, input) if input.columns else IMAGES
    features = {
        name: _append(merged, parts[name], images, f"backbone{number}/", shared[name].stem)
        for number, name in enumerate(shared)
    }
    answers = []
    for number, name in enumerate(paths):
        source = features[str(backbones[name])] if name in backbones else images
        answers.append(_append(merged, parts[name], source, f"member{number}/", name))
    combination = combiner_nodes(answers, weights, combiner, task, temperatures, temperature)
    return _finished(merged, parts, combination, input_tensors(input), _predictions(task), facts)


def columns_onnx(input: Input) -> bytes:
    """Build an ONNX file that encodes the columns (batch, 1) of a table as `MATRIX` (batch, values) float32."""
    onnx = require("onnx")
    alone = onnx.ModelProto()
    matrix = _append_columns(alone, input)
    return _finished(alone, {}, ([], []), input_tensors(input), InputTensor(matrix, "float32", input.shape), {})


def _append_columns(merged: ModelProto, input: Input) -> str:
    """Append the nodes that encode the columns of `input`; return the name of their output."""
    nodes, constants = column_nodes(input.columns)
    merged.graph.node.extend(nodes)
    merged.graph.initializer.extend(constants)
    return MATRIX


def _predictions(task: Task) -> InputTensor:
    return InputTensor(kind_of(task).outputs[0], "float32", task.output)


def whole_onnx(backbone: Path, head: Path, input: Input, task: Task) -> bytes:
    """Join the ONNX files of a shared backbone and of a head into one that predicts alone, as in `merge_onnx`.

    Raises LibraryError naming the file that cannot be read or joined.
    """
    onnx = require("onnx")
    files = {"backbone": backbone, "head": head}
    parts = _of_one_opset({name: _read(path) for name, path in files.items()}, files)
    joined = onnx.ModelProto()
    source = IMAGES
    for name, part in parts.items():
        source = _append(joined, part, source, f"{name}/", name)
    last = onnx.helper.make_node("Identity", [source], [kind_of(task).outputs[0]])
    given = InputTensor(IMAGES, input.dtype, input.shape)
    return _finished(joined, parts, ([last], []), [given], _predictions(task), {})


def _append(merged: ModelProto, part: ModelProto, source: str, prefix: str, name: str) -> str:
    """Append the graph of `part`, with `source` as its input, to `merged`; return the name of its output."""
    onnx = require("onnx")
    part = onnx.compose.add_prefix(part, prefix)
    given = _inputs(part)[0].name
    merged.graph.node.append(onnx.helper.make_node("Identity", [source], [given], f"{prefix}input", name))
    merged.graph.node.extend(part.graph.node)
    merged.graph.initializer.extend(part.graph.initializer)
    merged.graph.sparse_initializer.extend(part.graph.sparse_initializer)
    merged.functions.extend(part.functions)
    output: str = part.graph.output[0].name
    return output


def mean_onnx(
    members: Sequence[str],
    weights: Sequence[float],
    combiner: Combiner,
    task: Task,
    temperatures: Sequence[float] = (),
    temperature: float = 1.0,
) -> bytes:
    """Build an ONNX file that combines members' predictions: inputs (batch, *task.output) float32 named as `members`.

    The temperatures are as in `merge_onnx`: the inputs are the members' own predictions, before any.
    """
    combination = combiner_nodes(members, weights, combiner, task, temperatures, temperature)
    given = [InputTensor(member, "float32", task.output) for member in members]
    return _finished(require("onnx").ModelProto(), {}, combination, given, _predictions(task), {})


def signature(path: Path) -> tuple[str, str]:
    """Return the names of input and output of a member's ONNX file. Raises LibraryError when it cannot be read."""
    model = _read(path)
    return _inputs(model)[0].name, model.graph.output[0].name


def combiner_nodes(
    answers: Sequence[str],
    weights: Sequence[float],
    combiner: Combiner,
    task: Task,
    temperatures: Sequence[float] = (),
    temperature: float = 1.0,
) -> tuple[list[NodeProto], list[TensorProto]]:
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

    def calibrate(probabilities: str, temperature: float, name: str) -> str:
        """Add the nodes of `tasks.calibration.apply_temperature`."""
        if temperature == 1.0:
            return probabilities
        logits = node("Log", [node("Clip", [probabilities, constant(f"{name}-floor", FLOOR)], f"{name}-clip")], name)
        scaled = node("Mul", [logits, constant(f"{name}-inverse", 1 / temperature)], f"{name}-scaled")
        return node("Softmax", [scaled], f"{name}-calibrated", axis=1)

    if combiner != "vote":  # a temperature leaves a member's most likely class as it is
        own = temperatures or (1.0,) * len(answers)
        answers = [calibrate(a, t, f"logits{i}") for i, (a, t) in enumerate(zip(answers, own, strict=True))]
    if combiner == "median":
        last = _median(node, constant, answers, scaled=kind.activation == "softmax")
    else:
        given_weights = np.ones(len(answers)) if combiner == "mean" else np.asarray(weights, np.float64)
        if combiner == "vote":
            shares = given_weights / given_weights.sum()
            depth, values = constant("classes", len(task.names), np.int64), constant("values", [0, 1])
            likeliest = [node("ArgMax", [a], f"class{i}", axis=1, keepdims=0) for i, a in enumerate(answers)]
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
    if combiner in ("vote", "median") or temperature != 1.0 or any(t != 1.0 for t in temperatures):
        last = node("Sum", [last, *_not_finite(node, constant, given)], "checked")
    nodes.append(onnx.helper.make_node("Identity", [last], [kind.outputs[0]], f"combine/{kind.outputs[0]}"))
    return nodes, constants


def _not_finite(node: Any, constant: Any, answers: Sequence[str]) -> list[str]:
    """Return a tensor (batch, 1) for each member: NaN for samples with a number that is not finite, else 0.

    A mean passes on numbers that are not finite; a vote would count them for the first class, a clip would hide them.
    """
    axis = constant("finite-axis", [1], np.int64)
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


def _read(path: Path) -> ModelProto:
    onnx = require("onnx")
    try:
        model: ModelProto = onnx.load(str(path))
        if not _inputs(model) or not model.graph.output:
            raise ValueError("it has no input or no output")
    except Exception as error:  # a missing file, protobuf's errors, missing external weights
        line = error_summary(error)
        raise LibraryError(f"{path} cannot be read as ONNX: {line}") from error
    return model


def _inputs(model: ModelProto) -> list[Any]:
    """Return the inputs that are no weights: old files list weights, too."""
    weights = {w.name for w in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in weights]


def _of_one_opset(models: dict[str, ModelProto], paths: Mapping[str, Path]) -> dict[str, ModelProto]:
    onnx = require("onnx")
    newest = max([OPSET, *(_opsets(m).get("", 1) for m in models.values())])
    found: dict[str, ModelProto] = {}
    for name, model in models.items():
        try:
            same = _opsets(model).get("", 1) == newest
            found[name] = model if same else onnx.version_converter.convert_version(_with_types(model), newest)
        except Exception as error:  # the converter's errors have no narrower base class
            line = error_summary(error)
            raise LibraryError(f"{paths[name]} cannot be converted to operator set {newest}: {line}") from error
    _check_ml_opsets(found, paths)
    return found


def _with_types(model: ModelProto) -> ModelProto:
    """Add the types of imputed values, which ONNX does not infer: its converter crashes on a LabelEncoder of them."""
    onnx = require("onnx")
    known = {value.name for value in model.graph.value_info} | {output.name for output in model.graph.output}
    for node in model.graph.node:
        if node.domain == ML_DOMAIN and node.op_type == "Imputer" and node.output[0] not in known:
            is_float = any(attribute.name == "imputed_value_floats" for attribute in node.attribute)
            kind = onnx.TensorProto.FLOAT if is_float else onnx.TensorProto.INT64
            model.graph.value_info.append(onnx.helper.make_tensor_value_info(node.output[0], kind, None))
    return model


def _check_ml_opsets(models: Mapping[str, ModelProto], paths: Mapping[str, Path]) -> None:
    """Raise LibraryError when models need sets of the operators of trees that one file cannot have."""
    versions = {name: opset for name, m in models.items() if ml_operators(m) and (opset := _opsets(m).get(ML_DOMAIN))}
    old, new = ([n for n, v in versions.items() if (v >= ML_TREES) == later] for later in (False, True))
    if old and new:
        raise LibraryError(
            f"{paths[old[0]]} and {paths[new[0]]} have operator sets {versions[old[0]]} and {versions[new[0]]} of "
            f"{ML_DOMAIN}, which one file cannot hold: export for triton"
        )


def _opsets(model: ModelProto) -> dict[str, int]:
    """Return the versions of operator sets by domain, ONNX's own under the empty name."""
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}


def _value_info(tensor: InputTensor) -> Any:
    onnx = require("onnx")
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return onnx.helper.make_tensor_value_info(tensor.name, element, ["batch", *tensor.shape])


def _finished(
    merged: ModelProto,
    parts: Mapping[str, ModelProto],
    combination: tuple[list[NodeProto], list[TensorProto]],
    given: Sequence[InputTensor],
    output: InputTensor,
    facts: Mapping[str, str],
) -> bytes:
    """Return the bytes of `merged` with the nodes and constants of `combination`, its inputs `given` and its output.

    Raises LibraryError for an input that has the name of another tensor of the graph.
    """
    onnx = require("onnx")
    merged.graph.node.extend(combination[0])
    merged.graph.initializer.extend(combination[1])
    opsets: dict[str, int] = {"": OPSET, **({ML_DOMAIN: ML_OPSET} if ml_operators(merged) else {})}
    for part in parts.values():
        for domain, version in _opsets(part).items():
            opsets[domain] = max(version, opsets.get(domain, 1))
    made = {name for node in merged.graph.node for name in node.output} | {c.name for c in merged.graph.initializer}
    if taken := next((tensor.name for tensor in given if tensor.name in made), None):
        raise LibraryError(f"the column {taken!r} has the name of another tensor of the graph; rename it in the data")
    merged.ir_version = max([9, *(p.ir_version for p in parts.values())])
    merged.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in opsets.items())
    merged.graph.name = "ensemble"
    merged.producer_name = "ripieno"
    merged.graph.input.extend(map(_value_info, given))
    merged.graph.output.append(_value_info(output))
    for key, fact in facts.items():
        merged.metadata_props.add(key=key, value=fact)
    content: bytes = merged.SerializeToString()
    return content
