"""Import of externally trained networks: ONNX files, and PyTorch weights with the function that builds the network.

They are run on the library's validation samples, so that the library stores the same data as for a trained member.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ripieno import backends
from ripieno.backends.batch_limit import limit_batch
from ripieno.data.dataset import BATCH, batches, find_dataset, spread_rows, write_dataset
from ripieno.data_kinds import is_series, noun_of
from ripieno.errors import LibraryError, error_summary, require
from ripieno.library import check, probe
from ripieno.library.import_predictions import NO_TRIAL, add_all, as_stored
from ripieno.library.library import Library
from ripieno.library.onnx_adapter import OnnxFormat, OnnxNetwork
from ripieno.library.prediction_arrays import gather_predictions
from ripieno.tasks.registry import kind_of
from ripieno.types import Configuration, Dataset, Device, Member

FEW = 8
"""Samples for the comparison of single and batched predictions."""


def import_onnx(
    library: Library,
    paths: Sequence[str | Path],
    dataset: Dataset | None = None,
    *,
    form: OnnxFormat | None = None,
    half: bool = False,
    replace: bool = False,
    notes: list[str] | None = None,
) -> tuple[Member, ...]:
    """Add ONNX files as members named by their stems; return the members added.

    Each file takes a batch of any size and gives (batch, *task.output); `form` supplies what the files do not
    state. They are run on the validation samples of the library's data set, or of `dataset`, which a library without
    one stores. `notes` gets warnings: see `ripieno.library.probe`.

    Raises LibraryError naming the file and its fault; the library is then unchanged.
    """
    form, notes = form or OnnxFormat(), [] if notes is None else notes
    data = _dataset(library, dataset, notes)
    names = [Path(path).stem for path in paths]
    check.check_ids(names, library, replace)
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name, path in zip(names, map(Path, paths), strict=True):
            network = OnnxNetwork(path, data.input, form)
            if network.fills_padding and np.isnan(data.inputs[:, -1]).any():
                notes.append(f"{path} does not test for NaN: shorter series are padded with 0 for it")
            few = data.inputs[spread_rows(np.arange(len(data.inputs)), limit_batch(BATCH, data.task.output))]
            output = probe.choose_output(network, few, data.task, form.tensor, form.outputs, notes)
            content = network.adapted(output, data.task)
            (Path(folder) / "model.onnx").write_bytes(content)
            member = _member(name, "onnx", {}, data, network.parameters, "onnx")
            values = predict_validation("onnx", Path(folder) / "model.onnx", member, data, notes)
            found.append((member, content, values))
    return _add(library, found, data, half)


def import_torch(
    library: Library,
    weights: str | Path | Sequence[str | Path],
    family: str,
    dataset: Dataset | None = None,
    *,
    configuration: Configuration | None = None,
    name: str | None = None,
    scale: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    half: bool = False,
    replace: bool = False,
    notes: list[str] | None = None,
) -> tuple[Member, ...]:
    """Add the network that `family` (your own `module:function`, or `resnet`) builds, with weights from .safetensors.

    The function takes (configuration, input, classes) and returns a module from normalised inputs, channels first, to
    logits; the padding of series is NaN. The weights are that module's `state_dict`, with names behind at most one
    prefix, or those of a ripieno member, which contain their own normalisation. Other modules get
    `(inputs * scale - mean) / std`, the last two per channel; without all three, the moments of the data set are used.
    With several files each is a member, named by its stem.
    The family's code is run. `notes` gets warnings: see `ripieno.library.probe`.

    Raises LibraryError for weights that do not fit, ModelError for a family that cannot be built; the library is then
    unchanged.
    """
    notes = [] if notes is None else notes
    data = _dataset(library, dataset, notes)
    paths = [Path(w) for w in ([weights] if isinstance(weights, str | Path) else weights)]
    names = [name or path.stem for path in paths]
    check.check_ids(names, library, replace)
    moments = _moments(data, scale, mean, std)
    scaling_given = scale != 1.0 or bool(mean) or bool(std)
    found = []
    body, parameters = _build(family, configuration or {}, data)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        for own, path in zip(names, paths, strict=True):
            content = _whole_weights(path, body, *moments, scaling_given)
            member = _member(own, family, configuration or {}, data, parameters, "safetensors")
            file.write_bytes(content)
            found.append((member, content, predict_validation("torch", file, member, data, notes)))
    return _add(library, found, data, half)


def _build(family: str, configuration: Configuration, data: Dataset) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the shapes by name of the weights of the module that `family` builds, and its number of parameters."""
    require("torch")
    from ripieno.models.build import build

    body = build(family, configuration, data.input, data.task, trusted=(family,)).body
    shapes = {name: tuple(tensor.shape) for name, tensor in body.state_dict().items()}
    return shapes, sum(p.numel() for p in body.parameters())


