"""Helpers that run `ripieno serve` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.server.stand_in import ROOT


@contextmanager
def begun(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start `ripieno serve ...` as a process that may not listen yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ripieno", "serve", "--port", "0", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines that the server prints until it listens."""
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while lines[-1] and not lines[-1].startswith("next"):
        lines.append(process.stdout.readline())
    return lines


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start `ripieno serve ...` and wait; yield the process and the lines it printed until it listened."""
    with begun(*arguments, **environment) as process:
        yield process, lines_of(process)


def url_in(lines: list[str]) -> str:
    return next(word for line in lines for word in line.split() if word.startswith("http")).removesuffix("/v2")
