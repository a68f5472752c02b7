"""Entry point of `ripieno` and `python -m ripieno`: converts errors to lines and exit codes."""

from __future__ import annotations

import os
import sys

MISTAKE = 2
"""Exit code of an error that the user can correct."""
INTERRUPTED = 130
"""Exit code of Ctrl-C, as in typer."""


def main() -> None:
    """Run the command line; exit 0 on success, 2 on an error that the user can correct, 130 on Ctrl-C."""
    _open_closed_streams()
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:  # during imports
        code = _interrupted(sys.argv[1:])
    sys.exit(code)


def _open_closed_streams() -> None:
    """Open /dev/null for each closed standard stream (`>&-`); else the next file or socket would take its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _run(arguments: list[str]) -> int:
    import typer

    from ripieno.cli import console
    from ripieno.cli.main import app
    from ripieno.errors import RipienoError, system_error
    from ripieno.resources import sleep_while_waiting

    sleep_while_waiting()
    console.output_mode.json = "--json" in arguments  # also when the arguments do not parse
    try:
        with console.warnings_as_notes():
            code = int(app(arguments, prog_name="ripieno", standalone_mode=False) or 0)
    except RipienoError as error:
        return console.print_error(str(error), MISTAKE)
    except OSError as error:
        return console.print_error(system_error(error), MISTAKE)
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", None) or "ripieno"
        message = error.format_message().rstrip(".")
        listed = "the commands" if path == "ripieno" else "its arguments"
        return console.print_error(f"{message}: `{path} --help` lists {listed}", MISTAKE)
    except typer.Abort:
        code = INTERRUPTED
    return _interrupted(arguments) if code == INTERRUPTED else code


def _interrupted(arguments: list[str]) -> int:
    import shlex
    import signal

    from ripieno.cli import console

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C must not print a traceback
    return console.print_interrupted(shlex.join(["ripieno", *arguments]), INTERRUPTED)


if __name__ == "__main__":
    main()
