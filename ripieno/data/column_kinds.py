"""Kind of each column of a table, inferred from its values: a number, a category, a date, or nothing to learn from."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ripieno.data.column_values import (
    ColumnValues,
    category_text,
    is_missing,
    parse_dates,
    parse_number,
    parse_numbers,
)
from ripieno.types import ColumnKind, Floats

FEW = 20
"""Distinct values of a category that may be as many as its rows."""
WORDS = 3
"""Words of a value, on average, from which text is free."""
NEARLY = 0.9
"""Share of numbers in a column above which the rest of its values are taken for mistakes."""
YEARS = 1800, 2100
"""Numbers that count up between these are years, and no id."""
_ID_NAME = re.compile(r"(?i:(.*[_\W])?(id|index|key|uuid|guid))|.*[a-z](Id|ID)", re.DOTALL)
_PICTURE = re.compile(r"\.(png|jpe?g|bmp|tiff?|webp|gif)$", re.IGNORECASE)
_UNNAMED = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Names that pandas gives to an index."""


class InferredKind(NamedTuple):
    """Kind that a column was taken for."""

    kind: ColumnKind | None
    """None: the column is left out"""
    reason: str = ""
    """of a column that is left out"""


def infer_kind(name: str, values: ColumnValues) -> InferredKind:
    """Return what the column `name` is taken for by its values, of which NaN, None and some texts are missing."""
    if _UNNAMED.fullmatch(name):
        return InferredKind(None, "an index")
    first = next((value for value in values if not is_missing(value)), None)
    if first is None:
        return InferredKind(None, "no values")
    if isinstance(first, list | tuple | set | dict | np.ndarray):
        return InferredKind(None, "lists")
    if not isinstance(first, np.datetime64):  # NumPy takes one for the number of its ticks
        numbers, wrong = parse_numbers(values)
        if wrong is None:
            is_id = _is_id(name, numbers[~np.isnan(numbers)])
            return InferredKind(None, "an id") if is_id else InferredKind("number")
    if parse_dates(values)[1] is None:
        return InferredKind("date")
    return _infer_text(name, [text for value in values if (text := category_text(value)) is not None])


def _infer_text(name: str, texts: list[str]) -> InferredKind:
    distinct = len(set(texts))
    if distinct <= max(FEW, len(texts) // 2):
        return InferredKind("category")
    if all(_PICTURE.search(text) for text in texts):
        return InferredKind(None, "image files; a table of images names them in a column file")
    strange = [text for text in texts if parse_number(text) is None]
    if len(strange) < (1 - NEARLY) * len(texts):
        return InferredKind(None, f"{strange[0][:40]!r} among numbers")
    words = sum(len(text.split()) for text in texts) / len(texts)
    if words >= WORDS:
        return InferredKind(None, "free text")
    if distinct == len(texts) or _ID_NAME.fullmatch(name):
        return InferredKind(None, "an id")
    return InferredKind(None, "text of which most values occur once")


def _is_id(name: str, numbers: Floats) -> bool:
    """Return whether numbers name the rows: whole ones, each once, counted up or with the name of an id."""
    if len(numbers) <= FEW or (numbers != np.floor(numbers)).any() or len(np.unique(numbers)) < len(numbers):
        return False
    are_years = YEARS[0] <= numbers[0] and numbers[-1] <= YEARS[1]
    counts_up = bool((np.diff(numbers) == 1).all()) and not are_years
    return counts_up or _ID_NAME.fullmatch(name) is not None
