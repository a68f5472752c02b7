"""Devices one need not have, from a description: `4x V100-16GB, 1x cpu 32 cores 256GB`, or the same in a file.

The file may be text, TOML, JSON or YAML (with the extra `yaml`); in YAML and JSON a list will do too, and an item of it
may be a line of such words.

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

from ripieno.errors import AllocationError, need
from ripieno.profiles.devices import cpu_kind, local_devices, slug
from ripieno.types import Device

SUFFIXES = (".toml", ".json", ".yaml", ".yml", ".txt")
UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
MEMORY_A_CORE = 4 * UNITS["gib"]
"""Memory of a CPU whose description says none."""
_ITEM = re.compile(r"(?:(?P<count>\d+)\s*x\s+)?(?P<words>.+)", re.IGNORECASE)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b)\b", re.IGNORECASE)
_CORES = re.compile(r"(\d+)\s*[- ]?cores?\b", re.IGNORECASE)


def read_devices(path: str | Path) -> tuple[Device, ...]:
    """Devices described in a file: `.toml`, `.json`, `.yaml`, or text with one or more items a line and `#` comments.

    Raises AllocationError naming the file when it cannot be read, MissingExtraError for YAML without the extra `yaml`.
    """
    path = Path(path)
    try:
        text = path.read_text()
        if path.suffix in (".toml", ".json", ".yaml", ".yml"):
            fields = _parsed(text, path.suffix)
            return _from_tables(fields.get("device", fields.get("devices")) if isinstance(fields, dict) else fields)
        return describe(",".join(line.partition("#")[0] for line in text.splitlines()))
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise AllocationError(f"{path} describes no devices: {error}") from error
    except AllocationError as error:
        raise AllocationError(f"{path}: {error}") from error


def _parsed(text: str, suffix: str) -> Any:
    """The content of a file of that kind. Raises ValueError, on one line, when it is broken."""
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix == ".json":
        return json.loads(text)
    yaml = need("yaml")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def find_devices(spec: str = "auto", backend: str | None = None) -> tuple[Device, ...]:
    """Devices by whatever names them: a file, a description, or those of this machine (see `local_devices`)."""
    found = described(spec)
    return local_devices(spec, backend) if found is None else found


def described(spec: str) -> tuple[Device, ...] | None:
    """Devices that `spec`, a file or a description, tells of; None when it names those of this machine."""
    if spec.endswith(SUFFIXES) or Path(spec).is_file():
        return read_devices(spec)
    return describe(spec) if is_description(spec) else None


def describe(text: str) -> tuple[Device, ...]:
    """Devices from `4x V100-16GB, 1x cpu 32 cores 256GB`: count, model, cores of a CPU, memory. GPUs come first.

    The kind is the model's slug (`v100-16gb`), for a CPU with its cores (`cpu-32-cores`): profiles are looked up by
    it. A CPU without memory is taken to have 4 GiB a core.

    Raises AllocationError for an item that cannot be read.
    """
    tables = [_item(item.strip()) for item in text.split(",") if item.strip()]
    return _from_tables(tables)


def is_description(spec: str) -> bool:
    """Whether `spec` is such a text and not a list of this machine's devices."""
    return bool(_MEMORY.search(spec) or _CORES.search(spec) or re.match(r"\s*\d+\s*x\s", spec))


def _item(text: str) -> dict[str, Any]:
    match = _ITEM.fullmatch(text)
    assert match is not None
    words, count = match["words"], int(match["count"] or 1)
    memory, cores = _MEMORY.search(words), _CORES.search(words)
    found: dict[str, Any] = {"count": count}
    if memory:
        found["memory"] = memory[0]
    if cores:
        found["cores"] = int(cores[1])
        words = _MEMORY.sub(" ", _CORES.sub(" ", words))
    found["kind"] = words
    return found


def _from_tables(tables: object) -> tuple[Device, ...]:
    if isinstance(tables, str):
        return describe(tables)
    known = isinstance(tables, Sequence) and tables and all(isinstance(t, Mapping | str) for t in tables)
    if not isinstance(tables, Sequence) or not known:
        raise AllocationError("no devices described: write e.g. `4x V100-16GB, 1x cpu 32 cores 256GB`")
    tables = [_item(t) if isinstance(t, str) else t for t in tables]
    gpus: list[Device] = []
    cpus: list[Device] = []
    for table in tables:
        count = table.get("count", 1)
        if not isinstance(count, int) or not 1 <= count <= 100_000:
            raise AllocationError(f"count {count!r} of {table.get('kind', 'a device')!r} must be a whole number from 1")
        for _ in range(count):
            if "cores" in table:
                cpus.append(_cpu(table, len(cpus)))
            else:
                gpus.append(_gpu(table, len(gpus)))
    return (*gpus, *cpus)


def _gpu(table: Mapping[str, Any], number: int) -> Device:
    kind = slug(str(table.get("kind", "")))
    if kind.startswith("cpu"):
        raise AllocationError(f"how many cores has {table['kind']!r}? write e.g. `cpu 32 cores 256GB`")
    if "memory" not in table:
        raise AllocationError(f"how much memory has {table.get('kind', 'a device')!r}? write e.g. `V100-16GB`")
    return Device(f"cuda:{number}", kind, _bytes(table["memory"]))


def _cpu(table: Mapping[str, Any], number: int) -> Device:
    cores = table["cores"]
    if not isinstance(cores, int) or cores < 1:
        raise AllocationError(f"cores {cores!r} of {table.get('kind', 'cpu')!r} must be a whole number from 1")
    kind = cpu_kind(str(table.get("kind") or "cpu"), cores)
    memory = _bytes(table["memory"]) if "memory" in table else cores * MEMORY_A_CORE
    return Device(f"cpu:{number}", kind, memory, tuple(range(number * cores, (number + 1) * cores)))


def _bytes(text: object) -> int:
    if isinstance(text, int) and text > 0:
        return text
    match = _MEMORY.fullmatch(str(text).strip())
    if match is None:
        raise AllocationError(f"memory {text!r} must be bytes, or a number with its unit such as 16GB")
    return int(float(match[1]) * UNITS[match[2].lower()])
