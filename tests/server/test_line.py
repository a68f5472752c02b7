"""The line in front of a full engine, and unpacking within bounds: no sockets needed."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ripieno.engine.answer import Answer
from ripieno.errors import EngineBusyError, EngineError
from ripieno.server.body import _decoded
from ripieno.server.limits import Admission, Limits
from ripieno.server.line import Line
from ripieno.server.refusal import RefusedError, without_paths


class Narrow:
    """An engine with room for one request at a time, that says in which order it took them."""

    bundle = SimpleNamespace(path=Path("/srv/bundle"))

    def __init__(self) -> None:
        self.room = threading.Semaphore(0)
        self.patient = threading.Event()
        """until it is set, whoever waits is not looked at"""
        self.patient.set()
        self.taken: list[int] = []
        self.futures: list[Future[Answer]] = []

    def submit(self, images: Any, members: Any = None, *, timeout: float, **_: Any) -> Future[Answer]:
        if timeout:
            self.patient.wait(5)
        if not self.room.acquire(timeout=timeout or None, blocking=timeout > 0):
            raise EngineBusyError("no room")
        self.taken.append(int(images[0]))
        future: Future[Answer] = Future()
        self.futures.append(future)
        if images[0] < 90:
            future.set_result(Answer(np.zeros((1, 2), np.float32), ("m",)))
        return future


def ask(line: Line, number: int, timeout: float = 5.0) -> asyncio.Task[Answer]:
    return asyncio.create_task(line.ask(np.array([number]), None, timeout))


def test_who_came_first_is_served_first() -> None:
    async def run() -> list[int]:
        engine = Narrow()
        line = Line(engine)  # type: ignore[arg-type]
        engine.patient.clear()
        waiting = [ask(line, 0)]
        await asyncio.sleep(0.02)
        for _ in range(4):
            engine.room.release()  # room comes while the first waits: the others may not jump in
        for number in range(1, 4):
            waiting.append(ask(line, number))
            await asyncio.sleep(0.02)
        engine.patient.set()
        await asyncio.gather(*waiting)
        line.close()
        return engine.taken

    assert asyncio.run(run()) == [0, 1, 2, 3]


def test_a_late_request_is_refused_and_takes_no_room_afterwards() -> None:
    async def run() -> Narrow:
        engine = Narrow()
        line = Line(engine)  # type: ignore[arg-type]
        with pytest.raises(RefusedError) as late:
            await ask(line, 1, 0.1)
        assert late.value.status == 504
        await asyncio.sleep(0.3)
        engine.room.release()
        await asyncio.sleep(0.1)
        await ask(line, 2)
        line.close()
        return engine

    assert asyncio.run(run()).taken == [2]


def test_a_request_given_up_while_it_is_predicted_is_cancelled() -> None:
    async def run() -> Narrow:
        engine = Narrow()
        line = Line(engine)  # type: ignore[arg-type]
        engine.room.release()
        with pytest.raises(RefusedError):
            await ask(line, 99, 0.05)
        line.close()
        return engine

    assert asyncio.run(run()).futures[0].cancelled()


def test_a_request_given_up_while_it_waits_takes_its_room_back() -> None:
    async def run() -> Narrow:
        engine = Narrow()
        line = Line(engine)  # type: ignore[arg-type]
        engine.patient.clear()
        waiting = ask(line, 99)
        await asyncio.sleep(0.05)
        waiting.cancel()
        engine.room.release()
        engine.patient.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.1)
        line.close()
        return engine

    engine = asyncio.run(run())
    assert [future.cancelled() for future in engine.futures] == [True]


def test_what_a_request_for_a_partial_answer_waited_in_line_is_taken_off_its_time() -> None:
    class Punctual(Narrow):
        """Answers at the deadline, with the members that have finished."""

        def submit(self, *asked: Any, deadline: float | None, **more: Any) -> Future[Answer]:
            future = super().submit(*asked, **more)
            if deadline is not None:
                early = Answer(np.zeros((1, 2), np.float32), ("m",), True)
                threading.Timer(deadline, future.set_result, [early]).start()
            return future

    async def run() -> tuple[Answer, float]:
        engine, began = Punctual(), time.monotonic()
        line = Line(engine)  # type: ignore[arg-type]
        before = ask(line, 1)
        await asyncio.sleep(0.02)
        waiting = asyncio.create_task(line.ask(np.array([99]), None, 0.5, partial=True))
        await asyncio.sleep(0.4)
        engine.room.release(2)
        await before
        answer = await waiting
        line.close()
        return answer, time.monotonic() - began

    answer, took = asyncio.run(run())
    assert answer.partial
    assert 0.4 < took < 0.8, "the deadline began anew when there was room"


def test_the_event_loop_goes_on_while_a_request_waits_for_room() -> None:
    async def run() -> int:
        line = Line(Narrow())  # type: ignore[arg-type]
        waiting = ask(line, 1, 0.3)
        ticks, until = 0, time.monotonic() + 0.25
        while time.monotonic() < until:
            await asyncio.sleep(0.005)
            ticks += 1
        with pytest.raises(RefusedError):
            await waiting
        line.close()
        return ticks

    assert asyncio.run(run()) > 15


def test_a_failure_of_the_engine_is_500_with_its_words() -> None:
    class Broken(Narrow):
        def submit(self, *_: Any, **__: Any) -> Future[Answer]:
            raise EngineError("the engine is closed")

    with pytest.raises(RefusedError, match="the engine is closed") as caught:
        asyncio.run(Line(Broken()).ask(np.zeros(1), None, 1.0))  # type: ignore[arg-type]
    assert caught.value.status == 500


@pytest.mark.parametrize(("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_unpacking_stops_at_the_limit(encoding: bytes, pack: Any) -> None:
    admission = Admission(Limits(body=100_000))
    bomb = pack(bytes(50_000_000))
    tracemalloc.start()
    with admission.enter() as ticket, pytest.raises(RefusedError) as caught:
        asyncio.run(_decoded(bomb, encoding, ticket))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.status == 413
    assert peak < 2_000_000
    assert (admission.requests, admission.held) == (0, 0)


def test_bodies_under_way_are_counted_and_given_back() -> None:
    admission = Admission(Limits(body=100, held=150, requests=3))
    with admission.enter() as one, admission.enter() as two:
        one.hold(100)
        one.hold(60)
        assert admission.held == 100
        with pytest.raises(RefusedError) as caught:
            two.hold(60)
        assert (caught.value.status, caught.value.retry_after) == (503, 1)
        two.hold(50)
        with admission.enter(), pytest.raises(RefusedError):
            admission.enter()
    assert (admission.requests, admission.held) == (0, 0)


def test_one_body_is_taken_even_where_it_alone_passes_what_all_may_hold() -> None:
    admission = Admission(Limits(body=100, held=50))
    with admission.enter() as ticket:
        ticket.hold(90)
        assert admission.held == 90


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("m died: /srv/models/b one/members/m/model.onnx does not exist: export it", "[bundle]/members/m/model.onnx"),
        ("cannot read '/etc/secret/key.pem' (/var/x)", "cannot read '[path]' ([path])"),
        ("see https://example.org/help, 3/4 of 1/2", "see https://example.org/help, 3/4 of 1/2"),
    ],
)
def test_no_path_of_this_machine_leaves_in_an_error(message: str, said: str) -> None:
    told = without_paths(message, Path("/srv/models/b one"))
    assert said in told
    assert "/srv" not in told
    assert "/etc" not in told
