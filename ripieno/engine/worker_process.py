"""A lane's process: reads its setup, loads its members, then answers tokens until its engine is gone.

Two sockets lead to the engine. Tasks come and news go over one; the other is the lifeline: a thread answers its pings,
and ends the process when its far end closes, which the kernel does however the engine dies. Should that thread be
stopped too, the kernel's parent-death signal ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def main(parent: int, memory: int, tasks: int, lifeline: int) -> NoReturn:
    """Run a lane over the inherited descriptors; the setup is read from standard input."""
    # the engine decides when a lane ends: a Ctrl-C in the terminal reaches the whole process group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with(parent)
    threading.Thread(target=_live, args=(socket.socket(fileno=lifeline),), daemon=True).start()
    _serve(memory, socket.socket(fileno=tasks))
    os._exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _live(life: socket.socket) -> None:
    """Say that it lives, now and whenever asked."""
    with contextlib.suppress(OSError):
        life.send(b".")
        while life.recv(1):
            life.send(b".")
    os._exit(0)


def _serve(descriptor: int, channel: socket.socket) -> None:
    """Load the members, then predict what the tokens say, until the engine closes its end."""
    # imported here, so that the lifeline is answered while they are read from a cold disk
    from ripieno.engine.memory import Memory
    from ripieno.engine.memory_limit import explain_oom, set_limit
    from ripieno.engine.messages import LONGEST, MessageKind, WorkerMessage, pack_messages, unpack_setup, unpack_tasks
    from ripieno.engine.model_runner import ModelRunner, describe, find_load, import_runtime

    news: list[WorkerMessage] = []
    cap = 0
    try:
        setup = unpack_setup(sys.stdin.buffer.read())
        memory = Memory(setup.capacity, setup.members, setup.classes, setup.input, descriptor=descriptor)
        load = find_load(setup.load)
        if setup.config.memory_limit and setup.config.device.type == "cpu":
            import_runtime(setup.config)
            cap = setup.config.memory_limit
            set_limit(cap, len(setup.config.models) * (setup.config.threads - 1))
        crew = ModelRunner(load, setup.config, memory)
        for index, seconds in crew.warm_up().items():
            channel.send(pack_messages([WorkerMessage(MessageKind.READY, index, 0, seconds)]))
        channel.send(pack_messages([WorkerMessage(MessageKind.UP)]))
        while message := channel.recv(LONGEST):
            for task in unpack_tasks(message):
                probabilities, seconds = crew.run(task.member, task.slots)
                memory.scatter(task.member, task.slots, probabilities)
                news.append(WorkerMessage(MessageKind.DONE, task.member, task.claim, seconds))
                if not task.hold:
                    channel.send(pack_messages(news))
                    news = []
    except (BrokenPipeError, ConnectionResetError):
        return
    except BaseException as error:
        # whatever it was, a fresh process is the cure: a CUDA error, say, spoils the whole context
        with contextlib.suppress(OSError):
            channel.send(
                pack_messages(
                    [*news, WorkerMessage(MessageKind.FAILED, text=explain_oom(error, cap) or describe(error))]
                )
            )
