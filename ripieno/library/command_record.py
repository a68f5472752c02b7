"""Record of a search of a command: its run has configurations and their results, and no members.

RUN/command.json      what the search runs
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.shell_command import command
from ripieno.types import Configuration

COMMAND = "command.json"
CommandMeasure = Literal["runtime", "output"]
"""What is made small: the time to solve an instance, or the last number on standard output."""


@dataclass(frozen=True)
class CommandRecord:
    """Content of `command.json`."""

    command: str
    instances: tuple[str, ...]
    """paths, in the order in which configurations run them"""
    cutoff: float
    """seconds"""
    measure: CommandMeasure
    seed: int = 0
    default: Configuration = field(default_factory=dict)
    """configuration that is tried first; empty: the space names none"""


def is_command_run(run: Path) -> bool:
    """Return whether a folder is the run of a search of a command."""
    return (run / COMMAND).is_file()


def read_command_record(run: Path) -> CommandRecord:
    """Return what the search of a command runs. Raises LibraryError where `run` is no such search."""
    return files.read_json(run / COMMAND, CommandRecord)


def refuse_command_run(run: Path) -> None:
    """Raise LibraryError where a folder is the run of a search of a command."""
    if is_command_run(run):
        raise LibraryError(
            f"{run} is a search of a command, which has configurations and no members: "
            f"`{command('show', run)}` lists them"
        )
