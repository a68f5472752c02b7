"""The devices of a Ray cluster: what its nodes offer, asked on each of them.

A node says to Ray how many CPUs and GPUs and how many bytes it gives; which processor and which cards these are, only
the node itself knows. So a task that takes nothing runs on each, and what it finds is cut down to what the node gives.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ripieno.errors import AllocationError, error_summary, require
from ripieno.profiles.devices import cpu_kind, local_devices, partition_kind, slug
from ripieno.types import Device

SECONDS = 30.0
"""Within which a node must answer."""
TRIES = 3
CARDS = {"V100": 16, "P100": 16, "T4": 16, "P4": 8, "K80": 12, "A10G": 24, "L4": 24, "L40S": 48, "A100": 40,
         "A100-40G": 40, "A100-80G": 80, "H100": 80, "H200": 141}  # fmt: skip
"""GB of the cards by Ray's names for them, the smallest of a name; for nodes whose driver does not answer."""


def names_cluster(spec: str) -> bool:
    """Whether `spec` names a Ray cluster and not devices: `ray`, `ray:HOST:PORT` or `ray://HOST:PORT`."""
    return spec == "ray" or spec.startswith("ray:")


def cluster_devices(spec: str = "ray") -> tuple[Device, ...]:
    """Devices of the living nodes of a Ray cluster, GPUs first: `cuda:NODE/0`, `cpu:NODE`.

    `spec` is `ray` (the cluster this machine belongs to), `ray:HOST:PORT` (that address) or `ray://HOST:PORT` (a Ray
    client's); a connection the caller made is used as it is. Each node gives one CPU device of the cores and bytes it
    offers to Ray, and its GPUs. ripieno must be installed on the nodes.

    Raises MissingExtraError without Ray, AllocationError when the cluster or a node does not answer or has GPUs of
    which nobody knows the memory.
    """
    ray = require("ray")
    with connected(ray, spec):
        nodes, found = _asked(ray)
    names = _names([n["NodeManagerAddress"] for n in nodes])
    devices = [
        d
        for name, node, there in zip(names, nodes, found, strict=True)
        for d in offered(name, node["Resources"], there)
    ]
    if not devices:
        raise AllocationError(f"the nodes of the Ray cluster {spec!r} offer neither CPUs nor GPUs: start one that does")
    return tuple(sorted(devices, key=lambda d: d.type == "cpu"))


def offered(node: str, resources: Mapping[str, float], there: Sequence[Device]) -> Iterator[Device]:
    """The devices of one node: what is `there`, cut down to what the node's `resources` say it gives to Ray."""
    cards = [d for d in there if d.type == "cuda"]
    accelerator = next((r.partition(":")[2] for r in resources if r.startswith("accelerator_type:")), None)
    for number in range(int(resources.get("GPU", 0))):
        if number < len(cards):
            yield dataclasses.replace(cards[number], name=f"cuda:{node}/{number}")
        elif accelerator in CARDS:
            yield Device(f"cuda:{node}/{number}", slug(accelerator), CARDS[accelerator] * 10**9)
        else:
            raise AllocationError(f"node {node} offers a GPU that its driver says nothing of: describe it in a file")
    cores = int(resources.get("CPU", 0))
    for cpu in there:
        if cpu.type == "cpu" and cores:
            memory = min(int(resources.get("memory", cpu.memory)), cpu.memory)
            yield Device(f"cpu:{node}", cpu_kind(_model(cpu), cores), memory, tuple(range(cores)))


def _model(cpu: Device) -> str:
    """The kind of `cpu` without its cores."""
    one = partition_kind(cpu.kind, len(cpu.cores))
    assert one is not None
    return one.removesuffix("-1-core")


def _names(addresses: Sequence[str]) -> list[str]:
    """One name a node: its address, with a number where several share one."""
    seen: Counter[str] = Counter()
    names = []
    for address in addresses:
        seen[address] += 1
        names.append(address if seen[address] == 1 else f"{address}-{seen[address]}")
    return names


def _asked(ray: Any) -> tuple[list[Any], list[tuple[Device, ...]]]:
    """The living nodes, and what each one's own `local_devices` says."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(local_devices)
    for attempt in range(TRIES):
        nodes = [n for n in ray.nodes() if n["Alive"]]
        places = [NodeAffinitySchedulingStrategy(n["NodeID"], soft=False) for n in nodes]
        answers = [task.options(num_cpus=0, scheduling_strategy=place).remote("auto") for place in places]
        try:
            return nodes, ray.get(answers, timeout=SECONDS)
        except ray.exceptions.RayError as error:
            # one that has just joined takes no task yet, and one may leave while it is asked
            if attempt == TRIES - 1:
                line = (str(error).strip() or type(error).__name__).splitlines()[-1]
                why = f"a node of the Ray cluster does not tell its devices ({line})"
                raise AllocationError(f"{why}: describe them in a file") from error
            time.sleep(1)
    raise AssertionError("the last try returns or raises")


@contextmanager
def connected(ray: Any, spec: str) -> Iterator[None]:
    """A connection to the cluster that `spec` names (see `cluster_devices`), ended with the block unless it was there.

    Raises AllocationError when nobody answers there.
    """
    if ray.is_initialized():
        yield
        return
    address = "auto" if spec == "ray" else spec if spec.startswith("ray://") else spec.removeprefix("ray:")
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        line = error_summary(error)
        raise AllocationError(f"no Ray cluster at {address!r} ({line}): start one, or describe its devices") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5).close()
