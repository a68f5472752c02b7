"""What every verb has: `--json` for scripts, `--quiet` for those who want the result alone."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ripieno.cli import console

MANNERS = {
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


class Verbs(typer.Typer):
    """An application whose every command takes `--json` and `--quiet`."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a verb; see typer."""
        register = super().command(name, **settings)

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            register(_mannered(function))
            return function

        return decorate


def _mannered(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with the options added that say how it speaks."""

    @functools.wraps(function)
    def verb(json: bool, quiet: bool, **options: Any) -> None:
        console.behave(json, quiet)
        function(**options)

    own = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in MANNERS.items()
    ]
    verb.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    verb.__annotations__ = {**function.__annotations__, **MANNERS}
    return verb
