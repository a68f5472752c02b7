"""Networks that others trained, into a library: ONNX files, and PyTorch weights with the function that builds them.

They are run on the library's validation images, so what is kept of them is what a trained member has.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ripieno import backends
from ripieno.data import open_dataset, write_dataset
from ripieno.errors import LibraryError, first_line, need
from ripieno.library import check, metrics
from ripieno.library.adapt import Form, adapt_onnx
from ripieno.library.import_ import NO_TRIAL, add_all, stored
from ripieno.library.library import Library
from ripieno.types import Configuration, Dataset, Device, Member

BATCH = 64


def import_onnx(
    library: Library,
    paths: Sequence[str | Path],
    dataset: Dataset | None = None,
    *,
    form: Form | None = None,
    half: bool = False,
    replace: bool = False,
    threads: int = 1,
) -> tuple[Member, ...]:
    """Add ONNX files as members named by their stems; gives the members added.

    Each takes one batch of images and gives (batch, classes) as its first output; `form` says what the files cannot.
    They are run on the validation images of the library's data set, or of `dataset`, which a library without one keeps.

    Raises LibraryError naming the file and what is wrong with it; the library is then unchanged.
    """
    data = _dataset(library, dataset)
    names = [Path(path).stem for path in paths]
    check.check_names(names, library, replace)
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name, path in zip(names, map(Path, paths), strict=True):
            content, parameters = adapt_onnx(path, data.input, form or Form())
            (Path(folder) / "model.onnx").write_bytes(content)
            member = _member(name, "onnx", {}, data, parameters, "onnx")
            found.append((member, content, _predict("onnx", Path(folder) / "model.onnx", member, data, threads)))
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
    threads: int = 1,
) -> tuple[Member, ...]:
    """Add the network that `family` (`module:function` of yours, or `resnet`) builds, with weights from .safetensors.

    The function takes (configuration, input, classes) and gives a module from normalised NCHW images to logits; the
    weights are that module's `state_dict`, or that of a member of ours, which brings its own normalisation. Other
    modules are fed `(images * scale - mean) / std`, the last two per channel; with none of the three, by the moments of
    the data set. Of several files each is a member, named by its stem. The family's code is run.

    Raises LibraryError for weights that do not fit, ModelError for a family that cannot be built; the library is then
    unchanged.
    """
    data = _dataset(library, dataset)
    paths = [Path(w) for w in ([weights] if isinstance(weights, str | Path) else weights)]
    names = [name or path.stem for path in paths]
    check.check_names(names, library, replace)
    moments = _moments(data, scale, mean, std)
    told = scale != 1.0 or bool(mean) or bool(std)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        for own, path in zip(names, paths, strict=True):
            content, parameters = _whole_weights(path, *moments, told)
            member = _member(own, family, configuration or {}, data, parameters, "safetensors")
            file.write_bytes(content)
            found.append((member, content, _predict("torch", file, member, data, threads)))
    return _add(library, found, data, half)


def _moments(
    data: Dataset, scale: float, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel that feed a network, in the unit of the images."""
    channels = data.input.shape[-1]
    # who scales says what the network expects: the data set's own moments are of pixels as they are
    usual = (data.mean, data.std) if scale == 1.0 else ((0.0,) * channels, (1.0,) * channels)
    means, stds = mean or usual[0], std or usual[1]
    if len(means) != channels or len(stds) != channels or (std and not min(std) > 0):
        raise LibraryError(f"mean and std have {len(means)} and {len(stds)} values: {channels} each, std above 0")
    return [m / scale for m in means], [s / scale for s in stds]


def _dataset(library: Library, given: Dataset | None) -> Dataset:
    there = (library.dataset_path / "dataset.json").exists()
    if given is None and not there:
        raise LibraryError(f"{library.path} has no data set to run networks on: give one")
    data = open_dataset(library.dataset_path) if there else given
    assert data is not None
    if there and given is not None and not _same(data, given):
        raise LibraryError(f"{library.path} has another data set: import into a run of its own")
    if not len(data.rows("valid")):
        raise LibraryError(f"{data.name} has no validation samples: split it")
    return data


def _same(one: Dataset, other: Dataset) -> bool:
    words = (one.classes, one.input) == (other.classes, other.input)
    return words and np.array_equal(one.labels, other.labels) and np.array_equal(one.split, other.split)


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
        classes=data.classes,
        losses={},
        parameters=parameters,
        seconds=0.0,
        format=kind,
    )


def _predict(backend: str, path: Path, member: Member, data: Dataset, threads: int) -> NDArray[Any]:
    """Probabilities of the validation images, checked."""
    rows = data.rows("valid")
    runner = backends.load(backend, path, member, Device("cpu:0", "cpu", 0), threads, trusted=(member.family,))
    try:
        parts = [runner.infer(np.asarray(data.images[rows[i : i + BATCH]])) for i in range(0, len(rows), BATCH)]
        values = np.concatenate(parts)
    except Exception as error:  # whatever a stranger's graph makes its runtime raise
        line = first_line(error)
        raise LibraryError(f"{member.id} cannot answer batches of images: {line[:200]}") from error
    finally:
        runner.close()
    return check.check_probabilities(member.id, values, data.labels[rows], len(data.classes))


def _whole_weights(path: Path, mean: Sequence[float], std: Sequence[float], told: bool) -> tuple[bytes, int]:
    """The weights at `path` as a member keeps them, and how many there are: a bare module's get our wrapper's names.

    A member's of ours have moments of their own: LibraryError when the user `told` others.
    """
    torch_files = need("safetensors.torch")
    torch = need("torch")
    if not path.is_file():
        raise LibraryError(f"{path} does not exist")
    try:
        tensors = dict(torch_files.load_file(str(path)))
    except Exception as error:  # safetensors' error is no OSError
        raise LibraryError(f"{path} is not a readable .safetensors file: {str(error)[:200]}") from error
    parameters = sum(int(t.numel()) for t in tensors.values())
    # a module of the user's may have a part that is called body, too
    wrapped = {"mean", "std"} <= set(tensors) and all(k.startswith("body.") for k in set(tensors) - {"mean", "std"})
    if wrapped and told:
        raise LibraryError(f"{path} is of a member of ours, with its own normalisation: leave scale, mean and std out")
    if not wrapped:
        tensors = {f"body.{key}": tensor for key, tensor in tensors.items()}
        tensors["mean"] = torch.tensor(list(mean), dtype=torch.float32)
        tensors["std"] = torch.tensor([s or 1.0 for s in std], dtype=torch.float32)
    content: bytes = torch_files.save(tensors)
    return content, parameters


def _add(
    library: Library, found: Sequence[tuple[Member, bytes, NDArray[Any]]], data: Dataset, half: bool
) -> tuple[Member, ...]:
    labels = data.labels[data.rows("valid")]
    if len(library):
        check.read_classes(data.classes, len(data.classes), library)
    check.read_labels(np.asarray(labels), data.classes, library, "valid")
    check.check_new({member.id: values for member, _, values in found}, labels, library)
    judged = [
        (dataclasses.replace(member, losses=metrics.losses(values, labels)), stored(values, half), content)
        for member, content, values in found
    ]
    if not (library.dataset_path / "dataset.json").exists():
        write_dataset(data, library.dataset_path)
    add_all(library, judged, labels)
    return tuple(member for member, _, _ in judged)
