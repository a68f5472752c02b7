"""The words on disk: what is written of each comes back, field by field."""

from __future__ import annotations

import dataclasses
import itertools
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from ripieno import files
from ripieno import types as words

UNSTORED = {("Bundle", "path")}
"""where it was read from"""
STORED = sorted(
    (
        word
        for word in vars(words).values()
        if dataclasses.is_dataclass(word) and isinstance(word, type) and word.__module__ == words.__name__
        if word is not words.Dataset  # arrays: its own files
    ),
    key=lambda word: word.__name__,
)


def filled(kind: Any, numbers: itertools.count[int]) -> Any:
    """A value of `kind` that is no default: every number and text is another."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        stored = [f.name for f in dataclasses.fields(kind) if (kind.__name__, f.name) not in UNSTORED]
        return kind(**{name: filled(hints[name], numbers) for name in stored})
    if origin is Literal:
        return arguments[-1]
    if origin in (Union, types.UnionType):
        return filled(next(a for a in reversed(arguments) if a is not type(None)), numbers)
    if origin is tuple:
        return tuple(filled(arguments[0], numbers) for _ in range(2))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {f"key-{next(numbers)}": filled(arguments[1], numbers)}
    return {bool: False, int: next(numbers), float: next(numbers) + 0.5, str: f"text-{next(numbers)}"}[kind]


@pytest.mark.parametrize("word", STORED, ids=lambda word: word.__name__)
def test_every_field_of_a_word_comes_back(word: type, tmp_path: Path) -> None:
    made = filled(word, itertools.count(3))
    files.write_json(tmp_path / "word.json", made)
    assert files.read_json(tmp_path / "word.json", word) == made
