"""Parsers of arguments and options: choices, quantities, ratios, name=value pairs and budgets."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from ripieno.config import read_quantity
from ripieno.errors import RipienoError
from ripieno.types import ColumnKind, CoverageScore, DataKind, Folds


def parse_choice(literal: Any, option: str, text: str) -> Any:
    """Return `text`, which must be one of a Literal's values."""
    known = get_args(literal)
    if text not in known:
        raise RipienoError(f"{option} {text!r} must be one of {', '.join(known)}")
    return text


def at_least(option: str, value: float, least: int = 1) -> None:
    """Raise RipienoError unless the value of an option is at least `least`."""
    if not value >= least:
        raise RipienoError(f"{option} {value:g}: it must be at least {least}")


def parse_quantity(option: str, text: str) -> float:
    """Parse a number with an optional unit: `20`, `1.5G`, `4GiB`."""
    value = read_quantity(text)
    if value is None:
        raise RipienoError(f"{option} {text!r} must be a number, such as 20, 1.5G or 4GiB")
    return value


def coverage_options(coverage: str, per_class: bool, score: str | None, abstain: float | None) -> dict[str, Any]:
    """Return the arguments of `ripieno.coverage` for its options."""
    return {
        "coverage": numbers("--coverage", coverage) or (),
        "per_class": per_class,
        "score": None if score is None else parse_choice(CoverageScore, "--score", score),
        "abstain": abstain,
    }


def parse_ratios(option: str, text: str) -> tuple[float, float, float]:
    """Parse the ratios of train, validation and test: `0.72,0.08,0.20`."""
    try:
        train, valid, test = (float(part) for part in text.split(","))
    except ValueError:
        raise RipienoError(f"{option} {text!r} must be three shares, such as 0.72,0.08,0.20") from None
    return train, valid, test


def parse_names(texts: Sequence[str] | None) -> list[str]:
    """Return names that are separated by commas, `--value a,b`, or given one by one, `--value a --value b`."""
    return [name.strip() for text in texts or () for name in text.split(",") if name.strip()]


def parse_columns(option: str, texts: Sequence[str] | None) -> dict[str, ColumnKind]:
    """Parse pairs NAME=KIND, each given by itself; a name may hold the sign."""
    kinds: dict[str, ColumnKind] = {}
    for text in texts or ():
        name, equals, kind = (part.strip() for part in text.rpartition("="))
        if not equals or not name or kind not in get_args(ColumnKind) or name in kinds:
            known = ", ".join(get_args(ColumnKind))
            raise RipienoError(f"{option} {text!r} must be NAME=KIND, each name once, with a kind of {known}")
        kinds[name] = cast(ColumnKind, kind)
    return kinds


def parse_data_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `given` options of a command on its data, parsed; None where the user left one out."""
    kind = given["kind"]
    return {
        "kind": None if kind is None else parse_choice(DataKind, "--kind", kind),
        "target": given["target"] or None,
        "value": parse_names(given["value"]) or None,
        "drop": given["drop"] or None,
        "ignore": given["ignore"] or None,
        "column": parse_columns("--column", given["column"]) or None,
    }


def parse_folds(option: str, text: str) -> Folds:
    """Parse a number of folds, or `auto`; its range is checked later."""
    if text == "auto":
        return "auto"
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise RipienoError(f"{option} {text!r} must be auto, 0 for none, or a number of folds such as 5")
    return int(text)


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Parse numbers separated by commas, `0.485,0.456,0.406`; an empty text gives none."""
    return tuple(parse_quantity(option, part) for part in text.split(",")) if text else ()


def values(option: str, text: str) -> dict[str, bool | int | float | str]:
    """Parse pairs `depth=2,activation=relu` with numbers, true and false converted; an empty text gives none."""
    pairs: dict[str, bool | int | float | str] = {}
    for part in text.split(",") if text else ():
        name, equals, word = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not word or name in pairs:
            raise RipienoError(f"{option} {part!r} must be name=value, each name once, such as depth=2,width=16")
        try:
            value = json.loads(word)
        except ValueError:
            value = word
        converted = isinstance(value, bool | int | float) and math.isfinite(value)
        pairs[name] = value if converted else word
    return pairs


def budgets(first: Sequence[str], more: Sequence[str]) -> list[float | dict[str, float]] | None:
    """Parse `--budget 5 20 80` (three budgets) or `--budget seconds=20 memory=4GiB` (one); `more` follow `first`.

    Commas separate as spaces do.
    """
    if more and not first:
        raise RipienoError(f"unexpected argument {more[0]!r}: budgets follow --budget")
    texts = parse_names([*first, *more])
    if not any("=" in text for text in texts):
        return [parse_quantity("--budget", text) for text in texts] or None
    bounds: dict[str, float] = {}
    for text in texts:
        kind, equals, bound = text.partition("=")
        if not equals or not kind or kind in bounds:
            raise RipienoError(f"--budget {text!r} must be cost=bound, each cost once, such as seconds=20 memory=4GiB")
        bounds[kind] = parse_quantity("--budget", bound)
    return [bounds]


def one_budget(texts: Sequence[str] | None) -> float | dict[str, float] | None:
    """Parse the budget of a search: `5`, or `seconds=20,memory=4GiB`; None where it is not given."""
    found = budgets(texts or (), ())
    if found is not None and len(found) > 1:
        raise RipienoError(f"--budget has {len(found)} numbers: a search takes one budget, such as 5 or seconds=20")
    return None if found is None else found[0]
