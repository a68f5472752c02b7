"""The command line in this process: the same words, output and exit code without the seconds of a new interpreter."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from ripieno.__main__ import main
from ripieno.cli import console


def ripieno(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `ripieno WORDS` in the folder `cwd`; an error that would print a traceback is raised."""
    out, errors, arguments = io.StringIO(), io.StringIO(), ["ripieno", *map(str, words)]
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd or Path.cwd()):
        patch.setattr(sys, "argv", arguments)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
            main()
    console.set_output_mode(json=False, quiet=False)
    return subprocess.CompletedProcess(arguments, int(str(ended.value.code)), out.getvalue(), errors.getvalue())


def ripieno_process(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m ripieno WORDS` in the folder `cwd`, as a shell does."""
    command = [sys.executable, "-m", "ripieno", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=250)
