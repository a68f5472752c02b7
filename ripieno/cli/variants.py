"""The command variants."""

from __future__ import annotations

from typing import Annotated

import typer

from ripieno.cli import console, tables
from ripieno.cli.app import RunArg, app, examples
from ripieno.cli.parsing import parse_names
from ripieno.errors import LibraryError
from ripieno.shell_command import command


@app.command(
    epilog=examples(
        "ripieno variants run", "ripieno variants run --precision int8", "ripieno variants run --distil --teacher B80"
    )
)
def variants(
    run: RunArg,
    precision: Annotated[
        str, typer.Option(help="Precisions of members: fp16, int8, int8-openvino or none")
    ] = "fp16,int8",
    prune: Annotated[
        float, typer.Option(help="Make variants of the members that select considers with this share")
    ] = 0.2,
    distil: Annotated[
        bool, typer.Option("--distil", help="Train a small network on an ensemble's predictions, too")
    ] = False,
    teacher: Annotated[
        str | None,
        typer.Option(help="Ensemble or member to distil; by default the best ensemble selected", show_default=False),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(help="Member whose network is trained; by default the smallest", show_default=False),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of --distil; by default those of the student", show_default=False)
    ] = None,
) -> None:
    """Add the best networks in lower precision to the library, as members.

    Their files are smaller, and some run faster. Each has predictions and
    costs of its own, so that select trades them: --budget bytes=4MiB.

    --distil keeps the distilled network only if its validation loss is below
    that of the same network trained on the targets for as much time.

    Repeat it after more trials: variants that exist stay as they are.
    """
    from ripieno import pipeline
    from ripieno.pipeline.distillation import DistillationConfig
    from ripieno.pipeline.lower_precision import DISTILLED

    options = {"--teacher": teacher, "--student": student, "--epochs": epochs}
    if unused := [name for name, value in options.items() if value is not None and not distil]:
        raise LibraryError(f"{unused[0]} is for distilled members only: add --distil, or leave it out")
    config = DistillationConfig(teacher or "", student or "", epochs) if distil else False
    precisions = [] if precision == "none" else parse_names([precision])
    with console.progress() as progress:
        made = pipeline.variants(run, precisions, prune=prune, distil=config, progress=progress)
    library = pipeline.open_run(run)
    names = {member.id for v in made for member in (v.source, v.member) if member is not None}
    sizes = {name: costs["bytes"] for name, costs in pipeline.static_costs(library, names).items() if "bytes" in costs}
    if any(variant.member is not None for variant in made):
        console.out.print(tables.variants(made, sizes))
    for variant in made:
        if variant.precision == DISTILLED:
            console.say(variant.reason)
    if refused := [v for v in made if v.member is None and v.precision != DISTILLED]:
        sources = list(dict.fromkeys(variant.source.id for variant in refused))
        more = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
        console.say(f"no variants of {', '.join(sources[:3])}{more}: {refused[0].reason}")
    added = [v.member for v in made if v.member is not None and v.added]
    console.print_result(
        [str(library.member_path(member.id)) for member in added],
        command("measure", run),
        f"{len(added)} new members",
        variants=[tables.variant_dict(variant) for variant in made],
    )
