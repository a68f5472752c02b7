"""Configuration dataclasses: checks of their fields, nested updates, and TOML or JSON files.

A setting is a field with a type, a default and a docstring. These stand there and nowhere else: the command line, the
configuration file and the documentation are read from the fields.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from ripieno.durations import check_duration
from ripieno.errors import RipienoError, system_error

C = TypeVar("C")

Count = Annotated[int, Meta(ge=1)]
CountOrZero = Annotated[int, Meta(ge=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0)]
SecondsOrZero = Annotated[float, Meta(ge=0)]
SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
"""Factors of the units of numbers."""


def read_quantity(text: str) -> float | None:
    """Return a number with an optional unit, such as `20`, `1.5G` or `4GiB`; None where `text` is none."""
    match = re.fullmatch(r"([-+0-9.eE]+?)\s*([kMGT]|KiB|MiB|GiB)?", text)
    try:
        return float(match[1]) * SUFFIXES[match[2] or ""] if match else None
    except ValueError:
        return None


def check_fields(config: Any, error: type[RipienoError] = RipienoError) -> None:
    """Convert the fields of a configuration to their types; call it in `__post_init__`.

    Raises `error` that names the first field with a wrong type or a value out of range, and what is expected.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        name, hint, value = field.name, hints[field.name], getattr(config, field.name)
        try:
            if dataclasses.is_dataclass(hint) and isinstance(hint, type):
                if not isinstance(value, hint):
                    raise msgspec.ValidationError(f"Expected a table, or {hint.__name__}(...)")
                continue
            if hint in (Seconds, SecondsOrZero):
                value = check_duration(value, name, zero=hint == SecondsOrZero, error=error)
            object.__setattr__(config, name, msgspec.convert(value, hint, dec_hook=_path))
        except msgspec.ValidationError as problem:
            choices = f"Expected {', '.join(map(str, get_args(hint)))}" if get_origin(hint) is Literal else str(problem)
            shown = f"{name} {value!r}" if field.repr else name  # a secret is not shown
            raise error(f"{shown} is not valid. {choices}.") from None


def _path(kind: type, value: Any) -> Any:
    if not isinstance(value, str | Path):
        raise TypeError(f"Expected a path, got `{type(value).__name__}`")
    return kind(value)


def update(config: C, values: Mapping[str, Any], table: str = "") -> C:
    """Return a configuration with new `values`; a mapping updates the nested configuration of that name.

    Raises RipienoError for an unknown key and as the configuration's checks; `table` is the prefix of names in errors.
    """
    known = [f.name for f in dataclasses.fields(config)]  # type: ignore[arg-type]
    changes = dict(values)
    for name, value in values.items():
        if name not in known:
            raise RipienoError(f"Unknown key {table}{name}. Expected one of {', '.join(known)}.")
        before = getattr(config, name)
        if dataclasses.is_dataclass(before) and isinstance(value, Mapping):
            changes[name] = update(before, value, f"{table}{name}.")
    try:
        return dataclasses.replace(config, **changes)  # type: ignore[type-var]
    except RipienoError as error:
        raise type(error)(f"{table}{error}") from None


def pick(kind: Callable[..., C], values: Mapping[str, Any]) -> C:
    """Return the configuration `kind` with those of the `values` that have the names of its fields."""
    return kind(**{f.name: values[f.name] for f in dataclasses.fields(kind) if f.name in values})  # type: ignore[arg-type]


def read_config(config: C, path: Path) -> C:
    """Return `config` with the values of a TOML or JSON file.

    Raises RipienoError that names the file, the key and what is expected.
    """
    readers = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in readers:
        raise RipienoError(f"Cannot read {path}. Expected a file that ends in .toml or .json.")
    try:
        values = readers[path.suffix](path.read_text())
        if not isinstance(values, dict):
            raise ValueError("expected an object")
        return update(config, values)
    except OSError as error:
        raise RipienoError(system_error(error, "read", path)) from error
    except ValueError as error:  # of the parsers, and of a file that is not text
        raise RipienoError(f"{path} is not {path.suffix[1:].upper()}: {error}") from error
    except RipienoError as error:
        raise RipienoError(f"{path}: {error}") from error


class Setting(NamedTuple):
    """One setting of a configuration; `key` begins with the names of nested configurations."""

    key: tuple[str, ...]
    type: Any
    default: Any
    help: str


def settings(config: Any, table: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Yield the settings of a configuration and its nested configurations, with the values of `config` as defaults."""
    hints = get_type_hints(type(config))
    docs = dict(re.findall(r'^ +(\w+): .*\n +"""(.*)"""$', inspect.getsource(type(config)), re.MULTILINE))
    for name, hint in hints.items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, (*table, name))
        else:
            yield Setting((*table, name), hint, value, docs[name])
