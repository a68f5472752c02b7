"""Messages between the engine and a worker process, and their encoding.

A worker first reads `WorkerSetup` (JSON). After that, each packet of the SOCK_SEQPACKET socket pair holds one or more
records of a few bytes. Samples and predictions are never sent: they are in the shared memory.
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
_MESSAGE = struct.Struct("<BHQdH")
LONGEST = 1 << 16
"""Most bytes of a packet."""


@dataclass(frozen=True)
class WorkerSetup:
    """First message to a worker process."""

    load: str
    """`module:function` of the backend loader"""
    config: WorkerConfig
    capacity: int
    members: int
    classes: int
    input: Input


@dataclass(frozen=True, slots=True)
class RunBatch:
    """Task: predict the samples in `slots` with `member`."""

    assignment: int
    member: int
    slots: tuple[tuple[int, int], ...]
    hold: bool = False
    """True if its report may wait for that of the next task, which is short"""


class MessageKind(IntEnum):
    """Kinds of messages from a worker."""

    READY = 1
    """`member` takes `seconds` per sample"""
    UP = 2
    """all members are ready"""
    DONE = 3
    """the predictions of `assignment` are written; it took `seconds`"""
    FAILED = 4
    """the worker ends because of the error `text`"""


@dataclass(frozen=True, slots=True)
class WorkerMessage:
    """Message from a worker."""

    kind: MessageKind
    member: int = 0
    assignment: int = 0
    seconds: float = 0.0
    text: str = ""


def pack_setup(setup: WorkerSetup) -> bytes:
    """Encode a setup as JSON."""
    return msgspec.json.encode(setup, enc_hook=str)


def unpack_setup(data: bytes) -> WorkerSetup:
    """Decode a setup from JSON."""
    return msgspec.json.decode(data, type=WorkerSetup, dec_hook=lambda _, value: Path(value))


def pack_tasks(tasks: Iterable[RunBatch]) -> bytes:
    """Encode tasks as one packet."""
    parts = []
    for task in tasks:
        parts.append(_TASK.pack(task.assignment, task.member, len(task.slots), task.hold))
        parts.extend(_RANGE.pack(*pair) for pair in task.slots)
    return b"".join(parts)


def unpack_tasks(data: bytes) -> Iterator[RunBatch]:
    """Decode the tasks in a packet."""
    at = 0
    while at < len(data):
        assignment, member, count, hold = _TASK.unpack_from(data, at)
        at += _TASK.size
        slots = tuple(_RANGE.unpack_from(data, at + i * _RANGE.size) for i in range(count))
        at += count * _RANGE.size
        yield RunBatch(assignment, member, slots, bool(hold))


def pack_messages(many: Iterable[WorkerMessage]) -> bytes:
    """Encode messages of a worker as one packet."""
    parts = []
    for message in many:
        text = message.text.encode()[: LONGEST // 4]
        parts.append(_MESSAGE.pack(message.kind, message.member, message.assignment, message.seconds, len(text)) + text)
    return b"".join(parts)


def unpack_messages(data: bytes) -> Iterator[WorkerMessage]:
    """Decode the messages of a worker in a packet."""
    at = 0
    while at < len(data):
        kind, member, assignment, seconds, length = _MESSAGE.unpack_from(data, at)
        at += _MESSAGE.size + length
        yield WorkerMessage(
            MessageKind(kind), member, assignment, seconds, data[at - length : at].decode("utf-8", "replace")
        )
