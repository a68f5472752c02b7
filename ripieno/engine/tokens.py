"""The messages between the engine and a lane in a process: the one place where they become bytes.

`Setup` (JSON) is what a lane reads first; after it, only tokens of a few bytes travel, one or more in a message of a
SOCK_SEQPACKET socket pair. Samples and predictions never do: they lie in the shared memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import msgspec

from ripieno.engine.crew import Orders
from ripieno.types import Input

_TASK = struct.Struct("<QHHB")
_RANGE = struct.Struct("<II")
_NEWS = struct.Struct("<BHQdH")
LONGEST = 1 << 16
"""Most bytes of a message."""


@dataclass(frozen=True)
class Setup:
    """What a lane in a process reads first."""

    load: str
    """`module:function` of the backend loader"""
    orders: Orders
    capacity: int
    members: int
    classes: int
    input: Input


@dataclass(frozen=True, slots=True)
class Task:
    """Predict the samples in `slots` with `member`."""

    claim: int
    member: int
    slots: tuple[tuple[int, int], ...]
    hold: bool = False
    """its report may wait for that of the next task, which is short"""


class Kind(IntEnum):
    """What a lane tells."""

    READY = 1
    """`member` takes `seconds` a sample"""
    UP = 2
    """all members are ready"""
    DONE = 3
    """the predictions of `claim` are written; it took `seconds`"""
    FAILED = 4
    """the lane gives up because of `text`"""


@dataclass(frozen=True, slots=True)
class News:
    """What a lane tells."""

    kind: Kind
    member: int = 0
    claim: int = 0
    seconds: float = 0.0
    text: str = ""


def pack_setup(setup: Setup) -> bytes:
    """A setup as JSON."""
    return msgspec.json.encode(setup, enc_hook=str)


def unpack_setup(data: bytes) -> Setup:
    """The inverse of `pack_setup`."""
    return msgspec.json.decode(data, type=Setup, dec_hook=lambda _, value: Path(value))


def pack_tasks(tasks: Iterable[Task]) -> bytes:
    """Tasks as one message."""
    parts = []
    for task in tasks:
        parts.append(_TASK.pack(task.claim, task.member, len(task.slots), task.hold))
        parts.extend(_RANGE.pack(*pair) for pair in task.slots)
    return b"".join(parts)


def unpack_tasks(data: bytes) -> Iterator[Task]:
    """The inverse of `pack_tasks`."""
    at = 0
    while at < len(data):
        claim, member, count, hold = _TASK.unpack_from(data, at)
        at += _TASK.size
        slots = tuple(_RANGE.unpack_from(data, at + i * _RANGE.size) for i in range(count))
        at += count * _RANGE.size
        yield Task(claim, member, slots, bool(hold))


def pack_news(many: Iterable[News]) -> bytes:
    """What a lane tells, as one message."""
    parts = []
    for news in many:
        text = news.text.encode()[: LONGEST // 4]
        parts.append(_NEWS.pack(news.kind, news.member, news.claim, news.seconds, len(text)) + text)
    return b"".join(parts)


def unpack_news(data: bytes) -> Iterator[News]:
    """The inverse of `pack_news`."""
    at = 0
    while at < len(data):
        kind, member, claim, seconds, length = _NEWS.unpack_from(data, at)
        at += _NEWS.size + length
        yield News(Kind(kind), member, claim, seconds, data[at - length : at].decode("utf-8", "replace"))
