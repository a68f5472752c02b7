"""Labels as class indices, read from numbers, names or categories; and checks of names, those of classes above all.

A label is a class name if there is such a class. A number that is not a name is a position, but only if no class name
is a number; otherwise the label is ambiguous and rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ripieno.errors import RipienoError
from ripieno.types import Ints

SHOWN = 4
"""Maximum number of names in a message."""


def check_names(names: Sequence[str], what: str, error: type[RipienoError]) -> None:
    """Raise `error` if a name occurs twice; `what` is the plural of the things named."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise error(f"two {what} are named {name!r}; each must have its own name")
        seen.add(name)


def check_classes(names: Sequence[str], where: str, error: type[RipienoError]) -> None:
    """Raise `error` unless these are names of classes: two or more, all different."""
    if len(names) < 2:
        found = f"only the class {names[0]!r}" if names else "no class"
        raise error(f"{where}: there is {found}; expected at least two")
    check_names(names, f"classes of {where}", error)


def read_labels(
    labels: Any, classes: int | None, what: str, error: type[RipienoError], samples: int | None = None
) -> Ints:
    """Return `labels` (samples,), indices into `classes` classes, as int64.

    Without `classes` any whole number is a class, without `samples` there may be any number of them. Raises `error`.
    """
    values = np.asarray(labels)
    if values.ndim != 1 or samples not in (None, len(values)):
        expected = "samples" if samples is None else samples
        raise error(f"{what} have shape {values.shape}, expected ({expected},), one label for each sample")
    if values.dtype.kind not in "iu" and not (values.dtype.kind == "f" and (values == np.floor(values)).all()):
        raise error(f"{what} have type {values.dtype}, expected whole numbers, the indices of the classes")
    if classes is not None and len(outside := values[(values < 0) | (values >= classes)]):
        raise error(f"{what} contain {outside[0]:g}: expected 0 to {classes - 1} for {classes} classes")
    return values.astype(np.int64, copy=False)


def label_indices(
    values: Any, classes: Sequence[str], what: str = "labels", error: type[RipienoError] = RipienoError
) -> Ints:
    """Return the index of each of `values` (samples,) in `classes`.

    Values are whole numbers, strings, bytes, booleans or a pandas column of them. `what` names them in messages. Raises
    `error`, in one line, for a missing value, an unknown class, or an ambiguous number.
    """
    texts = [label_text(value, row, what, error) for row, value in enumerate(_plain(values))]
    index_of = {name: index for index, name in enumerate(classes)}
    if all(text in index_of for text in set(texts)):
        return np.array([index_of[text] for text in texts], dtype=np.int64)
    # "01" and "1.0" are the number 1 if they are not class names
    numbers = {text: number_of(text) for text in set(texts)}
    if all(text in index_of or str(number) in index_of for text, number in numbers.items()):
        indices = {t: index_of[t] if t in index_of else index_of[str(number)] for t, number in numbers.items()}
        return np.array([indices[text] for text in texts], dtype=np.int64)
    known = f"the classes are {shown(classes)}"
    unknown = next(t for t in texts if t not in index_of and str(numbers[t]) not in index_of)
    number = numbers[unknown]
    if number is None:
        raise error(f"{what} contain {unknown!r}, which is not one of the {len(classes)} class names: {known}")
    if any(number_of(name) is not None for name in classes):
        position = f"class {classes[number]!r}" if 0 <= number < len(classes) else "no class"
        raise error(
            f"{what} contain {unknown}, which is ambiguous: it is not a class name ({known}), and by position it is "
            f"{position}: pass class names"
        )
    wrong = next((t for t in texts if (n := numbers[t]) is None or not 0 <= n < len(classes)), None)
    if wrong is not None:
        expected = f"expected 0 to {len(classes) - 1} for {len(classes)} classes"
        raise error(f"{what} contain {wrong if numbers[wrong] is not None else repr(wrong)}: {expected}")
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
        raise error(f"{what} have no value for sample {place}: each sample must have a class")
    raise error(f"{what} contain {value!r} for sample {place}: expected a class name or a whole number")


def number_of(text: str) -> int | None:
    """Return the whole number that a name spells ("7", "007", "7.0", "-1"), None for any other name."""
    try:
        number = float(text)
    except ValueError:
        return {"True": 1, "False": 0}.get(text)
    return int(number) if number.is_integer() and text.strip().lower().strip("+-0123456789.") == "" else None


def shown(classes: Sequence[str]) -> str:
    """Return the first class names, joined by commas."""
    return ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")


def _plain(values: Any) -> list[Any]:
    """Convert an array, a pandas column, categories or a list to Python values."""
    array = np.asarray(values)
    plain: list[Any] = array.tolist()
    return plain
