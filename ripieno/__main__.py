"""`ripieno` and `python -m ripieno`: the one place that turns errors into lines and exit codes."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exit 0 when all went well, 2 for a mistake that a user can mend, 130 for Ctrl-C."""
    import typer

    from ripieno.cli.app import app
    from ripieno.cli.console import log
    from ripieno.errors import RipienoError

    try:
        sys.exit(app(standalone_mode=False) or 0)
    except RipienoError as error:
        log.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except typer.TyperException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        log.print("[yellow]stopped.[/] What is finished is kept: the same command goes on from there.", highlight=False)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
