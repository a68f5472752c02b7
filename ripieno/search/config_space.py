"""Spaces in ConfigSpace's JSON, as algorithm configuration exchanges them, and our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ripieno.errors import SearchError
from ripieno.search.space import Categorical, Continuous, Integer, Range, Space, space_from_plain
from ripieno.types import Configuration, Value

FAMILY = "command"
"""Family of the space of a command."""
READ = ("uniform_float", "uniform_int", "categorical", "ordinal", "constant")
"""Types of hyperparameters that are read."""


def read_command_space(path: str | Path) -> tuple[Space, Configuration]:
    """Read a space of a command from JSON, ours or ConfigSpace's; return it and its default configuration.

    Ours may leave `name` and `family` out, and has no defaults. Of ConfigSpace's, hyperparameters with uniform,
    categorical, ordinal and constant values are read. Raises SearchError naming the file, for conditions and forbidden
    clauses too, which spaces here do not have.
    """
    path = Path(path)
    try:
        plain = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError as error:
        raise SearchError(f"there is no space {path}: give a JSON file of ranges") from error
    except OSError as error:
        raise SearchError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SearchError(f"{path} is no JSON: {error}") from error
    if not isinstance(plain, dict):
        raise SearchError(f"{path} holds no object of ranges")
    try:
        if "hyperparameters" not in plain:
            return space_from_plain({"name": path.stem, "family": FAMILY, "fixed": {}, **plain}), {}
        return _from_config_space(plain, path.stem)
    except SearchError as error:
        raise SearchError(f"{path}: {error}") from error


def _from_config_space(plain: Mapping[str, Any], name: str) -> tuple[Space, Configuration]:
    for clause in ("conditions", "forbiddens"):
        if plain.get(clause):
            raise SearchError(f"it has {clause}, which spaces here do not have: leave them out")
    found = plain["hyperparameters"]
    listed = [{"name": key, **one} for key, one in found.items()] if isinstance(found, Mapping) else found
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        raise SearchError("hyperparameters must be a list of objects")
    ranges: dict[str, Range] = {}
    fixed: dict[str, Value] = {}
    default: dict[str, Value] = {}
    for one in listed:
        try:
            kind, key = str(one["type"]), str(one["name"])
            if kind == "constant":
                fixed[key] = one["value"]
                continue
            ranges[key] = _range(kind, one)
            value = one.get("default_value", one.get("default"))
            if value is not None:
                default[key] = value
        except KeyError as error:
            raise SearchError(f"hyperparameter {one.get('name', one)} has no {error.args[0]!r}") from error
        except (TypeError, ValueError) as error:
            raise SearchError(f"hyperparameter {one.get('name')} cannot be read: {error}") from error
    return Space(str(plain.get("name") or name), FAMILY, ranges, fixed), default if len(default) == len(ranges) else {}


def _range(kind: str, one: Mapping[str, Any]) -> Range:
    if kind not in READ:
        raise SearchError(f"hyperparameter {one['name']} is of type {kind}: it must be one of {', '.join(READ)}")
    if kind == "uniform_float":
        return Continuous(float(one["lower"]), float(one["upper"]), bool(one.get("log", False)))
    if kind == "uniform_int":
        return Integer(int(one["lower"]), int(one["upper"]), bool(one.get("log", False)))
    return Categorical(tuple(one["choices" if kind == "categorical" else "sequence"]))
