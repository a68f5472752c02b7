"""Tests of the callbacks that other threads schedule in the event loop."""

from __future__ import annotations

import asyncio

from ripieno.server.loop_callbacks import CallbackBatcher


def test_a_failing_callback_does_not_stop_the_callbacks_after_it() -> None:
    ran: list[int] = []
    loop = asyncio.new_event_loop()
    callbacks = CallbackBatcher(loop)
    for callback in (lambda: ran.append(1), lambda: 1 // 0, lambda: ran.append(2)):
        callbacks.put(callback)  # type: ignore[arg-type]
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert ran == [1, 2]
    callbacks.put(lambda: ran.append(3))  # the loop is closed: nothing runs, and nothing is raised
    assert ran == [1, 2]
