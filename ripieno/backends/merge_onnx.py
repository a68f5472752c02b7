"""Merging of an ensemble into one ONNX file: the members' graphs share one input, and their combination is the output.

Every name of a member's graph gets its own prefix, so that two members share only the images. Of a table with named
columns, the file takes the columns, and its first nodes encode them: see `column_nodes`. Its last nodes are those of
`combiner_nodes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.backends.column_nodes import MATRIX, column_nodes
from ripieno.backends.combiner_nodes import combiner_nodes
from ripieno.backends.support import LABEL_OPSET, ML_DOMAIN, ml_operators
from ripieno.data.input_tensors import IMAGES, InputTensor, input_tensors
from ripieno.errors import EngineError, LibraryError, error_summary, require
from ripieno.tasks.registry import kind_of
from ripieno.types import Combiner, Input, Task

if TYPE_CHECKING:
    from onnx import ModelProto

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
    if input.columns:
        column_nodes(input.columns).append_to(merged)
    images = MATRIX if input.columns else IMAGES
    features = {
        name: _append(merged, parts[name], images, f"backbone{number}/", shared[name].stem)
        for number, name in enumerate(shared)
    }
    answers = []
    for number, name in enumerate(paths):
        source = features[str(backbones[name])] if name in backbones else images
        answers.append(_append(merged, parts[name], source, f"member{number}/", name))
    combiner_nodes(answers, weights, combiner, task, temperatures, temperature).append_to(merged)
    return _finished(merged, parts, input_tensors(input), _predictions(task), facts)


def columns_onnx(input: Input) -> bytes:
    """Build an ONNX file that encodes the columns (batch, 1) of a table as `MATRIX` (batch, values) float32."""
    alone = require("onnx").ModelProto()
    column_nodes(input.columns).append_to(alone)
    return _finished(alone, {}, input_tensors(input), InputTensor(MATRIX, "float32", input.shape))


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
    joined.graph.node.append(onnx.helper.make_node("Identity", [source], [kind_of(task).outputs[0]]))
    given = InputTensor(IMAGES, input.dtype, input.shape)
    return _finished(joined, parts, [given], _predictions(task))


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
    alone = require("onnx").ModelProto()
    combiner_nodes(members, weights, combiner, task, temperatures, temperature).append_to(alone)
    given = [InputTensor(member, "float32", task.output) for member in members]
    return _finished(alone, {}, given, _predictions(task))


def signature(path: Path) -> tuple[str, str]:
    """Return the names of input and output of a member's ONNX file. Raises LibraryError when it cannot be read."""
    model = _read(path)
    return _inputs(model)[0].name, model.graph.output[0].name


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
    given: Sequence[InputTensor],
    output: InputTensor,
    facts: Mapping[str, str] | None = None,
) -> bytes:
    """Return the bytes of `merged`, made of `parts`, with its inputs `given`, its output and `facts` as its metadata.

    Raises LibraryError for an input that has the name of another tensor of the graph.
    """
    onnx = require("onnx")
    opsets: dict[str, int] = {"": OPSET, **({ML_DOMAIN: LABEL_OPSET} if ml_operators(merged) else {})}
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
    for key, fact in (facts or {}).items():
        merged.metadata_props.add(key=key, value=fact)
    content: bytes = merged.SerializeToString()
    return content
