"""Devices for offline planning, from a description such as `4x V100-16GB, 1x cpu 32 cores 256GB`, or from a file.

The file may be text, TOML, JSON or YAML (with the extra `yaml`). YAML and JSON may also be a list; its items may be
such descriptions.

[[device]]
count = 4
kind = "v100-16gb"
memory = "16GB"

[[device]]
kind = "amd-epyc-9r14"
cores = 32
memory = "256GB"
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ripieno.errors import AllocationError, require
from ripieno.profiles.devices import cpu_kind, local_devices, slug
from ripieno.types import Device

SUFFIXES = (".toml", ".json", ".yaml", ".yml", ".txt")
UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
"""Bytes by unit, without the `b`."""
MEMORY_A_CORE = 4 * UNITS["gi"]
"""Default memory of a CPU, per core."""
MOST = 100_000
"""Maximum number of devices, and of cores per device, in a description."""
KEYS = ("count", "kind", "memory", "cores")
"""Allowed keys of a device table."""
_TIMES = "[x×*]"
_SEPARATOR = re.compile(r"[,;\n]|\s\+\s|\sand\s", re.IGNORECASE)
_COUNT = re.compile(rf"(\d+)\s*{_TIMES}\s*(?=\S)", re.IGNORECASE)
# `4 V100`: a small number alone, unless `cores` or `GB` follow
_COUNT_ALONE = re.compile(r"(\d{1,2})\s+(?=[a-z])(?!cores?\b|[kmgt](i?b)?\b)", re.IGNORECASE)
_COUNT_AFTER = re.compile(rf"\s+{_TIMES}\s*(\d+)$", re.IGNORECASE)
_MEMORY = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*([kmgt](?:i?b)?)\b", re.IGNORECASE)
_CORES = re.compile(r"(?<![\w.])(\d+)\s*[- ]?cores?\b", re.IGNORECASE)


def read_devices(path: str | Path) -> tuple[Device, ...]:
    """Read devices from a file: `.toml`, `.json`, `.yaml`, or text with items on each line and `#` comments.

    Raises AllocationError naming the file if it is invalid, MissingExtraError for YAML without the extra `yaml`.
    """
    path = Path(path)
    try:
        text, suffix = path.read_text(), path.suffix.lower()
        if suffix not in (".toml", ".json", ".yaml", ".yml"):
            return parse_spec(",".join(line.partition("#")[0] for line in text.splitlines()))
        fields = _parsed(text, suffix)
        if isinstance(fields, Mapping) and not set(fields) <= set(KEYS):
            fields = fields.get("device", fields.get("devices"))
        return _from_tables([fields] if isinstance(fields, Mapping) else fields)
    except (OSError, ValueError) as error:
        raise AllocationError(f"cannot read devices from {path}: {error}") from error
    except AllocationError as error:
        raise AllocationError(f"{path}: {error}") from error


def _parsed(text: str, suffix: str) -> Any:
    """Parse the content of a file by its suffix. Raises ValueError, on one line, if it is malformed."""
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix == ".json":
        return json.loads(text)
    yaml = require("yaml")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def find_devices(spec: str = "auto", backend: str | None = None) -> tuple[Device, ...]:
    """Return devices from a file, from a description, or of this machine (see `local_devices`)."""
    devices = parse_spec_or_none(spec)
    return local_devices(spec, backend) if devices is None else devices


def parse_spec_or_none(spec: str) -> tuple[Device, ...] | None:
    """Return the devices of `spec`, a file or a description; None if it names devices of this machine."""
    if spec.lower().endswith(SUFFIXES) or Path(spec).is_file():
        return read_devices(spec)
    return parse_spec(spec) if is_description(spec) else None


def parse_spec(text: str) -> tuple[Device, ...]:
    """Parse devices such as `4x V100-16GB, 1x cpu 32 cores 256GB`: count, model, cores of a CPU, memory.

    Devices are separated by a comma, a semicolon, a plus, an `and` or a new line. GPUs come first in the result.

    The kind is the model's slug (`v100-16gb`), for a CPU with its cores (`cpu-32-cores`); it is the key of profiles.
    The default memory of a CPU is 4 GiB per core.

    Raises AllocationError for an item that cannot be parsed.
    """
    return _from_tables(_items(text))


def is_description(spec: str) -> bool:
    """Return whether `spec` is a description and not a list of this machine's devices."""
    return bool(_MEMORY.search(spec) or _CORES.search(spec) or re.match(rf"\s*\d+\s*{_TIMES}", spec))


