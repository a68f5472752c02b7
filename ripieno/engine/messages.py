"""Messages between the engine and a worker process, and their encoding.

A worker first reads `WorkerSetup` (JSON). After that, each packet of the SOCK_SEQPACKET socket pair is a list of
records of a few bytes (MessagePack). Samples and predictions are never sent: they are in the shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import msgspec

from ripieno.engine.model_runner import WorkerConfig
from ripieno.types import Input

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
    output: tuple[int, ...]
    """shape of one prediction"""
    input: Input


class RunBatch(msgspec.Struct, frozen=True, array_like=True):
    """Task: predict the samples in `slots` with `unit`."""

    assignment: int
    unit: int
    slots: tuple[tuple[int, int], ...]
    hold: bool = False
    """True if its report may wait for that of the next task, which is short"""


class MessageKind(IntEnum):
    """Kinds of messages from a worker."""

    READY = 1
    """`unit` takes `seconds` per sample"""
    UP = 2
    """all units are ready"""
    DONE = 3
    """the predictions of `assignment` are written; it took `seconds`"""
    FAILED = 4
    """the worker ends because of the error `text`"""


class WorkerMessage(msgspec.Struct, frozen=True, array_like=True):
    """Message from a worker."""

    kind: MessageKind
    unit: int = 0
    assignment: int = 0
    seconds: float = 0.0
    text: str = ""


pack = msgspec.msgpack.encode
"""Encode a list of tasks, or of messages, as one packet."""
unpack_tasks = msgspec.msgpack.Decoder(list[RunBatch]).decode
unpack_messages = msgspec.msgpack.Decoder(list[WorkerMessage]).decode


def pack_setup(setup: WorkerSetup) -> bytes:
    """Encode a setup as JSON."""
    return msgspec.json.encode(setup, enc_hook=str)


def unpack_setup(data: bytes) -> WorkerSetup:
    """Decode a setup from JSON."""
    return msgspec.json.decode(data, type=WorkerSetup, dec_hook=lambda _, value: Path(value))
