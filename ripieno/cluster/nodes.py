"""Devices of a Ray cluster, queried on each of its nodes.

Ray knows the number of CPUs and GPUs and the bytes that a node offers, but not the model of its processor and cards.
So a task without resource requirements runs on each node; its devices are limited to those that the node offers.
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
"""Time limit for the reply of a node."""
TRIES = 3
CARDS = {"V100": 16, "P100": 16, "T4": 16, "P4": 8, "K80": 12, "A10G": 24, "L4": 24, "L40S": 48, "A100": 40,
         "A100-40G": 40, "A100-80G": 80, "H100": 80, "H200": 141}  # fmt: skip
"""GB of the cards by Ray's names, the smallest card of a name; for nodes without a working driver."""


def names_cluster(spec: str) -> bool:
    """Return True if `spec` names a Ray cluster (`ray`, `ray:HOST:PORT` or `ray://HOST:PORT`) and not devices."""
    return spec == "ray" or spec.startswith("ray:")


def cluster_devices(spec: str = "ray") -> tuple[Device, ...]:
    """Return the devices of the living nodes of a Ray cluster, GPUs first: `cuda:NODE/0`, `cpu:NODE`.

    `spec` is `ray` (the cluster this machine belongs to), `ray:HOST:PORT` (an address) or `ray://HOST:PORT` (for a Ray
    client); an existing connection of the caller is used. Each node has one CPU device of the cores and bytes it
    offers to Ray, and its GPUs. ripieno must be installed on the nodes.

    Raises MissingExtraError without Ray, AllocationError when the cluster or a node does not reply or has GPUs of
    unknown memory.
    """
    ray = require("ray")
    with connected(ray, spec):
        nodes, devices_by_node = _query_devices(ray)
    names = _names([n["NodeManagerAddress"] for n in nodes])
    devices = [
        d
        for name, node, local in zip(names, nodes, devices_by_node, strict=True)
        for d in offered(name, node["Resources"], local)
    ]
    if not devices:
        raise AllocationError(
            f"the nodes of the Ray cluster {spec!r} offer neither CPUs nor GPUs: add a node with some"
        )
    return tuple(sorted(devices, key=lambda d: d.type == "cpu"))


def offered(node: str, resources: Mapping[str, float], local: Sequence[Device]) -> Iterator[Device]:
    """Yield the devices of one node: its `local` devices, limited to the `resources` that it offers to Ray."""
    cards = [d for d in local if d.type == "cuda"]
    accelerator = next((r.partition(":")[2] for r in resources if r.startswith("accelerator_type:")), None)
    for number in range(int(resources.get("GPU", 0))):
        if number < len(cards):
            yield dataclasses.replace(cards[number], name=f"cuda:{node}/{number}")
        elif accelerator in CARDS:
            yield Device(f"cuda:{node}/{number}", slug(accelerator), CARDS[accelerator] * 10**9)
        else:
            raise AllocationError(f"node {node} offers a GPU that its driver does not report: describe it in a file")
    cores = int(resources.get("CPU", 0))
    for cpu in local:
        if cpu.type == "cpu" and cores:
            memory = min(int(resources.get("memory", cpu.memory)), cpu.memory)
            core = partition_kind(cpu.kind, len(cpu.cores))
            assert core is not None
            yield Device(f"cpu:{node}", cpu_kind(core.removesuffix("-1-core"), cores), memory, tuple(range(cores)))


def _names(addresses: Sequence[str]) -> list[str]:
    """Return one name per node: its address, with a number where several nodes share one."""
    seen: Counter[str] = Counter()
    names = []
    for address in addresses:
        seen[address] += 1
        names.append(address if seen[address] == 1 else f"{address}-{seen[address]}")
    return names


def _query_devices(ray: Any) -> tuple[list[Any], list[tuple[Device, ...]]]:
    """Return the living nodes, and the result of `local_devices` on each."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(local_devices)
    for attempt in range(TRIES):
        nodes = [n for n in ray.nodes() if n["Alive"]]
        strategies = [NodeAffinitySchedulingStrategy(n["NodeID"], soft=False) for n in nodes]
        replies = [task.options(num_cpus=0, scheduling_strategy=strategy).remote("auto") for strategy in strategies]
        try:
            return nodes, ray.get(replies, timeout=SECONDS)
        except ray.exceptions.RayError as error:
            # a node that has just joined accepts no task yet, and a node may leave before it replies
            if attempt == TRIES - 1:
                message = f"a node of the Ray cluster does not report its devices ({error_summary(error, line=-1)})"
                raise AllocationError(f"{message}: describe them in a file") from error
            time.sleep(1)
    raise AssertionError("the last try returns or raises")


@contextmanager
def connected(ray: Any, spec: str) -> Iterator[None]:
    """Connect to the cluster of `spec`, or use and keep a connection. Raises AllocationError without a reply."""
    if ray.is_initialized():
        yield
        return
    address = "auto" if spec == "ray" else spec if spec.startswith("ray://") else spec.removeprefix("ray:")
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdecimal():  # without a listener Ray itself would retry for minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        line = error_summary(error)
        raise AllocationError(f"no Ray cluster at {address!r} ({line}): start one, or describe its devices") from error
    try:
        yield
    finally:
        ray.shutdown()