def _items(text: str) -> list[Mapping[str, Any]]:
    parts = [item.strip() for item in re.split(_SEPARATOR, text)]
    return [_item(part) for part in parts if part]


def _item(text: str) -> dict[str, Any]:
    """Parse one item of a description into a table."""
    before, after = _COUNT.match(text) or _COUNT_ALONE.match(text), _COUNT_AFTER.search(text)
    words = text[before.end() if before else 0 : after.start() if after else len(text)].strip()
    memory, cores = _MEMORY.findall(words), _CORES.findall(words)
    if len(memory) > 1 or len(cores) > 1 or re.search(rf"(^|\s)[-+\d.]+\s*{_TIMES}", words) or (before and after):
        raise AllocationError(
            f"cannot parse device {text!r}: expected e.g. `4x V100-16GB`, and a comma between devices"
        )
    counts = [int(match[1]) for match in (before, after) if match]
    table: dict[str, Any] = {"count": counts[0] if counts else 1, "kind": words}
    if memory:
        table["memory"] = "".join(memory[0])
    if cores:
        table["cores"] = int(cores[0])
        table["kind"] = _MEMORY.sub(" ", _CORES.sub(" ", words)).strip() or "cpu"
    return table


def _from_tables(tables: object) -> tuple[Device, ...]:
    if isinstance(tables, str):
        return parse_spec(tables)
    known = isinstance(tables, Sequence) and tables and all(isinstance(t, Mapping | str) for t in tables)
    if not isinstance(tables, Sequence) or not known:
        raise AllocationError("no devices are described: expected e.g. `4x V100-16GB, 1x cpu 32 cores 256GB`")
    gpus: list[Device] = []
    cpus: list[Device] = []
    for table in [one for t in tables for one in (_items(t) if isinstance(t, str) else [t])]:
        _check(table)
        for _ in range(table.get("count", 1)):
            if "cores" in table:
                cpus.append(_cpu(table, len(cpus)))
            else:
                gpus.append(_gpu(table, len(gpus)))
    return (*gpus, *cpus)


def _check(table: Mapping[str, Any]) -> None:
    """Raise AllocationError for an unknown key, a missing kind, or a number out of range."""
    unknown = [str(key) for key in table if key not in KEYS]
    if unknown:
        raise AllocationError(f"unknown device key {unknown[0]!r}: expected one of {', '.join(KEYS)}")
    kind = table.get("kind")
    if kind is None and "cores" not in table:
        raise AllocationError(f"device {dict(table)} has no kind: add one, such as `V100`")
    for key in ("count", "cores"):
        number = table.get(key, 1)
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST:
            raise AllocationError(
                f"{key} {number!r} of {kind or 'cpu'!r} is invalid: expected a whole number from 1 to {MOST:,}"
            )
    if "cores" not in table and re.search(r"\bcpus?\b", str(kind), re.IGNORECASE):
        raise AllocationError(f"CPU {kind!r} has no number of cores: write e.g. `cpu 32 cores 256GB`")


def _gpu(table: Mapping[str, Any], number: int) -> Device:
    if "memory" not in table:
        raise AllocationError(f"GPU {table['kind']!r} has no memory size: write e.g. `V100-16GB`")
    return Device(f"cuda:{number}", slug(str(table["kind"])), _bytes(table["memory"]))


def _cpu(table: Mapping[str, Any], number: int) -> Device:
    cores = table["cores"]
    kind = cpu_kind(str(table.get("kind") or "cpu"), cores)
    memory = _bytes(table["memory"]) if "memory" in table else cores * MEMORY_A_CORE
    return Device(f"cpu:{number}", kind, memory, tuple(range(number * cores, (number + 1) * cores)))


def _bytes(text: object) -> int:
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    match = _MEMORY.fullmatch(str(text).strip())
    count = int(float(match[1]) * UNITS[match[2].lower().removesuffix("b")]) if match else 0
    if count < 1:
        raise AllocationError(f"memory {text!r} is invalid: expected bytes, or a number with a unit such as 16GB")
    return count
