"""`ripieno` and `python -m ripieno`: the one place that turns errors into lines and exit codes."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""Exit code of Ctrl-C; typer returns it too."""


def main() -> None:
    """Run the command line; exit 0 when all went well, 2 for a mistake that a user can mend, 130 for Ctrl-C."""
    import typer
    from rich.markup import escape

    from ripieno.cli.app import app
    from ripieno.cli.console import log
    from ripieno.errors import RipienoError

    try:
        code = int(app(standalone_mode=False) or 0)
    except RipienoError as error:
        log.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        code = 2
    except typer.TyperException as error:
        log.print(
            f"[bold red]error:[/] {escape(error.format_message())}: `ripieno --help` lists the verbs", soft_wrap=True
        )
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        log.print("[yellow]stopped.[/] What is finished is kept: the same command goes on from there.")
    sys.exit(code)


if __name__ == "__main__":
    main()
