"""External models -> library, and eviction of members."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ripieno import files
from ripieno.config import pick
from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.check import one_of
from ripieno.library.eviction import Eviction
from ripieno.pipeline.preparation import DataOptions, DataSource, SourceOptions, prepare
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run
from ripieno.pipeline.selection import reevaluate
from ripieno.shell_command import command
from ripieno.types import ColumnKind, Configuration, DataKind, InputLayout, Member, ModelOutputs, Split


@dataclass(frozen=True)
class ImportOptions(SourceOptions):
    """Options of an import, among them those of `tune` on its data; see `import_`."""

    data: DataSource | None = None
    targets: str | Path | ArrayLike | None = None
    costs: str | Path | Mapping[str, Mapping[str, float]] | None = None
    classes: Sequence[str] | None = None
    split: Split = "valid"
    family: str | None = None
    configuration: Configuration | None = None
    layout: InputLayout = "auto"
    outputs: ModelOutputs = "probabilities"
    tensor: str | None = None
    scale: float = 1.0
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    half: bool = False
    replace: bool = False

    def given(self) -> list[str]:
        """Return the names of the options that differ from their defaults."""
        values = ((f, getattr(self, f.name)) for f in fields(self))
        return [f.name for f, value in values if (value is not None if f.default is None else value != f.default)]


DATA_OPTIONS = tuple(f.name for f in fields(SourceOptions))
OPTIONS_BY_SOURCE: Mapping[str, tuple[str, ...]] = {
    "predictions": ("targets", "costs", "classes", "split", "task"),
    "ONNX files": ("data", *DATA_OPTIONS, "layout", "outputs", "tensor", "scale", "mean", "std"),
    "weights": ("data", *DATA_OPTIONS, "family", "configuration", "scale", "mean", "std"),
}
"""Valid options of each kind of source; `half` and `replace` are valid for all."""
READ = (".onnx", ".safetensors", ".npy", ".npz", ".csv", ".parquet")
"""Suffixes of supported files."""
_TORCH = (
    "loading this one could run code: save its weights with "
    "safetensors.torch.save_file(network.state_dict(), 'net.safetensors'), or export it with torch.onnx.export"
)
_KERAS = "convert this one to ONNX with tf2onnx"
_SKLEARN = "loading this one could run code: convert the model to ONNX with skl2onnx"
CONVERT: Mapping[str, str] = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".tar", ".pt2", ".mar"), _TORCH),
    **dict.fromkeys((".h5", ".hdf5", ".keras", ".pb", ".tflite"), _KERAS),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _SKLEARN),
}
"""Conversion of unsupported model files, by suffix."""


def import_(
    run: str | Path | Library,
    sources: str | Path | Sequence[str | Path] | Mapping[str, ArrayLike],
    *,
    data: DataSource | None = None,
    targets: str | Path | ArrayLike | None = None,
    costs: str | Path | Mapping[str, Mapping[str, float]] | None = None,
    classes: Sequence[str] | None = None,
    split: Split = ImportOptions.split,
    family: str | None = None,
    configuration: Configuration | None = None,
    layout: InputLayout = ImportOptions.layout,
    outputs: ModelOutputs = ImportOptions.outputs,
    tensor: str | None = None,
    scale: float = ImportOptions.scale,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    half: bool = False,
    replace: bool = False,
    size: int | None = None,
    task: str | None = None,
    target: str | Sequence[str] | None = None,
    kind: DataKind | None = None,
    series: str | None = None,
    time: str | None = None,
    value: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    column: Mapping[str, ColumnKind] | None = None,
    split_by: str | None = None,
    ignore: str | int | Sequence[str | int] | None = None,
    labels: str | Path | ArrayLike | None = None,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> tuple[Member, ...]:
    """Add external models to the library of `run`, which is created if needed; return the members added.

    `sources` are ONNX files, `.safetensors` weights of the network that `family` (`module:function`; its code is run)
    builds, files or folders of predictions (.npy, .npz, .csv, .parquet), or a mapping of names to predictions (samples,
    classes). Networks predict the validation samples of the run's data set, or of `data`, which the run then keeps; its
    training split may lack classes, as nothing is trained on it. The input of networks is `(inputs * scale - mean) /
    std`; for weights without any of the three, the moments of the data set are used. `layout` is the order of the axes
    of ONNX files where their shape does not show it. Series are padded with 0 for an ONNX file that does not test for
    NaN. A file may take the columns of a table, each as an input of its name, instead of the matrix of encoded values.
    `tensor` names the output with the predictions where an ONNX file has several.

    `ripieno.library.probe` describes the checks of a network's predictions, with their errors and `notes`. Predictions
    need `targets`; `labels` is another name of them, and `task` is their kind. `costs` are by name and kind. See
    `ripieno.library.import_predictions` for the file formats. Ensembles with a replaced member, or with one that got
    new predictions, are evaluated again. When validation predictions are replaced, the front and the ensembles'
    cascades are removed; `notes` names the ensembles selected with the old ones.

    An import that fails leaves the run unchanged. Raises LibraryError, with the model and the problem, and for an
    option that is not valid for such sources.
    """
    given = locals() | {"targets": one_of(targets, labels), "mean": tuple(mean), "std": tuple(std)}
    return import_models(run, sources, pick(ImportOptions, given), progress, notes)


def import_models(
    run: str | Path | Library,
    sources: str | Path | Sequence[str | Path] | Mapping[str, ArrayLike],
    options: ImportOptions,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> tuple[Member, ...]:
    """Add external models to the library of `run` as `import_` describes it; return the members added."""
    from ripieno.library.import_models import import_onnx, import_torch
    from ripieno.library.import_predictions import import_predictions
    from ripieno.library.onnx_adapter import OnnxFormat

    library = run if isinstance(run, Library) else Library(run)
    files.check_writable(library.path)
    paths: list[Path] = []
    kind = "predictions"
    if not isinstance(sources, Mapping):
        paths = [Path(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]
        kind = _kind(paths)
    accepted = (*OPTIONS_BY_SOURCE[kind], "half", "replace")
    invalid = [name for name in options.given() if name not in accepted]
    if invalid:
        valid = ", ".join(OPTIONS_BY_SOURCE[kind])
        raise LibraryError(f"{kind} do not take {', '.join(invalid)}: leave that out (they take {valid})")
    scale, family = options.scale, options.family
    for name, value in vars(_data_options(options)).items():
        if value is not None and options.data is None and kind != "predictions":
            raise LibraryError(f"{name} {value} needs data: give data too, or leave {name} out")
    if not 0 < scale < math.inf:
        raise LibraryError(f"scale {scale:g} is not valid: give a number above 0, such as 0.00392 for pixels of 0 to 1")
    if kind == "weights" and family is None:
        raise LibraryError(f"{paths[0]} holds weights without a network: give --family module:function to build it")
    common: dict[str, Any] = {"half": options.half, "replace": options.replace, "notes": notes}
    with _rollback_on_error(library):
        dataset = None
        if options.data is not None:
            dataset = prepare(options.data, library, _data_options(options), progress, notes, for_training=False)
        if kind == "predictions":
            source = sources if isinstance(sources, Mapping) else paths[0]
            common |= {name: getattr(options, name) for name in ("targets", "costs", "classes", "split", "task")}
            added = import_predictions(library, source, **common)
        elif kind == "ONNX files":
            form = OnnxFormat(
                options.layout, options.outputs, scale, tuple(options.mean), tuple(options.std), options.tensor or ""
            )
            added = import_onnx(library, paths, dataset, form=form, **common)
        else:
            assert family is not None  # checked above
            common |= {name: getattr(options, name) for name in ("configuration", "scale", "mean", "std")}
            added = import_torch(library, paths, family, dataset, **common)
    touched = reevaluate(library, {m.id for m in added}, options.split)
    if notes is not None and touched and options.split == "valid":
        notes.append(
            f"{', '.join(touched)} hold replaced members: their figures were updated, their selection and plans were "
            f"not: `{command('select', library.path)}` selects again"
        )
    return added


def _data_options(options: ImportOptions) -> DataOptions:
    return DataOptions(**{name: getattr(options, name) for name in DATA_OPTIONS})


@contextmanager
def _rollback_on_error(library: Library) -> Iterator[None]:
    """If the block fails, remove the data set and the run's folder that it made."""
    made = [path for path in (library.dataset_path, library.path / "lock") if not path.exists()]
    new = not library.path.exists()
    try:
        yield
    except BaseException:
        for path in made:
            files.remove_tree(path) if path.is_dir() else files.remove_file(path)
        if new:
            with suppress(OSError):
                library.path.rmdir()
        raise


