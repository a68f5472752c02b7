"""Memory of requests returns to the system."""

from __future__ import annotations

import itertools
import platform
import subprocess
import sys
import threading
import time

import psutil
import pytest

from ripieno.resources import trim_heap
from ripieno.server import memory_maintenance, start_in_thread
from ripieno.types import Bundle
from tests.server.stand_in import StandIn

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone releases its heap when asked")


def test_free_pages_between_used_ones_go_back_to_the_system() -> None:
    process = psutil.Process()
    blocks = [bytes([n % 256]) * 20_000 for n in range(5_000)]  # 100 MB in the heap, not in separate mappings
    full = process.memory_info().rss
    kept = blocks[::50]
    del blocks
    assert trim_heap()
    assert process.memory_info().rss < full - (60 << 20)
    assert [block[0] for block in itertools.islice(kept, 3)] == [0, 50, 100]


def test_a_server_trims_its_heap_until_it_ends(engine: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, again = [0], threading.Event()

    def trim() -> bool:
        calls[0] += 1
        if calls[0] == 3:
            again.set()
        return True

    monkeypatch.setattr(memory_maintenance, "EVERY", 0.01)
    monkeypatch.setattr(memory_maintenance, "trim_heap", trim)
    with start_in_thread(engine):
        assert again.wait(5)
    ended = calls[0]
    time.sleep(0.1)
    assert calls[0] == ended


def test_garbage_collections_of_a_server_pass_over_what_was_there_at_its_start(bundle: Bundle) -> None:
    script = (
        "import gc, os, signal, sys; from ripieno.server import serve;"
        "end = lambda _: os.kill(os.getpid(), signal.SIGTERM);"
        "serve(sys.argv[1], port=0, ready=lambda _: (print(len(gc.get_objects())), end(_)))"
    )
    said = subprocess.run([sys.executable, "-c", script, str(bundle.path)], capture_output=True, text=True, timeout=60)
    assert int(said.stdout) < 5000, said.stderr
