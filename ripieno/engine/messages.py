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

from ripieno.engine.model_runner import WorkerConfig
from ripieno.types import Input

_TASK = struct.Struct("<QHHB")
_RANGE = struct.Struct("<II")
_NEWS = struct.Struct("<BHQdH")
LONGEST = 1 << 16
"""Most bytes of a message."""


@dataclass(frozen=True)
class WorkerSetup:
    """What a lane in a process reads first."""

    load: str
    """`module:function` of the backend loader"""
    config: WorkerConfig
    capacity: int
    members: int
    classes: int
    input: Input


@dataclass(frozen=True, slots=True)
class RunBatch:
    """Predict the samples in `slots` with `member`."""

    claim: int
    member: int
    slots: tuple[tuple[int, int], ...]
    hold: bool = False
    """its report may wait for that of the next task, which is short"""


class MessageKind(IntEnum):
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
class WorkerMessage:
    """What a lane tells."""

    kind: MessageKind
    member: int = 0
    claim: int = 0
    seconds: float = 0.0
    text: str = ""


def pack_setup(setup: WorkerSetup) -> bytes:
    """A setup as JSON."""
    return msgspec.json.encode(setup, enc_hook=str)


def unpack_setup(data: bytes) -> WorkerSetup:
    """The inverse of `pack_setup`."""
    return msgspec.json.decode(data, type=WorkerSetup, dec_hook=lambda _, value: Path(value))


def pack_tasks(tasks: Iterable[RunBatch]) -> bytes:
    """Tasks as one message."""
    parts = []
    for task in tasks:
        parts.append(_TASK.pack(task.claim, task.member, len(task.slots), task.hold))
        parts.extend(_RANGE.pack(*pair) for pair in task.slots)
    return b"".join(parts)


def unpack_tasks(data: bytes) -> Iterator[RunBatch]:
    """The inverse of `pack_tasks`."""
    at = 0
    while at < len(data):
        claim, member, count, hold = _TASK.unpack_from(data, at)
        at += _TASK.size
        slots = tuple(_RANGE.unpack_from(data, at + i * _RANGE.size) for i in range(count))
        at += count * _RANGE.size
        yield RunBatch(claim, member, slots, bool(hold))


def pack_messages(many: Iterable[WorkerMessage]) -> bytes:
    """What a lane tells, as one message."""
    parts = []
    for news in many:
        text = news.text.encode()[: LONGEST // 4]
        parts.append(_NEWS.pack(news.kind, news.member, news.claim, news.seconds, len(text)) + text)
    return b"".join(parts)


def unpack_messages(data: bytes) -> Iterator[WorkerMessage]:
    """The inverse of `pack_news`."""
    at = 0
    while at < len(data):
        kind, member, claim, seconds, length = _NEWS.unpack_from(data, at)
        at += _NEWS.size + length
        yield WorkerMessage(
            MessageKind(kind), member, claim, seconds, data[at - length : at].decode("utf-8", "replace")
        )
