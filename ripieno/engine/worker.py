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
    from ripieno.engine.cap import enforce, refused
    from ripieno.engine.crew import Crew, describe, find_load, import_runtime
    from ripieno.engine.memory import Memory
    from ripieno.engine.tokens import LONGEST, Kind, News, pack_news, unpack_setup, unpack_tasks

    news: list[News] = []
    cap = 0
    try:
        setup = unpack_setup(sys.stdin.buffer.read())
        memory = Memory(setup.capacity, setup.members, setup.classes, setup.input, descriptor=descriptor)
        load = find_load(setup.load)
        if setup.orders.cap and setup.orders.device.type == "cpu":
            import_runtime(setup.orders)
            cap = setup.orders.cap
            enforce(cap, len(setup.orders.seats) * (setup.orders.threads - 1))
        crew = Crew(load, setup.orders, memory)
        for index, seconds in crew.rehearse().items():
            channel.send(pack_news([News(Kind.READY, index, 0, seconds)]))
        channel.send(pack_news([News(Kind.UP)]))
        while message := channel.recv(LONGEST):
            for task in unpack_tasks(message):
                probabilities, seconds = crew.play(task.member, task.slots)
                memory.scatter(task.member, task.slots, probabilities)
                news.append(News(Kind.DONE, task.member, task.claim, seconds))
                if not task.hold:
                    channel.send(pack_news(news))
                    news = []
    except (BrokenPipeError, ConnectionResetError):
        return
    except BaseException as error:
        # whatever it was, a fresh process is the cure: a CUDA error, say, spoils the whole context
        with contextlib.suppress(OSError):
            channel.send(pack_news([*news, News(Kind.FAILED, text=refused(error, cap) or describe(error))]))