def _moments(
    data: Dataset, scale: float, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel for the network's input, in the unit of the inputs."""
    channels = data.input.shape[-1]
    # an explicit scale defines the network's unit, while the data set's moments are of unscaled pixels
    usual = (data.mean, data.std) if scale == 1.0 else ((0.0,) * channels, (1.0,) * channels)
    means, stds = mean or usual[0], std or usual[1]
    if len(means) != channels or len(stds) != channels or (std and not min(std) > 0):
        raise LibraryError(
            f"mean and std have {len(means)} and {len(stds)} values; expected {channels} each, std above 0"
        )
    return [m / scale for m in means], [s / scale for s in stds]


def _dataset(library: Library, given: Dataset | None, notes: list[str]) -> Dataset:
    stored = find_dataset(library.dataset_path)
    data = given if stored is None else stored
    if data is None:
        raise LibraryError(f"{library.path} has no data set to run networks on; pass one")
    if given is not None and not _same(data, given):
        raise LibraryError(f"{library.path} has another data set; import into a separate run")
    if not len(data.rows("valid")):
        raise LibraryError(f"{data.name} has no validation samples; split it")
    if data.folds is not None:
        notes.append(
            f"the run is validated out of fold on its {len(data.rows('train')):,} training samples: models that were "
            "trained on these samples look too good; import their out-of-fold predictions instead"
        )
    return data


def _same(one: Dataset, other: Dataset) -> bool:
    same_form = (one.task, one.input) == (other.task, other.input)
    return (
        same_form
        and np.array_equal(one.targets, other.targets)
        and (np.array_equal(one.split, other.split) and one.fold_count == other.fold_count)
    )


def _member(
    name: str,
    family: str,
    configuration: Configuration,
    data: Dataset,
    parameters: int,
    kind: Literal["onnx", "safetensors"],
) -> Member:
    return Member(
        id=name,
        trial=NO_TRIAL,
        epoch=0,
        family=family,
        configuration=dict(configuration),
        input=data.input,
        task=data.task,
        losses={},
        parameters=parameters,
        seconds=0.0,
        format=kind,
    )


def predict_validation(backend: str, path: Path, member: Member, data: Dataset, notes: list[str]) -> NDArray[Any]:
    """Predict and check the validation samples of `data` with the file at `path`. Raises LibraryError if it cannot."""
    rows, activation = data.rows("valid"), kind_of(data.task).activation
    targets = np.asarray(data.targets[rows])
    runner = backends.load(backend, path, member, Device("cpu:0", "cpu", 0), 1, trusted=(member.family,))

    def infer(images: NDArray[np.generic]) -> NDArray[np.float32]:
        try:
            return runner.infer(images)
        except Exception as error:  # a foreign graph may cause any exception
            line = error_summary(error)
            raise LibraryError(f"{member.id} cannot predict batches of {noun_of(data.input)}: {line[:200]}") from error

    try:
        size = limit_batch(BATCH, data.task.output)
        parts = (infer(batch) for batch in batches(data.inputs, rows, size))
        found = gather_predictions(data, len(rows), parts)
        if is_series(data.input) and np.isnan(found[np.isnan(data.inputs[rows, -1]).all(axis=1)]).any():
            remedy = "mask the padding in the network, or replace it by 0"
            raise LibraryError(f"{member.id} predicts NaN for series that are padded with NaN at the end; {remedy}")
        values = check.read_predictions(member.id, found, targets, data.task)
        several = rows if len(rows) > 1 else np.arange(len(data.inputs))  # a single row makes no batch
        # values have the target's unit, probabilities none
        unit = float(targets.std()) or 1.0 if activation == "identity" else 1.0
        few = spread_rows(several, max(2, limit_batch(FEW, data.task.output)))
        probe.check_steady(member.id, infer, np.asarray(data.inputs[few]), notes, unit)
    finally:
        runner.close()
    if activation == "softmax":
        probe.note_flat(member.id, values[: limit_batch(len(values), data.task.output)], notes)
    if worse := check.note_if_poor(targets, values, member.id, data.task):
        notes.append(worse)
    return values


def _whole_weights(
    path: Path, body: Mapping[str, tuple[int, ...]], mean: Sequence[float], std: Sequence[float], scaling_given: bool
) -> bytes:
    """Read the weights at `path` in a member's form: those of a bare module get the wrapper's names.

    `body` holds the shapes of the module's weights by name. Weights of a ripieno member contain their own moments:
    LibraryError when `scaling_given`, because the user passed others.
    """
    torch_files = require("safetensors.torch")
    torch = require("torch")
    if not path.is_file():
        raise LibraryError(f"{path} does not exist")
    try:
        tensors = dict(torch_files.load_file(str(path)))
    except Exception as error:  # safetensors' error is no OSError
        raise LibraryError(f"{path} is not a readable .safetensors file: {str(error)[:200]}") from error
    # a user's module may have a part named body, too
    wrapped = {"mean", "std"} <= set(tensors) and all(k.startswith("body.") for k in set(tensors) - {"mean", "std"})
    if wrapped and scaling_given:
        raise LibraryError(f"{path} is a ripieno member with its own normalisation; leave out scale, mean and std")
    moments = {"mean": torch.tensor(list(mean), dtype=torch.float32)}
    moments["std"] = torch.tensor([s or 1.0 for s in std], dtype=torch.float32)
    if wrapped:
        moments = {name: tensors.pop(name) for name in moments}
    named = _fit(path, tensors, body)
    content: bytes = torch_files.save({**{f"body.{name}": tensor for name, tensor in named.items()}, **moments})
    return content


def _fit(path: Path, tensors: Mapping[str, Any], body: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Rename `tensors` to the names of `body`: unchanged, or without the one prefix that all of them may have.

    DataParallel writes such a prefix (`module.`), torch.compile (`_orig_mod.`), Lightning and many other wrappers.
    """
    first = min(body, default="")
    for name in tensors:
        prefix = name.removesuffix(first)
        if name.endswith(first) and {prefix + own for own in body} == set(tensors):
            tensors = {own: tensors[prefix + own] for own in body}
            break
    lacking, extra = sorted(set(body) - set(tensors)), sorted(set(tensors) - set(body))
    if lacking or extra:
        parts = [f"it has no {lacking[0]}"] if lacking else []
        parts += [f"it has {extra[0]}, which the network lacks"] if extra else []
        raise LibraryError(f"{path} holds the weights of another network: {' and '.join(parts)}")
    for name, shape in body.items():
        if tuple(tensors[name].shape) != shape:
            got = tuple(tensors[name].shape)
            raise LibraryError(f"{path} holds the weights of another network: {name} is {got}, must be {shape}")
    return dict(tensors)


def _add(
    library: Library, found: Sequence[tuple[Member, bytes, NDArray[Any]]], data: Dataset, half: bool
) -> tuple[Member, ...]:
    targets = data.targets[data.rows("valid")]
    if len(library):
        check.match_task(check.match_kind(data.task.kind, library), data.task.names, len(data.task.names), library)
    check.check_known_targets(targets, data.task, library, "valid")
    check.check_new({member.id: values for member, _, values in found}, library)
    kind = kind_of(data.task)
    evaluated = [
        (
            dataclasses.replace(member, losses=kind.losses(values, targets, data.task)),
            as_stored(values, half or kind.is_pixelwise),
            content,
        )
        for member, content, values in found
    ]
    if not (library.dataset_path / "dataset.json").exists():
        write_dataset(data, library.dataset_path)
    add_all(library, evaluated, targets)
    return tuple(member for member, _, _ in evaluated)
