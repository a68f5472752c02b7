"""The device's own rates: operations per second of convolutions and products alone, bytes per second of copies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from kit import synchronize, time_in_turns

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONVOLUTIONS = ((64, 32, 256), (128, 16, 512), (256, 8, 1024), (512, 8, 1024))
"""Filters, width of the images and batch of 3 x 3 convolutions."""
PRODUCTS = (4096, 8192)
"""Sides of square matrices."""


def set_precision(precision: str) -> None:
    """Allow TF32 in float32 arithmetic, or forbid it (`fp32`)."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"


def convolution_rate(device: str, precision: str, seconds: float, dry: bool = False) -> float:
    """Return operations per second of the best 3 x 3 convolution; a multiply-add is two operations."""
    set_precision(precision)
    rates = []
    for filters, side, batch in ((8, 8, 8),) if dry else CONVOLUTIONS:
        kind = {"dtype": DTYPES[precision], "device": device}
        images = torch.randn(batch, filters, side, side, **kind).to(memory_format=torch.channels_last)
        weights = torch.randn(filters, filters, 3, 3, **kind).to(memory_format=torch.channels_last)
        operations = 2 * 9 * filters**2 * batch * side**2
        rates.append(_best(lambda a=images, b=weights: torch.conv2d(a, b, padding=1), operations, device, seconds))
    return max(rates)


def product_rate(device: str, precision: str, seconds: float, dry: bool = False) -> float:
    """Return operations per second of the best square matrix product."""
    set_precision(precision)
    rates = []
    for size in (64,) if dry else PRODUCTS:
        a, b = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in range(2))
        rates.append(_best(lambda a=a, b=b: torch.matmul(a, b), 2 * size**3, device, seconds))
    return max(rates)


def copy_rate(device: str, size: int) -> dict[str, float]:
    """Return bytes per second of copies of `size` bytes: from the host (pageable and pinned), back, on the device."""
    host = torch.zeros(size, dtype=torch.uint8)
    there, other = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    calls: dict[str, Callable[[], object]] = {
        "from the host": lambda: there.copy_(host),
        "to the host": lambda: host.copy_(there),
        "on the device, read and written": lambda: there.copy_(other),
    }
    if device != "cpu":
        pinned = host.pin_memory()
        calls["from pinned memory of the host"] = lambda: there.copy_(pinned, non_blocking=True)
    found = {}
    for name, call in calls.items():
        times = []
        for _ in range(5):
            synchronize(device)
            began = time.perf_counter()
            call()
            synchronize(device)
            times.append(time.perf_counter() - began)
        found[name] = size * (2 if "read and written" in name else 1) / statistics.median(times)
    return found


def _best(call: Callable[[], object], operations: float, device: str, seconds: float) -> float:
    return operations / min(time_in_turns({"": call}, device, seconds / 3)[""])
