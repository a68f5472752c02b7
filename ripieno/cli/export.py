"""The command export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ripieno.cli import console, parsing
from ripieno.cli.app import BundleArg, FamilyOpt, app, examples
from ripieno.commands import shell


@app.command(
    epilog=examples(
        "ripieno export bundle --licence apache-2.0",
        "ripieno export bundle --form triton --output models --name birds",
    )
)
def export(
    bundle: BundleArg,
    form: Annotated[str, typer.Option(help="Form of the export: onnx, triton or triton-single")] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option(help="File or folder to write", show_default="BUNDLE/ensemble.onnx or BUNDLE/triton"),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the model in Triton")] = "ensemble",
    licence: Annotated[str | None, typer.Option(help="Licence to state in the model card")] = None,
    family: FamilyOpt = None,
) -> None:
    """Export an ensemble to ONNX or to a Triton model repository.

    The form onnx is one file with the members and their combination, triton a
    model repository with one model per member, and triton-single a repository
    with the one file. A model card is written as well.
    """
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
    console.print_result(path, following, f"model card: {card}", form=known, card=str(card))
