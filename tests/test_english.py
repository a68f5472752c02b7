"""Plain English: words that docstrings, comments and messages of the package do not use."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import ripieno

PACKAGE = Path(ripieno.__file__).parent
BANNED = re.compile(
    r"\b(who|whom|whoever|anew|beside|mend(s|ed)?|brought|so many|of ours|of yours|a mistake of|nothing is at"
    r"|lies?|told|for want of|nobody|somebody|everybody)\b",
    re.IGNORECASE,
)
QUESTION = re.compile(r"(What|Whether|Whom?|Whose|How|Where|Which|When|Why)\b")


def faults(source: str) -> Iterator[str]:
    """Lines with a banned word in a comment or a string, and docstrings that begin with a question word."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            for found in BANNED.finditer(token.string):
                yield f"{token.start[0] + token.string[: found.start()].count(chr(10))}: {found[0]}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if QUESTION.match(first):
                yield f"{getattr(node, 'lineno', 1)}: {first}"


@pytest.mark.parametrize("folder", sorted({p.relative_to(PACKAGE).parts[0] for p in PACKAGE.rglob("*.py")}))
def test_the_package_speaks_plain_english(folder: str) -> None:
    path = PACKAGE / folder
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    found = {str(file.relative_to(PACKAGE)): list(faults(file.read_text())) for file in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_each_kind_of_fault_is_seen() -> None:
    assert list(faults('def f():\n    """Whether it is.\n\n    Told anew.\n    """\n    # who asks\n')) == [
        "4: Told",
        "4: anew",
        "6: who",
        "1: Whether it is.",
    ]
