"""Names of classes, and perhaps their colours, in a file next to the folder of masks: `classes.txt` or `classes.json`.

road                       a line a class, in the order of their indices
building 128 0 0           with a colour: red, green and blue, 0 to 255, after the name or before it
["road", "building"]       the same as JSON
{"road": [128, 64, 128], "building": [128, 0, 0]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripieno.data.text_lines import text_lines
from ripieno.data.walk import shown
from ripieno.errors import DataError
from ripieno.tasks.labels import check_names

CLASS_FILES = ("classes.txt", "classes.json")
"""Names of files with the names of classes."""
Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
_NUMBERS = r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})"
_BEHIND, _BEFORE = re.compile(rf"(.*?)[\s,;]+{_NUMBERS}"), re.compile(rf"{_NUMBERS}[\s,;]+(.*)")


@dataclass(frozen=True)
class ClassFile:
    """Names of classes in the order of their indices."""

    path: Path
    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    """of the classes in masks in colour; empty: none are known"""

    def __str__(self) -> str:
        return shown(self.path)


def find_class_file(folder: Path) -> ClassFile | None:
    """Read the names of classes in `folder`; None where it holds no such file.

    Raises DataError for two such files, or for one that holds other things than names and colours, each once.
    """
    paths = [folder / name for name in CLASS_FILES if (folder / name).is_file()]
    if not paths:
        return None
    if len(paths) > 1:
        raise DataError(f"{shown(folder)} holds {' and '.join(CLASS_FILES)}; leave one out")
    path = paths[0]
    pairs = _read_json(path) if path.suffix == ".json" else [_split_line(text) for _, text in text_lines(path, ("#",))]
    names, colours = tuple(name for name, _ in pairs), [colour for _, colour in pairs]
    check_names(names, f"classes of {shown(path)}", DataError)
    for name, colour in pairs:
        if colour is not None and max(colour) > 255:
            raise DataError(f"{shown(path)} gives class {name!r} the colour {colour}; expected numbers of 0 to 255")
    known = [colour for colour in colours if colour is not None]
    if known and len(known) < len(colours):
        bare = names[colours.index(None)]
        raise DataError(f"{shown(path)} has no colour for class {bare!r}; give all classes a colour, or none")
    if len(set(known)) < len(known):
        twice = next(colour for colour in known if known.count(colour) > 1)
        first, second = (name for name, colour in pairs if colour == twice)
        raise DataError(f"{shown(path)} gives classes {first!r} and {second!r} the same colour {twice}; change one")
    return ClassFile(path, names, tuple(known))


def _split_line(text: str) -> tuple[str, Colour | None]:
    """Return the name of a line and its colour; None: it has none."""
    text = text.strip()
    if match := _BEHIND.fullmatch(text):
        name, *numbers = match.groups()
    elif match := _BEFORE.fullmatch(text):
        *numbers, name = match.groups()
    else:
        return text, None
    return name, _colour(numbers)


def _colour(numbers: Sequence[Any]) -> Colour:
    red, green, blue = (int(number) for number in numbers)
    return red, green, blue


def _read_json(path: Path) -> list[tuple[str, Colour | None]]:
    expected = 'expected a list of names, or colours by name, such as {"road": [128, 64, 128]}'
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{shown(path)} cannot be read as JSON ({error}); {expected}") from error
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        return [(name, None) for name in found]
    if isinstance(found, dict) and all(_is_colour(colour) for colour in found.values()):
        return [(name, _colour(colour)) for name, colour in found.items()]
    raise DataError(f"{shown(path)} holds other things than names of classes; {expected}")


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(part) is int and part >= 0 for part in value)
