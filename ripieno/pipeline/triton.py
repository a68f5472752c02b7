"""An ensemble as a Triton model repository: one model per member, one that combines them, and the ensemble model.

REPO/README.md                     the model card; Triton reads folders only
REPO/NAME/config.pbtxt             the ensemble: platform "ensemble", its steps; labels.txt: the names
REPO/NAME/1/                       no model, but Triton requires the folder
REPO/NAME-MEMBER/config.pbtxt      a member: ONNX Runtime, instances and batch size of its allocation
REPO/NAME-MEMBER/1/model.onnx
REPO/NAME-combine/...              the combination of their outputs, also an ONNX file
REPO/NAME-columns/...              of a table: the encoding of its columns as the members' input, also an ONNX file

The format follows Triton's model_configuration.md and ensemble_models.md; names and shapes are those of our server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ripieno import files
from ripieno.backends.column_nodes import MATRIX
from ripieno.backends.merge_onnx import columns_onnx, mean_onnx, signature
from ripieno.data.input_tensors import IMAGES, input_tensors
from ripieno.errors import LibraryError
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle, Device, Placement

BATCH = 256
"""Most samples of a request."""
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "str": "TYPE_STRING"}
CPU = ["instance_group [ { kind: KIND_CPU count: 1 } ]"]
"""Instances of a model of few operations."""
LABELS = "labels.txt"

Names = Mapping[str, str]


def write_repository(bundle: Bundle, paths: Mapping[str, Path], path: Path, name: str) -> None:
    """Write the repository of `bundle`, with the members' ONNX files at `paths`, to the folder `path`.

    The ensemble is served as the model `name`; the temperatures are in the model that combines. A model's config is
    written after its other files. Raises LibraryError for a column with the name of another tensor of the ensemble.
    """
    members = bundle.ensemble.members
    numbers = {m: f"member{i}" for i, m in enumerate(members)}
    largest = max([BATCH, *(p.batch_size for p in bundle.allocation.placements)])
    given, outputs = [_tensor(*tensor) for tensor in input_tensors(bundle.input)], bundle.task.output
    predictions = kind_of(bundle.task).outputs[0]
    source = MATRIX if bundle.input.columns else IMAGES
    steps = []
    if columns := [column.name for column in bundle.input.columns]:
        if taken := {MATRIX, predictions, *numbers.values()}.intersection(columns):
            raise LibraryError(f"the column {min(taken)!r} has the name of another tensor; rename it in the data")
        model = f"{name}-columns"
        files.write_bytes(path / model / "1" / "model.onnx", columns_onnx(bundle.input))
        matrix = _listed("output", [_tensor(MATRIX, bundle.input.dtype, bundle.input.shape)])
        _write(path / model / "config.pbtxt", [*_model(model, largest), *_listed("input", given), *matrix, *CPU])
        steps.append(_step(model, {column: column for column in columns}, {MATRIX: MATRIX}))
    for member in members:
        model = f"{name}-{member}"
        input_name, output_name = signature(paths[member])
        files.copy_file(paths[member], path / model / "1" / "model.onnx")
        placements = [p for p in bundle.allocation.placements if p.member == member]
        parts = [
            *_model(model, largest),
            *_listed("input", [_tensor(input_name, bundle.input.dtype, bundle.input.shape)]),
            *_listed("output", [_tensor(output_name, "float32", outputs)]),
            *_instances(placements, bundle.allocation.devices),
            *_batching(placements),
        ]
        _write(path / model / "config.pbtxt", parts)
        steps.append(_step(model, {input_name: source}, {output_name: numbers[member]}))
    combine = f"{name}-combine"
    ensemble = bundle.ensemble
    temperatures = (ensemble.temperatures, ensemble.temperature)
    content = mean_onnx(list(numbers.values()), ensemble.weights, ensemble.combiner, bundle.task, *temperatures)
    files.write_bytes(path / combine / "1" / "model.onnx", content)
    inputs = [_tensor(number, "float32", outputs) for number in numbers.values()]
    output = _listed("output", [_tensor(predictions, "float32", outputs)])
    _write(path / combine / "config.pbtxt", [*_model(combine, largest), *_listed("input", inputs), *output, *CPU])
    steps.append(_step(combine, {n: n for n in numbers.values()}, {predictions: predictions}))
    write_labels(bundle, path / name)
    files.write_bytes(path / name / "1" / ".keep", b"")  # Triton requires the folder, git and object stores a file
    scheduling = ["ensemble_scheduling {", *(f"  {line}" for line in _listed("step", steps)), "}"]
    head = [f"name: {_quoted(name)}", 'platform: "ensemble"', f"max_batch_size: {largest}"]
    parts = [*head, *_listed("input", given), *_output(bundle), *scheduling, *_thresholds(bundle)]
    _write(path / name / "config.pbtxt", parts)


def write_single(bundle: Bundle, content: bytes, path: Path, name: str) -> None:
    """Write a repository with a single model `name`: the whole ensemble, the ONNX file `content`."""
    largest = max([BATCH, *(p.batch_size for p in bundle.allocation.placements)])
    files.write_bytes(path / name / "1" / "model.onnx", content)
    write_labels(bundle, path / name)
    given = [_tensor(*tensor) for tensor in input_tensors(bundle.input)]
    head = _model(name, largest)
    parts = [*head, *_listed("input", given), *_output(bundle), *_batching(()), *_thresholds(bundle)]
    _write(path / name / "config.pbtxt", parts)


def write_labels(bundle: Bundle, path: Path) -> None:
    """Write the names of the classes, labels or targets, one per line, as Triton reads them."""
    lines = ["".join(c if c.isprintable() else " " for c in name) for name in bundle.classes]
    files.write_bytes(path / LABELS, ("\n".join(lines) + "\n").encode("utf-8", "replace"))


def _model(name: str, largest: int) -> list[str]:
    return [f"name: {_quoted(name)}", 'backend: "onnxruntime"', f"max_batch_size: {largest}"]


def _tensor(name: str, dtype: str, shape: Sequence[int]) -> str:
    """Format a tensor without its batch axis, which `max_batch_size` declares."""
    return f"name: {_quoted(name)} data_type: {TYPES[dtype]} dims: [ {', '.join(map(str, shape))} ]"


def _output(bundle: Bundle) -> list[str]:
    tensor = _tensor(kind_of(bundle.task).outputs[0], "float32", bundle.task.output)
    return _listed("output", [f"{tensor} label_filename: {_quoted(LABELS)}"])


def _thresholds(bundle: Bundle) -> list[str]:
    """Format the thresholds of the labels, which a client applies, as a parameter of the model."""
    if not bundle.ensemble.thresholds:
        return []
    value = ", ".join(map(repr, bundle.ensemble.thresholds))
    return [f'parameters {{ key: "thresholds" value: {{ string_value: "[{value}]" }} }}']


def _step(model: str, inputs: Names, outputs: Names) -> str:
    maps = [f"input_map {{ key: {_quoted(k)} value: {_quoted(v)} }}" for k, v in inputs.items()]
    maps += [f"output_map {{ key: {_quoted(k)} value: {_quoted(v)} }}" for k, v in outputs.items()]
    return f"model_name: {_quoted(model)} model_version: -1 {' '.join(maps)}"


def _instances(placements: Sequence[Placement], devices: Sequence[Device]) -> list[str]:
    """Format one instance per placement; on a CPU with the threads of an equal share of its cores."""
    groups, threads = [], 0
    by_name = {d.name: d for d in devices}
    for device in dict.fromkeys(p.device for p in placements):
        count = sum(p.device == device for p in placements)
        kind, _, number = device.partition(":")
        if kind == "cuda":
            groups.append(f"kind: KIND_GPU count: {count} gpus: [ {number or 0} ]")
        else:
            groups.append(f"kind: KIND_CPU count: {count}")
            cores = len(by_name[device].cores) if device in by_name else 0
            threads = max(threads, cores // count)
    lines = _listed("instance_group", groups) if groups else []
    if threads:
        key = "intra_op_thread_count"
        lines.append(f'parameters {{ key: "{key}" value: {{ string_value: "{threads}" }} }}')
    return lines


def _batching(placements: Sequence[Placement]) -> list[str]:
    sizes = sorted({p.batch_size for p in placements})
    return [f"dynamic_batching {{ preferred_batch_size: [ {', '.join(map(str, sizes))} ] }}" if sizes else
            "dynamic_batching { }"]  # fmt: skip


def _listed(field: str, values: Sequence[str]) -> list[str]:
    lines = [f"  {{ {value} }}{',' if i + 1 < len(values) else ''}" for i, value in enumerate(values)]
    return [f"{field} [", *lines, "]"]


def _quoted(text: str) -> str:
    """Quote a string of the text format; other characters than ASCII become UTF-8 bytes in octal for every parser."""
    plain = "".join(f"\\{b:03o}" if b < 32 or b > 126 or b in b'"\\' else chr(b) for b in text.encode())
    return f'"{plain}"'


def _write(path: Path, lines: Sequence[str]) -> None:
    files.write_bytes(path, ("\n".join(lines) + "\n").encode())
