"""Pixels of picture files: decoded by threads, block by block, into memory or into the data set's file.

First all headers are read for sizes and colours. Then threads decode all pictures (Pillow releases Python's lock).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.dataset import invalidate
from ripieno.data.image_io import Header, Kind, read_header, read_pixels
from ripieno.errors import DataError, error_summary
from ripieno.resources import usable_cores
from ripieno.types import Ints

BLOCK = 256
"""Pictures decoded between two writes and between two progress reports, at most."""
BLOCK_BYTES = 1 << 28
"""Bytes of pictures decoded between two writes, at most; a single larger picture is allowed."""
PROPOSED = 224
"""Pixels per side of the size that is proposed for pictures of several sizes, at most."""
CountCallback = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""
T = TypeVar("T")


def read_pictures(
    paths: Sequence[Path],
    where: str,
    *,
    size: int | None,
    skip_bad: bool,
    progress: CountCallback | None,
    notes: list[str],
    target: Path | None,
    check: Callable[[Ints], None],
) -> tuple[NDArray[Any], Ints]:
    """Decode the pictures `paths` of `where`; return images and the indices of their paths, in order.

    The images are written to the .npy file `target` and mapped, when given.

    Pictures get one channel if all are grey, else RGB; without `size`, pictures of several sizes get one from the
    median, which a note states. `check` is called with the indices of the pictures that can be used: before they are
    decoded, and again before the file is kept.

    Raises DataError (one line) for a broken picture unless `skip_bad`, for pictures of which none can be read, and for
    pictures of different depths.
    """
    bad: list[str] = []
    # the pool's threads end with this block, even when it raises
    with ThreadPoolExecutor(min(16, len(usable_cores()))) as pool:
        every = list(enumerate(paths))
        headers = successful(pool, lambda path: read_header(path), every, skip_bad, bad)
        if not headers:
            raise DataError(f"{where} holds no readable picture: {bad[0]}")
        named = [(paths[row], header) for row, header in headers]
        kind = _one_kind(named)
        side, size = _one_size(named, size, notes)
        reduced = sum(header.reduced for _, header in named)
        if reduced:
            notes.append(f"{reduced:,} pictures have 16 bits per colour channel; they are read with 8 bits")
        readable = [(row, paths[row]) for row, _ in headers]
        check(np.array([row for row, _ in readable]))  # before the long work, not after
        channels = 3 if kind == "colour" else 1
        dtype = np.float32 if kind == "deep" else np.uint8
        _check_disk_space(len(readable), (*side, channels), dtype, target)
        step = max(1, min(BLOCK, BLOCK_BYTES // (math.prod(side) * channels * np.dtype(dtype).itemsize)))
        rows: list[int] = []
        with array_store(len(readable), (*side, channels), dtype, target) as (append, images):
            for start in range(0, len(readable), step):
                block = readable[start : start + step]
                kept = successful(pool, lambda path: _pixels(path, kind, size), block, skip_bad, bad)
                if kept:
                    append(np.stack([pixels for _, pixels in kept]))
                rows += [row for row, _ in kept]
                if progress is not None:
                    progress(start + len(block), len(readable))
            check(np.array(rows))  # again, while the file can still be discarded
    if bad:
        notes.append(f"skipped {len(bad):,} broken image{'s' * (len(bad) > 1)}, the first: {bad[0]}")
    return images(), np.array(rows)


def _pixels(path: Path, kind: Kind, size: int | None) -> NDArray[Any]:
    pixels = read_pixels(path, kind, size)
    if kind == "deep" and not np.isfinite(pixels).all():
        raise ValueError("holds NaN or infinity")
    return pixels


def successful(
    pool: Executor, work: Callable[[Path], T], paths: Sequence[tuple[int, Path]], skip_bad: bool, bad: list[str]
) -> list[tuple[int, T]]:
    """Return indices with the results of `work`; append a line for each broken picture to `bad`, or raise the line."""
    futures = [pool.submit(work, path) for _, path in paths]
    kept = []
    for (row, path), future in zip(paths, futures, strict=True):
        try:
            kept.append((row, future.result()))
        except Exception as error:  # Pillow's plugins raise many types for broken files
            line = f"{path} {fault(error, path)}"
            if not skip_bad:
                for other in futures:
                    other.cancel()
                remedy = "repair or remove it, or skip all broken pictures with --skip-bad"
                raise DataError(f"{line}; {remedy}") from error
            bad.append(line)
    return kept


def fault(error: Exception, path: Path) -> str:
    """Return the fault of a picture as a predicate for its name."""
    if isinstance(error, DataError):  # its message states the fault
        return str(error).partition("; ")[0]
    reason = error_summary(error).replace(str(path), "file")
    return f"needs too much memory ({reason})" if isinstance(error, MemoryError) else f"is broken ({reason})"


def _one_kind(headers: Sequence[tuple[Path, Header]]) -> Kind:
    kinds: dict[Kind, Path] = {}
    for path, header in headers:
        kinds.setdefault(header.kind, path)
    if "deep" in kinds and len(kinds) > 1:
        shallow = next(path for kind, path in kinds.items() if kind != "deep")
        expected = "expected the same depth for all; convert them"
        raise DataError(f"{kinds['deep']} has more than 8 bits a sample and {shallow} has 8; {expected}")
    depths = {header.depth: path for path, header in headers}
    if "floats" in depths and len(depths) > 1:
        depth = next(depth for depth in depths if depth != "floats")
        raise DataError(f"{depths['floats']} holds floats and {depths[depth]} {depth}; convert them to one type")
    return next(iter(kinds)) if len(kinds) == 1 else "colour"


def _one_size(
    headers: Sequence[tuple[Path, Header]], size: int | None, notes: list[str]
) -> tuple[tuple[int, int], int | None]:
    """Return the height and width that all pictures will have, and the side to which they are resized; None: not."""
    shapes = {header.shape for _, header in headers}
    if size is None and len(shapes) == 1:
        return headers[0][1].shape, None
    if size is None:
        size = propose_size([header.shape for _, header in headers], notes)
    return (size, size), size


def propose_size(shapes: Sequence[tuple[int, int]], notes: list[str]) -> int:
    """Return the median of the longer sides of pictures of `shapes` (height, width), at most `PROPOSED`; note it."""
    median = sorted(max(shape) for shape in shapes)[len(shapes) // 2]
    size = min(median, PROPOSED)
    few = " to ".join(
        f"{width} x {height}" for height, width in (min(shapes, key=math.prod), max(shapes, key=math.prod))
    )
    taken = f"the median of their longer sides{'' if size == median else f' is {median}, at most {PROPOSED} is used'}"
    notes.append(
        f"images have {len(set(shapes)):,} sizes, {few} pixels: they are resized to {size} x {size} ({taken}) and "
        "padded to keep their aspect ratio; --size N sets another size"
    )
    return size


def _check_disk_space(rows: int, shape: tuple[int, ...], dtype: type[np.generic], target: Path | None) -> None:
    """Raise DataError when the disk of `target` has too little free space for the decoded images."""
    if target is None:
        return
    there = next(p for p in target.absolute().parents if p.exists())
    needed, free = rows * math.prod(shape) * np.dtype(dtype).itemsize, shutil.disk_usage(there).free
    if needed > free:
        sizes = f"{rows:,} images of {shape[0]} x {shape[1]} pixels take {needed / 1e9:.1f} GB, {there} has"
        raise DataError(f"{sizes} {free / 1e9:.1f} GB free; choose a smaller --size or another folder")


@contextmanager
def array_store(
    rows: int, shape: tuple[int, ...], dtype: type[np.generic], target: Path | None
) -> Iterator[tuple[Callable[[NDArray[Any]], None], Callable[[], NDArray[Any]]]]:
    """Provide a store for at most `rows` arrays: a function to append a block, and one to get all after the block."""
    if target is not None:
        with files.array_writer(target, shape, dtype) as append:
            yield append, lambda: files.read_array(target)
            invalidate(target.parent)
        return
    images, filled = np.empty((rows, *shape), dtype), 0

    def fill(block: NDArray[Any]) -> None:
        nonlocal filled
        images[filled : filled + len(block)] = block
        filled += len(block)

    yield fill, lambda: images[:filled]
