"""`ripieno` and `python -m ripieno`: the one place that turns errors into lines and exit codes."""

from __future__ import annotations

import os
import sys

MISTAKE = 2
"""Exit code of what a user can mend."""
INTERRUPTED = 130
"""Exit code of Ctrl-C; typer returns it too."""


def main() -> None:
    """Run the command line; exit 0 when all went well, 2 for a mistake that a user can mend, 130 for Ctrl-C."""
    _open_closed_streams()
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules were imported
        code = _stopped(sys.argv[1:])
    sys.exit(code)


def _open_closed_streams() -> None:
    """Put /dev/null where a standard stream was closed (`>&-`).

    Python leaves the stream None then, and the next file or socket that is opened would take its descriptor.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _run(words: list[str]) -> int:
    import typer

    from ripieno.cli import console
    from ripieno.cli.app import app
    from ripieno.errors import RipienoError, system_error
    from ripieno.resources import sleep_while_waiting

    sleep_while_waiting()
    console.output_mode.json = "--json" in words  # also for words that cannot be read
    try:
        with console.warnings_as_notes():
            code = int(app(words, prog_name="ripieno", standalone_mode=False) or 0)
    except RipienoError as error:
        return console.print_error(str(error), MISTAKE)
    except OSError as error:
        return console.print_error(system_error(error), MISTAKE)
    except typer.TyperException as error:
        asked = getattr(getattr(error, "ctx", None), "command_path", None) or "ripieno"
        said = error.format_message().rstrip(".")
        says = "lists the verbs" if asked == "ripieno" else "lists its arguments"
        return console.print_error(f"{said}: `{asked} --help` {says}", MISTAKE)
    except typer.Abort:
        code = INTERRUPTED
    return _stopped(words) if code == INTERRUPTED else code


def _stopped(words: list[str]) -> int:
    import shlex
    import signal

    from ripieno.cli import console

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who presses it again must not read a traceback
    return console.print_interrupted(shlex.join(["ripieno", *words]), INTERRUPTED)


if __name__ == "__main__":
    main()
