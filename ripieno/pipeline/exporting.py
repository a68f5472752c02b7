"""Ensemble -> files for other servers: one ONNX file or a Triton model repository, with a model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from ripieno import files
from ripieno.backends.backend_id import MODEL, WEIGHTS
from ripieno.backends.network_part import backbone_file, is_exported
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
    """Write a bundle in a format for other servers; return the path written.

    `onnx`: one file, `BUNDLE/ensemble.onnx` by default. Its graph holds the members and their combination: `images`
    (batch, *input.shape) in the data set's dtype, `probabilities` or `values` (batch, *task.output) float32; its
    metadata has the task, and the thresholds of its labels. Of a table with named columns, the graph takes these
    instead of `images`, as `ripieno.data.input_tensors` describes, and encodes them. `triton`: a model repository
    (folder, `BUNDLE/triton` by default) with one model per member, one that combines, one that encodes columns, and the
    ensemble `name`. `triton-single`: a repository with that one file as its only model. The model card is written next
    to the file as `ensemble.md`, or into the repository as `README.md`; it includes `licence`.

    ONNX files of the bundle are copied; members that run with PyTorch are converted, with their `trusted` families. The
    bundle's cascade is left out: other servers run all members.

    Raises LibraryError without a bundle, for a target with other files, and for a column whose name the graph needs;
    EngineError when a member cannot be converted or the members exceed the size limit of one file.
    """
    from ripieno.backends.merge_onnx import merge_onnx, whole_onnx
    from ripieno.pipeline.triton import write_repository, write_single

    deployment = read_bundle(bundle, trusted)
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise RipienoError(f"name {name!r} cannot name a folder: use only letters, digits, - _ and .")
    card = read_or_render_card(deployment, licence)
    path = Path(output) if output is not None else deployment.path / ("ensemble.onnx" if form == "onnx" else "triton")
    _check_target(path, form)
    with tempfile.TemporaryDirectory() as converted:
        paths = {
            m: _onnx_file(deployment, m, Path(converted), progress, i)
            for i, m in enumerate(deployment.ensemble.members)
        }
        members = {m.id: m for m in deployment.members}
        backbones = {m: backbone_file(file, members[m]) for m, file in paths.items() if members[m].backbone}
        if form == "triton":
            for m, backbone in backbones.items():  # Triton runs each member as a model of its own
                content = whole_onnx(backbone, paths[m], deployment.input, deployment.task)
                paths[m] = Path(converted) / f"{m}-whole.onnx"
                files.write_bytes(paths[m], content)
            write_repository(deployment, paths, path, name)
        else:
            ensemble = deployment.ensemble
            facts = {
                "ensemble": ensemble.name,
                "members": json.dumps(ensemble.members),
                "weights": json.dumps(ensemble.weights),
                "temperatures": json.dumps(ensemble.temperatures),
                "temperature": json.dumps(ensemble.temperature),
                "classes": json.dumps(deployment.task.names),
                "task": deployment.task.kind,
                "thresholds": json.dumps(ensemble.thresholds),
            }
            shape = (deployment.input, deployment.task)
            calibration = (ensemble.temperatures, ensemble.temperature)
            content = merge_onnx(
                paths, ensemble.weights, ensemble.combiner, *shape, facts, *calibration, backbones=backbones
            )
            if form == "onnx":
                files.write_bytes(path, content)
            else:
                write_single(deployment, content, path, name)
    card_path = path.with_suffix(".md") if form == "onnx" else path / CARD
    files.write_bytes(card_path, card.encode("utf-8", "replace"))
    return path


def _check_target(path: Path, form: Form) -> None:
    """Raise RipienoError when `form` cannot be written to `path`: before the work, not after it."""
    if form not in get_args(Form):
        raise LibraryError(f"form {form!r} is unknown: it must be one of {', '.join(get_args(Form))}")
    if form == "onnx":
        if path.suffix != ".onnx" or path.is_dir():
            raise LibraryError(f"{path} is not the name of an ONNX file: it must end in .onnx")
    elif path.is_file() or (path.is_dir() and any(path.iterdir()) and not any(path.glob("*/config.pbtxt"))):
        raise LibraryError(f"{path} is not empty and holds no model repository: choose another folder")
    (files.check_file if form == "onnx" else files.check_folder)(path)


def _onnx_file(bundle: Bundle, member: str, folder: Path, progress: ProgressFunction, number: int) -> Path:
    """Return the ONNX file of a bundle's member, or convert its weights to one in `folder`."""
    path = model_path(bundle, member)
    if path.suffix == ".onnx":
        return path
    known = next(m for m in bundle.members if m.id == member)
    if is_exported(path.parent / MODEL, known):
        return path.parent / MODEL
    from ripieno.backends.export import export_onnx

    progress("exporting to ONNX", number, len(bundle.members))
    # as in a bundle, so that the file of a shared backbone has its place
    target = folder / "members" / member / MODEL
    export_onnx(known, path.parent / WEIGHTS, target, trusted=bundle.trusted)
    return target