def _kind(paths: Sequence[Path]) -> str:
    """Return the kind of the files at `paths`, a key of `OPTIONS_BY_SOURCE`.

    Raises LibraryError for a missing or unsupported file, and for files of several kinds.
    """
    if not paths:
        raise LibraryError("no files to import: give ONNX files, weights or predictions")
    if (missing := next((p for p in paths if not p.exists()), None)) is not None:
        raise LibraryError(f"{missing} does not exist: give ONNX files, weights or predictions")
    for path in paths:
        if conversion := CONVERT.get(path.suffix.lower()):
            raise LibraryError(f"{path}: networks are read from .onnx, weights from .safetensors: {conversion}")
        if path.is_file() and path.suffix.lower() not in READ:
            raise LibraryError(f"{path} has an unknown suffix: it must end in {', '.join(READ)}")
    kinds = {{".onnx": "ONNX files", ".safetensors": "weights"}.get(p.suffix.lower(), "predictions") for p in paths}
    if len(kinds) > 1:
        raise LibraryError(f"cannot import {' and '.join(sorted(kinds))} together: import one kind at a time")
    if "predictions" in kinds and len(paths) > 1:
        raise LibraryError(f"cannot import {len(paths)} files of predictions at once: put them into one folder")
    return kinds.pop()


def evict(run: str | Path | Library, quota: int) -> tuple[tuple[Eviction, ...], int]:
    """Remove members that another beats in loss and cost, the worst first, until all take at most `quota` bytes.

    All members are compared in one unit: seconds where every member has them, imported or measured, else an imported
    kind of cost that all have, else parameters; where some have neither, by loss alone. Members of an ensemble or of
    the front stay. Returns the evictions and the bytes left. Raises LibraryError for a quota that is not positive.
    """
    from ripieno.library import enforce_quota

    return enforce_quota(open_run(run, writing=True), quota)
