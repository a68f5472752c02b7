"""Report of a synthetic run with class names that would run scripts if they were not escaped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ripieno.library import Library
from ripieno.reports import report
from tests.reports.made_run import make_run

HARM = "window.harmed=1"
EVIL = (
    f"<img src=x onerror={HARM}>",
    f"</script><script>{HARM}</script>",
    f'"><svg onload={HARM}>',
    "a & b",
    "=1+1",
    "{{ 7 * 7 }} $x^2$",
    "\N{CJK UNIFIED IDEOGRAPH-5929}\N{CJK UNIFIED IDEOGRAPH-6C14}",
    "line\u2028end]]><!--",
)
"""Class names as an untrusted data set might have them."""


@dataclass(frozen=True)
class Made:
    """A run and its report."""

    library: Library
    path: Path
    page: str


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    run = tmp_path_factory.mktemp("made") / f"<img src=x onerror={HARM}>"
    library = make_run(run, EVIL, members=30, prefix=f"<svg onload={HARM}>", seed=4)
    path = report(library)
    return Made(library, path, path.read_text())
