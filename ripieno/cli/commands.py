"""What every verb has: `--json` for scripts, `--quiet` for those who want the result alone."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ripieno.cli import console

OUTPUT_OPTIONS = {
    "json": Annotated[
        bool,
        typer.Option(
            "--json",
            help="One JSON object on standard output; all else goes to standard error.",
            rich_help_panel="Output",
        ),
    ],
    "quiet": Annotated[
        bool,
        typer.Option("--quiet", help="Results and errors, nothing else.", rich_help_panel="Output"),
    ],
}


STAGES = {
    "A library of networks": ("tune", "import", "measure", "show", "evict"),
    "An ensemble": ("select", "front"),
    "A deployment": ("allocate", "explain", "bench", "cascade", "predict", "export"),
    "A server": ("serve", "deploy", "top"),
    "And": ("report", "doctor", "demo"),
}
"""The verbs in the order of the flow, under the heads that the help shows them by."""
_ORDER = [verb for verbs in STAGES.values() for verb in verbs]


class CommandGroup(typer.Typer):
    """An application whose every command takes `--json` and `--quiet`, and stands at its place in the flow."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a verb; see typer."""

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            verb = name or function.__name__
            stage = next(stage for stage, verbs in STAGES.items() if verb in verbs)
            super(CommandGroup, self).command(verb, rich_help_panel=stage, **settings)(_with_output_options(function))
            self.registered_commands.sort(key=lambda one: _ORDER.index(one.name or ""))
            return function

        return decorate


def _with_output_options(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with the options added that say how it speaks."""

    @functools.wraps(function)
    def verb(json: bool, quiet: bool, **options: Any) -> None:
        console.set_output_mode(json, quiet)
        function(**options)

    own = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in OUTPUT_OPTIONS.items()
    ]
    verb.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    verb.__annotations__ = {**function.__annotations__, **OUTPUT_OPTIONS}
    return verb
