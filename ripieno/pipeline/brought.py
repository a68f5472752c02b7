"""Anybody's models -> library; and room for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from numpy.typing import ArrayLike

from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.quota import Eviction
from ripieno.pipeline.runs import Progress, open_run, quiet
from ripieno.pipeline.tuning import Source, prepare
from ripieno.types import Configuration, Member, Split


def import_(
    run: str | Path | Library,
    sources: str | Path | Sequence[str | Path] | Mapping[str, ArrayLike],
    *,
    data: Source | None = None,
    labels: str | Path | ArrayLike | None = None,
    costs: str | Path | Mapping[str, Mapping[str, float]] | None = None,
    classes: Sequence[str] | None = None,
    split: Split = "valid",
    family: str | None = None,
    configuration: Configuration | None = None,
    layout: Literal["auto", "NHWC", "NCHW"] = "auto",
    outputs: Literal["probabilities", "logits"] = "probabilities",
    scale: float = 1.0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    half: bool = False,
    replace: bool = False,
    size: int | None = None,
    progress: Progress = quiet,
) -> tuple[Member, ...]:
    """Add models that others trained to the library of `run`, which need not exist; gives the members added.

    `sources` are ONNX files, `.safetensors` weights of the network that `family` (`module:function`, whose code is run)
    builds, files or folders of predictions (.npy, .npz, .csv, .parquet), or a mapping of names to predictions (samples,
    classes). Networks are run on the validation images of the run's data set, or of `data`, which it then keeps;
    predictions need `labels`. `costs` are by name and kind. See `ripieno.library.import_` for the forms of files.

    Everything is read and checked before a byte is written. Raises LibraryError naming what is wrong with which model.
    """
    from ripieno.library.adapt import Form
    from ripieno.library.import_ import import_predictions
    from ripieno.library.networks import import_onnx, import_torch

    library = run if isinstance(run, Library) else Library(run)
    if isinstance(sources, Mapping):
        return import_predictions(
            library, sources, labels, costs, classes=classes, split=split, half=half, replace=replace
        )
    paths = [Path(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]
    missing = next((p for p in paths if not p.exists()), None)
    if missing is not None or not paths:
        raise LibraryError(f"{missing or 'nothing'} to import does not exist: give ONNX files, weights or predictions")
    if len({p.suffix in (".onnx", ".safetensors") and p.suffix for p in paths}) > 1:
        raise LibraryError("import ONNX files, weights and predictions one kind at a time")
    if paths[0].suffix in (".onnx", ".safetensors"):
        dataset = prepare(data, library, size=size, progress=progress) if data is not None else None
        if paths[0].suffix == ".onnx":
            form = Form(layout, outputs, scale, tuple(mean), tuple(std))
            return import_onnx(library, paths, dataset, form=form, half=half, replace=replace)
        if family is None:
            raise LibraryError(f"{paths[0]}: weights need the network they fit: --family module:function builds it")
        added: list[Member] = []
        for path in paths:
            made = import_torch(
                library,
                path,
                family,
                dataset,
                configuration=configuration,
                mean=mean or None,
                std=std or None,
                half=half,
                replace=replace,
            )
            added += made
        return tuple(added)
    if len(paths) > 1:
        raise LibraryError("predictions come from one file or one folder at a time: put the files into a folder")
    return import_predictions(
        library, paths[0], labels, costs, classes=classes, split=split, half=half, replace=replace
    )


def evict(run: str | Path | Library, quota: int) -> tuple[tuple[Eviction, ...], int]:
    """Remove members that another beats in loss and cost, the worst first, until all take at most `quota` bytes.

    All are compared in one unit: seconds where every member has them, brought or measured, else a kind of cost that all
    brought, else parameters; where some have neither, by loss alone. Members of an ensemble or of the front stay. Gives
    the evictions and the bytes left. Raises LibraryError for a quota that is not positive.
    """
    from ripieno.library import enforce_quota

    return enforce_quota(open_run(run), quota)
