"""What people type, read: budgets, sizes, shares, one word of several."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, get_args

from ripieno.errors import RipienoError

SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}


def parse_choice(words: Any, option: str, text: str) -> Any:
    """`text`, which must be one of a Literal's words."""
    known = get_args(words)
    if text not in known:
        raise RipienoError(f"{option} {text!r} must be one of {', '.join(known)}")
    return text


def at_least(option: str, value: float, least: int = 1) -> None:
    """Raise RipienoError unless the number that an option was given is at least `least`."""
    if not value >= least:
        raise RipienoError(f"{option} {value:g}: it must be at least {least}")


def parse_quantity(option: str, text: str) -> float:
    """`20`, `1.5G`, `4GiB`."""
    found = re.fullmatch(r"([-+0-9.eE]+?)\s*([kMGT]|KiB|MiB|GiB)?", text)
    try:
        return float(found[1]) * SUFFIXES[found[2] or ""] if found else float("x")
    except ValueError:
        mend = "such as 20, 1.5G or 4GiB"
        raise RipienoError(f"{option} {text!r} must be a number, {mend}") from None


def parse_ratios(option: str, text: str) -> tuple[float, float, float]:
    """`0.72,0.08,0.20`."""
    try:
        train, valid, test = (float(part) for part in text.split(","))
    except ValueError:
        raise RipienoError(f"{option} {text!r} must be three shares, such as 0.72,0.08,0.20") from None
    return train, valid, test


def numbers(option: str, text: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`; empty gives none."""
    return tuple(parse_quantity(option, part) for part in text.split(",")) if text else ()


def values(option: str, text: str) -> dict[str, bool | int | float | str]:
    """`depth=2,activation=relu`; numbers, true and false are read as such, empty gives none."""
    found: dict[str, bool | int | float | str] = {}
    for part in text.split(",") if text else ():
        name, equals, said = (word.strip() for word in part.partition("="))
        if not equals or not name or not said or name in found:
            raise RipienoError(f"{option} {part!r} must be name=value, each name once, such as depth=2,width=16")
        try:
            value = json.loads(said)
        except ValueError:
            value = said
        number = isinstance(value, bool | int | float) and math.isfinite(value)
        found[name] = value if number else said
    return found


def budgets(first: Sequence[str], more: Sequence[str]) -> list[float | dict[str, float]] | None:
    """`--budget 5 20 80` (three budgets) or `--budget seconds=20 memory=4GiB` (one with two bounds).

    What follows the option arrives as further arguments, `more`.
    """
    if more and not first:
        raise RipienoError(f"{more[0]!r} is not expected here: budgets follow --budget")
    texts = [*first, *more]
    if not any("=" in text for text in texts):
        return [parse_quantity("--budget", text) for text in texts] or None
    return [_bounds(texts)]


def _bounds(texts: Sequence[str]) -> dict[str, float]:
    """`seconds=20 memory=4GiB`."""
    found: dict[str, float] = {}
    for text in texts:
        kind, equals, bound = text.partition("=")
        if not equals or not kind or kind in found:
            raise RipienoError(f"--budget {text!r} must be kind=bound, each kind once, such as seconds=20 memory=4GiB")
        found[kind] = parse_quantity("--budget", bound)
    return found
