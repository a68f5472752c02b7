"""The main function of a worker process: it reads its setup, loads its members, then runs tasks until its engine ends.

Two sockets connect it to the engine. One carries tasks and messages. The other is the lifeline: a thread answers its
pings, and ends the process when the other end closes. The kernel closes that end even if the engine is killed. If the
thread is stopped too, the kernel's parent-death signal ends the process.
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
    """Run a worker on the inherited descriptors; the setup is read from standard input."""
    # only the engine ends a worker, but a Ctrl-C in the terminal reaches the whole process group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent(parent)
    threading.Thread(target=_answer_pings, args=(socket.socket(fileno=lifeline),), daemon=True).start()
    _serve(memory, socket.socket(fileno=tasks))
    os._exit(0)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _answer_pings(life: socket.socket) -> None:
    """Send a sign of life now and after every ping; end the process when the socket closes."""
    with contextlib.suppress(OSError):
        life.send(b".")
        while life.recv(1):
            life.send(b".")
    os._exit(0)


def _serve(descriptor: int, channel: socket.socket) -> None:
    """Load the members, then run tasks until the engine closes its socket."""
    # imported here, so that pings are answered while the modules are read from a cold disk
    from ripieno.engine.memory_limit import explain_oom, set_limit
    from ripieno.engine.messages import LONGEST, MessageKind, WorkerMessage, pack, unpack_setup, unpack_tasks
    from ripieno.engine.model_runner import ModelRunner, describe, find_load, import_runtime
    from ripieno.engine.ring_memory import Memory

    messages: list[WorkerMessage] = []
    limit = 0
    try:
        setup = unpack_setup(sys.stdin.buffer.read())
        memory = Memory(setup.capacity, setup.members, setup.output, setup.input, descriptor=descriptor)
        load = find_load(setup.load)
        if setup.config.memory_limit and setup.config.device.type == "cpu":
            import_runtime(setup.config)
            limit = setup.config.memory_limit
            set_limit(limit, setup.config.networks * (setup.config.threads - 1))
        runner = ModelRunner(load, setup.config, memory)
        for index, seconds in runner.warm_up().items():
            channel.send(pack([WorkerMessage(MessageKind.READY, index, 0, seconds)]))
        channel.send(pack([WorkerMessage(MessageKind.UP)]))
        while message := channel.recv(LONGEST):
            for task in unpack_tasks(message):
                predictions, seconds = runner.run(task.unit, task.slots)
                for member, own in predictions:
                    memory.scatter(member, task.slots, own)
                messages.append(WorkerMessage(MessageKind.DONE, task.unit, task.assignment, seconds))
                if not task.hold:
                    channel.send(pack(messages))
                    messages = []
    except (BrokenPipeError, ConnectionResetError):
        return
    except BaseException as error:
        # after any error a new process is needed: a CUDA error, for example, corrupts the whole context
        with contextlib.suppress(OSError):
            text = (explain_oom(error, limit) or describe(error))[: LONGEST // 8]  # up to 4 bytes per character
            channel.send(pack([*messages, WorkerMessage(MessageKind.FAILED, text=text)]))
