"""The verb that hands an ensemble to others: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ripieno.cli import console, parsing
from ripieno.cli.app import BundlePath, FamilyOpt, app
from ripieno.commands import shell


@app.command()
def export(
    bundle: BundlePath,
    form: Annotated[
        str,
        typer.Option(
            help="`onnx` (members and combination in one file), `triton` (a model repository with a model a member), "
            "`triton-single` (a repository with the one file): --form triton."
        ),
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option(help="File or folder; BUNDLE/ensemble.onnx or BUNDLE/triton by default: --output models."),
    ] = None,
    name: Annotated[str, typer.Option(help="What Triton serves it as: --name birds.")] = "ensemble",
    licence: Annotated[
        str | None, typer.Option(help="Licence to state in the model card: --licence apache-2.0.")
    ] = None,
    family: FamilyOpt = None,
) -> None:
    """An ensemble as one ONNX file or a Triton model repository, with its model card: `ripieno export bundle`."""
    from ripieno import pipeline
    from ripieno.library.model_card import CARD
    from ripieno.pipeline.exporting import Form

    known = parsing.parse_choice(Form, "--form", form)
    with console.progress() as progress:
        path = pipeline.export(
            bundle, output, form=known, name=name, licence=licence, trusted=family or (), progress=progress
        )
    card = path.with_suffix(".md") if known == "onnx" else path / CARD
    following = shell("open", card) if known == "onnx" else shell("tritonserver", "--model-repository", path.resolve())
    console.print_result(path, following, f"its card: {card}", form=known, card=str(card))
