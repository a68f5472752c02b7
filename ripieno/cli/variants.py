"""The command variants."""

from __future__ import annotations

from typing import Annotated

import typer

from ripieno.cli import console, tables
from ripieno.cli.app import RunArg, app, examples
from ripieno.cli.parsing import parse_names
from ripieno.shell_command import command


@app.command(epilog=examples("ripieno variants run", "ripieno variants run --precision int8"))
def variants(
    run: RunArg,
    precision: Annotated[str, typer.Option(help="Precisions of the new members: fp16, int8 or both")] = "fp16,int8",
    prune: Annotated[
        float, typer.Option(help="Make variants of the members that select considers with this share")
    ] = 0.2,
) -> None:
    """Add the best networks in lower precision to the library, as members.

    Their files are smaller, and some run faster. Each has predictions and
    costs of its own, so that select trades them: --budget bytes=4MiB.

    Repeat it after more trials: variants that exist stay as they are.
    """
    from ripieno import pipeline

    with console.progress() as progress:
        made = pipeline.variants(run, parse_names([precision]), prune=prune, progress=progress)
    library = pipeline.open_run(run)
    names = {member.id for v in made for member in (v.source, v.member) if member is not None}
    sizes = {name: costs["bytes"] for name, costs in pipeline.static_costs(library, names).items() if "bytes" in costs}
    console.out.print(tables.variants(made, sizes))
    if refused := [variant for variant in made if variant.member is None]:
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
