"""Labels as they come (numbers, names, categories) to indices into the names of classes.

One rule: a label is the name of a class first. A number that is no name is a position, but only where no class is named
by a number; else it could be meant both ways, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError

SHOWN = 4
"""Names that are shown of many."""


def label_indices(
    values: Any, classes: Sequence[str], what: str = "labels", error: type[RipienoError] = RipienoError
) -> NDArray[np.int64]:
    """Return the index of each of `values` (samples,) in `classes`.

    Values are whole numbers, strings, bytes, booleans or a pandas column of them. `what` names them in messages. Raises
    `error`, in one line, for a missing value, one that is no class, or one that could mean two classes.
    """
    texts = [label_text(value, place, what, error) for place, value in enumerate(_plain(values))]
    places = {name: index for index, name in enumerate(classes)}
    if all(text in places for text in set(texts)):
        return np.array([places[text] for text in texts], dtype=np.int64)
    # "01" and "1.0" are the number 1 where no class is called so
    numbers = {text: number_of(text) for text in set(texts)}
    if all(text in places or str(number) in places for text, number in numbers.items()):
        found = {text: places[text] if text in places else places[str(number)] for text, number in numbers.items()}
        return np.array([found[text] for text in texts], dtype=np.int64)
    known = f"the classes are {shown(classes)}"
    strange = next(t for t in texts if t not in places and str(numbers[t]) not in places)
    number = numbers[strange]
    if number is None:
        raise error(f"{what} hold {strange!r}, which is none of the {len(classes)} class names: {known}")
    if any(number_of(name) is not None for name in classes):
        meant = f"the class {classes[number]!r}" if 0 <= number < len(classes) else "none"
        raise error(
            f"{what} hold {strange}: by name no class is called so ({known}), by position it is {meant}. "
            "Give the names of the classes"
        )
    wrong = next((t for t in texts if (n := numbers[t]) is None or not 0 <= n < len(classes)), None)
    if wrong is not None:
        must = f"they must be 0 to {len(classes) - 1}, one for each of the {len(classes)} classes"
        raise error(f"{what} hold {wrong!r}: {must}" if numbers[wrong] is None else f"{what} hold {wrong}: {must}")
    return np.array([numbers[text] for text in texts], dtype=np.int64)


def label_text(value: Any, place: int, what: str, error: type[RipienoError]) -> str:
    """Return one label as text: whole numbers without a point. Raises `error` for a missing value or a fraction."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType"):
        raise error(f"{what} have no value for sample {place}: each sample must have its class")
    raise error(f"{what} hold {value!r} for sample {place}: a label is the name of a class or a whole number")


def number_of(text: str) -> int | None:
    """Return the whole number that a name spells ("7", "007", "7.0", "-1"), None for any other name."""
    try:
        number = float(text)
    except ValueError:
        return {"True": 1, "False": 0}.get(text)
    return int(number) if number.is_integer() and text.strip().lower().strip("+-0123456789.") == "" else None


def shown(classes: Sequence[str]) -> str:
    """Return the first names of classes in words."""
    return ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")


def _plain(values: Any) -> list[Any]:
    """Values as Python's own: of an array, a pandas column or categories, or a list."""
    array = np.asarray(values)
    plain: list[Any] = array.tolist()
    return plain
