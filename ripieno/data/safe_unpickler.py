"""Reader of the CIFAR python archives that executes no code.

Theory of operation. The published files are pickles (protocol 2, written by Python 2): programs for a small stack
machine with instructions that can call anything. `pickletools.genops` only disassembles them. This module interprets
the few instructions that build dicts, lists, tuples, strings and integers. It recognises two calls by name and replaces
them by passive objects: `numpy...._reconstruct`, an array to be filled, and `numpy.dtype("u1")`. BUILD fills them with
shape and bytes. Every other instruction or name is rejected, so a malicious file can only cause an error.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "class",
    "numpy dtype": "dtype",
}
"""Names that a file may contain, as genops spells them."""
PUSHES = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"}
STRINGS = {"BINSTRING", "SHORT_BINSTRING"}
"""Python 2's byte strings: genops decodes them as latin-1; the reader encodes them again to get the bytes."""
_MARK = object()


class _Name:
    def __init__(self, kind: str) -> None:
        self.kind = kind


class _Built:
    """An array or a dtype under construction; `array` stays None for a dtype."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.array: NDArray[np.uint8] | None = None


def read_program(data: bytes) -> dict[str, Any]:
    """Read the dict of a CIFAR python file: keys as str, strings as bytes or str, arrays as uint8.

    Raises ValueError with the unexpected content for any other file; no code in it is executed.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                break
            if opcode.name not in machine.actions:
                raise ValueError(f"holds the instruction {opcode.name}, which no CIFAR file has")
            machine.actions[opcode.name](argument)
        (result,) = machine.stack
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
        raise ValueError(f"malformed ({type(error).__name__})") from error
    if not isinstance(result, dict):
        raise ValueError("holds no dict")
    return {_text(key): value.array if isinstance(value, _Built) else value for key, value in result.items()}


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.actions: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(PUSHES, self.stack.append),
            **dict.fromkeys(STRINGS, lambda text: self.stack.append(text.encode("latin-1"))),
            "NONE": lambda _: self.stack.append(None),
            "NEWTRUE": lambda _: self.stack.append(True),
            "NEWFALSE": lambda _: self.stack.append(False),
            **dict.fromkeys(("PROTO", "FRAME"), lambda _: None),
            "MARK": lambda _: self.stack.append(_MARK),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "TUPLE1": lambda _: self.stack.append(self.take(1)),
            "TUPLE2": lambda _: self.stack.append(self.take(2)),
            "TUPLE3": lambda _: self.stack.append(self.take(3)),
            "TUPLE": lambda _: self.stack.append(tuple(self.since_mark())),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self.put),
            "MEMOIZE": lambda _: self.put(len(self.memo)),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), self.get),
            "APPEND": lambda _: self.extend(list(self.take(1))),
            "APPENDS": lambda _: self.extend(self.since_mark()),
            "SETITEM": lambda _: self.update(list(self.take(2))),
            "SETITEMS": lambda _: self.update(self.since_mark()),
            "GLOBAL": self.name,
            "REDUCE": lambda _: self.call(),
            "BUILD": lambda _: self.build(),
        }

    def take(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise IndexError(count)
        taken = tuple(self.stack[-count:])
        del self.stack[-count:]
        return taken

    def since_mark(self) -> list[Any]:
        taken: list[Any] = []
        while (top := self.stack.pop()) is not _MARK:
            taken.append(top)
        return taken[::-1]

    def put(self, slot: int) -> None:
        self.memo[slot] = self.stack[-1]

    def get(self, slot: int) -> None:
        self.stack.append(self.memo[slot])

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        # only string keys: hashing deeply nested tuples would exhaust the C stack
        if not isinstance(self.stack[-1], dict) or not all(isinstance(k, str | bytes) for k in items[::2]):
            raise TypeError
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def name(self, name: str) -> None:
        if name not in NAMES:
            raise ValueError(f"refers to {name.replace(' ', '.')}, which no CIFAR file needs")
        self.stack.append(_Name(NAMES[name]))

    def call(self) -> None:
        callee, arguments = self.take(2)
        kind = callee.kind if isinstance(callee, _Name) else "class"
        if kind == "class" or (kind == "dtype" and arguments[0] not in (b"u1", "u1")):
            raise ValueError("builds an object other than an array of unsigned bytes")
        self.stack.append(_Built(kind))

    def build(self) -> None:
        target, state = self.take(2)
        if not isinstance(target, _Built):
            raise ValueError("sets the state of an object other than an array")
        if target.kind == "array":
            _, shape, dtype, fortran, data = state
            if not (isinstance(dtype, _Built) and dtype.kind == "dtype" and isinstance(data, bytes)):
                raise TypeError
            target.array = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")
        self.stack.append(target)
