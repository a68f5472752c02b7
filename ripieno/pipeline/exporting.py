"""Ensemble -> what others serve: one ONNX file, or a Triton model repository; a model card beside either."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from ripieno import files
from ripieno.backends.backend_id import MODEL, WEIGHTS
from ripieno.errors import LibraryError, RipienoError
from ripieno.library import read_bundle
from ripieno.library.bundle import model_path
from ripieno.library.model_card import CARD, read_or_render_card
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.types import Bundle

Form = Literal["onnx", "triton", "triton-single"]


def export(
    bundle: str | Path | Bundle,
    output: str | Path | None = None,
    *,
    form: Form = "onnx",
    name: str = "ensemble",
    licence: str | None = None,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
) -> Path:
    """Write a deployment in a form that others serve; returns what was written.

    `onnx`: one file, `BUNDLE/ensemble.onnx` by default, whose graph holds the members and their combination: `images`
    (batch, height, width, channels) in the data set's dtype, `probabilities` (batch, classes) float32. `triton`: a
    model repository (folder, `BUNDLE/triton` by default) with a model a member, one that combines, and the ensemble
    `name`; `triton-single`: the same with one model that is the one file. The model card goes beside either:
    `ensemble.md`, `README.md`; `licence` is written into it.

    Members are exported as the bundle runs them where that is ONNX; those run by PyTorch are exported, with their
    `trusted` families. A bundle's cascade is left out: elsewhere all members are asked.

    Raises LibraryError for no bundle or a folder that holds something else, EngineError when a member cannot be
    exported or all together exceed what one file can hold.
    """
    from ripieno.backends.merge_onnx import merge_onnx
    from ripieno.pipeline.triton import write_repository, write_single

    deployment = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise RipienoError(f"name {name!r} must be letters, digits, - _ and . only: it becomes a folder's name")
    card = read_or_render_card(deployment, licence)
    path = Path(output) if output is not None else deployment.path / ("ensemble.onnx" if form == "onnx" else "triton")
    _check_target(path, form)
    with tempfile.TemporaryDirectory() as made:
        paths = {
            m: _onnx_file(deployment, m, Path(made), trusted, progress, i)
            for i, m in enumerate(deployment.ensemble.members)
        }
        if form == "triton":
            write_repository(deployment, paths, path, name)
        else:
            ensemble = deployment.ensemble
            facts = {
                "ensemble": ensemble.name,
                "members": json.dumps(ensemble.members),
                "weights": json.dumps(ensemble.weights),
                "classes": json.dumps(deployment.classes),
            }
            shape = (deployment.input, deployment.classes)
            content = merge_onnx(paths, ensemble.weights, ensemble.combiner, *shape, facts)
            if form == "onnx":
                files.write_bytes(path, content)
            else:
                write_single(deployment, content, path, name)
    beside = path.with_suffix(".md") if form == "onnx" else path / CARD
    files.write_bytes(beside, card.encode("utf-8", "replace"))
    return path


def _check_target(path: Path, form: Form) -> None:
    """Raise RipienoError when `form` cannot be written to `path`: before the work, not after it."""
    if form not in get_args(Form):
        raise LibraryError(f"no form {form!r}; there are: {', '.join(get_args(Form))}")
    if form == "onnx":
        if path.suffix != ".onnx" or path.is_dir():
            raise LibraryError(f"{path} must be the name of a file that ends in .onnx")
    elif path.is_file() or (path.is_dir() and any(path.iterdir()) and not any(path.glob("*/config.pbtxt"))):
        raise LibraryError(f"{path} is not empty and holds no model repository: choose another folder")
    (files.check_file if form == "onnx" else files.check_folder)(path)


def _onnx_file(
    bundle: Bundle, member: str, made: Path, trusted: Sequence[str], progress: ProgressFunction, number: int
) -> Path:
    """The ONNX file that a bundle runs a member by, or one made of its weights."""
    path = model_path(bundle, member)
    if path.suffix == ".onnx":
        return path
    if (path.parent / MODEL).exists():
        return path.parent / MODEL
    from ripieno.backends.export import export_onnx

    progress("exporting to ONNX", number, len(bundle.members))
    known = next(m for m in bundle.members if m.id == member)
    export_onnx(known, path.parent / WEIGHTS, made / f"{number}.onnx", trusted=trusted)
    return made / f"{number}.onnx"
