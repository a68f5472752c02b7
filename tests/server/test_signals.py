from __future__ import annotations

import signal
import threading

from ripieno.server.signals import signal_handlers


def test_a_signal_is_handled_while_the_block_runs_and_then_as_before() -> None:
    before = signal.getsignal(signal.SIGHUP)
    came: list[int] = []
    with signal_handlers({signal.SIGHUP: lambda number, _: came.append(number)}):
        signal.raise_signal(signal.SIGHUP)
    assert came == [signal.SIGHUP]
    assert signal.getsignal(signal.SIGHUP) == before


def test_in_another_thread_signals_stay_as_they_are() -> None:
    before = signal.getsignal(signal.SIGHUP)
    seen: list[object] = []

    def run() -> None:
        with signal_handlers({signal.SIGHUP: print}):
            seen.append(signal.getsignal(signal.SIGHUP))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
